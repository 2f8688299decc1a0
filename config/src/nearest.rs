//! The name somebody meant, and what of their text may be shown.

/// Names longer than this are compared by their beginning: the comparison is quadratic.
const COMPARED: usize = 64;
/// Further names are offered only when they are at least this alike (Jaro-Winkler).
const ALIKE: f64 = 0.8;

/// The names of `names` nearest to `given`, best first: the best always, and up to two more that are alike.
pub fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let given: String = given.to_lowercase().chars().take(COMPARED).collect();
    let mut scored: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&given, &name.to_lowercase()), name))
        .collect();
    scored.sort_by(|(a, a_name), (b, b_name)| b.total_cmp(a).then(a_name.cmp(b_name)));
    scored
        .into_iter()
        .enumerate()
        .filter(|(rank, (score, _))| *rank == 0 || (*rank < 3 && *score >= ALIKE))
        .map(|(_, (_, name))| name.to_owned())
        .collect()
}

/// `given`, or `(not shown)` where it could be a key or is no name at all.
pub(crate) fn shown(given: &str) -> String {
    let is_short = given.chars().count() <= 40;
    let is_name = is_short && !given.chars().any(char::is_control) && !looks_like_key(given);
    if is_name { given.to_owned() } else { "(not shown)".to_owned() }
}

/// As [`shown`], a name in backticks.
pub(crate) fn quoted(given: &str) -> String {
    let shown = shown(given);
    if shown == given { format!("`{given}`") } else { shown }
}

/// Whether `text` has the shape of a provider's key: their prefixes, or long and of every kind of character.
pub(crate) fn looks_like_key(text: &str) -> bool {
    const PREFIXES: [&str; 5] = ["sk-", "sk_", "bearer ", "aiza", "ghp_"];
    let lower = text.trim().to_lowercase();
    let has = |kind: fn(&char) -> bool| text.chars().any(|c| kind(&c));
    PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
        || (text.chars().count() >= 20
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_name_comes_first_and_strangers_are_left_out() {
        let names = ["opus", "sonnet", "gpt-4o", "local"];
        assert_eq!(nearest("opsu", names), ["opus"]);
        assert_eq!(nearest("GPT4", names), ["gpt-4o"]);
        assert_eq!(nearest("patince", ["patience", "probe_after"]), ["patience"]);
        assert_eq!(nearest("opus-1", ["opus-2", "opus-3", "opus-4", "opus-5"]).len(), 3);
        assert_eq!(nearest("anything", []), Vec::<String>::new());
    }

    #[test]
    fn what_could_be_a_key_is_not_shown() {
        assert_eq!(quoted("gpt5"), "`gpt5`");
        assert_eq!(quoted("sk-ant-api03-abc"), "(not shown)");
        assert_eq!(quoted("AbCdEf0123456789AbCdEf"), "(not shown)");
        assert_eq!(quoted(&"x".repeat(41)), "(not shown)");
        assert_eq!(quoted("a\nb"), "(not shown)");
    }
}
