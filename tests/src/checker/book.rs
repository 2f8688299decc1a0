//! The history, told per message and per link.

use std::collections::{BTreeMap, HashMap};

use crate::history::{
    Accepted, Delivered, Entry, Fault, Frame, How, Outcome, Role, Said, Settings, What,
};

/// When something was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct When {
    /// Nanoseconds of the boot-time clock.
    pub(super) at: u64,
    /// Milliseconds of the machine's wall clock.
    pub(super) wall: u64,
}

/// A call: its beginning, and its answer where one came.
#[derive(Debug)]
pub(super) struct Call<'a, T> {
    pub(super) begun: When,
    pub(super) answer: Option<(When, &'a Outcome<T>)>,
}

impl<'a, T> Call<'a, T> {
    /// When it was acknowledged, and with what.
    pub(super) fn ok(&self) -> Option<(When, &'a T)> {
        let (when, outcome) = self.answer?;
        Some((when, outcome.ok()?))
    }

    /// From when to when it was out, once it was answered.
    fn span(&self) -> Option<(u64, u64)> {
        Some((self.begun.at, self.answer?.0.at))
    }

    /// Whether it may have been done all the same.
    pub(super) fn is_unknown(&self) -> bool {
        self.answer.is_none_or(|(_, outcome)| !outcome.is_sure_refusal() && outcome.ok().is_none())
    }
}

#[derive(Debug)]
pub(super) struct Send<'a> {
    pub(super) said: &'a Said,
    pub(super) call: Call<'a, Accepted>,
}

impl Send<'_> {
    pub(super) fn is_unknown(&self) -> bool {
        self.call.is_unknown()
    }
}

#[derive(Debug)]
pub(super) struct Settle<'a> {
    pub(super) lease: &'a str,
    pub(super) attempt: u32,
    pub(super) how: How,
    pub(super) reply: Option<&'a str>,
    pub(super) call: Call<'a, ()>,
}

/// A delivery, as seen.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) when: When,
    pub(super) it: &'a Delivered,
}

#[derive(Debug)]
pub(super) struct Learned<'a> {
    pub(super) when: When,
    pub(super) state: &'a str,
    pub(super) class: Option<&'a str>,
    pub(super) reply: Option<&'a str>,
}

impl Learned<'_> {
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.state, "done" | "failed" | "expired" | "cancelled" | "dead")
    }
}

/// One stream of one asker.
#[derive(Debug, Default)]
pub(super) struct Stream<'a> {
    pub(super) frames: Vec<&'a Frame>,
    /// Whether it ended, and if not in order, why.
    pub(super) end: Option<Option<&'a str>>,
}

/// All that is known of one message.
#[derive(Debug, Default)]
pub(super) struct Story<'a> {
    pub(super) sends: Vec<Send<'a>>,
    pub(super) cancels: Vec<Call<'a, String>>,
    pub(super) deliveries: Vec<Seen<'a>>,
    pub(super) settles: Vec<Settle<'a>>,
    pub(super) streams: BTreeMap<u64, Stream<'a>>,
    pub(super) learned: Option<Learned<'a>>,
}

impl<'a> Story<'a> {
    /// The first acknowledgement of this message.
    pub(super) fn accepted(&self) -> Option<(When, &'a Accepted)> {
        self.sends.iter().filter_map(|send| send.call.ok()).min_by_key(|(when, _)| when.at)
    }

    /// The first try to send what was later acknowledged, or may have been.
    pub(super) fn said(&self) -> Option<&Send<'a>> {
        let acknowledged = self.sends.iter().find(|send| send.call.ok().is_some());
        acknowledged.or_else(|| self.sends.iter().find(|send| send.is_unknown()))
    }

    /// Whether it was acknowledged as new more than once: lost or forgotten in between, which is I-1's or I-7's. What
    /// else is seen of it follows from that.
    pub(super) fn is_taken_twice(&self) -> bool {
        let as_new = |send: &&Send<'_>| send.call.ok().is_some_and(|(_, it)| !it.is_duplicate);
        self.sends.iter().filter(as_new).count() > 1
            || (self.has_two_numbers() && self.sends.iter().any(Send::is_unknown))
    }

    pub(super) fn has_two_numbers(&self) -> bool {
        self.deliveries.windows(2).any(|pair| pair[0].it.number != pair[1].it.number)
    }

    /// When it may have been stored at the earliest.
    pub(super) fn begun(&self) -> Option<u64> {
        let may_be_stored = |send: &&Send<'_>| send.call.ok().is_some() || send.is_unknown();
        self.sends.iter().filter(may_be_stored).map(|send| send.call.begun.at).min()
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        self.accepted().map(|(_, accepted)| accepted.deadline)
    }

    pub(super) fn is_consultation(&self) -> bool {
        self.sends.iter().any(|send| send.said.kind == "consultation")
    }

    /// The settlements of one delivery.
    pub(super) fn settles_of(&self, attempt: u32) -> impl Iterator<Item = &Settle<'a>> {
        self.settles.iter().filter(move |s| s.attempt == attempt && s.how != How::Forged)
    }

    /// When the broker says it made this delivery, in milliseconds of its own wall clock.
    pub(super) fn stamp(&self, delivered: &Delivered) -> Option<u64> {
        Some(self.deadline()?.saturating_sub(delivered.left_ms)).filter(|_| delivered.left_ms > 0)
    }

    /// The settlements that may count: nothing else was said before with their token, unless that was refused (I-19).
    pub(super) fn first_words(&self) -> impl Iterator<Item = &Settle<'a>> {
        self.settles.iter().filter(|settle| {
            let before = |s: &&Settle<'a>| {
                let is_earlier = s.lease == settle.lease && s.call.begun.at < settle.call.begun.at;
                is_earlier && s.how != settle.how && (s.call.ok().is_some() || s.call.is_unknown())
            };
            !self.settles.iter().any(|s| before(&s))
        })
    }

    /// Whether a settlement like this was sent and was not surely refused.
    pub(super) fn may_be_settled(&self, is: impl Fn(How) -> bool) -> bool {
        self.settles.iter().any(|s| is(s.how) && (s.call.ok().is_some() || s.call.is_unknown()))
    }
}

