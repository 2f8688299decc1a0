//! What a text is found by: stemmed words, and identifiers whole and in parts.

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use rust_stemmers::{Algorithm, Stemmer};

/// Longer tokens (hashes, base64, minified code) are found by their parts only.
const LONGEST: usize = 80;

static STEMMER: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::English));

/// Words of the closed classes, which stand everywhere. "may" is not among them: it is a month and a name, too.
#[rustfmt::skip]
const CLOSED: &[&str] = &[
    "a", "about", "above", "after", "again", "against", "ain", "all", "also", "am", "an", "and", "any", "are", "aren",
    "as", "at", "be", "because", "been", "before", "being", "below", "between", "both", "but", "by", "can", "cannot",
    "could", "couldn", "d", "did", "didn", "do", "does", "doesn", "doing", "don", "down", "during", "each", "else",
    "ever", "every", "few", "for", "from", "further", "had", "hadn", "has", "hasn", "have", "haven", "having", "he",
    "her", "here", "hers", "herself", "him", "himself", "his", "how", "i", "if", "in", "into", "is", "isn", "it", "its",
    "itself", "just", "let", "ll", "m", "me", "might", "mine", "more", "most", "must", "mustn", "my", "myself", "no",
    "nor", "not", "now", "of", "off", "on", "once", "only", "or", "other", "our", "ours", "ourselves", "out", "over",
    "own", "re", "s", "same", "shall", "she", "should", "shouldn", "so", "some", "such", "t", "than", "that", "the",
    "their", "theirs", "them", "themselves", "then", "there", "these", "they", "this", "those", "through", "to", "too",
    "under", "until", "up", "upon", "us", "ve", "very", "was", "wasn", "we", "were", "weren", "what", "when", "where",
    "which", "while", "who", "whom", "whose", "why", "will", "with", "won", "would", "wouldn", "you", "your", "yours",
    "yourself", "yourselves",
];

/// Forms that no stemmer brings together, by the word they belong to.
#[rustfmt::skip]
const IRREGULAR: &[(&str, &[&str])] = &[
    ("arise", &["arose", "arisen"]), ("awake", &["awoke", "awoken"]), ("bear", &["bore", "borne"]),
    ("beat", &["beaten"]), ("become", &["became"]), ("begin", &["began", "begun"]), ("bend", &["bent"]),
    ("bind", &["bound"]), ("bite", &["bit", "bitten"]), ("bleed", &["bled"]), ("blow", &["blew", "blown"]),
    ("break", &["broke", "broken"]), ("breed", &["bred"]), ("bring", &["brought"]), ("build", &["built"]),
    ("burn", &["burnt"]), ("buy", &["bought"]), ("catch", &["caught"]), ("child", &["children"]),
    ("choose", &["chose", "chosen"]), ("come", &["came"]), ("creep", &["crept"]), ("deal", &["dealt"]),
    ("dig", &["dug"]), ("draw", &["drew", "drawn"]), ("dream", &["dreamt"]), ("drink", &["drank", "drunk"]),
    ("drive", &["drove", "driven"]), ("eat", &["ate", "eaten"]), ("fall", &["fell", "fallen"]), ("feed", &["fed"]),
    ("feel", &["felt"]), ("fight", &["fought"]), ("find", &["found"]), ("flee", &["fled"]), ("fly", &["flew", "flown"]),
    ("foot", &["feet"]), ("forbid", &["forbade", "forbidden"]), ("forget", &["forgot", "forgotten"]),
    ("forgive", &["forgave", "forgiven"]), ("freeze", &["froze", "frozen"]), ("get", &["got", "gotten"]),
    ("give", &["gave", "given"]), ("go", &["went", "gone"]), ("good", &["better", "best"]), ("grind", &["ground"]),
    ("grow", &["grew", "grown"]), ("hang", &["hung"]), ("hear", &["heard"]), ("hide", &["hid", "hidden"]),
    ("hold", &["held"]), ("index", &["indices"]), ("keep", &["kept"]), ("know", &["knew", "known"]), ("lay", &["laid"]),
    ("lead", &["led"]), ("leaf", &["leaves"]), ("lean", &["leant"]), ("learn", &["learnt"]), ("leave", &["left"]),
    ("lend", &["lent"]), ("life", &["lives"]), ("light", &["lit"]), ("lose", &["lost"]), ("make", &["made"]),
    ("man", &["men"]), ("matrix", &["matrices"]), ("mean", &["meant"]), ("meet", &["met"]),
    ("mistake", &["mistook", "mistaken"]), ("mouse", &["mice"]), ("overcome", &["overcame"]), ("pay", &["paid"]),
    ("person", &["people"]), ("prove", &["proven"]), ("ride", &["rode", "ridden"]), ("ring", &["rang", "rung"]),
    ("rise", &["rose", "risen"]), ("run", &["ran"]), ("say", &["said"]), ("see", &["saw", "seen"]),
    ("seek", &["sought"]), ("sell", &["sold"]), ("send", &["sent"]), ("shake", &["shook", "shaken"]),
    ("shine", &["shone"]), ("shoot", &["shot"]), ("show", &["shown"]), ("shrink", &["shrank", "shrunk"]),
    ("sing", &["sang", "sung"]), ("sink", &["sank", "sunk"]), ("sit", &["sat"]), ("sleep", &["slept"]),
    ("slide", &["slid"]), ("speak", &["spoke", "spoken"]), ("spell", &["spelt"]), ("spend", &["spent"]),
    ("spin", &["spun"]), ("spring", &["sprang", "sprung"]), ("stand", &["stood"]), ("steal", &["stole", "stolen"]),
    ("stick", &["stuck"]), ("strike", &["struck"]), ("swear", &["swore", "sworn"]), ("sweep", &["swept"]),
    ("swim", &["swam", "swum"]), ("swing", &["swung"]), ("take", &["took", "taken"]), ("teach", &["taught"]),
    ("tear", &["tore", "torn"]), ("tell", &["told"]), ("think", &["thought"]), ("throw", &["threw", "thrown"]),
    ("tooth", &["teeth"]), ("understand", &["understood"]), ("vertex", &["vertices"]), ("wake", &["woke", "woken"]),
    ("wear", &["wore", "worn"]), ("weep", &["wept"]), ("wife", &["wives"]), ("win", &["won"]), ("wind", &["wound"]),
    ("woman", &["women"]), ("write", &["wrote", "written"]),
];

