//! What a chat's verbs do.

use std::path::PathBuf;

use broker_client::{NewSession, RestoreSession};
use broker_proto::types::{ModelName, OnConflict, Role, SessionPoint};

use super::{
    Chat, prompt,
    verb::{self, Asked, Verb},
};
use crate::{
    cli::{ExecuteArgs, ExportFormat, OfSession},
    commands::{current, handoff, session, until_interrupted},
    exit_code::Exit,
    output,
};

/// Versions of a session among which the empty one is looked for.
const LOOKED_AT: u32 = 1_000;
/// Handoffs that `/status` tells of.
const TOLD: u32 = 5;

impl Chat<'_> {
    pub(super) async fn carry_out(&mut self, verb: Verb) -> anyhow::Result<()> {
        match verb {
            // These two end in order at Ctrl-C.
            Verb::Handoff(to) => {
                let handed_over = self.hand_over_to(to).await;
                // A model that was chosen for this chat would go on being asked.
                self.model = None;
                self.owned().await?;
                handed_over
            }
            Verb::Consult(model, question) => {
                self.ask(Some(model), question, Some(PathBuf::from("shared"))).await
            }
            other => {
                let looking = async { self.look_or_change(other).await.map(|()| Exit::Done) };
                if until_interrupted(looking).await? == Exit::Interrupted {
                    output::note("left: what the broker was asked for may still be done");
                }
                Ok(())
            }
        }
    }

    async fn look_or_change(&mut self, verb: Verb) -> anyhow::Result<()> {
        match verb {
            Verb::Status => self.status().await,
            Verb::Fork(id) => {
                let new = NewSession { id, ..NewSession::default() };
                let info =
                    self.client.fork_session(&self.session, &SessionPoint::Head, new).await?;
                output::note(&format!("session {}, a copy of {}", info.id, self.session));
                current::remember(self.global, &info.id);
                (self.session, self.owner) = (info.id, None);
                self.owned().await
            }
            Verb::Undo => self.undo().await,
            Verb::Save(file) => {
                let file = file.unwrap_or_else(|| format!("{}.jsonl", self.session));
                let (at, format) = (SessionPoint::Head, ExportFormat::Jsonl);
                let file = PathBuf::from(file);
                session::transcript::export(&self.client, &self.session, &at, format, Some(&file))
                    .await
                    .map(|_| ())
            }
            Verb::Model(Asked::Same) => {
                match &self.model {
                    Some(model) => {
                        output::note(&format!("{model} is asked; /model owner ends that"));
                    }
                    None => {
                        let owner = self.info().await?.owner.model;
                        output::note(&format!("{owner} is asked, the session's owner"));
                    }
                }
                Ok(())
            }
            Verb::Model(Asked::Owner) => {
                self.model = None;
                Ok(())
            }
            Verb::Model(Asked::Model(model)) => self.choose(model).await,
            Verb::Help => Ok(output::line(verb::HELP)?),
            Verb::Handoff(_) | Verb::Consult(..) | Verb::Quit => Ok(()),
        }
    }

    async fn hand_over_to(&self, to: Option<ModelName>) -> anyhow::Result<()> {
        let args = ExecuteArgs {
            of: OfSession { session: Some(self.session.clone()) },
            to,
            reason: String::new(),
            preserve: None,
            no_wait: false,
        };
        handoff::execute(self.global, &self.client, args).await.map(|_| ())
    }

    /// A model that nobody knows is refused now, and not with the next question.
    async fn choose(&mut self, model: ModelName) -> anyhow::Result<()> {
        let model = super::known(&self.client, model).await?;
        if self.info().await?.owner.model == model {
            output::note(&format!("{model} is asked, the session's owner"));
            self.model = None;
            return Ok(());
        }
        output::note(&format!(
            "{model} is asked from now on; the session keeps its owner, /handoff {model} changes it"
        ));
        self.model = Some(model);
        Ok(())
    }

    async fn status(&self) -> anyhow::Result<()> {
        let info = self.info().await?;
        let owner = &info.owner;
        let agent = owner.agent.as_ref().map(|agent| format!("agent {agent}, "));
        let agent = agent.unwrap_or_default();
        output::line(&format!("session {}, {} entries", info.id, info.head.entries))?;
        output::line(&format!("owner {} ({agent}epoch {})", owner.model, owner.epoch))?;
        if let Some(model) = &self.model {
            output::line(&format!("asked {model}; /model owner ends that"))?;
        }
        if let Some(check) = self.check().await? {
            output::line(&prompt::full(&check))?;
            output::line(&format!("level {}: {}", check.level.to_lowercase(), check.reason))?;
        }
        for handoff in handoff::moved::last_of(&self.client, &self.session, TOLD).await?.items {
            output::line(&handoff::moved::sentence(&handoff))?;
        }
        Ok(())
    }

    /// Back to before the last question.
    async fn undo(&self) -> anyhow::Result<()> {
        let at = SessionPoint::Head;
        let info = self.info().await?;
        let entries = self.client.session_entries(&self.session, &at, 0, usize::MAX).await?;
        let asked = entries.iter().rev().find(|entry| entry.entry.role == Role::User);
        let Some(asked) = asked else {
            output::note("there is no question to take back");
            return Ok(());
        };
        let Some(to) = self.before(asked.number).await? else {
            output::note("the session began with its first question: nothing is before it");
            return Ok(());
        };
        let restore = RestoreSession {
            to,
            expected_version: Some(info.version),
            on_conflict: OnConflict::default(),
            new_id: None,
        };
        let (restored, _) = self.client.restore_session(&self.session, restore).await?;
        let gone = info.head.entries.saturating_sub(restored.head.entries);
        output::note(&format!("{gone} entries taken back; `session log` still has them"));
        Ok(())
    }

    /// Where a session stood before this entry.
    async fn before(&self, entry: u64) -> anyhow::Result<Option<SessionPoint>> {
        if let Some(before) = entry.checked_sub(1) {
            return Ok(Some(SessionPoint::Entry(before)));
        }
        let versions = self.client.session_versions(&self.session, LOOKED_AT, None).await?.items;
        let empty = versions.iter().find(|version| version.head.entries == 0);
        Ok(empty.map(|version| SessionPoint::Version(version.version)))
    }
}
