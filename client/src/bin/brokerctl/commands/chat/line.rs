//! Where a chat's lines come from: a terminal, with editing and history, or a pipe, line by line.

use std::{
    fs,
    io::{self, IsTerminal as _},
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    thread,
};

use rustyline::{DefaultEditor, error::ReadlineError};
use tokio::sync::{mpsc, oneshot};

use crate::{commands::current, output};

/// Lines of the history.
const REMEMBERED: usize = 1_000;

/// Asks a thread of its own for each line: reading blocks, and nothing ends it.
#[derive(Debug)]
pub(super) struct Lines {
    wanted: mpsc::Sender<(String, oneshot::Sender<Read>)>,
    is_terminal: bool,
}

/// What came of asking for a line.
#[derive(Debug)]
pub(super) enum Read {
    Line(String),
    /// Ctrl-C where nothing is answered: the line is dropped.
    Dropped,
    /// Ctrl-D, or the pipe's end.
    End,
    Failed(io::Error),
}

impl Lines {
    /// Begins to read stdin.
    pub(super) fn begin() -> anyhow::Result<Self> {
        let is_terminal = io::stdin().is_terminal();
        let (wanted, asked) = mpsc::channel(1);
        thread::Builder::new()
            .name("lines".to_owned())
            .spawn(move || if is_terminal { typed(asked) } else { piped(asked) })?;
        Ok(Self { wanted, is_terminal })
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
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

fn typed(mut asked: Asked) {
    let config = rustyline::Config::builder().max_history_size(REMEMBERED);
    let config = config.map(|config| config.auto_add_history(true).build());
    let mut editor = match config.and_then(DefaultEditor::with_config) {
        Ok(editor) => editor,
        Err(err) => {
            output::note(&format!("lines cannot be edited here: {err}"));
            return piped(asked);
        }
    };
    let history = history();
    if let Some(file) = &history {
        // A first chat has none.
        let _ = editor.load_history(file);
    }
    while let Some((prompt, done)) = asked.blocking_recv() {
        let read = match editor.readline(&prompt) {
            Ok(line) => Read::Line(line),
            Err(ReadlineError::Interrupted) => Read::Dropped,
            Err(ReadlineError::Eof) => Read::End,
            Err(ReadlineError::Io(err)) => Read::Failed(err),
            Err(other) => Read::Failed(io::Error::other(other)),
        };
        if matches!(read, Read::Line(_))
            && let Some(file) = &history
            && let Err(err) = editor.save_history(file)
        {
            output::note(&format!("cannot keep the history in {}: {err}", file.display()));
        }
        let is_over = matches!(read, Read::End | Read::Failed(_));
        if done.send(read).is_err() || is_over {
            return;
        }
    }
}

/// The history's file, for nobody but the user: rustyline writes it as 0600.
fn history() -> Option<PathBuf> {
    let folder = current::state_folder()?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    Some(folder.join("chat-history"))
}
