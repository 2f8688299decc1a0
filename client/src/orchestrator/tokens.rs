//! How many tokens a text is, estimated without a tokenizer.

/// What a payload says of its own figure.
pub const METHOD: &str = "estimated from word pieces, without a tokenizer";

/// Letters of a run that make one token. Prose has more, identifiers have fewer.
const LETTERS: usize = 5;
/// Tokenizers of today cut numbers into groups of three.
const DIGITS: usize = 3;
/// Signs that stand together are often one token, such as `":` or `},`.
const SIGNS: usize = 2;

/// What a character is to the estimate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    Sign,
    Space,
    /// Outside ASCII: a token each, as in scripts that tokenizers know least.
    Other,
}

/// Tokens of `text`: its runs of letters, digits and signs cut into pieces as tokenizers cut them, and never fewer than
/// characters / 4.
///
/// Units: tokens of a model with a vocabulary of 200,000; the figure is an estimate and is meant to be too high rather
/// than too low.
#[must_use]
pub fn estimate(text: &str) -> u64 {
    let pieces = pieces(text);
    pieces.max(text.chars().count().div_ceil(4)) as u64
}

fn pieces(text: &str) -> usize {
    let mut total = 0;
    let mut run: Option<(Class, usize)> = None;
    let mut has_line_end = false;
    for c in text.chars() {
        let class = class(c);
        match &mut run {
            Some((running, length)) if *running == class => *length += 1,
            _ => {
                total += run.map_or(0, |(class, length)| cost(class, length, has_line_end));
                has_line_end = false;
                run = Some((class, 1));
            }
        }
        has_line_end |= c == '\n';
    }
    total + run.map_or(0, |(class, length)| cost(class, length, has_line_end))
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Digit,
        c if c.is_whitespace() => Class::Space,
        c if c.is_ascii() => Class::Sign,
        _ => Class::Other,
    }
}

fn cost(class: Class, length: usize, has_line_end: bool) -> usize {
    match class {
        Class::Letter => length.div_ceil(LETTERS),
        Class::Digit => length.div_ceil(DIGITS),
        Class::Sign => length.div_ceil(SIGNS),
        // One space belongs to the word behind it.
        Class::Space => usize::from(length > 1 || has_line_end),
        Class::Other => length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: u64) {
        assert_eq!(estimate(text), want, "{text:?}");
    }

    #[test]
    fn runs_are_cut_into_pieces() {
        check("", 0);
        check("word", 1);
        check("consultation", 3);
        check("12345", 2);
        check("{\"id\": \"a1\"}", 7);
        check("a\n        b", 3);
        check("漢字仮名", 4);
    }

    #[test]
    fn a_text_is_never_estimated_below_a_quarter_of_its_characters() {
        check(&" ".repeat(400), 100);
        check(&"word ".repeat(100), 125);
    }
}