/// What happened on one link, in its order.
#[derive(Debug)]
pub(super) enum OnLink<'a> {
    Credit { messages: u64, size_bytes: u64 },
    Delivered(&'a Delivered, When),
}

#[derive(Debug)]
pub(super) struct Book<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) settings: Settings,
    pub(super) stories: BTreeMap<&'a str, Story<'a>>,
    pub(super) links: BTreeMap<(&'a str, &'a str), Vec<OnLink<'a>>>,
    pub(super) faults: Vec<(u64, &'a Fault)>,
    /// When links came, ended or were left, by agent.
    link_changes: BTreeMap<&'a str, Vec<u64>>,
    pub(super) counted: Option<&'a BTreeMap<String, u64>>,
    /// Every sender that began has ended.
    pub(super) is_whole: bool,
}

impl<'a> Book<'a> {
    pub(super) fn read(entries: &'a [Entry]) -> Self {
        let settings = Settings { lease_ms: 15_000, max_lost_leases: 5, queue_messages: 10_000 };
        let mut book = Self {
            entries,
            settings,
            stories: BTreeMap::new(),
            links: BTreeMap::new(),
            faults: Vec::new(),
            link_changes: BTreeMap::new(),
            counted: None,
            is_whole: false,
        };
        // Where a call's answer belongs: its message, and its place there.
        let mut calls: HashMap<(&str, u64), (&str, usize)> = HashMap::new();
        let mut agents: HashMap<(&str, &str), &str> = HashMap::new();
        let (mut senders, mut ended) = (0_u32, 0_u32);
        let mut roles: HashMap<&str, Role> = HashMap::new();
        for entry in entries {
            let when = When { at: entry.at, wall: entry.wall };
            let by = entry.by.as_str();
            match &entry.what {
                What::Began { role, .. } => {
                    roles.insert(by, *role);
                    senders += u32::from(*role == Role::Sender);
                }
                What::Ended => ended += u32::from(roles.get(by) == Some(&Role::Sender)),
                What::Settings(settings) => book.settings = *settings,
                What::Fault { fault } => book.faults.push((entry.at, fault)),
                What::Quiet => {}
                What::Send { call, id, said } => {
                    let sends = &mut book.stories.entry(id).or_default().sends;
                    calls.insert((by, *call), (id, sends.len()));
                    sends.push(Send { said, call: Call { begun: when, answer: None } });
                }
                What::Sent { call, outcome, .. } => {
                    if let Some(call) = calls.get(&(by, *call)).and_then(|(id, place)| {
                        Some(&mut book.stories.get_mut(id)?.sends.get_mut(*place)?.call)
                    }) {
                        call.answer = Some((when, outcome));
                    }
                }
                What::Cancel { call, id } => {
                    let cancels = &mut book.stories.entry(id).or_default().cancels;
                    calls.insert((by, *call), (id, cancels.len()));
                    cancels.push(Call { begun: when, answer: None });
                }
                What::Cancelled { call, outcome, .. } => {
                    if let Some(call) = calls
                        .get(&(by, *call))
                        .and_then(|(id, place)| book.stories.get_mut(id)?.cancels.get_mut(*place))
                    {
                        call.answer = Some((when, outcome));
                    }
                }
                What::Frame { id, stream, frame } => {
                    let story = book.stories.entry(id).or_default();
                    story.streams.entry(*stream).or_default().frames.push(frame);
                }
                What::StreamEnded { id, stream, broken } => {
                    let story = book.stories.entry(id).or_default();
                    story.streams.entry(*stream).or_default().end = Some(broken.as_deref());
                }
                What::Learned { id, state, class, reply } => {
                    let (class, reply) = (class.as_deref(), reply.as_deref());
                    book.stories.entry(id).or_default().learned =
                        Some(Learned { when, state, class, reply });
                }
                What::Counted { states } => book.counted = Some(states),
                What::Linked { link, agent, .. } => {
                    agents.insert((by, link), agent);
                    book.link_changes.entry(agent).or_default().push(entry.at);
                }
                What::Unlinked { link } | What::Bye { link } => {
                    if let Some(agent) = agents.get(&(by, link.as_str())) {
                        book.link_changes.entry(agent).or_default().push(entry.at);
                    }
                }
                What::Credit { link, messages, size_bytes } => {
                    let credit = OnLink::Credit { messages: *messages, size_bytes: *size_bytes };
                    book.links.entry((by, link)).or_default().push(credit);
                }
                What::Delivered(it) => {
                    let link = book.links.entry((by, &it.link)).or_default();
                    link.push(OnLink::Delivered(it, when));
                    let story = book.stories.entry(&it.id).or_default();
                    story.deliveries.push(Seen { when, it });
                }
                What::Settle { call, lease, id, attempt, how, reply } => {
                    let settles = &mut book.stories.entry(id).or_default().settles;
                    calls.insert((by, *call), (id, settles.len()));
                    settles.push(Settle {
                        lease,
                        attempt: *attempt,
                        how: *how,
                        reply: reply.as_deref(),
                        call: Call { begun: when, answer: None },
                    });
                }
                What::Settled { call, outcome, .. } => {
                    if let Some(call) = calls.get(&(by, *call)).and_then(|(id, place)| {
                        Some(&mut book.stories.get_mut(id)?.settles.get_mut(*place)?.call)
                    }) {
                        call.answer = Some((when, outcome));
                    }
                }
                What::Renew { .. } | What::Revoked { .. } => {}
            }
        }
        book.is_whole = senders > 0 && senders == ended;
        book
    }

