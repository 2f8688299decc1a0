//! What a file is, seen from what stands in it.

use serde_json::{Map, Value};

/// The files that belong to a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    State,
    Payload,
    /// Markdown with placeholders.
    Template,
    /// Markdown without.
    Report,
}

impl Kind {
    /// The word for people and programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Payload => "payload",
            Self::Template => "template",
            Self::Report => "report",
        }
    }

    /// A payload has an id or a summary; every other JSON object was meant as a state.
    pub(super) fn of_object(object: &Map<String, Value>) -> Self {
        let is_payload = object.contains_key("handoff_id") || object.contains_key("summary");
        if is_payload { Self::Payload } else { Self::State }
    }
}

/// Whether a text is JSON, or was meant to be; Markdown may begin with a placeholder or a link.
pub(super) fn is_json(text: &str) -> bool {
    let text = text.trim_start();
    let inside = |rest: &str| rest.trim_start().chars().next();
    if let Some(rest) = text.strip_prefix('{') {
        return !inside(rest).is_some_and(|c| c.is_ascii_lowercase());
    }
    let begins = |c: char| c.is_ascii_digit() || matches!(c, '{' | '[' | '"' | ']');
    text.strip_prefix('[').is_some_and(|rest| inside(rest).is_some_and(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_begins_with_a_placeholder_is_no_json() {
        for json in ["{}", " {\n  \"a\": 1}", "{", "[]", "[[[", "[{\"a\"", "{'a': 1}"] {
            assert!(is_json(json), "{json}");
        }
        for text in ["{handoff_id}", "# Title", "[a link](b)", "[x] done", "", "word"] {
            assert!(!is_json(text), "{text}");
        }
    }
}
