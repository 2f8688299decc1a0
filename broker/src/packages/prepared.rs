//! Packages of sessions: rendered for their receiver, with the task, what is shared, and what is left.

use broker_proto::{
    CreditState, HandoffKept, ModelName, NewPackage, PackageContents, PackageFilter, PackageId,
    PackageInfo, PackedConversation, PreparePackage, Preservation, RenderAsk, Rendering,
    SessionDetail, SessionId, SessionPoint, TokenShare, Unverified, UsageSetting, UsageStatus,
};

use super::{Error, Loaded, Packages, made::checked};
use crate::{
    context::package::{HOPS_MAX, Refused},
    core::{
        Query, Reply,
        package::{MadeOf, Owed, Query as PackageQuery, Reply as PackageReply},
        usage,
    },
    engine,
};

/// Who makes packages that nobody but a rule asked for, for reports.
const MAKER: &str = "broker";

const PERCENT: f64 = 100.0;
/// Of an owner that is configured no more.
const USUAL_WINDOW: u64 = 200_000;

impl Packages {
    /// Makes a package of a session for one model, and keeps it. The session stays as it is. Says what became of the
    /// summary that was asked for.
    ///
    /// # Errors
    /// [`Error::Session`] when there is no such session, or the level does not hold what must be kept;
    /// [`Error::Refused`] when its work went through too many handoffs.
    pub async fn prepare(
        &self,
        caller: String,
        prepare: PreparePackage,
    ) -> Result<Prepared, Error> {
        self.pack(caller, prepare, None, None).await
    }

    /// Makes the package that a receiver goes on with, as a handoff asks for it: two of one session for one model are
    /// made alike, whether somebody waits for it or not.
    ///
    /// # Errors
    /// As [`Packages::prepare`].
    pub async fn for_receiver(&self, wanted: ForReceiver) -> Result<Prepared, Error> {
        let ForReceiver { session, to, level, room, reason, is_ahead, unverified } = wanted;
        let window = self.intake.models.get(to.as_str()).map(|model| model.context_window);
        let room = window.map(|window| window / 100 * u64::from(room));
        let ask = RenderAsk {
            level,
            // What a level names holds; all that fits must leave room to go on.
            budget: room.filter(|_| level == Preservation::Complete),
            reader: Some(to),
            allow_missing: is_ahead,
            ..RenderAsk::default()
        };
        let package = NewPackage { reason, ..NewPackage::default() };
        let prepare = PreparePackage { session, ask, package };
        self.pack(MAKER.to_owned(), prepare, Some(is_ahead), unverified).await
    }

    /// `ahead`: for a receiver, and whether nobody has asked for it yet.
    async fn pack(
        &self,
        caller: String,
        prepare: PreparePackage,
        ahead: Option<bool>,
        unverified: Option<Unverified>,
    ) -> Result<Prepared, Error> {
        let PreparePackage { session, mut ask, mut package } = prepare;
        let recipient = match &ask.reader {
            Some(reader) => self.intake.model(reader)?,
            None => return Err(Error::field("recipient", "is missing: say which model goes on")),
        };
        ask.reader = Some(recipient.clone());
        package.contents.context = checked(std::mem::take(&mut package.contents.context)).await?;
        let mut detail = self.sessions.detail(&session, &SessionPoint::Head).await?;
        // What it comes home with: nobody owns it there yet.
        if let Some(unverified) = unverified {
            let before = detail.info.unverified.take();
            detail.info.unverified = Some(unverified.and(before));
        }
        let (version, level) = (detail.info.version, ask.level);
        let mut rendering = self.sessions.render_this(detail.clone(), ask).await?;
        let unverified = self.sessions.unverified(&mut detail, &recipient).await?;
        let summary = std::mem::take(&mut rendering.summary);
        let status = self.usage(Some(session.to_string())).await?;
        let hops = self.hops(&session).await?;
        let sender = detail.info.owner.model.to_string();
        let contents = &mut package.contents;
        if contents.created_by.is_empty() {
            contents.created_by = caller;
        }
        let limits = self.limits(&detail).await?;
        let mut kept = kept(&rendering);
        (kept.entries, kept.tokens_before) = (detail.info.head.entries, detail.info.tokens);
        fill(contents, detail, rendering, &status, limits);
        contents.conversation.unverified = unverified;
        let (queued, left_out) = self.queued(&session).await?;
        contents.task_queue.extend(queued);
        contents.queue_left_out = left_out;
        package.session = Some(session);
        package.recipient = Some(recipient);
        let made_of = |is_ahead| Box::new(MadeOf { version, kept: kept.clone(), is_ahead });
        let of = ahead.map(made_of);
        // Apart from this future, which holds what it is made of.
        let info = Box::pin(self.make(sender, package, level, hops, of)).await?;
        Ok(Prepared { info, summary, kept, version })
    }