    /// The stories of messages that were not taken twice.
    pub(super) fn plain(&self) -> impl Iterator<Item = (&'a str, &Story<'a>)> {
        self.stories.iter().filter(|(_, s)| !s.is_taken_twice()).map(|(id, story)| (*id, story))
    }

    /// Whether the broker went down, or was down, between these.
    pub(super) fn broker_fell(&self, from: u64, to: u64) -> bool {
        self.any_fault(from, to, |fault| {
            matches!(
                fault,
                Fault::BrokerKilled | Fault::BrokerStopping | Fault::BrokerGone | Fault::BrokerUp
            )
        })
    }

    pub(super) fn any_fault(&self, from: u64, to: u64, is: impl Fn(&Fault) -> bool) -> bool {
        self.faults.iter().any(|(at, fault)| (from..=to).contains(at) && is(fault))
    }

    /// How long the slowest of the calls took that were out between these, in milliseconds: what the broker, its disk
    /// and the machine held up. Questions are not among them, their answers take what they take.
    pub(super) fn slowest_call(&self, from: u64, to: u64) -> u64 {
        let sends = self.stories.values().flat_map(|s| &s.sends).filter_map(|s| s.call.span());
        let settles = self.stories.values().flat_map(|s| &s.settles).filter_map(|s| s.call.span());
        let out = sends.chain(settles).filter(|(begun, end)| *begun <= to && from <= *end);
        out.map(|(begun, end)| (end - begun) / 1_000_000).max().unwrap_or(0)
    }

    /// Whether a link of this agent came or went between these.
    pub(super) fn link_changed(&self, agent: &str, from: u64, to: u64) -> bool {
        let changes = self.link_changes.get(agent);
        changes.is_some_and(|changes| changes.iter().any(|at| (from..=to).contains(at)))
    }

    /// Whether this agent's process, or its link, was another in between. A new one is known to the broker before it
    /// notes so itself.
    pub(super) fn process_changed(&self, agent: &str, from: u64, to: u64) -> bool {
        const A_MOMENT_NS: u64 = 2_000_000_000;
        let killed = |fault: &Fault| matches!(fault, Fault::AgentKilled { agent: a } if a == agent);
        self.link_changed(agent, from, to + A_MOMENT_NS) || self.any_fault(from, to, killed)
    }

    /// Whether any agent's process was held, so that what it notes is late.
    pub(super) fn was_held(&self, agent: &str, until: u64) -> bool {
        self.any_fault(
            0,
            until,
            |fault| matches!(fault, Fault::AgentHeld { agent: a } if a == agent),
        )
    }

    /// The highest time that the broker's wall clock has surely shown until `at`, in milliseconds.
    pub(super) fn highest_clock(&self, at: u64) -> u64 {
        const HALTS_MS: i64 = 60_000;
        let (mut highest, mut offset) = (0, 0_i64);
        for entry in self.entries.iter().take_while(|entry| entry.at <= at) {
            if let What::Fault { fault: Fault::Clock { offset_ms } } = &entry.what {
                // Up to here it showed the offset before.
                highest = highest.max(entry.wall.saturating_add_signed(offset));
                offset = if *offset_ms > HALTS_MS { 0 } else { *offset_ms };
            }
        }
        highest
    }

    /// Whether a clock was moved at any time.
    pub(super) fn clock_moved(&self) -> bool {
        self.any_fault(0, u64::MAX, |fault| matches!(fault, Fault::Clock { .. }))
    }
}