/// What a word counts as: itself, another word, or nothing.
static KNOWN: LazyLock<HashMap<&str, Option<&str>>> = LazyLock::new(|| {
    let irregular =
        IRREGULAR.iter().flat_map(|(word, forms)| forms.iter().map(|f| (*f, Some(*word))));
    irregular.chain(CLOSED.iter().map(|word| (*word, None))).collect()
});

/// Tokens that a vocabulary remembers, and the bytes of the longest: what comes again and again is short.
const REMEMBERED: usize = 1 << 16;
const SHORT: usize = 24;

/// The words of one conversation, by number.
#[derive(Default)]
pub(super) struct Vocabulary {
    words: HashMap<String, u32>,
    /// What a token is found by, so that each is taken apart once.
    tokens: HashMap<Box<str>, Box<[u32]>>,
}

impl Vocabulary {
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn get(&self, word: &str) -> Option<u32> {
        self.words.get(word).copied()
    }

    /// Adds everything that `text` is found by to `all`.
    pub(super) fn learn(&mut self, text: &str, all: &mut Vec<u32>) {
        for token in tokens(text) {
            if let Some(known) = self.tokens.get(token) {
                all.extend_from_slice(known);
                continue;
            }
            let mut terms = Vec::new();
            terms_of(token, &mut terms);
            let from = all.len();
            for term in terms {
                let next = u32::try_from(self.words.len()).unwrap_or(u32::MAX);
                all.push(*self.words.entry(term).or_insert(next));
            }
            if token.len() <= SHORT && self.tokens.len() < REMEMBERED {
                self.tokens.insert(token.into(), all[from..].into());
            }
        }
    }
}

/// Everything that `text` is found by, in its order.
pub(in crate::context) fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    tokens(text).for_each(|token| terms_of(token, &mut terms));
    terms
}

/// What stands between blanks, without the punctuation around it.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let is_edge = |c: char| !c.is_alphanumeric() && c != '_';
    text.split_whitespace().map(move |token| token.trim_matches(is_edge))
}

