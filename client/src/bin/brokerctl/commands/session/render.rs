//! `session render`: one text for whoever reads it next.

use broker_proto::types::{RenderAsk, Rendering, SessionId};
use serde_json::{Value, json};

use super::{chosen, model_name};
use crate::{
    cli::{Global, RenderArgs},
    commands::{connect, consult},
    exit_code::Exit,
    output::{self, Format},
};

/// The text on stdout, and what became of the entries on stderr; all of it for programs.
pub(super) async fn run(
    global: &Global,
    named: Option<SessionId>,
    args: RenderArgs,
) -> anyhow::Result<Exit> {
    let ask = RenderAsk {
        level: args.level.into(),
        budget: args.budget,
        reader: model_name(args.reader)?,
        // Stdin is read on this thread: nothing else runs until it is there.
        next: consult::input::from_stdin(args.next)?,
        allow_missing: args.allow_missing,
        summary: args.summary,
    };
    let client = connect(global).await?;
    let id = chosen(global, &client, named).await?;
    let rendering = client.render_session(&id, &args.at.at, ask).await?;
    match global.output {
        Format::Json => output::json(&json(&rendering))?,
        Format::Text => {
            output::line(rendering.text.trim_end())?;
            output::note(&in_short(&rendering));
            if !rendering.summary.is_empty() {
                output::note(&format!("summary: {}", rendering.summary));
            }
            for item in &rendering.must_keep_missing {
                output::note(&format!("missing, though it must be kept: {item}"));
            }
        }
    }
    Ok(Exit::Done)
}

fn json(rendering: &Rendering) -> Value {
    json!({
        "text": rendering.text,
        "kept": rendering.kept,
        "partly": rendering.partly,
        "dropped": rendering.dropped,
        "must_keep_missing": rendering.must_keep_missing,
        "tokens": rendering.tokens,
        "tokenizer": rendering.tokenizer,
        "score": rendering.score,
        // Null where nobody asked for one.
        "summary": Some(&rendering.summary).filter(|summary| !summary.is_empty()),
    })
}

/// What became of the entries.
pub(crate) fn in_short(rendering: &Rendering) -> String {
    let Rendering { kept, partly, dropped, tokens, tokenizer, score, .. } = rendering;
    let partly = match partly.len() {
        0 => String::new(),
        some => format!(", {some} in part"),
    };
    format!(
        "{} of {} entries kept{partly}; {tokens} tokens ({tokenizer}); score {score:.2}",
        kept.len(),
        kept.len() + rendering.partly.len() + dropped.len()
    )
}
