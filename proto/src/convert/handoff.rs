//! `handoff.proto`: the handoffs themselves; packages are next door.

use super::{
    InvalidField,
    common::{agent, model, optional_agent, optional_model, text_of, time},
    optional_session_id, package_id, required, session_id,
};
use crate::{
    AcceptHandoff, Advice, AskHandoff, Echo, HandedOver, Handoff, HandoffCheck, HandoffFilter,
    HandoffId, HandoffKept, HandoffOffer, HandoffOutlook, HandoffPolicyChange, HandoffReport,
    HandoffState, HandoffStatus, Judged, ModelName, Pace, PackageId, Preservation, TriedReceiver,
    Trigger, TriggerKind, Urgency, Verdict, WallTime, pb,
};

/// Bytes of a reason: one line in a list.
const LINE: usize = 512;
/// Parts that an acceptance names.
const CONFIRMED: usize = 64;

/// The id of a handoff, or the field that holds none.
///
/// # Errors
/// [`InvalidField`] when it is no ULID.
pub fn handoff_id(text: &str) -> Result<HandoffId, InvalidField> {
    let problem = "is not the id of a handoff: 26 letters and digits";
    HandoffId::parse(text).ok_or_else(|| InvalidField::new("handoff_id", problem))
}

/// One line of text that people read, such as a reason.
///
/// # Errors
/// [`InvalidField`] when it is longer than 512 bytes, or has control characters.
pub fn handoff_line(text: String, field: &'static str) -> Result<String, InvalidField> {
    if text.len() > LINE || text.chars().any(char::is_control) {
        let problem = format!("is not a text of at most {LINE} bytes on one line");
        return Err(InvalidField::new(field, problem));
    }
    Ok(text)
}

fn optional_package(text: &str) -> Result<Option<PackageId>, InvalidField> {
    if text.is_empty() { Ok(None) } else { package_id(text).map(Some) }
}

