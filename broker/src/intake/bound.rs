//! Bounds of what agents and programs say about calls: it is journalled with every attempt, so it is cut, not refused.

use broker_proto::{Failure, RateLimit};

/// Bytes of one sentence.
const TEXT: usize = 2048;
/// Bytes of one name.
const NAME: usize = 64;
/// Windows of one provider's limits.
const LIMITS: usize = 32;

/// A sentence of bounded length, cut between characters.
#[must_use]
pub fn text(text: String) -> String {
    cut(text, TEXT)
}

/// A failure whose texts are of bounded length.
#[must_use]
pub fn failure(failure: Failure) -> Failure {
    Failure {
        refused_by: cut(failure.refused_by, NAME),
        detail: cut(failure.detail, TEXT),
        ..failure
    }
}

/// As many windows as any provider has, with names of bounded length.
#[must_use]
pub fn limits(mut limits: Vec<RateLimit>) -> Vec<RateLimit> {
    limits.truncate(LIMITS);
    limits.into_iter().map(|limit| RateLimit { name: cut(limit.name, NAME), ..limit }).collect()
}

fn cut(mut text: String, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use broker_proto::FailureClass;

    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(text("short".into()), "short");
        let long = text("ü".repeat(2_000));
        assert_eq!(long.len(), TEXT);
        let odd = text(format!("x{}", "ü".repeat(2_000)));
        assert_eq!(odd.len(), TEXT - 1);
    }

    #[test]
    fn what_is_said_of_a_call_is_bounded() {
        let said = Failure::new(FailureClass::Internal, "p".repeat(99), "d".repeat(1 << 20));
        let said = failure(said);
        assert_eq!((said.refused_by.len(), said.detail.len()), (NAME, TEXT));

        let window =
            RateLimit { name: "n".repeat(99), limit: None, remaining: None, resets_at: None };
        let windows = limits(vec![window; 99]);
        assert_eq!((windows.len(), windows[0].name.len()), (LIMITS, NAME));
    }
}
