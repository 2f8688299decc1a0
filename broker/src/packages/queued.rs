//! The queue slice of a session: what waits or runs for it when it is packed.

use broker_proto::{
    Message, MessageState, Part, Payload, QueuedTask, SessionId, convert::Stored as _,
};

use super::{Error, Packages};
use crate::projection::Row;

/// Messages that a package names at most; more are counted.
const QUEUE_MAX: usize = 100;
/// Characters of what is asked.
const ASKED: usize = 160;
/// A message of more bytes is not read for its first line.
const READ_MAX: u64 = 1 << 20;

impl Packages {
    /// Messages and tasks of a session that are not finished, the most urgent first, and how many there are beyond.
    pub(super) async fn queued(
        &self,
        session: &SessionId,
    ) -> Result<(Vec<QueuedTask>, u64), Error> {
        let (name, head) = (session.as_str().to_owned(), self.intake.engine.head());
        let (rows, left_out) = self.intake.projection.waiting(name, QUEUE_MAX, head).await?;
        let mut tasks = Vec::with_capacity(rows.len());
        for row in rows {
            let asked = self.asked(&row).await;
            tasks.push(QueuedTask {
                id: row.accepted.subject.id.to_string(),
                priority: row.accepted.priority.as_str().to_owned(),
                description: described(&row, &asked),
            });
        }
        Ok((tasks, left_out))
    }

    /// The first line of what a message asks for; nothing where that cannot be read, which hinders no handoff.
    async fn asked(&self, row: &Row) -> String {
        let body = &row.accepted.body;
        if body.size_bytes > READ_MAX {
            return String::new();
        }
        let message = match self.intake.bodies.load(body).await {
            Ok(bytes) => Message::decode(bytes),
            Err(_) => return String::new(),
        };
        message.map(|message| first_line(&message.payload)).unwrap_or_default()
    }
}

/// `delegation to model/opus, working: Port the lists`
fn described(row: &Row, asked: &str) -> String {
    let state = match (row.task, row.state) {
        (Some(task), _) => task.as_str(),
        (None, MessageState::Leased) => "leased",
        (None, MessageState::Waiting) => "waiting",
        (None, _) => "queued",
    };
    let stands = format!("{} to {}, {state}", row.accepted.kind.as_str(), row.accepted.to);
    if asked.is_empty() { stands } else { format!("{stands}: {asked}") }
}

fn first_line(payload: &Payload) -> String {
    let said = payload.request.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    let task = payload.task.iter().map(|task| task.description.as_str());
    let notice = payload.status.iter().map(|status| status.text.as_str());
    let mut lines = task.chain(notice).chain(said).flat_map(str::lines).map(str::trim);
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    // A tab parts two words; what else a terminal obeys parts none.
    let is_seen = |letter: &char| *letter == '\t' || !letter.is_control();
    let mut letters =
        line.chars().filter(is_seen).map(|letter| if letter == '\t' { ' ' } else { letter });
    let mut shown: String = letters.by_ref().take(ASKED).collect();
    if letters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_one_short_line() {
        let payload =
            |text: &str| Payload { request: vec![Part::text(text)], ..Payload::default() };
        assert_eq!(first_line(&payload("\n  Why is\tit?\nAnd more")), "Why is it?");
        assert_eq!(first_line(&payload("Why\u{1b}[2J \u{7} not?")), "Why[2J  not?");
        let most = "é".repeat(ASKED);
        assert_eq!(first_line(&payload(&most)), most);
        assert_eq!(first_line(&payload("é".repeat(200).as_str())).chars().count(), ASKED + 1);
        assert_eq!(first_line(&Payload::default()), "");
    }
}