fn terms_of(token: &str, terms: &mut Vec<String>) {
    let parts = || token.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    if !is_identifier(token) {
        terms.extend(parts().filter_map(word));
        return;
    }
    whole(token, terms);
    for part in parts() {
        let humps = humps(part);
        // `HTTPServer` is found by its humps and by "httpserver".
        if humps.len() > 1 && part.len() < token.len() && part.len() <= LONGEST {
            terms.push(part.to_lowercase());
        }
        terms.extend(humps.iter().filter_map(|hump| word(hump)));
    }
}

/// An identifier or a path as it stands, and the name of its file.
fn whole(token: &str, terms: &mut Vec<String>) {
    if token.len() <= LONGEST {
        terms.push(token.to_lowercase());
    }
    if let Some((_, name)) = token.rsplit_once(['/', '\\'])
        && name.len() <= LONGEST
        && name.contains(|c: char| !c.is_alphanumeric())
    {
        terms.push(name.to_lowercase());
    }
}

/// One word, unless it stands everywhere.
fn word(word: &str) -> Option<String> {
    let word = word.to_lowercase();
    match KNOWN.get(word.as_str()) {
        Some(None) => None,
        Some(Some(other)) => Some(STEMMER.stem(other).into_owned()),
        None => Some(match STEMMER.stem(&word) {
            Cow::Borrowed(_) => word,
            Cow::Owned(stem) => stem,
        }),
    }
}

/// `snake_case`, `camelCase`, `a/path`, `a.b`, `a::b`; not "e.g." nor "and/or", whose parts say as much.
fn is_identifier(token: &str) -> bool {
    let has_joint = token.contains(['_', '/', '\\'])
        || token.contains("::")
        || token.split('.').filter(|part| !part.is_empty()).count() > 1;
    has_joint || humps(token).len() > 1
}

/// `timeDelta` is `time` and `Delta`, `HTTPServer` is `HTTP` and `Server`.
fn humps(part: &str) -> Vec<&str> {
    let letters: Vec<(usize, char)> = part.char_indices().collect();
    let mut humps = Vec::new();
    let mut from = 0;
    for place in 1..letters.len() {
        let ((_, before), (at, here)) = (letters[place - 1], letters[place]);
        let next_is_small = letters.get(place + 1).is_some_and(|(_, c)| c.is_lowercase());
        let begins = here.is_uppercase()
            && (before.is_lowercase() || before.is_uppercase() && next_is_small);
        if begins {
            humps.push(&part[from..at]);
            from = at;
        }
    }
    humps.push(&part[from..]);
    humps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn found_by(text: &str, want: &[&str]) {
        assert_eq!(terms(text), want, "{text}");
    }

    #[test]
    fn words_are_stemmed_and_irregular_forms_brought_together() {
        found_by("She's running; they ran.", &["run", "run"]);
        found_by("The children's books were written", &["child", "book", "write"]);
        found_by("We bought it in May", &["buy", "may"]);
    }

    #[test]
    fn words_of_closed_classes_find_nothing() {
        found_by("and then it was there, wasn't it?", &[]);
    }

    #[test]
    fn identifiers_are_found_whole_and_by_their_parts() {
        found_by("max_lost_leases", &["max_lost_leases", "max", "lose", "leas"]);
        found_by("getHTTPServer()", &["gethttpserver", "get", "http", "server"]);
        found_by(
            "src/marshmallow/fields.py:1472",
            &[
                "src/marshmallow/fields.py:1472",
                "fields.py:1472",
                "src",
                "marshmallow",
                "field",
                "py",
                "1472",
            ],
        );
        found_by("journal::open_store", &["journal::open_store", "journal", "open", "store"]);
    }

    #[test]
    fn words_are_not_taken_for_identifiers() {
        found_by("e.g. Anna", &["e.g", "e", "g", "anna"]);
        found_by("well-known", &["well", "know"]);
    }

    #[test]
    fn what_is_too_long_is_found_by_its_parts_only() {
        let long = format!("{}_{}", "a".repeat(50), "b".repeat(50));
        found_by(&long, &[&"a".repeat(50), &"b".repeat(50)]);
    }

    #[test]
    fn other_scripts_are_words_too() {
        found_by("Grüße, 東京!", &["grüße", "東京"]);
    }
}
