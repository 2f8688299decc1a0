//! Renderings of `session.proto`.

use super::{InvalidField, common::optional_model};
use crate::{Preservation, RenderAsk, Rendering, pb};

/// Bytes of what the reader will be asked.
const NEXT: usize = 64 * 1024;

impl TryFrom<pb::RenderSessionRequest> for RenderAsk {
    type Error = InvalidField;

    /// The rest of the request; its session and point are read apart.
    fn try_from(wire: pb::RenderSessionRequest) -> Result<Self, InvalidField> {
        let level = match wire.level.as_str() {
            "" => Preservation::Standard,
            word => Preservation::parse(word).ok_or_else(|| {
                InvalidField::new("level", "is none of minimal, standard, full, complete")
            })?,
        };
        if wire.next.len() > NEXT {
            return Err(InvalidField::new("next", format!("has over {NEXT} bytes")));
        }
        Ok(Self {
            level,
            budget: wire.budget,
            reader: optional_model(&wire.model, "model")?,
            next: wire.next,
            allow_missing: wire.allow_missing,
            summary: wire.summary,
        })
    }
}

impl From<RenderAsk> for pb::RenderSessionRequest {
    fn from(ask: RenderAsk) -> Self {
        Self {
            session_id: String::new(),
            at: String::new(),
            level: ask.level.as_str().to_owned(),
            budget: ask.budget,
            model: ask.reader.map(|reader| reader.to_string()).unwrap_or_default(),
            next: ask.next,
            allow_missing: ask.allow_missing,
            summary: ask.summary,
        }
    }
}

/// Without its text, which follows in pieces.
impl From<Rendering> for pb::Rendering {
    fn from(rendering: Rendering) -> Self {
        Self {
            kept: rendering.kept,
            partly: rendering.partly,
            dropped: rendering.dropped,
            must_keep_missing: rendering.must_keep_missing,
            tokens: rendering.tokens,
            tokenizer: rendering.tokenizer,
            score: rendering.score,
            summary: rendering.summary,
        }
    }
}

/// With no text yet.
impl TryFrom<pb::Rendering> for Rendering {
    type Error = InvalidField;

    fn try_from(wire: pb::Rendering) -> Result<Self, InvalidField> {
        if !(0.0..=1.0).contains(&wire.score) {
            return Err(InvalidField::new("rendering.score", "is not between 0 and 1"));
        }
        Ok(Self {
            text: String::new(),
            kept: wire.kept,
            partly: wire.partly,
            dropped: wire.dropped,
            must_keep_missing: wire.must_keep_missing,
            tokens: wire.tokens,
            tokenizer: wire.tokenizer,
            score: wire.score,
            summary: wire.summary,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelName;

    #[test]
    fn an_ask_comes_back_as_it_was_sent() {
        let ask = RenderAsk {
            level: Preservation::Complete,
            budget: Some(0),
            reader: ModelName::parse("gpt-4o").ok(),
            next: "Which port?".into(),
            allow_missing: true,
            summary: true,
        };
        let wire = pb::RenderSessionRequest::from(ask.clone());
        assert_eq!(RenderAsk::try_from(wire), Ok(ask));
        let empty = RenderAsk::try_from(pb::RenderSessionRequest::default());
        let standard = RenderAsk { level: Preservation::Standard, ..RenderAsk::default() };
        assert_eq!(empty, Ok(standard));
    }

    #[test]
    fn bad_fields_are_named() {
        let wire = pb::RenderSessionRequest { level: "huge".into(), ..Default::default() };
        assert_eq!(RenderAsk::try_from(wire).unwrap_err().field, "level");
        let wire = pb::RenderSessionRequest { model: "../etc".into(), ..Default::default() };
        assert_eq!(RenderAsk::try_from(wire).unwrap_err().field, "model");
        let next = "x".repeat(NEXT + 1);
        let wire = pb::RenderSessionRequest { next, ..Default::default() };
        assert_eq!(RenderAsk::try_from(wire).unwrap_err().field, "next");
        for score in [f64::NAN, -0.1, 1.1] {
            let wire = pb::Rendering { score, ..Default::default() };
            assert!(Rendering::try_from(wire).is_err(), "{score}");
        }
    }

    #[test]
    fn a_rendering_comes_back_without_its_text() {
        let rendering = Rendering {
            kept: vec![0, 2],
            partly: vec![1],
            dropped: vec![3],
            must_keep_missing: vec!["Goal: x".into()],
            tokens: 12,
            tokenizer: "o200k_base".into(),
            score: 0.5,
            summary: "off: no model".into(),
            text: "text".into(),
        };
        let back = Rendering::try_from(pb::Rendering::from(rendering.clone())).unwrap();
        assert_eq!(back, Rendering { text: String::new(), ..rendering });
    }
}
