//! Which wire and which call a request is, from its method, path and headers.

use http::{HeaderMap, Method};

use super::script::Wire;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Makes an answer.
    Answer(Call),
    CountTokens,
    Models,
    Model(String),
    Root,
    Version,
    Tags,
    Ps,
    Show,
    Unknown,
}

/// The calls that make an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Messages,
    Chat,
    OllamaChat,
    OllamaGenerate,
}

/// The route and its wire; an unknown path belongs to none.
pub(super) fn of(method: &Method, path: &str, headers: &HeaderMap) -> (Option<Wire>, Route) {
    let gets = matches!(*method, Method::GET | Method::HEAD);
    let posts = *method == Method::POST;
    // The two vendors' lists share a path; only Anthropic's clients send these.
    let lists = if headers.contains_key("anthropic-version") || headers.contains_key("x-api-key") {
        Wire::Anthropic
    } else {
        Wire::OpenAi
    };
    let (wire, route) = match path.trim_end_matches('/') {
        "/v1/messages" if posts => (Wire::Anthropic, Route::Answer(Call::Messages)),
        "/v1/messages/count_tokens" if posts => (Wire::Anthropic, Route::CountTokens),
        "/v1/chat/completions" if posts => (Wire::OpenAi, Route::Answer(Call::Chat)),
        "/v1/models" if gets => (lists, Route::Models),
        "/api/chat" if posts => (Wire::Ollama, Route::Answer(Call::OllamaChat)),
        "/api/generate" if posts => (Wire::Ollama, Route::Answer(Call::OllamaGenerate)),
        "/api/show" if posts => (Wire::Ollama, Route::Show),
        "/api/version" if gets => (Wire::Ollama, Route::Version),
        "/api/tags" if gets => (Wire::Ollama, Route::Tags),
        "/api/ps" if gets => (Wire::Ollama, Route::Ps),
        "" if gets => (Wire::Ollama, Route::Root),
        other => match other.strip_prefix("/v1/models/") {
            Some(id) if gets => (lists, Route::Model(id.to_owned())),
            _ => return (None, Route::Unknown),
        },
    };
    (Some(wire), route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_told_apart_by_their_headers() {
        let mut anthropic = HeaderMap::new();
        anthropic.insert("anthropic-version", "2023-06-01".parse().unwrap());

        let wire = |headers: &HeaderMap| of(&Method::GET, "/v1/models", headers).0.unwrap();

        assert_eq!((wire(&anthropic), wire(&HeaderMap::new())), (Wire::Anthropic, Wire::OpenAi));
    }

    #[test]
    fn another_method_is_another_path() {
        assert_eq!(of(&Method::GET, "/v1/messages", &HeaderMap::new()).1, Route::Unknown);
    }
}
