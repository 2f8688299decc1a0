//! Whose use is counted.

use std::fmt;

use broker_proto::ModelName;

/// Whose use is counted. Each call counts for one of every kind; for a session, where it has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Namespace,
    /// By the name of the variable that holds it; a model without a key has its account's.
    Key(String),
    Model(ModelName),
    Session(String),
}

impl Scope {
    #[must_use]
    pub fn kind(&self) -> ScopeKind {
        match self {
            Self::Namespace => ScopeKind::Namespace,
            Self::Key(_) => ScopeKind::Key,
            Self::Model(_) => ScopeKind::Model,
            Self::Session(_) => ScopeKind::Session,
        }
    }

    /// Empty for the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Namespace => "",
            Self::Key(name) | Self::Session(name) => name,
            Self::Model(model) => model.as_str(),
        }
    }

    /// `kind/name`, as it is stored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            None => (text == "namespace").then_some(Self::Namespace),
            Some(("key", name)) => Some(Self::Key(name.to_owned())),
            Some(("model", name)) => ModelName::parse(name).ok().map(Self::Model),
            Some(("session", name)) => Some(Self::Session(name.to_owned())),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => f.write_str("namespace"),
            other => write!(f, "{}/{}", other.kind().as_str(), other.name()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScopeKind {
    Namespace,
    Key,
    Model,
    Session,
}

impl ScopeKind {
    pub const ALL: [Self; 4] = [Self::Namespace, Self::Key, Self::Model, Self::Session];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Key => "key",
            Self::Model => "model",
            Self::Session => "session",
        }
    }

    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_was_written() {
        let model = Scope::Model(ModelName::parse("gpt-4o").unwrap());
        for scope in [Scope::Namespace, Scope::Key("A/B".into()), model, Scope::Session("s".into())]
        {
            assert_eq!(Scope::parse(&scope.to_string()), Some(scope));
        }
        assert_eq!(Scope::parse("colour/red"), None);
    }
}
