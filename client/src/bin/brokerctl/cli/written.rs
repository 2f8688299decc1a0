//! `--output`: how results are written, and for one command also where.

use std::{ffi::OsStr, path::PathBuf};

use clap::{
    Arg, Command,
    builder::{PossibleValue, TypedValueParser},
    error::{Error, ErrorKind},
};

use crate::output::Format;

/// What stands behind `--output`: a format, or a file for the one command that takes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    As(Format),
    To(PathBuf),
}

/// Reads it; in help and completions only the formats are values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WrittenParser;

impl TypedValueParser for WrittenParser {
    type Value = Written;

    fn parse_ref(
        &self,
        command: &Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Written, Error> {
        match value.to_str() {
            Some("text") => Ok(Written::As(Format::Text)),
            Some("json") => Ok(Written::As(Format::Json)),
            Some("") => Err(Error::new(ErrorKind::InvalidValue).with_cmd(command)),
            _ => Ok(Written::To(value.into())),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let words = [
            PossibleValue::new("text").help("For people"),
            PossibleValue::new("json").help("One JSON object"),
        ];
        Some(Box::new(words.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_format_is_a_file() {
        let read =
            |text: &str| WrittenParser.parse_ref(&Command::new("x"), None, OsStr::new(text)).ok();
        assert_eq!(read("json"), Some(Written::As(Format::Json)));
        assert_eq!(read("text"), Some(Written::As(Format::Text)));
        assert_eq!(read("./json"), Some(Written::To("./json".into())));
        assert_eq!(read(""), None);
    }
}
