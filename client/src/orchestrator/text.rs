//! Bytes of a file to text, and text to JSON, within bounds that no file can push.

use serde_json::Value;

/// The largest state, payload, report or template that is read: ten thousand tasks are a third of it.
pub const MOST_BYTES: u64 = 8 << 20;
/// The largest template that is filled in: each of its placeholders may become a whole payload.
pub const MOST_TEMPLATE_BYTES: u64 = 64 << 10;

/// A file that is not looked into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it is over the limit of {} KiB", .most >> 10)]
    TooLarge { most: u64 },
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it is empty")]
    Empty,
    #[error("it is not JSON: the mistake is at line {line}, column {column}")]
    NotJson { line: usize, column: usize },
    #[error("its JSON is nested deeper than 127 levels")]
    TooDeep,
    #[error("it is no JSON object")]
    NoObject,
}

/// The text of a file's bytes, without a byte order mark.
///
/// # Errors
/// [`Unreadable`] when it is too large, binary or empty.
pub(super) fn of_bytes(bytes: &[u8], most: u64) -> Result<&str, Unreadable> {
    if bytes.len() as u64 > most {
        return Err(Unreadable::TooLarge { most });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Unreadable::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains('\0') {
        return Err(Unreadable::NotText);
    }
    if text.trim().is_empty() { Err(Unreadable::Empty) } else { Ok(text) }
}

/// The JSON object that a text holds.
///
/// # Errors
/// [`Unreadable`] when it holds none.
pub(super) fn object(text: &str) -> Result<serde_json::Map<String, Value>, Unreadable> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Unreadable::NoObject),
        // serde_json stops at its own depth before the stack would; it has no kind for it, only this sentence.
        Err(err) if err.to_string().starts_with("recursion limit exceeded") => {
            Err(Unreadable::TooDeep)
        }
        Err(err) => Err(Unreadable::NotJson { line: err.line(), column: err.column() }),
    }
}

/// `text` on one line, cut behind `most` characters; whether it was cut.
pub(super) fn short(text: &str, most: usize) -> (String, bool) {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    match line.char_indices().nth(most) {
        None => (line, false),
        Some((end, _)) => (format!("{}…", line[..end].trim_end()), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_json_is_refused_before_the_stack_is() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(object(&deep), Err(Unreadable::TooDeep));
        let deep = "{\"a\":".repeat(100_000);
        assert_eq!(object(&deep), Err(Unreadable::TooDeep));
    }

    #[test]
    fn what_is_no_object_is_told_apart() {
        let of = |bytes| of_bytes(bytes, MOST_BYTES);
        let huge = vec![b' '; (8 << 20) + 1];
        assert_eq!(of(&huge), Err(Unreadable::TooLarge { most: 8 << 20 }));
        assert_eq!(of(b"\xff\xfe" as &[u8]), Err(Unreadable::NotText));
        assert_eq!(of(b"a\0b"), Err(Unreadable::NotText));
        assert_eq!(of(b" \n"), Err(Unreadable::Empty));
        assert_eq!(of("\u{feff}{}".as_bytes()), Ok("{}"));
        assert_eq!(object("[1]"), Err(Unreadable::NoObject));
        assert_eq!(object("{\n\"a\": }"), Err(Unreadable::NotJson { line: 2, column: 6 }));
    }

    #[test]
    fn a_long_text_is_cut_where_it_shows() {
        assert_eq!(short("a\n b\tc", 5), ("a b c".to_owned(), false));
        assert_eq!(short("äöü ß", 4), ("äöü…".to_owned(), true));
    }
}
