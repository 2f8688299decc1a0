//! Agents' links: who greets and pulls, what is said over them, and what they are ended by.

use std::time::Duration;

use broker_proto::{Failure, FailureClass, Usage, WallTime};

use super::{
    agent::{Process, Token},
    calls::{Heard, Way, other},
    step::Step,
    world::{World, pick},
};
use crate::{
    app::rehearsal::agent,
    core::{Command, Outcome, SettleCommand, agent::LinkId, queue::Body},
};

impl World {
    /// What agents do; says whether this is such a step.
    pub(super) fn agent(&mut self, step: Step) -> bool {
        match step {
            Step::Greet { process, is_new, resumes, credit } => {
                self.greet(usize::from(process), is_new, resumes, u32::from(credit));
            }
            Step::HangUp { process } => self.hang_up(usize::from(process)),
            Step::Pull { process, messages, seconds } => {
                self.pull(usize::from(process), messages.into(), seconds.into());
            }
            Step::PullEnds { process } => self.pull_ends(usize::from(process)),
            Step::Extend { process, which, seconds } => {
                let process = &self.processes[usize::from(process)];
                if let Some(at) = pick(which.into(), process.held.len()) {
                    let (agent, token) = (process.agent(), process.held[at]);
                    self.ways.push(Way::Extend { agent, token, seconds });
                }
            }
            Step::Credit { process, messages } => {
                if let Some(link) = self.processes[usize::from(process)].link {
                    self.ways.push(Way::Credit { link, messages: u32::from(messages) });
                }
            }
            Step::Settle { process, which, how } => {
                let process = &mut self.processes[usize::from(process)];
                if let Some(at) = pick(which.into(), process.held.len()) {
                    let (agent, token) = (process.agent(), process.held.remove(at));
                    self.ways.push(Way::Settle { agent, token, how });
                }
            }
            Step::Stale { process, which, how } => {
                let process = &self.processes[usize::from(process)];
                if let Some(at) = pick(which.into(), process.seen.len()) {
                    let (agent, token) = (process.agent(), process.seen[at]);
                    self.ways.push(Way::Settle { agent, token, how });
                }
            }
            Step::Foreign { process, which } => {
                let agent = self.processes[usize::from(process)].agent();
                let all: Vec<Token> =
                    self.processes.iter().flat_map(|other| other.held.iter().copied()).collect();
                if let Some(at) = pick(which.into(), all.len()) {
                    self.ways.push(Way::Settle { agent, token: all[at], how: 0 });
                }
            }
            Step::Beat { process } => {
                let process = &self.processes[usize::from(process)];
                if process.link.is_some() {
                    let leases = process.held.iter().map(|it| (it.seq, it.epoch)).collect();
                    self.ways.push(Way::Renew { agent: process.agent(), leases });
                }
            }
            Step::Die { process } => {
                self.hang_up(usize::from(process));
                self.processes[usize::from(process)].die();
            }
            Step::Stall { process } => {
                let process = &mut self.processes[usize::from(process)];
                process.is_stalled = !process.is_stalled;
            }
            _ => return false,
        }
        true
    }

    pub(super) fn greet(&mut self, process: usize, is_new: bool, resumes: bool, credit: u32) {
        self.hang_up(process);
        if is_new {
            self.processes[process].die();
        }
        let bytes = u64::from(credit) * self.bytes_per_credit;
        let link = self.new_link(credit, bytes);
        let process = &mut self.processes[process];
        process.link = Some(link);
        let up = Box::new(process.hello(credit, bytes));
        let held = process.held.iter().map(|token| (token.seq, token.epoch));
        let resume = if resumes { held.collect() } else { Vec::new() };
        // What it holds and the broker does not know of any more it finds out when it settles.
        self.link_up(Command::LinkUp { link, up, resume }, link);
    }

    /// As the service pulls: a link for one call, whose lease outlives it.
    pub(super) fn pull(&mut self, process: usize, messages: u32, seconds: u64) {
        let bytes = u64::from(messages) * self.bytes_per_credit;
        let link = self.new_link(messages, bytes);
        let process: &mut Process = &mut self.processes[process];
        process.pulls.push(link);
        let up = Box::new(process.pull(link, messages, bytes, Duration::from_secs(seconds)));
        self.link_up(Command::LinkUp { link, up, resume: Vec::new() }, link);
    }

    fn new_link(&mut self, credit: u32, bytes: u64) -> LinkId {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        let number = self.owner().number;
        self.links.insert(link, number);
        self.witness.granted(link, credit.into(), bytes);
        link
    }

    fn link_up(&mut self, command: Command, link: LinkId) {
        let engine = self.owner().handle.clone();
        let greeting = async move {
            let _ = engine.command(command).await;
            Heard::Greeted
        };
        self.call(self.brokers.len() - 1, format!("greeting on {link:?}"), Box::pin(greeting));
    }

    pub(super) fn hang_up(&mut self, process: usize) {
        if let Some(link) = self.processes[process].hang_up() {
            self.link_down(link);
        }
    }

    pub(super) fn pull_ends(&mut self, process: usize) {
        for link in std::mem::take(&mut self.processes[process].pulls) {
            self.link_down(link);
        }
    }

    fn link_down(&mut self, link: LinkId) {
        let number = self.links.remove(&link);
        let Some(at) = self.brokers.iter().position(|it| Some(it.number) == number) else { return };
        let engine = self.brokers[at].handle.clone();
        self.call(at, format!("{link:?} is down"), other(engine, Command::LinkDown { link }));
    }
}

pub(super) fn settlement(name: &str, token: Token, how: u8, wall: u64) -> Command {
    let failure = |class| Failure::new(class, "provider", "");
    let shown = token.seq.0.is_multiple_of(5);
    let outcome = match how {
        0..=3 => Outcome::Done { reply: Body::default(), stop_reason: None },
        5 => Outcome::Failed { failure: failure(FailureClass::Overloaded), partial: None, shown },
        6 => {
            let retry_at = Some(WallTime(wall).after(Duration::from_secs(4)));
            let failure = Failure { retry_at, ..failure(FailureClass::RateLimited) };
            Outcome::Failed { failure, partial: None, shown }
        }
        7 => Outcome::Retry { after: Duration::from_secs(2), shown },
        4 | 8 => Outcome::Reject { reason: "no".into() },
        9 | 10 => Outcome::Ask { question: Body::default(), shown },
        _ => Outcome::Release { shown },
    };
    Command::Settle(Box::new(SettleCommand {
        agent: agent(name),
        seq: token.seq,
        epoch: token.epoch,
        id: Some(token.id),
        outcome,
        usage: Usage::default(),
        limits: Vec::new(),
        first_token: None,
        earlier: None,
        append: None,
        shortened: None,
    }))
}
