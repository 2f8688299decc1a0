//! `{name}` in a template: where they stand, and which of them are code.

use std::ops::Range;

/// One placeholder of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placeholder<'a> {
    pub(super) name: &'a str,
    /// Its bytes, with the braces.
    pub(super) range: Range<usize>,
    /// Counts from 1.
    pub(super) line: usize,
    /// Whether it stands between backticks or in a fenced block, where braces may be anything.
    pub(super) is_code: bool,
}

/// Every `{name}` of `text`: lower case, digits and `_`; not `\{name}`, `{{name}}` or `${name}`.
pub(super) fn all(text: &str) -> Vec<Placeholder<'_>> {
    let mut found = Vec::new();
    let (mut start, mut is_fenced) = (0, false);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
        is_fenced ^= is_fence;
        let (mut looked_at, mut ticks) = (0, 0);
        of_line(line, |range| {
            ticks += line[looked_at..range.start].matches('`').count();
            looked_at = range.start;
            let is_span = ticks % 2 == 1;
            found.push(Placeholder {
                name: &line[range.start + 1..range.end - 1],
                range: start + range.start..start + range.end,
                line: index + 1,
                is_code: is_fenced || is_fence || is_span,
            });
        });
        start += line.len();
    }
    found
}

fn of_line(line: &str, mut found: impl FnMut(Range<usize>)) {
    let mut from = 0;
    while let Some(open) = line[from..].find('{').map(|at| from + at) {
        from = open + 1;
        let name = line[from..].bytes().take_while(|b| is_letter(*b)).count();
        let close = from + name;
        let is_closed = line.as_bytes().get(close) == Some(&b'}')
            && line.as_bytes().get(close + 1) != Some(&b'}');
        let is_free = !line[..open].ends_with(['\\', '{', '$']);
        if name > 0 && is_closed && is_free && line.as_bytes()[from].is_ascii_lowercase() {
            found(open..close + 1);
            from = close + 1;
        }
    }
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

/// `text` with its braces escaped where they would read as a placeholder.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut from = 0;
    for placeholder in all(text) {
        escaped.push_str(&text[from..placeholder.range.start]);
        escaped.push('\\');
        from = placeholder.range.start;
    }
    escaped + &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_in_single_braces_are_placeholders() {
        let text = "{a} {b_2}{c}\n\\{no} {{no}} ${no} {No} {} { no } {1} {n\n`{span}` {d}\n```\n{fenced}\n```\n{e}";
        let found: Vec<_> = all(text).into_iter().map(|p| (p.name, p.line, p.is_code)).collect();
        let want = [
            ("a", 1, false),
            ("b_2", 1, false),
            ("c", 1, false),
            ("span", 3, true),
            ("d", 3, false),
            ("fenced", 5, true),
            ("e", 7, false),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn escaped_text_has_no_placeholder() {
        assert_eq!(escaped("a {b} {c"), "a \\{b} {c");
        assert_eq!(all(&escaped("{a}{b} {{c}}")), []);
    }
}
