//! How a handoff went: its package beside the new owner's first reply.

use broker_proto::{EntryKind, Handoff, HandoffReport, Judged, Part, Role, SessionEntry, Verdict};

use super::{Error, Loaded, Packages};
use crate::{
    context::{
        echo::{READ, SENTENCES, echoes},
        render::must_keep,
    },
    engine,
};

/// What the verdicts go by.
const BASIS: &str = "Guessed from the first reply's text by values and key words, in any language; a \"not\" and a request \
                     without a question mark in English alone. Code and quoted lines were not read. `unknown` means that it \
                     cannot be told, not that it is known.";

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
        let (number, said) = (reply.as_ref().map(|reply| reply.number), reply.as_ref().map(text));
        let all = items.len() as u64;
        // A long reply and many items take their time.
        let found = tokio::task::spawn_blocking(move || echoes(&items, said.as_deref()));
        let found = found.await.map_err(|_| Error::Engine(engine::Error::Stopping))?;
        let mut basis = BASIS.to_owned();
        if found.is_partial {
            let read = READ / 1024;
            basis.push_str(&format!(
                " Only its first {read} KiB or {SENTENCES} sentences were read."
            ));
        }
        let mut report = HandoffReport {
            handoff,
            markdown: String::new(),
            parts,
            items: all,
            reply: number,
            contradicted: found.contradicted,
            asked_again: found.asked_again,
            judged: found.judged,
            basis,
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
    let list = |verdict: Verdict| {
        let lines: String =
            report.judged.iter().filter(|it| it.verdict == verdict).map(line).collect();
        match (lines.is_empty(), report.reply) {
            (false, _) => lines,
            (true, Some(_)) => "Nothing was found.\n".to_owned(),
            (true, None) => "There is no reply yet.\n".to_owned(),
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
         ## What its first reply restates\n\n{restated}\n\
         ## What cannot be told\n\n{unknown}\n{basis}\n",
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
        contradicted = list(Verdict::Contradicted),
        asked = list(Verdict::AskedAgain),
        restated = list(Verdict::Restated),
        unknown = match report.judged.iter().filter(|it| it.verdict == Verdict::Unknown).count() {
            0 => "Nothing.\n".to_owned(),
            count => format!("{count} of {items}:\n\n{}", unknown(report)),
        },
        basis = report.basis,
    )
}

fn unknown(report: &HandoffReport) -> String {
    report.judged.iter().filter(|it| it.verdict == Verdict::Unknown).map(line).collect()
}

/// An item with the sentence that shows its verdict. What a model said is code: no markup of its own comes through.
fn line(judged: &Judged) -> String {
    match judged.sentence.as_str() {
        "" => format!("- {}\n", judged.item),
        said => format!("- {}\n  > {}\n", judged.item, code(said)),
    }
}

/// As a code span, with more backticks around it than stand in it.
fn code(text: &str) -> String {
    let mut longest = 0;
    let mut run = 0;
    for letter in text.chars() {
        run = if letter == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest + 1);
    let edge = if longest > 0 { " " } else { "" };
    format!("{fence}{edge}{text}{edge}{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_said_is_shown_without_its_markup() {
        assert_eq!(code("The <b>port</b> is [8080](x)."), "`The <b>port</b> is [8080](x).`");
        assert_eq!(code("It is ``8080``."), "``` It is ``8080``. ```");
    }
}
