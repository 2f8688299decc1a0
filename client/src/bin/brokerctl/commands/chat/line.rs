//! Where a chat's lines come from: a terminal, with editing and history, or a pipe, line by line.

use std::{
    cell::Cell,
    fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::{
    Context, Editor, Helper, completion::Completer, error::ReadlineError, highlight::Highlighter,
    hint::Hinter, history::FileHistory, validate::Validator,
};
use tokio::sync::{mpsc, oneshot};

use super::verb;
use crate::{cli::Global, commands::current, output};

/// Lines of the history.
const REMEMBERED: usize = 1_000;
/// Ends what the editor switches on in a terminal: pasted text comes with marks around it.
const NO_MARKS: &[u8] = b"\x1b[?2004l\r\n";

/// Asks a thread of its own for each line: reading blocks, and nothing ends it.
#[derive(Debug)]
pub(super) struct Lines {
    wanted: mpsc::Sender<(String, oneshot::Sender<Read>)>,
    /// As the terminal was; it is so again at the end, wherever the thread stands by then.
    terminal: Option<Termios>,
}

/// What came of asking for a line.
#[derive(Debug)]
pub(super) enum Read {
    Line(String),
    /// Ctrl-C in a line: it is dropped.
    Dropped,
    /// Ctrl-D, Ctrl-C on an empty line, or the pipe's end.
    End,
    Failed(io::Error),
}

impl Lines {
    /// Begins to read stdin.
    pub(super) fn begin(global: &Global, no_history: bool) -> anyhow::Result<Self> {
        let is_terminal = io::stdin().is_terminal();
        let terminal = if is_terminal { tcgetattr(io::stdin()).ok() } else { None };
        let history = if is_terminal && !no_history { history(global) } else { None };
        let (wanted, asked) = mpsc::channel(1);
        let reading =
            move || if is_terminal { typed(asked, history.as_deref()) } else { piped(asked) };
        thread::Builder::new().name("lines".to_owned()).spawn(reading)?;
        Ok(Self { wanted, terminal })
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// The next line, behind this prompt where somebody types.
    pub(super) async fn next(&self, prompt: String) -> Read {
        let (done, line) = oneshot::channel();
        if self.wanted.send((prompt, done)).await.is_err() {
            return Read::End;
        }
        line.await.unwrap_or(Read::End)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let Some(before) = &self.terminal else { return };
        let is_edited =
            tcgetattr(io::stdin()).is_ok_and(|now| now.local_modes != before.local_modes);
        if is_edited {
            // A terminal that is gone needs neither.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
            let _ = io::stdout().write_all(NO_MARKS).and_then(|()| io::stdout().flush());
        }
    }
}

type Asked = mpsc::Receiver<(String, oneshot::Sender<Read>)>;

/// Stdin is locked for each line only: whoever asks a question looks at it, too.
fn piped(mut asked: Asked) {
    while let Some((_, done)) = asked.blocking_recv() {
        let mut line = String::new();
        let read = match io::stdin().read_line(&mut line) {
            Ok(0) => Read::End,
            Ok(_) => Read::Line(line),
            Err(err) => Read::Failed(err),
        };
        let is_over = !matches!(read, Read::Line(_));
        // Whoever asked may have left.
        if done.send(read).is_err() || is_over {
            return;
        }
    }
}

fn typed(mut asked: Asked, history: Option<&Path>) {
    let mut editor = match editor() {
        Ok(editor) => editor,
        Err(err) => {
            output::note(&format!("lines cannot be edited here: {err}"));
            return piped(asked);
        }
    };
    // A first chat has none.
    if let Some(file) = history.filter(|file| file.exists())
        && let Err(err) = editor.load_history(file)
    {
        output::note(&format!("cannot read the history in {}: {err}", file.display()));
    }
    while let Some((prompt, done)) = asked.blocking_recv() {
        let read = match editor.readline(&prompt) {
            Ok(line) => Read::Line(line),
            Err(ReadlineError::Interrupted) if is_empty(&editor) => Read::End,
            Err(ReadlineError::Interrupted) => Read::Dropped,
            Err(ReadlineError::Eof) => Read::End,
            Err(ReadlineError::Io(err)) => Read::Failed(err),
            Err(other) => Read::Failed(io::Error::other(other)),
        };
        // Another chat may have added to it meanwhile.
        if matches!(read, Read::Line(_))
            && let Some(file) = history
            && let Err(err) = editor.append_history(file)
        {
            output::note(&format!("cannot keep the history in {}: {err}", file.display()));
        }
        let is_over = matches!(read, Read::End | Read::Failed(_));
        if done.send(read).is_err() || is_over {
            return;
        }
    }
}

/// Looks at a line while it is edited: the editor drops it at Ctrl-C without a word of what it held.
#[derive(Debug, Default)]
struct Watch {
    has_text: Cell<bool>,
}

impl Hinter for Watch {
    type Hint = String;

    /// It is asked at each change, and has none.
    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.has_text.set(!line.is_empty());
        None
    }
}

/// Tab ends a verb's word.
impl Completer for Watch {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok((0, verb::beginning(&line[..at])))
    }
}

impl Highlighter for Watch {}
impl Validator for Watch {}
impl Helper for Watch {}

fn is_empty(editor: &Editor<Watch, FileHistory>) -> bool {
    editor.helper().is_none_or(|watch| !watch.has_text.get())
}

fn editor() -> rustyline::Result<Editor<Watch, FileHistory>> {
    let config = rustyline::Config::builder()
        .max_history_size(REMEMBERED)?
        .history_ignore_space(true)
        .auto_add_history(true);
    let mut editor = Editor::with_config(config.build())?;
    editor.set_helper(Some(Watch::default()));
    Ok(editor)
}

/// The history's file, of this broker alone and for nobody but the user: what is asked in one house is not recalled in
/// another.
fn history(global: &Global) -> Option<PathBuf> {
    let broker = std::path::absolute(global.endpoint().ok()?.socket()).ok()?;
    let name = broker_proto::ContentHash::of(broker.as_os_str().as_encoded_bytes()).to_string();
    let folder = current::state_folder()?.join("chats");
    let file = folder.join(name.get(..32)?);
    // The editor makes the file as 0600.
    let own = |file: &PathBuf| match fs::set_permissions(file, fs::Permissions::from_mode(0o600)) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    match made.and_then(|()| own(&file)) {
        Ok(()) => Some(file),
        Err(err) => {
            output::note(&format!("no history is kept: {}: {err}", file.display()));
            None
        }
    }
}
