//! One readable log of several processes: every line with the name of who said it.

use std::{
    collections::VecDeque,
    io::IsTerminal as _,
    sync::{Arc, Mutex, PoisonError},
};

use crate::output;

/// Lines kept for whoever asks why something failed.
const KEPT: usize = 200;
/// The width of the names, so that the lines stand under each other.
const NAME_WIDTH: usize = 10;
/// ANSI colours for names: cyan, green, yellow, magenta, blue.
const COLOURS: [u8; 5] = [36, 32, 33, 35, 34];

/// Where the children's lines go.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_shown: bool,
    is_coloured: bool,
    /// The newest lines, oldest first; written by every child's reader.
    tail: Mutex<VecDeque<String>>,
}

impl Log {
    /// A log on stderr.
    pub(crate) fn shown() -> Self {
        Self::new(true)
    }

    /// A log that is only kept.
    pub(crate) fn kept() -> Self {
        Self::new(false)
    }

    fn new(is_shown: bool) -> Self {
        let is_coloured = is_shown && std::io::stderr().is_terminal();
        Self(Arc::new(Inner { is_shown, is_coloured, tail: Mutex::default() }))
    }

    /// Takes one line of `name`.
    pub(crate) fn line(&self, name: &str, line: &str) {
        let line = output::printable(line);
        let padded = format!("{name:<NAME_WIDTH$}");
        if self.0.is_shown {
            // The colour is ours; the text behind it was cleaned.
            if self.0.is_coloured {
                output::note_raw(&format!("{} {line}", coloured(name, &padded)));
            } else {
                output::note_raw(&format!("{padded} {line}"));
            }
        }
        let mut tail = self.0.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.len() == KEPT {
            tail.pop_front();
        }
        tail.push_back(format!("{padded} {line}"));
    }

    /// The newest lines, oldest first.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.0.tail.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

fn coloured(name: &str, padded: &str) -> String {
    let sum: usize = name.bytes().map(usize::from).sum();
    format!("\u{1b}[{}m{padded}\u{1b}[0m", COLOURS[sum % COLOURS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_bounded_and_names_who_spoke() {
        let log = Log::kept();
        for number in 0..=KEPT {
            log.line("brokerd", &number.to_string());
        }
        let tail = log.tail();
        assert_eq!(tail.len(), KEPT);
        assert_eq!(tail.first().map(String::as_str), Some("brokerd    1"));
    }
}
