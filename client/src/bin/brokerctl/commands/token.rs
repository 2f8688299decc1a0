//! `token create|list|revoke`: what proves an agent's name.

use secrecy::ExposeSecret as _;

use super::{connect, consult};
use crate::{
    cli::{Global, TokenCommand},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs a token command.
pub(crate) async fn run(global: &Global, command: TokenCommand) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    match command {
        TokenCommand::Create { name } => {
            let token = client.create_token(&name).await?;
            // The one place where a token is shown: whoever asked for it must get it.
            match global.output {
                Format::Text => output::line(token.expose_secret())?,
                Format::Json => output::json(&serde_json::json!({
                    "name": name.to_string(), "token": token.expose_secret(),
                }))?,
            }
            output::note(
                "shown once and stored only as a hash; give it to the agent as BROKER_AGENT_TOKEN",
            );
        }
        TokenCommand::List => {
            let tokens = client.tokens().await?;
            if global.output == Format::Json {
                let tokens: Vec<_> = tokens
                    .iter()
                    .map(|token| {
                        serde_json::json!({
                            "name": token.name.to_string(),
                            "created_at": output::rfc3339(token.created_at),
                        })
                    })
                    .collect();
                output::json(&serde_json::json!({ "tokens": tokens }))?;
            } else {
                let now = consult::now();
                let rows = tokens
                    .iter()
                    .map(|token| [token.name.to_string(), output::clock(token.created_at, now)]);
                output::line(&output::table(["AGENT", "CREATED"], rows))?;
            }
        }
        TokenCommand::Revoke { name } => {
            client.revoke_token(&name).await?;
            output::note(&format!("the token of {name} no longer counts"));
        }
    }
    Ok(Exit::Done)
}
