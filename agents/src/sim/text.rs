//! Plausible text, the same for the same seed and question. It never says that it is simulated: labelling is
//! the broker's business.

const SUBJECTS: [&str; 16] = [
    "the queue",
    "each worker",
    "the write path",
    "a stale lease",
    "the retry budget",
    "the scheduler",
    "the slowest replica",
    "the connection pool",
    "a naïve cache",
    "the commit log",
    "every reader",
    "the rollout",
    "the deadline",
    "the parser",
    "an idle connection",
    "the index",
];
const VERBS: [&str; 12] = [
    "holds back",
    "waits for",
    "depends on",
    "hides",
    "outlives",
    "competes with",
    "is bounded by",
    "should own",
    "must be measured before",
    "recovers after",
    "is cheaper than",
    "disagrees with",
];
const OBJECTS: [&str; 16] = [
    "the next sync",
    "its own backlog",
    "the slow disk",
    "a second copy of the state",
    "the clock of the other machine",
    "work that nobody asked for",
    "the page cache",
    "one more round trip",
    "the oldest message",
    "a half-written record",
    "the façade around it",
    "whatever the caller assumed",
    "a full buffer",
    "the error that started it",
    "an unbounded list",
    "the schema change",
];
const REASONS: [&str; 12] = [
    "because nothing else limits it",
    "so a restart finds the same order",
    "which the trace shows plainly",
    "unless the batch is already closed",
    "and the fix is one line",
    "because the counter is read before it is written",
    "so measure first → then change one thing",
    "which costs about 3 µs per call",
    "and that is why the test passes alone",
    "until the window is full",
    "so the bound belongs at the door",
    "because two owners is one too many",
];
const OPENINGS: [&str; 8] = [
    "In short,",
    "Usually",
    "Under load",
    "At that point",
    "In this case",
    "Seen from the caller,",
    "By design",
    "After a restart",
];
/// Words of the question that the answer repeats.
const REPEATED_WORDS: usize = 12;

/// A small generator with good mixing (SplitMix64, Steele et al. 2014): no dependency, and stable for ever.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by the simulator's seed and the texts that make the request what it is.
    pub(super) fn of(seed: u64, texts: &[&str]) -> Self {
        // FNV-1a, with a byte between texts so that their borders count.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
        for text in texts {
            for byte in text.bytes().chain([0xff]) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        Self::new(hash)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[usize::try_from(self.below(words.len() as u64)).unwrap_or(0)]
    }
}

/// About `tokens` tokens of engineering prose that begins with what was asked.
pub(super) fn prose(dice: &mut Dice, question: &str, tokens: u64) -> String {
    let bytes = usize::try_from(tokens)
        .unwrap_or(usize::MAX)
        .saturating_mul(super::tokens::BYTES_PER_TOKEN);
    let mut text = asked(question);
    while text.len() < bytes {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&sentence(dice));
    }
    super::tokens::cut(&text, tokens).trim_end().to_owned()
}

fn asked(question: &str) -> String {
    let words: Vec<&str> = question.split_whitespace().collect();
    let last = &words[words.len().saturating_sub(REPEATED_WORDS)..];
    if last.is_empty() {
        return String::new();
    }
    format!("You asked about \"{}\".", last.join(" ").trim_end_matches(['?', '.', '!', '"']))
}

fn sentence(dice: &mut Dice) -> String {
    let subject = dice.pick(&SUBJECTS);
    let verb = dice.pick(&VERBS);
    let object = dice.pick(&OBJECTS);
    let begun = if dice.below(3) == 0 {
        format!("{} {subject}", dice.pick(&OPENINGS))
    } else {
        capitalised(subject)
    };
    if dice.below(2) == 0 {
        return format!("{begun} {verb} {object}, {}.", dice.pick(&REASONS));
    }
    format!("{begun} {verb} {object}.")
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

/// The pieces a text is streamed in: words with the blank before them.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = rest[first.len_utf8()..]
            .find(char::is_whitespace)
            .map_or(rest.len(), |at| at + first.len_utf8());
        let (piece, left) = rest.split_at(end);
        rest = left;
        Some(piece)
    })
}

/// The pieces that JSON is streamed in: a few bytes each, wherever that cuts.
pub(super) fn slices(text: &str) -> impl Iterator<Item = &str> {
    const BYTES: usize = 9;
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let (piece, left) =
            rest.split_at(super::tokens::boundary(rest, BYTES).max(first.len_utf8()));
        rest = left;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_question_give_the_same_text() {
        let make = |seed| prose(&mut Dice::of(seed, &["m", "why?"]), "why?", 80);

        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn the_answer_repeats_the_last_words_of_the_question() {
        let text = prose(&mut Dice::new(1), "Tell me about the outbox pattern?", 60);

        assert!(text.contains("the outbox pattern"), "{text}");
    }

    #[test]
    fn the_length_is_what_was_asked_for() {
        for tokens in [1, 20, 300] {
            let counted = super::super::tokens::count(&prose(&mut Dice::new(7), "q", tokens));
            assert!(counted <= tokens && counted + 2 > tokens, "{counted} of {tokens}");
        }
    }

    #[test]
    fn pieces_join_to_the_text() {
        let text = "A naïve  → cache.\n\nNext line ";

        assert_eq!(pieces(text).collect::<String>(), text);
        assert!(pieces(text).count() > 4);
        assert_eq!(slices(text).collect::<String>(), text);
    }

    #[test]
    fn text_beyond_ascii_turns_up() {
        assert!(!prose(&mut Dice::new(3), "", 2_000).is_ascii());
    }
}
