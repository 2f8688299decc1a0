//! Packages of sessions: rendered for their receiver, with the task, what is shared, and what is left.

use broker_proto::{
    CreditState, PackageContents, PackageFilter, PackageInfo, PackedConversation, PreparePackage,
    Rendering, SessionDetail, SessionPoint, TokenShare, UsageStatus,
};

use super::{Error, Packages, made::check_context};
use crate::{
    context::package::{HOPS_MAX, Refused},
    core::{Query, Reply, usage},
    engine,
};

const PERCENT: f64 = 100.0;

impl Packages {
    /// Makes a package of a session for one model, and keeps it. The session stays as it is.
    ///
    /// # Errors
    /// [`Error::Session`] when there is no such session, or the level does not hold what must be kept;
    /// [`Error::Refused`] when its work went through too many handoffs.
    pub async fn prepare(
        &self,
        caller: String,
        prepare: PreparePackage,
    ) -> Result<PackageInfo, Error> {
        let PreparePackage { session, mut ask, mut package } = prepare;
        let recipient = match &ask.reader {
            Some(reader) => self.intake.model(reader)?,
            None => return Err(Error::field("recipient", "is missing: say which model goes on")),
        };
        ask.reader = Some(recipient.clone());
        check_context(&mut package.contents.context)?;
        let detail = self.sessions.detail(&session, &SessionPoint::Head).await?;
        // Of the same moment, also when the session goes on meanwhile.
        let at = SessionPoint::Version(detail.info.version);
        let level = ask.level;
        let rendering = self.sessions.render(&session, &at, ask).await?;
        let status = self.usage(Some(session.to_string())).await?;
        let hops = self.hops(&session).await?;
        let sender = detail.info.owner.model.to_string();
        let contents = &mut package.contents;
        if contents.created_by.is_empty() {
            contents.created_by = caller;
        }
        fill(contents, detail, rendering, &status);
        package.session = Some(session);
        package.recipient = Some(recipient);
        self.make(sender, package, level, hops).await
    }

    /// How often the work of this session was packed and taken before, and once more.
    async fn hops(&self, session: &broker_proto::SessionId) -> Result<u32, Error> {
        let filter = PackageFilter { session: Some(session.clone()), ..PackageFilter::default() };
        let (now, head) = (self.now(), self.intake.engine.head());
        let taken = self.intake.projection.packages(filter, None, super::PAGE_MAX, now, head);
        let taken = taken.await?.0.into_iter().map(|saved| saved.info);
        let taken = taken.filter(|info| info.is_imported).map(|info| info.header.hops + 1);
        match taken.max().unwrap_or(0) {
            hops if hops > HOPS_MAX => Err(Refused::Hops(hops).into()),
            hops => Ok(hops),
        }
    }

    pub(super) async fn usage(&self, session: Option<String>) -> Result<UsageStatus, Error> {
        let query = usage::Query::Status { session };
        match self.intake.engine.query(Query::OfUsage(query)).await? {
            Reply::OfUsage(usage::Reply::Status(status)) => Ok(*status),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }
}

/// What the session knows, where the caller said nothing else.
fn fill(
    contents: &mut PackageContents,
    detail: SessionDetail,
    rendering: Rendering,
    status: &UsageStatus,
) {
    let model = status.models.iter().find(|usage| usage.model == detail.info.owner.model);
    if let Some(signals) = model.map(|usage| usage.signals) {
        contents.credit_state = CreditState {
            rate_limit_count: signals.rate_limit_count,
            error_rate: signals.error_rate,
            avg_response_time: signals.avg_response_seconds.unwrap_or_default(),
        };
    }
    contents.token_usage = share(&detail, contents.token_usage, status);
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
    };
}

/// What the session holds of its owner's window; of the usual one where its calls are not counted here.
fn share(detail: &SessionDetail, usual: TokenShare, status: &UsageStatus) -> TokenShare {
    let counted = status.sessions.iter().find(|usage| usage.session == detail.info.id.as_str());
    let total_tokens = counted.map_or(0, |usage| usage.tokens).max(detail.info.tokens);
    let window = counted.and_then(|usage| usage.context_window);
    let warning = counted.and_then(|usage| usage.warning_threshold);
    let switch = counted.and_then(|usage| usage.switch_threshold);
    let window = window.unwrap_or(200_000).max(1);
    TokenShare {
        total_tokens,
        warning_threshold: warning.unwrap_or(usual.warning_threshold),
        auto_switch_threshold: switch.unwrap_or(usual.auto_switch_threshold),
        percentage_used: total_tokens as f64 / window as f64 * PERCENT,
    }
}
