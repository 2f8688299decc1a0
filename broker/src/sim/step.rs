//! The steps of a history, and how a seed becomes them.
//!
//! A step holds all that is random in it, so that any part of a history is a history: a long one can be shortened.

/// Processes that speak for agents, by their place in [`super::agent::NAMES`].
pub(super) const PROCESSES: u64 = 6;
/// Recipients that steps name by their place in `callers::recipient`.
const RECIPIENTS: u64 = 6;
/// Ways to settle, as `callers::settlement` knows them.
pub(super) const HOWS: u64 = 12;

/// One thing that happens. Numbers point into what is there, whatever its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A new message is offered.
    Send {
        sender: u8,
        to: u8,
        kind: u8,
        priority: u8,
        key: u8,
        seconds: Option<u16>,
        number: Option<Number>,
    },
    /// Many messages of all priorities, which arrive at once.
    Burst {
        to: u8,
        count: u8,
        order: u16,
    },
    /// A new question is asked; `options` are bits.
    Ask {
        model: u8,
        options: u8,
    },
    /// An earlier message again, or another one under its id.
    Again {
        of: u16,
        is_other: bool,
    },
    /// A numbered message once more, under another id; or another one under its number.
    Renumbered {
        of: u16,
        is_other: bool,
    },
    Cancel {
        of: u16,
    },
    /// A task is suspended, resumed, answered or cancelled by a person.
    Task {
        of: u16,
        want: Want,
    },
    /// What a queue delivers is stopped, or goes on.
    Pause {
        to: u8,
        is_paused: bool,
    },
    /// Dead letters are redriven or purged: all, those to one recipient, or one by its name.
    Letters {
        of: u16,
        which: u8,
        act: Act,
    },
    /// Something is done to a session.
    Talk {
        of: u16,
        talk: Talk,
    },
    /// Somebody asks for the broker's own counters.
    Count,
    /// The asker of a question leaves, or comes back.
    Asker {
        of: u16,
        is_back: bool,
    },
    Greet {
        process: u8,
        is_new: bool,
        resumes: bool,
        credit: u8,
    },
    HangUp {
        process: u8,
    },
    /// A call that takes what there is, up to so many, and goes.
    Pull {
        process: u8,
        messages: u8,
        seconds: u8,
    },
    /// The pulls of a process are answered.
    PullEnds {
        process: u8,
    },
    Extend {
        process: u8,
        which: u8,
        seconds: u8,
    },
    Credit {
        process: u8,
        messages: u8,
    },
    /// A process settles something it holds.
    Settle {
        process: u8,
        which: u8,
        how: u8,
    },
    /// A process settles with any token it ever had.
    Stale {
        process: u8,
        which: u8,
        how: u8,
    },
    /// A process settles with another one's token.
    Foreign {
        process: u8,
        which: u8,
    },
    Beat {
        process: u8,
    },
    /// The process is gone, and what it held with it.
    Die {
        process: u8,
    },
    /// It stops reading, or reads again.
    Stall {
        process: u8,
    },
    /// Frames arrive, in any order.
    Arrive {
        count: u8,
        order: u16,
    },
    /// A frame never arrives.
    Lose {
        which: u16,
    },
    /// The disk answers appends that wait for it.
    Sync {
        count: u8,
    },
    Disk {
        fault: Fault,
    },
    Room {
        is_left: bool,
    },
    /// The projection folds what is there.
    Fold,
    Pass {
        millis: u16,
    },
    /// The wall clock alone is set.
    Clock {
        seconds: i32,
    },
    /// A person believes the wall clock.
    Confirm,
    /// The broker is killed and started again; the append in flight is stored or not.
    Crash {
        is_stored: bool,
        millis: u16,
        loses_rows: bool,
    },
    /// It is stopped properly and started again.
    Stop,
    /// Another broker claims the journal while this one still runs.
    TakeOver,
}

/// What becomes of the next append instead of being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Full,
    Unavailable,
    UnknownStored,
    UnknownLost,
    Broken,
}

/// How a bulk sender numbers a message: behind the highest number it has used, or that far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Ahead(u16),
    Back(u16),
}

/// What is wanted of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Suspend,
    Resume,
    Cancel,
    Answer { input: u8, is_other: bool },
}

