//! Parts in plain words, for whoever cannot take them as they are.

use broker_proto::Part;

/// What a part says, as text; empty when it says nothing.
pub(super) fn plain(part: &Part) -> String {
    match part {
        Part::Text(text) => text.clone(),
        Part::Thinking { text, .. } if text.trim().is_empty() => String::new(),
        Part::Thinking { text, .. } => format!("(thinking) {text}"),
        Part::ToolCall { name, arguments, .. } => {
            format!("calls {name}({})", String::from_utf8_lossy(arguments))
        }
        Part::ToolResult { parts, is_error, .. } => {
            let text = plain_all(parts);
            if *is_error { format!("error: {text}") } else { text }
        }
        Part::Image { media_type, data } => format!("[{media_type} image, {} bytes]", data.len()),
        Part::Opaque { provider, kind, data } => {
            format!("[{kind} block of {provider}, {} bytes]", data.len())
        }
        Part::Ref(part) => format!("[stored apart, {} bytes]", part.size_bytes),
    }
}

/// What parts say, one below the other.
pub(super) fn plain_all(parts: &[Part]) -> String {
    match parts {
        [Part::Text(text)] => text.clone(),
        parts => {
            let texts = parts.iter().map(plain).filter(|text| !text.trim().is_empty());
            texts.collect::<Vec<_>>().join("\n")
        }
    }
}
