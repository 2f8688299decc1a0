//! A program on a terminal of its own: a pseudo terminal that a test types into and reads.

use std::{fs::OpenOptions, os::fd::OwnedFd, process::Stdio, thread};

use rustix::{
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};
use tokio::{process::Child, sync::mpsc};

use crate::{process::program, process::signal, within};

/// Letters of one line.
const COLUMNS: u16 = 100;

/// A program that runs on a terminal. Dropping it kills it.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keys: OwnedFd,
    before: Termios,
    output: mpsc::UnboundedReceiver<Vec<u8>>,
    seen: Vec<u8>,
    /// Where what was not waited for yet begins, in the text that was seen.
    at: usize,
}

impl Terminal {
    /// Starts a program of the workspace with these variables and no others, on a terminal that controls it.
    pub async fn start<S: AsRef<str>>(name: &str, args: &[S], env: &[(&str, &str)]) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
        grantpt(&keys).and_then(|()| unlockpt(&keys)).expect("it can be opened");
        let path = ptsname(&keys, Vec::new()).expect("its name").into_string().expect("a path");
        let open = || OpenOptions::new().read(true).write(true).open(&path).expect("its other end");
        let size = Winsize { ws_row: 40, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&keys, size).expect("its size");
        let before = tcgetattr(&keys).expect("its modes");
        // Only the first process of a session of its own gets a terminal, and Ctrl-C with it.
        let mut command = tokio::process::Command::new("setsid");
        command
            .arg("--ctty")
            .arg(program(name))
            .args(args.iter().map(AsRef::as_ref))
            .env_clear()
            .env("TERM", "xterm")
            .envs(env.iter().copied())
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .kill_on_drop(true);
        let child = command.spawn().expect("setsid(1) of util-linux starts the program");
        drop(command);
        let (tx, output) = mpsc::unbounded_channel();
        let screen = keys.try_clone().expect("another handle");
        // Ends with the program: nobody holds the other end then.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read) = rustix::io::read(&screen, &mut bytes)
                && read > 0
                && tx.send(bytes[..read].to_vec()).is_ok()
            {}
        });
        Self { child, keys, before, output, seen: Vec::new(), at: 0 }
    }

    /// Presses these keys.
    pub fn types(&self, keys: &str) {
        let mut left = keys.as_bytes();
        while !left.is_empty() {
            let written = rustix::io::write(&self.keys, left).expect("the terminal takes keys");
            left = &left[written..];
        }
    }

    /// Waits until this is shown behind what was waited for last; gives what came before it.
    pub async fn shows(&mut self, what: &str) -> String {
        loop {
            let text = plain(&self.seen);
            if let Some(found) = text[self.at..].find(what) {
                let before = text[self.at..self.at + found].to_owned();
                self.at += found + what.len();
                return before;
            }
            let more = within(&format!("`{what}` behind {text:?}"), self.output.recv()).await;
            let more = more.unwrap_or_else(|| panic!("it ended without `{what}`: {text:?}"));
            self.seen.extend(more);
        }
    }

    /// Everything that was shown, without what only moves and colours it.
    #[must_use]
    pub fn text(&self) -> String {
        plain(&self.seen)
    }

    pub fn signal(&self, kind: Signal) {
        if let Some(pid) = self.child.id() {
            signal(pid, kind);
        }
    }

    /// Waits for its end; gives its exit code, and panics unless the terminal is as it was before.
    pub async fn ends(&mut self) -> i32 {
        let status = within("its end", self.child.wait()).await.expect("it can be waited for");
        while let Some(more) = self.output.recv().await {
            self.seen.extend(more);
        }
        let after = tcgetattr(&self.keys).expect("its modes");
        let modes = |of: &Termios| (of.input_modes, of.output_modes, of.local_modes);
        assert_eq!(modes(&after), modes(&self.before), "the terminal is as it was");
        let (on, off) = (b"\x1b[?2004h".as_slice(), b"\x1b[?2004l".as_slice());
        let last = |mark: &[u8]| self.seen.windows(mark.len()).rposition(|it| it == mark);
        assert!(last(on) <= last(off), "pasted text has no marks any more");
        status.code().unwrap_or(-1)
    }
}

/// What was written, without control sequences.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut letters = text.chars();
    let mut shown = String::new();
    while let Some(letter) = letters.next() {
        match letter {
            // `ESC [ 1 ; 2 m`: it ends with a letter or one of a few signs.
            '\x1b' if letters.next() == Some('[') => {
                let _ = letters.by_ref().find(|c| ('\x40'..='\x7e').contains(c));
            }
            '\x1b' | '\r' | '\x07' => {}
            other => shown.push(other),
        }
    }
    shown
}
