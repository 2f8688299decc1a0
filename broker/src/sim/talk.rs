//! What is done to sessions: they begin, grow, go back, are forked, handed off and deleted; and some of it is sent again.

use broker_proto::{
    AcceptHandoff, AskHandoff, ContentHash, EntryHash, HandoffKept, HandoffState, PackageId,
    SessionId,
};

use super::{
    calls::Way,
    step::Talk,
    world::{World, pick},
};
use crate::{
    app::rehearsal::model,
    core::{
        handoff::{Built, By, Command as Moving},
        session::{Change, Command, Expected, NewEntries, NewEntry, Point, Start, Write},
    },
};

/// Sessions that are there at a time.
const MOST: usize = 4;

/// An append as its caller keeps it, to send it again.
#[derive(Debug, Clone)]
pub(super) struct Append {
    pub(super) session: SessionId,
    /// What its entries say; no other append says it.
    pub(super) said: Vec<ContentHash>,
    pub(super) expected: Option<EntryHash>,
}

impl World {
    pub(super) fn talk(&mut self, of: u16, talk: Talk) {
        let alive = self.witness.talks.alive();
        if talk == Talk::Begin || alive.is_empty() {
            if alive.len() < MOST {
                let start = self.begun(None, Point::default());
                self.ways.push(Way::Talk { append: None, command: Command::Start(start) });
            }
            return;
        }
        if let Talk::Again = talk {
            if let Some(append) = pick(of, self.witness.talks.appends.len()) {
                let command = written(&self.witness.talks.appends[append]);
                self.ways.push(Way::Talk { append: Some(append), command });
            }
            return;
        }
        let Some(id) = pick(of, alive.len()).map(|at| alive[at].clone()) else { return };
        let points = self.witness.talks.points(&id);
        let (version, last) = (points.len() as u64, points.len() - 1);
        let point = |back: u16| points[last - usize::from(back) % points.len()].clone();
        let (append, command) = match talk {
            Talk::Append { many, back } => {
                let number = self.witness.talks.appends.len();
                let say = |nr| ContentHash::of(format!("{number} {nr}").as_bytes());
                let expected = back.map(|back| point(back).head.hash);
                let said = (0..many).map(say).collect();
                let new = Append { session: id, said, expected };
                let command = written(&new);
                self.witness.talks.appends.push(new);
                (Some(number), command)
            }
            Talk::Back { to, is_blind } => {
                let version = (!is_blind).then_some(version);
                let write = Write {
                    at: Some(point(to)),
                    change: Change::Restored,
                    ..write(id, Expected { head: None, version })
                };
                (None, Command::Write(Box::new(write)))
            }
            Talk::Fork { at } => (None, Command::Start(self.begun(Some(id), point(at)))),
            Talk::Delete => (None, Command::Delete { id }),
            Talk::Move { to, how } => {
                let command = self.moved(id, to, how);
                self.ways.push(Way::Move(command));
                return;
            }
            Talk::Begin | Talk::Again => return,
        };
        self.ways.push(Way::Talk { append, command });
    }

    /// What comes next of a session's newest handoff; now and then of an older one, or what nobody may.
    fn moved(&self, session: SessionId, to: u8, how: u8) -> Moving {
        let all = self.witness.moves.of(&session);
        let at = if how == 15 { 0 } else { all.len().saturating_sub(1) };
        let state = all.get(at).map(|handoff| handoff.state);
        let (Some(handoff), Some(state)) = (all.get(at), state.filter(|_| how > 1)) else {
            return Moving::Begin(Box::new(AskHandoff {
                session,
                to: Some(model(["opus", "sonnet", "gpt-4o"][usize::from(to) % 3])),
                agent: None,
                reason: String::new(),
                level: None,
                package: None,
                is_forced: how.is_multiple_of(2),
                at_once: to == 0,
            }));
        };
        let (id, manifest) = (handoff.id, [if how == 2 { 9 } else { 7 }; 32]);
        let (by, reason) = (By::Person, String::new());
        match state {
            HandoffState::Building if how == 3 => {
                Moving::NotBuilt { id, to: handoff.to.clone(), reason }
            }
            HandoffState::Building => {
                let package = PackageId::from_u128(id.number());
                let kept = HandoffKept { tokens: 1, ..HandoffKept::default() };
                let to = handoff.to.clone();
                Moving::Built(Box::new(Built { id, to, package, manifest: [7; 32], kept }))
            }
            HandoffState::Offered if how == 4 => {
                Moving::Decline { id, by, reason, for_model: false }
            }
            HandoffState::Accepted if how == 5 => {
                Moving::Decline { id, by, reason, for_model: false }
            }
            HandoffState::Active if how < 9 => Moving::Complete { id, by, outcome: reason },
            HandoffState::Active | HandoffState::Completed => Moving::GiveBack { id, reason },
            _ => {
                let accept = AcceptHandoff { id, manifest, confirmed: Vec::new() };
                Moving::Accept { accept, by }
            }
        }
    }

    fn begun(&mut self, from: Option<SessionId>, at: Point) -> Box<Start> {
        self.begun += 1;
        let id = SessionId::parse(&format!("talk-{}", self.begun)).unwrap();
        let change = if from.is_some() { Change::Forked } else { Change::Started };
        let from = from.map(|from| (from, Vec::new()));
        let entries = NewEntries::default();
        let (title, owner) = (String::new(), model("opus"));
        Box::new(Start { id, title, owner, from, at, entries, change })
    }
}

fn write(id: SessionId, expected: Expected) -> Write {
    Write {
        id,
        expected,
        at: None,
        entries: NewEntries::default(),
        task: None,
        shared: None,
        answer_of: None,
        change: Change::Appended,
    }
}

fn written(append: &Append) -> Command {
    let entry = |hash: &ContentHash| NewEntry { hash: *hash, length: 4, tokens: 1, size_bytes: 4 };
    let entries = append.said.iter().map(entry).collect();
    let expected = Expected { head: append.expected, version: None };
    let entries = NewEntries { entries, ..NewEntries::default() };
    Command::Write(Box::new(Write { entries, ..write(append.session.clone(), expected) }))
}