    /// A package that is there already, as one of this session for this model.
    ///
    /// # Errors
    /// [`Error`] when there is none, when it cannot be verified, or when it is another session's or another model's.
    pub async fn prepared(
        &self,
        id: PackageId,
        session: &SessionId,
        to: &ModelName,
    ) -> Result<Prepared, Error> {
        let Loaded { info, contents, .. } = self.load(Some(id), PackageFilter::default()).await?;
        let header = &info.header;
        if header.session.as_ref() != Some(session) || header.recipient.as_ref() != Some(to) {
            let problem = format!("is no package of session {session} for {to}");
            return Err(Error::field("package_id", &problem));
        }
        let talk = contents.conversation;
        let entries = talk.through.map_or(0, |last| last + 1);
        let kept = HandoffKept {
            entries,
            tokens_before: self.sessions.tokens_of(session, entries).await?,
            tokens: talk.tokens,
            kept: talk.kept.len() as u64,
            partly: talk.partly.len() as u64,
            dropped: talk.dropped.len() as u64,
            score: talk.score.unwrap_or_default(),
            must_keep_missing: talk.must_keep_missing,
            ..HandoffKept::default()
        };
        Ok(Prepared { info, summary: String::new(), kept, version: 0 })
    }

    /// The packages that these sessions are owed.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub(crate) async fn owed(&self, sessions: Vec<SessionId>) -> Result<Vec<Owed>, Error> {
        match self.ask(PackageQuery::Owed(sessions)).await? {
            PackageReply::Owed(owed) => Ok(owed),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    /// How often the work of this session was packed and taken before, and once more.
    async fn hops(&self, session: &SessionId) -> Result<u32, Error> {
        match self.ask(PackageQuery::Hops(session.clone())).await? {
            PackageReply::Hops(hops) if hops > HOPS_MAX => Err(Refused::Hops(hops).into()),
            PackageReply::Hops(hops) => Ok(hops),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    /// The window of the session's owner and the tokens at which it is warned and moved.
    async fn limits(&self, detail: &SessionDetail) -> Result<Limits, Error> {
        let reply = self.intake.engine.query(Query::OfUsage(usage::Query::Policy)).await?;
        let Reply::OfUsage(usage::Reply::Policy(settings)) = reply else {
            return Err(Error::Engine(engine::Error::Unknown));
        };
        let owner = self.intake.models.get(detail.info.owner.model.as_str());
        Ok(Limits::of(owner.map(|model| model.context_window), &settings))
    }

    pub(super) async fn usage(&self, session: Option<String>) -> Result<UsageStatus, Error> {
        let query = usage::Query::Status { session };
        match self.intake.engine.query(Query::OfUsage(query)).await? {
            Reply::OfUsage(usage::Reply::Status(status)) => Ok(*status),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }
}

/// The package that a model is to go on with.
#[derive(Debug, Clone)]
pub struct ForReceiver {
    pub session: SessionId,
    pub to: ModelName,
    pub level: Preservation,
    /// Percent of the receiver's window that a complete package may take.
    pub room: u8,
    pub reason: String,
    /// Nobody has asked for it yet: the next one replaces it.
    pub is_ahead: bool,
    /// What others wrote in the receiver's place, when the session comes home to it.
    pub unverified: Option<Unverified>,
}

/// A package of a session that was made for one model.
#[derive(Debug)]
pub struct Prepared {
    pub info: PackageInfo,
    /// What became of the summary that was asked for.
    pub summary: String,
    pub kept: HandoffKept,
    /// Of the session that it was made of; 0 where it was there already.
    pub version: u64,
}

fn kept(rendering: &Rendering) -> HandoffKept {
    HandoffKept {
        tokens: rendering.tokens,
        kept: rendering.kept.len() as u64,
        partly: rendering.partly.len() as u64,
        dropped: rendering.dropped.len() as u64,
        score: rendering.score,
        must_keep_missing: rendering.must_keep_missing.clone(),
        ..HandoffKept::default()
    }
}

/// What the session knows, where the caller said nothing else.
fn fill(
    contents: &mut PackageContents,
    detail: SessionDetail,
    rendering: Rendering,
    status: &UsageStatus,
    limits: Limits,
) {
    let model = status.models.iter().find(|usage| usage.model == detail.info.owner.model);
    if let Some(signals) = model.map(|usage| usage.signals) {
        contents.credit_state = CreditState {
            rate_limit_count: signals.rate_limit_count,
            error_rate: signals.error_rate,
            avg_response_time: signals.avg_response_seconds.unwrap_or_default(),
        };
    }
    contents.token_usage = share(&detail, limits, status);
    if contents.checkpoint.resume_point.is_empty() {
        let next = detail.task.next_steps.iter().find(|step| !step.is_done);
        contents.checkpoint.resume_point = next.map(|step| step.text.clone()).unwrap_or_default();
    }
    if let Some(progress) =
        detail.task.progress.filter(|_| contents.current_work.progress.is_empty())
    {
        contents.current_work.progress = format!("{:.0}%", progress * PERCENT);
    }
    let last = detail.info.head.entries.checked_sub(1);
    contents.task = detail.task;
    contents.shared = detail.shared;
    contents.conversation = PackedConversation {
        text: rendering.text,
        tokens: rendering.tokens,
        tokenizer: rendering.tokenizer,
        score: Some(rendering.score),
        kept: rendering.kept,
        partly: rendering.partly,
        dropped: rendering.dropped,
        must_keep_missing: rendering.must_keep_missing,
        through: last,
        unverified: Vec::new(),
    };
}

/// A window, and where a session is warned and moved in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    window: u64,
    warning: u64,
    switch: u64,
}

impl Limits {
    /// Shares of this window as the policy has them; of the usual window, for an owner that is configured no more.
    fn of(window: Option<u64>, settings: &[UsageSetting]) -> Self {
        let window = window.unwrap_or(USUAL_WINDOW).max(1);
        let share = |key: &str, usual: u64| {
            let set = settings.iter().find(|setting| setting.key == key);
            let percent = set.and_then(|setting| setting.value.parse().ok()).unwrap_or(usual);
            (u128::from(window) * u128::from(percent) / 100) as u64
        };
        Self { window, warning: share("session_warning", 75), switch: share("session_switch", 90) }
    }
}

/// What the session holds of its owner's window.
fn share(detail: &SessionDetail, limits: Limits, status: &UsageStatus) -> TokenShare {
    let counted = status.sessions.iter().find(|usage| usage.session == detail.info.id.as_str());
    let total_tokens = counted.map_or(0, |usage| usage.tokens).max(detail.info.tokens);
    TokenShare {
        total_tokens,
        warning_threshold: limits.warning,
        auto_switch_threshold: limits.switch,
        percentage_used: total_tokens as f64 / limits.window as f64 * PERCENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> UsageSetting {
        UsageSetting { key: key.into(), value: value.into(), file: None, is_overridden: true }
    }

    #[test]
    fn a_session_is_moved_at_a_share_of_its_owners_own_window() {
        let limits = |window, settings: &[UsageSetting]| {
            let Limits { warning, switch, .. } = Limits::of(window, settings);
            (warning, switch)
        };
        assert_eq!(limits(Some(128_000), &[]), (96_000, 115_200));
        assert_eq!(limits(None, &[]), (150_000, 180_000));
        let policy = [set("session_warning", "50"), set("session_switch", "80")];
        assert_eq!(limits(Some(200_000), &policy), (100_000, 160_000));
    }
}
