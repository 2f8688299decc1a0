//! A session as one text for one receiver: what must be kept, then the turns that the next step needs.
//!
//! Pure: the same view and the same ask give the same text. The text never takes more tokens than it may, and nothing
//! that must be kept is left out without a word.

mod head;
mod turn;

use broker_proto::{Preservation, Rendering, SessionTask, SharedValue};

pub use head::{Needed, must_keep};
pub use turn::turn;

use super::{
    Receiver, Tokenizer,
    choose::{Choice, GAP, Index, choose_marked},
};
use head::Head;

/// Fewer tokens than these hold nothing worth reading.
const LEAST: u64 = 32;
/// Between what must be kept and the turns.
const TURNS: &str = "\nConversation:\n";

/// What is rendered. Turns are numbered from 0 in their order, as entries are.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub task: &'a SessionTask,
    pub shared: &'a [SharedValue],
    pub turns: &'a Index,
}

/// What happens to what must be kept and does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missing {
    /// Nothing is rendered.
    #[default]
    Refused,
    /// It is listed as missing.
    Listed,
}

/// For whom, and how much.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub receiver: &'a Receiver,
    pub level: Preservation,
    /// Tokens, in place of the level's.
    pub budget: Option<u64>,
    /// What the receiver will be asked; `None`: the task's next steps, its goal and the last turn of a person.
    pub next: Option<&'a str>,
    pub missing: Missing,
}

/// Why there is no rendering. Names sizes, never contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("a budget of {budget} tokens holds no rendering: give at least {LEAST}")]
    BudgetTooSmall { budget: u64 },
    #[error(
        "{budget} tokens do not hold what must be kept, which takes {needed}: {}; take a higher level or a budget of \
         {needed} tokens, or allow items to be missing",
        Needed::list(sections)
    )]
    MustKeep { budget: u64, needed: u64, sections: Vec<Needed> },
}

impl Error {
    /// The fewest tokens that help.
    #[must_use]
    pub fn needed(&self) -> u64 {
        match self {
            Self::BudgetTooSmall { .. } => LEAST,
            Self::MustKeep { needed, .. } => *needed,
        }
    }
}

/// What stands between what must be kept and the turns, and how many tokens are kept free for it: never more than half of
/// what is left for both.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Beside<'a> {
    pub tokens: u64,
    pub text: &'a str,
}

/// Content never reaches a log.
impl std::fmt::Debug for Beside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Beside({} tokens, {} bytes)", self.tokens, self.text.len())
    }
}

/// Renders a session into at most its budget: must-keep items first, then the turns most relevant to `next`.
///
/// Units: tokens of the receiver. With [`Tokenizer::O200k`] the first call blocks while its table is loaded.
///
/// # Errors
/// [`Error::BudgetTooSmall`]; [`Error::MustKeep`] when that alone is too much and none of it may be missing.
pub fn render(view: &View<'_>, ask: &Ask<'_>) -> Result<Rendering, Error> {
    Ok(render_beside(view, ask, Beside::default())?.0)
}

/// The same with something beside it, and how many tokens were kept free for that. As many give the same turns, whatever
/// the text is; one that takes more is left out.
///
/// # Errors
/// As [`render`].
pub fn render_beside(
    view: &View<'_>,
    ask: &Ask<'_>,
    beside: Beside<'_>,
) -> Result<(Rendering, u64), Error> {
    let Receiver { tokenizer, room, .. } = *ask.receiver;
    let budget = ask.budget.or(ask.level.budget()).unwrap_or(u64::MAX).min(room);
    if budget < LEAST {
        return Err(Error::BudgetTooSmall { budget });
    }
    let mark = if view.turns.is_empty() { 0 } else { tokenizer.count(GAP) };
    let head = Head::of(view, ask.missing, budget, mark, tokenizer)?;
    let query = query(view, ask.next);
    let left = budget.saturating_sub(tokenizer.count(&head.text) + mark);
    let free = beside.tokens.min(left / 2);
    let text = if tokenizer.count(beside.text) <= free { beside.text } else { "" };
    let beside = Beside { tokens: free, text };
    let (text, choice) = fit(&head.text, beside, view.turns, &query, budget, ask.receiver);
    let numbers = |places: &[usize]| places.iter().map(|place| *place as u64).collect();
    let rendering = Rendering {
        tokens: tokenizer.count(&text),
        text,
        kept: numbers(&choice.kept),
        partly: numbers(&choice.partly),
        dropped: numbers(&choice.dropped),
        must_keep_missing: head.missing,
        tokenizer: tokenizer.to_string(),
        score: choice.score.unwrap_or(choice.share),
        summary: String::new(),
    };
    Ok((rendering, free))
}

/// The head and the turns that fit beside it.
fn fit(
    head: &str,
    beside: Beside<'_>,
    turns: &Index,
    query: &str,
    budget: u64,
    receiver: &Receiver,
) -> (String, Choice) {
    let Receiver { tokenizer, ref unverified, .. } = *receiver;
    let is_alone = head.is_empty() && beside.tokens == 0;
    let title = if is_alone || turns.is_empty() { "" } else { TURNS };
    let taken = tokenizer.count(&format!("{head}{title}")) + beside.tokens;
    let head = format!("{head}{}", beside.text);
    let above = format!("{head}{title}");
    let mut room = budget.saturating_sub(taken);
    loop {
        let choice = choose_marked(turns, query, room, tokenizer, unverified.as_ref());
        let text = match choice.text.is_empty() {
            false => format!("{above}{}", choice.text),
            // A stretch that is all there is leaves its mark, too.
            true if choice.dropped.is_empty() => head.clone(),
            true => format!("{head}{GAP}"),
        };
        // Tokens across the seam may be more than those on both sides of it.
        let excess = tokenizer.count(&text).saturating_sub(budget);
        if excess == 0 || choice.text.is_empty() {
            return (text, choice);
        }
        room = room.saturating_sub(excess);
    }
}

/// What the turns are chosen for.
fn query(view: &View<'_>, next: Option<&str>) -> String {
    if let Some(next) = next.filter(|next| !next.trim().is_empty()) {
        return next.to_owned();
    }
    let steps = view.task.next_steps.iter().filter(|step| !step.is_done);
    let steps = steps.map(|step| step.text.as_str());
    let goal = std::iter::once(view.task.goal.as_str());
    steps.chain(goal).chain(view.turns.last_of_user()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
