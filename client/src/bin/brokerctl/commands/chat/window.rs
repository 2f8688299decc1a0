//! A chat's session before its next question: what its check says, told in the prompt, and carried out.

use std::time::Duration;

use broker_client::layer::Due;
use broker_proto::types::{AskHandoff, HandoffCheck, HandoffState};

use super::{Chat, prompt};
use crate::{
    commands::{handoff::moved, until_interrupted},
    error,
    exit_code::Exit,
    output,
};

/// The longest a prompt waits for its figures.
const PROMPT_WITHIN: Duration = Duration::from_secs(2);

impl Chat<'_> {
    /// Whether the session is to be handed off; `None` where nothing is known of it.
    pub(super) async fn check(&self) -> anyhow::Result<Option<HandoffCheck>> {
        match self.client.check_handoff(self.session.as_str(), false).await {
            Ok(check) => Ok(Some(check)),
            Err(err) if err.reason() == Some("UNCOUNTED_SESSION") => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    pub(super) async fn prompt(&self) -> String {
        // A broker that is away is told of with the next question.
        let check = tokio::time::timeout(PROMPT_WITHIN, self.check()).await;
        let check = check.ok().and_then(Result::ok).flatten();
        let owner = self.owner.as_ref().map(|(model, _)| model);
        prompt::line(self.model.as_ref(), owner, check.as_ref())
    }

    /// Before a question: says when the session's window fills, and hands the session over where that was switched on.
    /// What cannot be done leaves the question to whoever owns the session.
    pub(super) async fn look_ahead(&mut self) -> anyhow::Result<()> {
        let Some(check) = self.check().await? else { return Ok(()) };
        let due = Due::of(&check);
        let now = (check.model.clone(), due);
        let is_news = self.told.replace(now.clone()).as_ref() != Some(&now);
        let full = prompt::full(&check);
        match due {
            Due::Nothing => {}
            Due::Move if self.moves => {
                output::note(&format!("{full}: handing the session over"));
                if let Err(err) = self.hand_over(full).await {
                    output::note(&error::line(&err));
                    output::note(&format!("{} is asked all the same", check.model));
                }
                self.owned().await?;
            }
            Due::Move => {
                let how = "/handoff hands the session over, and `chat --handoff-enabled` does so";
                output::note(&format!("{full}: {how} by itself"));
            }
            Due::Warning | Due::Preparation if is_news && self.moves => {
                let at = prompt::tokens(check.switch_threshold);
                output::note(&format!("{full}: the session is handed over at {at}"));
            }
            Due::Warning | Due::Preparation if is_news => {
                output::note(&format!("{full}: /handoff hands the session over"));
            }
            Due::Warning | Due::Preparation => {}
        }
        Ok(())
    }

    /// To whom the broker chooses. A handoff that is under way is waited for.
    async fn hand_over(&self, reason: String) -> anyhow::Result<()> {
        let ask = AskHandoff {
            session: self.session.clone(),
            to: None,
            agent: None,
            reason,
            level: None,
            package: None,
            is_forced: false,
            at_once: false,
        };
        let handing = async {
            let ended = self.client.hand_over(ask, |handoff| {
                if handoff.state.is_pending() {
                    output::note(&moved::sentence(handoff));
                }
            });
            let ended = ended.await?;
            if !matches!(ended.state, HandoffState::Active | HandoffState::Completed) {
                output::note(&moved::sentence(&ended));
            }
            Ok(Exit::Done)
        };
        if until_interrupted(handing).await? == Exit::Interrupted {
            output::note("left: the handoff goes on, and the question is asked");
        }
        Ok(())
    }
}