/// What is done to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    Begin,
    /// Turns behind its head, of which the caller has seen the one so many versions back; or behind whatever it is.
    Append {
        many: u8,
        back: Option<u16>,
    },
    /// An append that was sent before.
    Again,
    /// It goes back by so many versions; blindly, or only if it is at the version that was seen.
    Back {
        to: u16,
        is_blind: bool,
    },
    Fork {
        at: u16,
    },
    Delete,
    /// It is to go to a model; or its newest handoff goes on, by whoever speaks for its receiver.
    Move {
        to: u8,
        how: u8,
    },
}

/// What becomes of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Redrive,
    Purge,
    /// Only to be told what would be done.
    Try,
}

/// A history, and the broker it happens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    /// Queues with room for a backlog, and credit in bytes that is never the matter.
    pub(super) is_roomy: bool,
    /// Calls that the namespace may make in a day, where calls have budgets.
    pub(super) calls_a_day: Option<u64>,
    pub(super) steps: Vec<Step>,
}

/// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Half of the time what this history likes best.
    fn mostly(&mut self, favourite: u8, end: u64) -> u8 {
        if self.is(50) { favourite } else { self.byte(end) }
    }

    fn byte(&mut self, end: u64) -> u8 {
        u8::try_from(self.below(end)).unwrap_or(u8::MAX)
    }

    fn short(&mut self, end: u64) -> u16 {
        u16::try_from(self.below(end)).unwrap_or(u16::MAX)
    }
}

/// How often each kind of step comes, relative to the others, in the order of [`step`].
const WEIGHTS: [u64; 36] = [
    10, 5, 4, 1, 2, 5, 1, 8, 24, 4, 1, 5, 1, 1, 20, 1, 24, 2, 1, 6, 10, 1, 2, 1, 1, 1, 2, 5, 2, 4,
    2, 3, 3, 1, 1, 14,
];

/// What comes more often than the rest in one history, so that much of it meets in one place.
struct Mood {
    to: u8,
    kind: u8,
    key: u8,
    how: u8,
    process: u8,
}

/// The history of a seed. Which kinds of step are rare, usual or frequent is its own: what goes wrong only when one
/// thing never happens and another all the time is found too.
pub(super) fn history(seed: u64) -> History {
    let mut random = Random(seed);
    let is_roomy = seed % 4 == 3;
    let mut weights = WEIGHTS;
    for weight in &mut weights {
        *weight *= [0, 1, 1, 1, 2, 4][usize::from(random.byte(6))];
    }
    // Nothing happens without messages, agents and a disk.
    for needed in [0, 5, 7, 14, 16] {
        weights[needed] = weights[needed].max(WEIGHTS[needed]);
    }
    if is_roomy {
        weights[25] = weights[25].max(4);
    }
    let mood = Mood {
        to: random.byte(RECIPIENTS),
        kind: random.byte(3),
        key: random.byte(3),
        how: random.byte(HOWS),
        process: random.byte(PROCESSES),
    };
    let total = weights.iter().sum();
    let length = 40 + random.below(200);
    let everybody_greets = (0..PROCESSES as u8)
        .filter(|_| mood.how.is_multiple_of(2))
        .map(|process| Step::Greet { process, is_new: true, resumes: false, credit: 4 });
    let steps = everybody_greets
        .collect::<Vec<_>>()
        .into_iter()
        .chain((0..length).map(|_| {
            let mut at = random.below(total);
            let chosen = weights.iter().position(|weight| match at.checked_sub(*weight) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            });
            step(chosen.unwrap_or(0), &mood, &mut random)
        }))
        .collect();
    let calls_a_day = (seed % 4 == 1).then(|| 3 + seed / 4 % 20);
    History { is_roomy, calls_a_day, steps }
}