pub(super) fn word<T>(
    text: &str,
    field: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, InvalidField> {
    read(text).ok_or_else(|| InvalidField::new(field, "is not one of its words"))
}

fn hash(bytes: &[u8], field: &'static str) -> Result<[u8; 32], InvalidField> {
    bytes.try_into().map_err(|_| InvalidField::new(field, "is not 32 bytes"))
}

fn optional_hash(bytes: &[u8], field: &'static str) -> Result<Option<[u8; 32]>, InvalidField> {
    if bytes.is_empty() { Ok(None) } else { hash(bytes, field).map(Some) }
}

impl TryFrom<pb::HandoffTrigger> for Trigger {
    type Error = InvalidField;

    fn try_from(wire: pb::HandoffTrigger) -> Result<Self, InvalidField> {
        if !(0.0..=1.0).contains(&wire.confidence) {
            return Err(InvalidField::new("trigger.confidence", "is not between 0 and 1"));
        }
        Ok(Self {
            kind: word(&wire.kind, "trigger.kind", TriggerKind::parse)?,
            reasoning: wire.reasoning,
            confidence: wire.confidence,
            urgency: word(&wire.urgency, "trigger.urgency", Urgency::parse)?,
        })
    }
}

impl From<Trigger> for pb::HandoffTrigger {
    fn from(trigger: Trigger) -> Self {
        Self {
            kind: trigger.kind.as_str().to_owned(),
            reasoning: trigger.reasoning,
            confidence: trigger.confidence,
            urgency: trigger.urgency.as_str().to_owned(),
        }
    }
}

impl TryFrom<pb::TriedReceiver> for TriedReceiver {
    type Error = InvalidField;

    fn try_from(wire: pb::TriedReceiver) -> Result<Self, InvalidField> {
        Ok(Self {
            model: model(&wire.model, "tried.model")?,
            agent: optional_agent(&wire.agent, "tried.agent")?,
            at: required(time(wire.at, "tried.at")?, "tried.at")?,
            state: word(&wire.state, "tried.state", HandoffState::parse)?,
            reason: wire.reason,
        })
    }
}

impl From<TriedReceiver> for pb::TriedReceiver {
    fn from(tried: TriedReceiver) -> Self {
        Self {
            model: tried.model.to_string(),
            agent: text_of(tried.agent),
            at: Some(tried.at.into()),
            state: tried.state.as_str().to_owned(),
            reason: tried.reason,
        }
    }
}

impl From<pb::HandoffKept> for HandoffKept {
    fn from(wire: pb::HandoffKept) -> Self {
        Self {
            entries: wire.entries,
            tokens_before: wire.tokens_before,
            tokens: wire.tokens,
            kept: wire.kept,
            partly: wire.partly,
            dropped: wire.dropped,
            score: wire.score,
            must_keep_missing: wire.must_keep_missing,
            moved: wire.moved,
            revoked: wire.revoked,
        }
    }
}

impl From<HandoffKept> for pb::HandoffKept {
    fn from(kept: HandoffKept) -> Self {
        Self {
            entries: kept.entries,
            tokens_before: kept.tokens_before,
            tokens: kept.tokens,
            kept: kept.kept,
            partly: kept.partly,
            dropped: kept.dropped,
            score: kept.score,
            must_keep_missing: kept.must_keep_missing,
            moved: kept.moved,
            revoked: kept.revoked,
        }
    }
}

impl TryFrom<pb::Handoff> for Handoff {
    type Error = InvalidField;

    fn try_from(wire: pb::Handoff) -> Result<Self, InvalidField> {
        let then = wire.then.iter().map(|name| model(name, "then"));
        let returns =
            Some(wire.returns.as_str()).filter(|id| !id.is_empty()).map(handoff_id).transpose()?;
        let level = Preservation::from_wire(wire.level);
        Ok(Self {
            id: handoff_id(&wire.handoff_id)?,
            session: session_id(&wire.session, "session")?,
            state: word(&wire.state, "state", HandoffState::parse)?,
            trigger: required(wire.trigger, "trigger")?.try_into()?,
            pace: word(&wire.pace, "pace", Pace::parse)?,
            from: required(wire.from, "from")?.try_into()?,
            to: model(&wire.to, "to")?,
            agent: optional_agent(&wire.agent, "agent")?,
            then: then.collect::<Result<_, _>>()?,
            tried: super::each(wire.tried)?,
            origin: model(&wire.origin, "origin")?,
            returns,
            level: required(level, "level")?,
            package: optional_package(&wire.package_id)?,
            manifest: optional_hash(&wire.manifest, "manifest")?,
            hops: wire.hops,
            kept: required(wire.kept, "kept")?.into(),
            confirmed: wire.confirmed,
            begun_at: required(time(wire.begun_at, "begun_at")?, "begun_at")?,
            offered_at: time(wire.offered_at, "offered_at")?,
            until: time(wire.until, "until")?,
            accepted_at: time(wire.accepted_at, "accepted_at")?,
            active_at: time(wire.active_at, "active_at")?,
            ended_at: time(wire.ended_at, "ended_at")?,
            outcome: wire.outcome,
            is_lent: wire.lent,
        })
    }
}

impl From<Handoff> for pb::Handoff {
    fn from(handoff: Handoff) -> Self {
        let wire = |at: Option<WallTime>| at.map(Into::into);
        Self {
            handoff_id: handoff.id.to_string(),
            session: handoff.session.to_string(),
            state: handoff.state.as_str().to_owned(),
            trigger: Some(handoff.trigger.into()),
            pace: handoff.pace.as_str().to_owned(),
            from: Some(handoff.from.into()),
            to: handoff.to.to_string(),
            agent: text_of(handoff.agent),
            then: handoff.then.iter().map(ToString::to_string).collect(),
            tried: handoff.tried.into_iter().map(Into::into).collect(),
            origin: handoff.origin.to_string(),
            returns: text_of(handoff.returns),
            level: handoff.level.to_wire(),
            package_id: text_of(handoff.package),
            manifest: handoff.manifest.map(|hash| hash.to_vec().into()).unwrap_or_default(),
            hops: handoff.hops,
            kept: Some(handoff.kept.into()),
            confirmed: handoff.confirmed,
            begun_at: Some(handoff.begun_at.into()),
            offered_at: wire(handoff.offered_at),
            until: wire(handoff.until),
            accepted_at: wire(handoff.accepted_at),
            active_at: wire(handoff.active_at),
            ended_at: wire(handoff.ended_at),
            outcome: handoff.outcome,
            lent: handoff.is_lent,
        }
    }
}

impl TryFrom<pb::SetHandoffPolicyRequest> for HandoffPolicyChange {
    type Error = InvalidField;

    fn try_from(wire: pb::SetHandoffPolicyRequest) -> Result<Self, InvalidField> {
        let names = |names: Vec<String>, field| {
            names.iter().map(|name| model(name, field)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            set: wire.set,
            unset: wire.unset,
            add_receivers: names(wire.add_receivers, "add_receivers")?,
            remove_receivers: names(wire.remove_receivers, "remove_receivers")?,
        })
    }
}

impl From<HandoffPolicyChange> for pb::SetHandoffPolicyRequest {
    fn from(change: HandoffPolicyChange) -> Self {
        let names = |names: Vec<ModelName>| names.iter().map(ToString::to_string).collect();
        Self {
            set: change.set,
            unset: change.unset,
            add_receivers: names(change.add_receivers),
            remove_receivers: names(change.remove_receivers),
        }
    }
}

impl TryFrom<pb::CheckHandoffResponse> for HandoffCheck {
    type Error = InvalidField;

    fn try_from(wire: pb::CheckHandoffResponse) -> Result<Self, InvalidField> {
        Ok(Self {
            should_handoff: wire.should_handoff,
            reason: wire.reason,
            level: wire.level,
            confidence: wire.confidence,
            urgency: word(&wire.urgency, "urgency", Urgency::parse)?,
            session: wire.session_id,
            model: model(&wire.model, "model")?,
            tokens: wire.tokens,
            context_window: wire.context_window,
            warning_threshold: wire.warning_threshold,
            switch_threshold: wire.switch_threshold,
            detail: wire.detail,
        })
    }
}

impl From<HandoffCheck> for pb::CheckHandoffResponse {
    fn from(check: HandoffCheck) -> Self {
        Self {
            should_handoff: check.should_handoff,
            reason: check.reason,
            level: check.level,
            confidence: check.confidence,
            urgency: check.urgency.as_str().to_owned(),
            session_id: check.session,
            model: check.model.to_string(),
            tokens: check.tokens,
            context_window: check.context_window,
            warning_threshold: check.warning_threshold,
            switch_threshold: check.switch_threshold,
            detail: check.detail,
        }
    }
}

impl TryFrom<pb::HandoffOutlook> for HandoffOutlook {
    type Error = InvalidField;

    fn try_from(wire: pb::HandoffOutlook) -> Result<Self, InvalidField> {
        Ok(Self {
            name: wire.name,
            model: model(&wire.model, "model")?,
            level: wire.level,
            percentage: wire.percentage,
            advice: word(&wire.recommendation, "recommendation", Advice::parse)?,
            reason: wire.reason,
            to: optional_model(&wire.to, "to")?,
            trigger: wire.trigger.map(TryInto::try_into).transpose()?,
            receives: wire.receives,
            limit_at: time(wire.limit_at, "limit_at")?,
        })
    }
}

impl From<HandoffOutlook> for pb::HandoffOutlook {
    fn from(outlook: HandoffOutlook) -> Self {
        Self {
            name: outlook.name,
            model: outlook.model.to_string(),
            level: outlook.level,
            percentage: outlook.percentage,
            recommendation: outlook.advice.as_str().to_owned(),
            reason: outlook.reason,
            to: text_of(outlook.to),
            trigger: outlook.trigger.map(Into::into),
            receives: outlook.receives,
            limit_at: outlook.limit_at.map(Into::into),
        }
    }
}

impl TryFrom<pb::GetHandoffStatusResponse> for HandoffStatus {
    type Error = InvalidField;

    fn try_from(wire: pb::GetHandoffStatusResponse) -> Result<Self, InvalidField> {
        let each = |all: Vec<pb::HandoffOutlook>| all.into_iter().map(TryInto::try_into).collect();
        let (models, sessions): (Result<_, InvalidField>, Result<_, InvalidField>) =
            (each(wire.models), each(wire.sessions));
        Ok(Self { models: models?, sessions: sessions? })
    }
}

impl From<HandoffStatus> for pb::GetHandoffStatusResponse {
    fn from(status: HandoffStatus) -> Self {
        let each = |all: Vec<HandoffOutlook>| all.into_iter().map(Into::into).collect();
        Self { models: each(status.models), sessions: each(status.sessions) }
    }
}

impl From<pb::HandoffEcho> for Echo {
    fn from(pb::HandoffEcho { item, sentence }: pb::HandoffEcho) -> Self {
        Self { item, sentence }
    }
}

impl From<Echo> for pb::HandoffEcho {
    fn from(Echo { item, sentence }: Echo) -> Self {
        Self { item, sentence }
    }
}

impl TryFrom<pb::HandoffJudged> for Judged {
    type Error = InvalidField;

    fn try_from(wire: pb::HandoffJudged) -> Result<Self, InvalidField> {
        let pb::HandoffJudged { item, verdict, sentence } = wire;
        let verdict = Verdict::parse(&verdict);
        let verdict = verdict.ok_or_else(|| InvalidField::new("verdict", "is none"))?;
        Ok(Self { item, verdict, sentence })
    }
}

impl From<Judged> for pb::HandoffJudged {
    fn from(Judged { item, verdict, sentence }: Judged) -> Self {
        Self { item, verdict: verdict.as_str().to_owned(), sentence }
    }
}

impl TryFrom<pb::ReportHandoffResponse> for HandoffReport {
    type Error = InvalidField;

    fn try_from(wire: pb::ReportHandoffResponse) -> Result<Self, InvalidField> {
        Ok(Self {
            handoff: required(wire.handoff, "handoff")?.try_into()?,
            markdown: wire.markdown,
            parts: wire.parts,
            items: wire.items,
            reply: wire.reply,
            contradicted: wire.contradicted.into_iter().map(Into::into).collect(),
            asked_again: wire.asked_again.into_iter().map(Into::into).collect(),
            problem: wire.problem,
            judged: wire.judged.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            basis: wire.basis,
        })
    }
}

impl From<HandoffReport> for pb::ReportHandoffResponse {
    fn from(report: HandoffReport) -> Self {
        Self {
            handoff: Some(report.handoff.into()),
            markdown: report.markdown,
            parts: report.parts,
            items: report.items,
            reply: report.reply,
            contradicted: report.contradicted.into_iter().map(Into::into).collect(),
            asked_again: report.asked_again.into_iter().map(Into::into).collect(),
            problem: report.problem,
            judged: report.judged.into_iter().map(Into::into).collect(),
            basis: report.basis,
        }
    }
}

impl TryFrom<pb::HandedOver> for HandedOver {
    type Error = InvalidField;

    fn try_from(wire: pb::HandedOver) -> Result<Self, InvalidField> {
        let pb::HandedOver { entries, tokens_before, tokens, .. } = wire;
        let (handoff, package) = (handoff_id(&wire.handoff_id)?, package_id(&wire.package_id)?);
        Ok(Self { handoff, package, entries, tokens_before, tokens })
    }
}

impl From<HandedOver> for pb::HandedOver {
    fn from(over: HandedOver) -> Self {
        let HandedOver { handoff, package, entries, tokens_before, tokens } = over;
        let (handoff_id, package_id) = (handoff.to_string(), package.to_string());
        Self { handoff_id, package_id, entries, tokens_before, tokens }
    }
}

impl TryFrom<pb::HandoffOffer> for HandoffOffer {
    type Error = InvalidField;

    fn try_from(wire: pb::HandoffOffer) -> Result<Self, InvalidField> {
        Ok(Self {
            handoff: handoff_id(&wire.handoff_id)?,
            session: session_id(&wire.session, "session")?,
            model: model(&wire.model, "model")?,
            package: package_id(&wire.package_id)?,
            manifest: hash(&wire.manifest, "manifest")?,
            until: required(time(wire.until, "until")?, "until")?,
        })
    }
}

impl From<HandoffOffer> for pb::HandoffOffer {
    fn from(offer: HandoffOffer) -> Self {
        Self {
            handoff_id: offer.handoff.to_string(),
            session: offer.session.to_string(),
            model: offer.model.to_string(),
            package_id: offer.package.to_string(),
            manifest: offer.manifest.to_vec().into(),
            until: Some(offer.until.into()),
        }
    }
}

impl TryFrom<pb::BeginHandoffRequest> for AskHandoff {
    type Error = InvalidField;

    fn try_from(wire: pb::BeginHandoffRequest) -> Result<Self, InvalidField> {
        let level = match wire.level {
            0 => None,
            level => Some(
                Preservation::from_wire(level)
                    .ok_or_else(|| InvalidField::new("level", "is not a level"))?,
            ),
        };
        Ok(Self {
            session: session_id(&wire.session_id, "session_id")?,
            to: optional_model(&wire.to, "to")?,
            agent: Some(wire.agent.as_str())
                .filter(|name| !name.is_empty())
                .map(|name| agent(name, "agent"))
                .transpose()?,
            reason: handoff_line(wire.reason, "reason")?,
            level,
            package: optional_package(&wire.package_id)?,
            is_forced: wire.force,
            at_once: wire.at_once,
        })
    }
}

impl From<AskHandoff> for pb::BeginHandoffRequest {
    fn from(ask: AskHandoff) -> Self {
        Self {
            session_id: ask.session.to_string(),
            to: text_of(ask.to),
            agent: text_of(ask.agent),
            reason: ask.reason,
            level: ask.level.map_or(0, Preservation::to_wire),
            package_id: text_of(ask.package),
            force: ask.is_forced,
            at_once: ask.at_once,
        }
    }
}

impl TryFrom<pb::AcceptHandoffRequest> for AcceptHandoff {
    type Error = InvalidField;

    fn try_from(wire: pb::AcceptHandoffRequest) -> Result<Self, InvalidField> {
        if wire.confirmed.len() > CONFIRMED {
            let problem = format!("names more than {CONFIRMED} parts");
            return Err(InvalidField::new("confirmed", problem));
        }
        let confirmed = wire.confirmed.into_iter().map(|name| handoff_line(name, "confirmed"));
        Ok(Self {
            id: handoff_id(&wire.handoff_id)?,
            manifest: hash(&wire.manifest, "manifest")?,
            confirmed: confirmed.collect::<Result<_, _>>()?,
        })
    }
}

impl From<AcceptHandoff> for pb::AcceptHandoffRequest {
    fn from(accept: AcceptHandoff) -> Self {
        Self {
            handoff_id: accept.id.to_string(),
            manifest: accept.manifest.to_vec().into(),
            confirmed: accept.confirmed,
        }
    }
}

impl TryFrom<&pb::ListHandoffsRequest> for HandoffFilter {
    type Error = InvalidField;

    fn try_from(wire: &pb::ListHandoffsRequest) -> Result<Self, InvalidField> {
        let state = Some(wire.state.as_str()).filter(|word| !word.is_empty());
        Ok(Self {
            session: optional_session_id(&wire.session_id, "session_id")?,
            model: optional_model(&wire.model, "model")?,
            state: state.map(|text| word(text, "state", HandoffState::parse)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AgentName, MessageId, ModelName, SessionId, SessionOwner, convert::Stored as _};

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    fn handoff() -> Handoff {
        let id = |number| HandoffId::from_parts(WallTime(1_000), number);
        Handoff {
            id: id(1),
            session: SessionId::parse("s").unwrap(),
            state: HandoffState::Offered,
            trigger: Trigger {
                kind: TriggerKind::UsageLimit,
                reasoning: "180000 of 200000".into(),
                confidence: 0.9,
                urgency: Urgency::High,
            },
            pace: Pace::AtOnce,
            from: SessionOwner { model: model("opus"), agent: None, epoch: 3 },
            to: model("sonnet"),
            agent: AgentName::parse("sonnet-1").ok(),
            then: vec![model("local")],
            tried: vec![TriedReceiver {
                model: model("gpt-4o"),
                agent: None,
                at: WallTime(2_000),
                state: HandoffState::Declined,
                reason: "busy".into(),
            }],
            origin: model("opus"),
            returns: Some(id(2)),
            level: Preservation::Full,
            package: Some(PackageId::from_u128(MessageId::from_u128(9).as_u128())),
            manifest: Some([7; 32]),
            hops: 2,
            kept: HandoffKept {
                tokens: 9,
                kept: 1,
                score: 0.5,
                moved: 3,
                ..HandoffKept::default()
            },
            confirmed: vec!["task".into()],
            begun_at: WallTime(1_000),
            offered_at: Some(WallTime(1_500)),
            until: Some(WallTime(9_000)),
            accepted_at: None,
            active_at: None,
            ended_at: None,
            outcome: String::new(),
            is_lent: true,
        }
    }

    #[test]
    fn a_handoff_is_stored_and_read_back_whole() {
        assert_eq!(Handoff::decode(handoff().encode()), Ok(handoff()));
    }

    #[test]
    fn a_field_that_says_nothing_is_named() {
        let wire = pb::Handoff::from(handoff());
        let bad = |change: fn(&mut pb::Handoff)| {
            let mut wire = wire.clone();
            change(&mut wire);
            Handoff::try_from(wire).unwrap_err().field
        };
        assert_eq!(bad(|wire| wire.handoff_id = "x".into()), "handoff_id");
        assert_eq!(bad(|wire| wire.state = "DONE".into()), "state");
        assert_eq!(bad(|wire| wire.manifest = vec![1].into()), "manifest");
        assert_eq!(bad(|wire| wire.level = 0), "level");
        assert_eq!(
            bad(|wire| wire.trigger.as_mut().unwrap().confidence = f64::NAN),
            "trigger.confidence"
        );
    }
}
