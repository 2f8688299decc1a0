//! What can be wrong with a configuration, and where.
//!
//! Invariant: a value is named only when it is a short name that cannot be a key (`nearest::quoted`).

use std::fmt::{self, Display};
use std::io;
use std::path::PathBuf;

use toml::de::DeValue;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that could not be read, above all one that is not there.
    #[error("cannot read configuration file `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file that is no configuration.
    #[error("configuration file `{}` is over {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    /// A file that says what is to be run, and that somebody else could change.
    #[error(
        "configuration file `{}` names programs to run ([[wakes]]), and {why}: chown it to you and chmod go-w it",
        path.display()
    )]
    Unsafe { path: PathBuf, why: &'static str },
    /// A key or a value that is not right; `key` is `section.key`, empty where no key was reached.
    #[error("{place}: {}", subject(key, problem))]
    Invalid { place: Place, key: String, problem: Box<Problem> },
}

impl Error {
    pub(crate) fn invalid(place: Place, key: impl Into<String>, problem: Problem) -> Self {
        Self::Invalid { place, key: key.into(), problem: Box::new(problem) }
    }
}

/// Unknown keys and syntax say themselves where they are; a value needs its key in front.
fn subject(key: &str, problem: &Problem) -> String {
    match problem {
        Problem::Syntax { .. }
        | Problem::UnknownKey { .. }
        | Problem::UnknownVariable { .. }
        | Problem::VariableForModels => problem.to_string(),
        _ => format!("{key}: {problem}"),
    }
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file; lines and columns count from 1, columns in characters.
    File { name: String, line: usize, column: usize },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(String),
    /// The program itself.
    Program,
}

impl Place {
    /// The place of the byte `offset` in `text`.
    pub(crate) fn in_file(name: &str, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self::File {
            name: name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(_) => write!(f, "command line"),
            Self::Program => write!(f, "configuration"),
        }
    }
}

/// What is wrong at a place.
///
/// `given` is ready to be shown: quoted, or `(not shown)` where it could be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("not valid TOML: {message}")]
    Syntax { message: String },
    #[error("unknown key {given} in {section}{}", did_you_mean(nearest))]
    UnknownKey { given: String, section: String, nearest: Vec<String> },
    #[error("no such setting{}", did_you_mean(nearest))]
    UnknownVariable { nearest: Vec<String> },
    #[error("models are set in a file, as [[models]]")]
    VariableForModels,
    #[error("must be {want}, not {got}")]
    WrongType { want: String, got: &'static str },
    #[error("must be {want}")]
    Rejected { want: String },
    #[error("unknown {noun} {given}{}", did_you_mean(nearest))]
    UnknownName { noun: &'static str, given: String, nearest: Vec<String> },
    #[error("`{key}` is missing")]
    Missing { key: &'static str },
    #[error("the chain loops: {}", chain.join(" -> "))]
    Loop { chain: Vec<String> },
    #[error("`{name}` is already {first}")]
    Duplicate { name: String, first: String },
    #[error("at least one [[models]] is needed")]
    NoModels,
    #[error("{0}")]
    Contradiction(&'static str),
}

impl Problem {
    pub(crate) fn rejected(want: impl Display) -> Self {
        Self::Rejected { want: want.to_string() }
    }

    pub(crate) fn wrong_type(want: impl Display, got: &DeValue<'_>) -> Self {
        let got = match got {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        Self::WrongType { want: want.to_string(), got }
    }
}

/// `; did you mean ...?` for what was found, nothing for nothing.
pub(crate) fn did_you_mean(nearest: &[String]) -> String {
    if nearest.is_empty() {
        return String::new();
    }
    let quoted: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
    format!("; did you mean {}?", quoted.join(" or "))
}