fn step(kind: usize, mood: &Mood, random: &mut Random) -> Step {
    let process = random.mostly(mood.process, PROCESSES);
    match kind {
        0 => Step::Send {
            sender: random.byte(2),
            to: random.mostly(mood.to, RECIPIENTS + 1),
            kind: random.mostly(mood.kind, 3),
            priority: random.byte(4),
            key: random.mostly(mood.key, 3),
            seconds: random.is(25).then(|| random.short(60)),
            number: random.is(30).then(|| match random.byte(4) {
                0 | 1 => Number::Ahead(1),
                2 => Number::Ahead(random.short(5_000)),
                _ => Number::Back(random.short(6_000)),
            }),
        },
        1 => Step::Ask { model: random.byte(3), options: random.byte(256) },
        2 => Step::Again { of: random.short(1000), is_other: random.is(25) },
        3 => Step::Cancel { of: random.short(1000) },
        4 => Step::Asker { of: random.short(1000), is_back: random.is(70) },
        5 => Step::Greet {
            process,
            is_new: random.is(20),
            resumes: random.is(80),
            credit: random.byte(5),
        },
        6 => Step::HangUp { process },
        7 => Step::Credit { process, messages: random.byte(5) },
        8 => Step::Settle { process, which: random.byte(8), how: random.mostly(mood.how, HOWS) },
        9 => Step::Stale { process, which: random.byte(64), how: random.byte(HOWS) },
        10 => Step::Foreign { process, which: random.byte(64) },
        11 => Step::Beat { process },
        12 => Step::Die { process },
        13 => Step::Stall { process },
        14 => Step::Arrive { count: 1 + random.byte(6), order: random.short(1000) },
        15 => Step::Lose { which: random.short(1000) },
        16 => Step::Sync { count: 1 + random.byte(3) },
        17 => Step::Disk { fault: fault(random) },
        18 => Step::Room { is_left: random.is(60) },
        19 => Step::Fold,
        20 => Step::Pass {
            millis: if random.is(80) { random.short(6_000) } else { random.short(40_000) },
        },
        21 => {
            Step::Clock { seconds: [-3600, -30, -1, 1, 45, 90, 3600][usize::from(random.byte(7))] }
        }
        22 => Step::Crash {
            is_stored: random.is(50),
            millis: random.short(5_000),
            loses_rows: random.is(15),
        },
        23 => Step::Stop,
        24 => Step::TakeOver,
        25 => Step::Burst {
            to: random.mostly(mood.to, RECIPIENTS) % 5,
            count: 8 + random.byte(40),
            order: random.short(u64::from(u16::MAX)),
        },
        26 => Step::Renumbered { of: random.short(1000), is_other: random.is(25) },
        27 => Step::Task { of: random.short(1000), want: want(random) },
        28 => Step::Pause { to: random.mostly(mood.to, RECIPIENTS), is_paused: random.is(50) },
        29 => Step::Letters {
            of: random.short(1000),
            which: random.byte(4),
            act: [Act::Redrive, Act::Redrive, Act::Purge, Act::Try][usize::from(random.byte(4))],
        },
        30 => Step::Count,
        31 => Step::Pull { process, messages: 1 + random.byte(3), seconds: 5 + random.byte(60) },
        32 => Step::PullEnds { process },
        33 => Step::Extend { process, which: random.byte(8), seconds: 5 + random.byte(60) },
        34 => Step::Confirm,
        _ => Step::Talk { of: random.short(1000), talk: talk(random) },
    }
}

fn talk(random: &mut Random) -> Talk {
    match random.byte(24) {
        0 | 1 => Talk::Begin,
        2 => Talk::Delete,
        3 | 4 => Talk::Back { to: random.short(6), is_blind: random.is(50) },
        5 | 6 => Talk::Fork { at: random.short(6) },
        7..=9 => Talk::Again,
        10..=17 => Talk::Move { to: random.byte(3), how: random.byte(16) },
        _ => {
            let back = [None, Some(0), Some(0), Some(random.short(4))];
            Talk::Append { many: 1 + random.byte(4), back: back[usize::from(random.byte(4))] }
        }
    }
}

fn fault(random: &mut Random) -> Fault {
    let all =
        [Fault::Full, Fault::Unavailable, Fault::UnknownStored, Fault::UnknownLost, Fault::Broken];
    all[usize::from(random.byte(5))]
}

fn want(random: &mut Random) -> Want {
    match random.byte(8) {
        0 => Want::Cancel,
        1 | 2 => Want::Suspend,
        3 | 4 => Want::Resume,
        _ => Want::Answer { input: random.byte(4), is_other: random.is(15) },
    }
}
