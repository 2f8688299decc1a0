//! An environment often holds keys; a payload never does.

/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";
/// A name with one of these in it is taken for that of a secret.
const NAMES: [&str; 8] =
    ["key", "token", "secret", "password", "passwd", "credential", "auth", "cookie"];
/// How secrets that everybody knows begin.
const VALUES: [&str; 7] = ["sk-", "ghp_", "github_pat_", "glpat-", "xox", "AKIA", "Bearer "];

/// The value, unless it or its name looks like a secret's. A name that ends in `_env` or `_file` says where one is.
pub(super) fn without(name: &str, value: &str) -> String {
    let lower = name.to_lowercase();
    let is_place = ["_env", "_file", "_path"].iter().any(|end| lower.ends_with(end));
    let is_named = !is_place && NAMES.iter().any(|part| lower.contains(part));
    // An address may carry a password before its host.
    let has_login = value
        .split_once("://")
        .is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')));
    let is_known = VALUES.iter().any(|start| value.trim_start().starts_with(start));
    if is_named || has_login || is_known || value.contains("PRIVATE KEY") {
        REDACTED.to_owned()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_where_they_are() {
        for (name, value) in [
            ("OPENAI_API_KEY", "abc"),
            ("db_password", "abc"),
            ("note", "sk-ant-abc"),
            ("url", "postgres://me:abc@host/db"),
            ("pem", "-----BEGIN PRIVATE KEY-----"),
        ] {
            assert_eq!(without(name, value), REDACTED, "{name}");
        }
        for (name, value) in
            [("python", "3.12"), ("url", "https://host/a@b"), ("api_key_env", "OPENAI_API_KEY")]
        {
            assert_eq!(without(name, value), value, "{name}");
        }
    }
}
