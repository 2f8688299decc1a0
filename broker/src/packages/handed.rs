//! How a handoff went: its package beside the new owner's first reply.

use broker_proto::{Echo, EntryKind, Handoff, HandoffReport, Part, Role, SessionEntry};

use super::{Error, Loaded, Packages};
use crate::context::{echo::echoes, render::must_keep};

impl Packages {
    /// The report of a handoff. What is not there any more is said in it, and leaves the rest.
    ///
    /// # Errors
    /// [`Error`] when package or session cannot be read.
    pub async fn report_handoff(&self, handoff: Handoff) -> Result<HandoffReport, Error> {
        let (mut parts, mut items, mut problem) = (Vec::new(), Vec::new(), String::new());
        match handoff.package {
            None => problem.push_str("no package was made"),
            Some(id) => match self.find(id).await {
                Err(Error::Unknown(_)) => problem.push_str("its package was deleted"),
                Err(error) => return Err(error),
                Ok(saved) => {
                    let Loaded { info, contents, .. } = self.verified(saved, true).await?;
                    parts = info.parts.into_iter().map(|part| part.name).collect();
                    items = must_keep(&contents.task);
                }
            },
        }
        let reply =
            if handoff.active_at.is_some() { self.first_reply(&handoff).await? } else { None };
        let found = reply.as_ref().map(|reply| echoes(&items, &text(reply))).unwrap_or_default();
        let mut report = HandoffReport {
            handoff,
            markdown: String::new(),
            parts,
            items: items.len() as u64,
            reply: reply.map(|reply| reply.number),
            contradicted: found.contradicted,
            asked_again: found.asked_again,
            problem,
        };
        report.markdown = markdown(&report);
        Ok(report)
    }

    /// The first entry that the new owner said in it.
    async fn first_reply(&self, handoff: &Handoff) -> Result<Option<SessionEntry>, Error> {
        let head = self.sessions.get(&handoff.session).await?.info.head;
        let since = self.sessions.whole_entries_from(head, handoff.kept.entries).await?;
        Ok(since.into_iter().find(|it| {
            let is_turn = it.kind == EntryKind::Turn && it.entry.role == Role::Assistant;
            is_turn && it.model.as_ref() == Some(&handoff.to)
        }))
    }
}

fn text(entry: &SessionEntry) -> String {
    let texts = entry.entry.parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn markdown(report: &HandoffReport) -> String {
    let HandoffReport { handoff, parts, items, .. } = report;
    let (kept, trigger) = (&handoff.kept, &handoff.trigger);
    let confirmed = |part: &String| handoff.confirmed.contains(part);
    let part = |part: &String| match confirmed(part) {
        true => format!("- [x] {part}\n"),
        false => format!("- [ ] {part}\n"),
    };
    let list = |echoes: &[Echo]| match (echoes.is_empty(), report.reply) {
        (true, Some(_)) => "Nothing was found.\n".to_owned(),
        (true, None) => "There is no reply yet.\n".to_owned(),
        (false, _) => {
            let line = |echo: &Echo| format!("- {}\n  > {}\n", echo.item, echo.sentence);
            echoes.iter().map(line).collect()
        }
    };
    let missing: String =
        kept.must_keep_missing.iter().map(|item| format!("- missing: {item}\n")).collect();
    let reply = report.reply.map_or("none yet".to_owned(), |number| format!("entry {number}"));
    let outcome = if handoff.outcome.is_empty() { "-" } else { &handoff.outcome };
    let problem =
        if report.problem.is_empty() { String::new() } else { format!("\n{}.\n", report.problem) };
    format!(
        "# Handoff {id}\n\nSession {session}, {from} to {to}, {state}.\n\n\
         - why: {kind}: {reasoning}\n- outcome: {outcome}\n- first reply: {reply}\n{problem}\n\
         ## What was kept\n\nScore {score:.2}: {whole} entries whole, {partly} in part, {dropped} dropped; \
         {items} items must be kept.\n{missing}\n\
         ## What the receiver confirmed\n\n{count} of {all} parts.\n\n{parts}\n\
         ## What its first reply contradicts\n\n{contradicted}\n\
         ## What its first reply asks for again\n\n{asked}\n\
         The last two are guessed by words: what is not listed is not proved to be known.\n",
        id = handoff.id,
        session = handoff.session,
        from = handoff.from.model,
        to = handoff.to,
        state = handoff.state.as_str(),
        kind = trigger.kind.as_str(),
        reasoning = trigger.reasoning,
        score = kept.score,
        whole = kept.kept,
        partly = kept.partly,
        dropped = kept.dropped,
        count = parts.iter().filter(|part| confirmed(part)).count(),
        all = parts.len(),
        parts = parts.iter().map(part).collect::<String>(),
        contradicted = list(&report.contradicted),
        asked = list(&report.asked_again),
    )
}
