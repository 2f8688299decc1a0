//! Entries cut into what is chosen whole.

/// An entry of more characters than this is cut.
const CUT_FROM: usize = 900;
/// About so many characters make a block.
const BLOCK: usize = 600;

/// The places at which blocks of `text` end, the last of them its end. Lines stay whole; an empty text is one block.
pub(super) fn blocks(text: &str) -> Vec<usize> {
    if text.len() <= CUT_FROM || text.chars().count() <= CUT_FROM {
        return vec![text.len()];
    }
    let mut ends = Vec::new();
    let (mut end, mut size) = (0, 0);
    for line in text.split_inclusive('\n') {
        let longer = line.chars().count();
        // A line that would make the block much too long begins the next.
        if size > 0 && size + longer > BLOCK + BLOCK / 2 {
            ends.push(end);
            size = 0;
        }
        end += line.len();
        size += longer;
        if size >= BLOCK {
            ends.push(end);
            size = 0;
        }
    }
    if size > 0 {
        ends.push(end);
    }
    ends
}

/// A leading `[stamp] Name: ` of an entry, or `Name: ` alone after none: the stamp, the name, and where the text begins.
pub(super) fn stamped(text: &str) -> Option<(&str, &str, usize)> {
    let inside = text.strip_prefix('[')?;
    let (stamp, rest) = inside.split_once("] ")?;
    let (name, _) = rest.split_once(": ")?;
    let is_name = !name.is_empty() && name.len() <= 60 && !name.contains(['\n', '[', ']']);
    let begins = text.len() - rest.len() + name.len() + 2;
    (is_name && stamp.len() <= 60 && !stamp.contains('\n')).then_some((stamp, name, begins))
}

/// A line without the number an editor or a search has put before it.
pub(super) fn unnumbered(line: &str) -> &str {
    let line = line.trim();
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    match line[digits..].strip_prefix([':', '\t', '|', '-']) {
        Some(rest) if digits > 0 => rest.trim(),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        let mut from = 0;
        let ends = blocks(text).into_iter();
        ends.map(|end| &text[std::mem::replace(&mut from, end)..end]).collect()
    }

    #[test]
    fn ordinary_turns_stay_whole() {
        let turn = "word ".repeat(180);
        assert_eq!(turn.len(), 900);
        assert_eq!(cut(&turn), [turn.as_str()]);
        assert_eq!(cut(""), [""]);
    }

    #[test]
    fn a_long_entry_is_cut_at_ends_of_lines_and_nothing_of_it_is_lost() {
        let log: String = (0..200).map(|n| format!("line {n} of a log\n")).collect();
        let blocks = cut(&log);
        assert!(blocks.len() > 4, "{}", blocks.len());
        assert_eq!(blocks.concat(), log);
        for block in &blocks {
            assert!(block.ends_with('\n') && block.len() < 700, "{}", block.len());
        }
    }

    #[test]
    fn a_line_that_has_no_end_is_one_block() {
        let text = format!("short\n{}\nshort", "x".repeat(5000));
        let blocks = cut(&text);
        assert_eq!(blocks.concat(), text);
        assert_eq!(blocks.len(), 3);
    }

    #[test]
    fn a_stamp_and_a_name_are_told_from_text() {
        assert_eq!(
            stamped("[8 May, 13:56] Caroline: Hey!"),
            Some(("8 May, 13:56", "Caroline", 25))
        );
        assert_eq!(stamped("[x] no name here"), None);
        assert_eq!(stamped("[File: setup.py (94 lines total)]\n1:import re"), None);
        assert_eq!(stamped("Caroline: hey"), None);
    }

    #[test]
    fn line_numbers_come_off() {
        assert_eq!(unnumbered("1472:    def f():"), "def f():");
        assert_eq!(unnumbered("  12\treturn 1"), "return 1");
        assert_eq!(unnumbered("12 apples"), "12 apples");
    }
}
