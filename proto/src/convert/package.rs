//! `handoff.proto`.

use std::collections::BTreeSet;

use super::{
    InvalidField,
    common::{optional_model, span, time},
    each, required,
};
use crate::{
    Checkpoint, CheckpointStatus, CreditState, CurrentWork, NewPackage, PackageContents,
    PackageFilter, PackageHeader, PackageId, PackageInfo, PackageKey, PackagePart, PreparePackage,
    Preservation, QueuedTask, RenderAsk, SessionId, SessionItem, SessionTask, TokenShare,
    TrustedKey, key_name, pb,
};

/// Bytes of a reason, a project, a phase: one line in a list.
const LINE: usize = 256;
/// Lines of a list.
const LINES: usize = 1_000;
/// Of a package whose maker gives none.
const REASON: &str = "manual_save";
/// Of one that was prepared from a session.
const PREPARED: &str = "user_request";
/// Where nobody says which model's window counts: the shares are those of `thresholds`.
const WINDOW: TokenShare = TokenShare {
    total_tokens: 0,
    warning_threshold: 150_000,
    auto_switch_threshold: 180_000,
    percentage_used: 0.0,
};

impl Preservation {
    /// The level on the wire.
    #[must_use]
    pub fn to_wire(self) -> i32 {
        let wire = match self {
            Self::Minimal => pb::Preservation::Minimal,
            Self::Standard => pb::Preservation::Standard,
            Self::Full => pb::Preservation::Full,
            Self::Complete => pb::Preservation::Complete,
        };
        wire as i32
    }

    /// The wire's number read back; unspecified and unknown numbers are `None`.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.to_wire() == number)
    }
}

/// The id of a package, or the field that holds none.
///
/// # Errors
/// [`InvalidField`] when it is no ULID.
pub fn package_id(text: &str) -> Result<PackageId, InvalidField> {
    PackageId::parse(text).ok_or_else(|| {
        InvalidField::new("package_id", "is not the id of a package: 26 letters and digits")
    })
}

fn session(text: &str) -> Result<Option<SessionId>, InvalidField> {
    let parsed = || SessionId::parse(text).map(Some);
    if text.is_empty() { Ok(None) } else { parsed() }
        .map_err(|invalid| InvalidField::new("session", invalid.to_string()))
}

fn line(text: String, field: &'static str) -> Result<String, InvalidField> {
    if text.len() > LINE || text.chars().any(char::is_control) {
        let problem = format!("is not a text of at most {LINE} bytes on one line");
        return Err(InvalidField::new(field, problem));
    }
    Ok(text)
}

fn items(texts: Vec<String>, field: &'static str) -> Result<Vec<SessionItem>, InvalidField> {
    if texts.len() > LINES {
        return Err(InvalidField::new(field, format!("has more than {LINES} entries")));
    }
    if texts.iter().any(|text| text.trim().is_empty()) {
        return Err(InvalidField::new(field, "has an empty entry"));
    }
    let item = |(id, text)| SessionItem { id, text, is_done: false, entry: None };
    Ok((1..).zip(texts).map(item).collect())
}

impl TryFrom<pb::Checkpoint> for Checkpoint {
    type Error = InvalidField;

    fn try_from(wire: pb::Checkpoint) -> Result<Self, InvalidField> {
        let status = match pb::CheckpointStatus::try_from(wire.status) {
            Ok(pb::CheckpointStatus::Unspecified | pb::CheckpointStatus::Paused) => {
                CheckpointStatus::Paused
            }
            Ok(pb::CheckpointStatus::Completed) => CheckpointStatus::Completed,
            Ok(pb::CheckpointStatus::Error) => CheckpointStatus::Error,
            Err(_) => return Err(InvalidField::new("checkpoint.status", "is not a status")),
        };
        if wire.step > wire.total_steps {
            return Err(InvalidField::new("checkpoint.step", "is beyond `total_steps`"));
        }
        Ok(Self {
            phase: line(wire.phase, "checkpoint.phase")?,
            step: wire.step,
            total_steps: wire.total_steps,
            status,
            resume_point: wire.resume_point,
        })
    }
}

impl From<Checkpoint> for pb::Checkpoint {
    fn from(at: Checkpoint) -> Self {
        let status = match at.status {
            CheckpointStatus::Paused => pb::CheckpointStatus::Paused,
            CheckpointStatus::Completed => pb::CheckpointStatus::Completed,
            CheckpointStatus::Error => pb::CheckpointStatus::Error,
        };
        Self {
            phase: at.phase,
            step: at.step,
            total_steps: at.total_steps,
            status: status as i32,
            resume_point: at.resume_point,
        }
    }
}

impl TryFrom<pb::QueuedTask> for QueuedTask {
    type Error = InvalidField;

    fn try_from(wire: pb::QueuedTask) -> Result<Self, InvalidField> {
        let priority = match wire.priority.as_str() {
            "" => "normal".to_owned(),
            "low" | "normal" | "high" | "urgent" => wire.priority,
            _ => {
                let problem = "is not low, normal, high or urgent";
                return Err(InvalidField::new("task_queue.priority", problem));
            }
        };
        let id = line(wire.id, "task_queue.id")?;
        if id.is_empty() {
            return Err(InvalidField::missing("task_queue.id"));
        }
        Ok(Self { id, priority, description: wire.description })
    }
}

impl From<QueuedTask> for pb::QueuedTask {
    fn from(task: QueuedTask) -> Self {
        Self { id: task.id, priority: task.priority, description: task.description }
    }
}

impl From<pb::CurrentWork> for CurrentWork {
    fn from(wire: pb::CurrentWork) -> Self {
        Self {
            task_id: wire.task_id,
            progress: wire.progress,
            completed_subtasks: wire.completed_subtasks,
            next_subtask: wire.next_subtask,
        }
    }
}

impl From<CurrentWork> for pb::CurrentWork {
    fn from(work: CurrentWork) -> Self {
        Self {
            task_id: work.task_id,
            progress: work.progress,
            completed_subtasks: work.completed_subtasks,
            next_subtask: work.next_subtask,
        }
    }
}

fn figure(figure: f64, most: f64, field: &'static str) -> Result<f64, InvalidField> {
    if figure.is_finite() && (0.0..=most).contains(&figure) {
        Ok(figure)
    } else {
        Err(InvalidField::new(field, format!("is not a number from 0 to {most}")))
    }
}

impl TryFrom<pb::TokenShare> for TokenShare {
    type Error = InvalidField;

    fn try_from(wire: pb::TokenShare) -> Result<Self, InvalidField> {
        Ok(Self {
            total_tokens: wire.total_tokens,
            warning_threshold: wire.warning_threshold,
            auto_switch_threshold: wire.auto_switch_threshold,
            percentage_used: figure(
                wire.percentage_used,
                100_000.0,
                "token_usage.percentage_used",
            )?,
        })
    }
}

impl From<TokenShare> for pb::TokenShare {
    fn from(share: TokenShare) -> Self {
        Self {
            total_tokens: share.total_tokens,
            warning_threshold: share.warning_threshold,
            auto_switch_threshold: share.auto_switch_threshold,
            percentage_used: share.percentage_used,
        }
    }
}

impl TryFrom<pb::CreditState> for CreditState {
    type Error = InvalidField;

    fn try_from(wire: pb::CreditState) -> Result<Self, InvalidField> {
        let seconds = "credit_state.avg_response_time";
        Ok(Self {
            rate_limit_count: wire.rate_limit_count,
            error_rate: figure(wire.error_rate, 1.0, "credit_state.error_rate")?,
            avg_response_time: figure(wire.avg_response_time, 1e9, seconds)?,
        })
    }
}

impl From<CreditState> for pb::CreditState {
    fn from(state: CreditState) -> Self {
        Self {
            rate_limit_count: state.rate_limit_count,
            error_rate: state.error_rate,
            avg_response_time: state.avg_response_time,
        }
    }
}

impl TryFrom<pb::PreparePackageRequest> for PreparePackage {
    type Error = InvalidField;

    fn try_from(wire: pb::PreparePackageRequest) -> Result<Self, InvalidField> {
        let level = match wire.level {
            0 => Preservation::Complete,
            number => Preservation::from_wire(number)
                .ok_or_else(|| InvalidField::new("level", "is no level"))?,
        };
        let mut package = wire.package.unwrap_or_default();
        if package.reason.is_empty() {
            PREPARED.clone_into(&mut package.reason);
        }
        Ok(Self {
            session: super::session_id(&wire.session_id, "session_id")?,
            ask: RenderAsk {
                level,
                budget: wire.budget,
                reader: optional_model(&wire.recipient.to_lowercase(), "recipient")?,
                next: wire.next,
                allow_missing: wire.allow_missing,
                summary: wire.summary,
            },
            package: new_package(package)?,
        })
    }
}

impl From<PreparePackage> for pb::PreparePackageRequest {
    fn from(prepare: PreparePackage) -> Self {
        let ask = prepare.ask;
        Self {
            session_id: prepare.session.to_string(),
            recipient: ask.reader.map(|name| name.to_string()).unwrap_or_default(),
            level: ask.level.to_wire(),
            budget: ask.budget,
            next: ask.next,
            allow_missing: ask.allow_missing,
            summary: ask.summary,
            package: Some(prepare.package.into()),
        }
    }
}

impl TryFrom<pb::SavePackageRequest> for NewPackage {
    type Error = InvalidField;

    fn try_from(wire: pb::SavePackageRequest) -> Result<Self, InvalidField> {
        if wire.task.trim().is_empty() {
            return Err(InvalidField::new("task", "is empty: say what is worked on"));
        }
        new_package(wire)
    }
}

fn new_package(wire: pb::SavePackageRequest) -> Result<NewPackage, InvalidField> {
    let ttl = span(wire.ttl, "ttl")?;
    if ttl.is_some_and(|ttl| ttl.as_millis() == 0) {
        return Err(InvalidField::new("ttl", "leaves no time"));
    }
    let reason = if wire.reason.is_empty() { REASON.to_owned() } else { wire.reason };
    let task_queue: Vec<QueuedTask> = each(wire.task_queue)?;
    let mut ids = BTreeSet::new();
    if task_queue.len() > LINES || !task_queue.iter().all(|task| ids.insert(&task.id)) {
        return Err(InvalidField::new("task_queue", "has an id twice, or too many tasks"));
    }
    let task = SessionTask {
        goal: wire.task,
        constraints: items(wire.constraints, "constraints")?,
        decisions: items(wire.decisions, "decisions")?,
        open_items: items(wire.open_items, "open_items")?,
        next_steps: items(wire.next_steps, "next_steps")?,
        files: items(wire.files, "files")?,
        ..SessionTask::default()
    };
    let contents = PackageContents {
        source_phase: line(wire.source_phase, "source_phase")?,
        target_phase: line(wire.target_phase, "target_phase")?,
        created_by: line(wire.created_by, "created_by")?,
        pipeline_version: line(wire.pipeline_version, "pipeline_version")?,
        checkpoint: wire.checkpoint.map(Checkpoint::try_from).transpose()?.unwrap_or_default(),
        task_queue,
        current_work: wire.current_work.map(Into::into).unwrap_or_default(),
        token_usage: wire.token_usage.map(TokenShare::try_from).transpose()?.unwrap_or(WINDOW),
        credit_state: wire.credit_state.map(CreditState::try_from).transpose()?.unwrap_or_default(),
        task,
        resumption_instructions: wire.resumption_instructions,
        context: wire.context_json,
        ..PackageContents::default()
    };
    Ok(NewPackage {
        session: session(&wire.session)?,
        project: line(wire.project, "project")?,
        recipient: optional_model(&wire.recipient.to_lowercase(), "recipient")?,
        reason: line(reason, "reason")?,
        ttl,
        contents,
    })
}

impl From<NewPackage> for pb::SavePackageRequest {
    fn from(new: NewPackage) -> Self {
        let contents = new.contents;
        let texts = |items: Vec<SessionItem>| items.into_iter().map(|item| item.text).collect();
        Self {
            task: contents.task.goal,
            files: texts(contents.task.files),
            next_steps: texts(contents.task.next_steps),
            reason: new.reason,
            project: new.project,
            session: new.session.map(|id| id.to_string()).unwrap_or_default(),
            recipient: new.recipient.map(|name| name.to_string()).unwrap_or_default(),
            ttl: new.ttl.map(asked_span),
            source_phase: contents.source_phase,
            target_phase: contents.target_phase,
            created_by: contents.created_by,
            pipeline_version: contents.pipeline_version,
            checkpoint: Some(contents.checkpoint.into()),
            task_queue: contents.task_queue.into_iter().map(Into::into).collect(),
            current_work: Some(contents.current_work.into()),
            token_usage: (contents.token_usage != TokenShare::default())
                .then(|| contents.token_usage.into()),
            credit_state: Some(contents.credit_state.into()),
            resumption_instructions: contents.resumption_instructions,
            context_json: contents.context,
            constraints: texts(contents.task.constraints),
            decisions: texts(contents.task.decisions),
            open_items: texts(contents.task.open_items),
            uploaded: Default::default(),
        }
    }
}

/// As it was asked for, however long: it is refused, and not silently made shorter.
fn asked_span(span: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

fn array<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], InvalidField> {
    bytes.try_into().map_err(|_| InvalidField::new(field, format!("is not {N} bytes")))
}

impl TryFrom<pb::PackagePart> for PackagePart {
    type Error = InvalidField;

    fn try_from(wire: pb::PackagePart) -> Result<Self, InvalidField> {
        Ok(Self {
            name: wire.name,
            sha256: array(&wire.sha256, "part.sha256")?,
            size_bytes: wire.size_bytes,
            tokens: wire.tokens,
        })
    }
}

impl From<PackagePart> for pb::PackagePart {
    fn from(part: PackagePart) -> Self {
        Self {
            name: part.name,
            sha256: part.sha256.to_vec().into(),
            size_bytes: part.size_bytes,
            tokens: part.tokens,
        }
    }
}

impl TryFrom<pb::PackageInfo> for PackageInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::PackageInfo) -> Result<Self, InvalidField> {
        let level = Preservation::from_wire(wire.level);
        let header = PackageHeader {
            id: package_id(&wire.package_id)?,
            session: session(&wire.session)?,
            project: wire.project,
            sender: wire.sender,
            recipient: optional_model(&wire.recipient, "recipient")?,
            level: required(level, "level")?,
            created_at: required(time(wire.created_at, "created_at")?, "created_at")?,
            expires_at: required(time(wire.expires_at, "expires_at")?, "expires_at")?,
            hops: wire.hops,
            nonce: array(&wire.nonce, "nonce")?,
            reason: wire.reason,
        };
        Ok(Self {
            header,
            task: wire.task,
            parts: each(wire.parts)?,
            tokenizer: wire.tokenizer,
            size_bytes: wire.size_bytes,
            checksum: array(&wire.checksum, "checksum")?,
            signer: PackageKey(array(&wire.signer, "signer")?),
            signed_by: super::common::none_if_empty(wire.signed_by),
            is_imported: wire.imported,
            is_expired: wire.expired,
            archived_at: time(wire.archived_at, "archived_at")?,
        })
    }
}

impl From<PackageInfo> for pb::PackageInfo {
    fn from(info: PackageInfo) -> Self {
        let header = info.header;
        Self {
            package_id: header.id.to_string(),
            session: header.session.map(|id| id.to_string()).unwrap_or_default(),
            project: header.project,
            sender: header.sender,
            recipient: header.recipient.map(|name| name.to_string()).unwrap_or_default(),
            level: header.level.to_wire(),
            created_at: Some(header.created_at.into()),
            expires_at: Some(header.expires_at.into()),
            hops: header.hops,
            reason: header.reason,
            task: info.task,
            parts: info.parts.into_iter().map(Into::into).collect(),
            tokenizer: info.tokenizer,
            size_bytes: info.size_bytes,
            checksum: info.checksum.to_vec().into(),
            signer: info.signer.0.to_vec().into(),
            signed_by: info.signed_by.unwrap_or_default(),
            imported: info.is_imported,
            expired: info.is_expired,
            archived_at: info.archived_at.map(Into::into),
            nonce: header.nonce.to_vec().into(),
        }
    }
}

impl TryFrom<pb::PackageFilter> for PackageFilter {
    type Error = InvalidField;

    fn try_from(wire: pb::PackageFilter) -> Result<Self, InvalidField> {
        Ok(Self {
            session: session(&wire.session)?,
            project: super::common::none_if_empty(wire.project),
            model: optional_model(&wire.model.to_lowercase(), "filter.model")?,
            is_expired: wire.expired,
            created_after: time(wire.created_after, "filter.created_after")?,
        })
    }
}

impl From<PackageFilter> for pb::PackageFilter {
    fn from(filter: PackageFilter) -> Self {
        Self {
            session: filter.session.map(|id| id.to_string()).unwrap_or_default(),
            project: filter.project.unwrap_or_default(),
            model: filter.model.map(|name| name.to_string()).unwrap_or_default(),
            expired: filter.is_expired,
            created_after: filter.created_after.map(Into::into),
        }
    }
}

impl TryFrom<pb::TrustKeyRequest> for TrustedKey {
    type Error = InvalidField;

    fn try_from(wire: pb::TrustKeyRequest) -> Result<Self, InvalidField> {
        key_name(&wire.name).map_err(|_| {
            InvalidField::new(
                "name",
                "is not a name for a key: 1 to 64 of a-z, 0-9, `_`, `-`; `self` is taken",
            )
        })?;
        let key = PackageKey(array(&wire.key, "key")?);
        Ok(Self { name: wire.name, key, trusted_at: None, is_own: false })
    }
}

impl TryFrom<pb::TrustedKey> for TrustedKey {
    type Error = InvalidField;

    fn try_from(wire: pb::TrustedKey) -> Result<Self, InvalidField> {
        Ok(Self {
            name: wire.name,
            key: PackageKey(array(&wire.key, "key")?),
            trusted_at: time(wire.trusted_at, "trusted_at")?,
            is_own: wire.own,
        })
    }
}

impl From<TrustedKey> for pb::TrustedKey {
    fn from(key: TrustedKey) -> Self {
        Self {
            name: key.name,
            key: key.key.0.to_vec().into(),
            trusted_at: key.trusted_at.map(Into::into),
            own: key.is_own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WallTime;

    fn request() -> pb::SavePackageRequest {
        pb::SavePackageRequest {
            task: "Port the parser".into(),
            files: vec!["src/parse.rs".into()],
            next_steps: vec!["Read the grammar".into()],
            ..Default::default()
        }
    }

    #[test]
    fn a_package_needs_no_more_than_a_task() {
        let new = NewPackage::try_from(request()).unwrap();
        assert_eq!((new.reason.as_str(), new.session, new.ttl), ("manual_save", None, None));
        assert_eq!(new.contents.token_usage.warning_threshold, 150_000);
        assert_eq!(new.contents.task.next_steps[0].text, "Read the grammar");
    }

    #[test]
    fn what_is_asked_for_is_what_arrives() {
        let new = NewPackage::try_from(request()).unwrap();
        assert_eq!(NewPackage::try_from(pb::SavePackageRequest::from(new.clone())).unwrap(), new);
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut pb::SavePackageRequest)) -> &'static str {
        let mut wire = request();
        change(&mut wire);
        NewPackage::try_from(wire).unwrap_err().field
    }

    #[test]
    fn each_bad_field_is_named() {
        let checkpoint = |step, status| {
            Some(pb::Checkpoint { step, total_steps: 3, status, ..Default::default() })
        };
        let credit =
            |error_rate| Some(pb::CreditState { error_rate, ..pb::CreditState::default() });
        let task = |id: &str, priority: &str| pb::QueuedTask {
            id: id.into(),
            priority: priority.into(),
            description: String::new(),
        };
        assert_eq!(refused(|wire| wire.task = " \n".into()), "task");
        assert_eq!(refused(|wire| wire.session = "../s".into()), "session");
        assert_eq!(refused(|wire| wire.recipient = "a/b".into()), "recipient");
        assert_eq!(refused(|wire| wire.reason = "a\nb".into()), "reason");
        assert_eq!(refused(|wire| wire.project = "p".repeat(300)), "project");
        assert_eq!(refused(|wire| wire.ttl = Some(Default::default())), "ttl");
        assert_eq!(refused(|wire| wire.files = vec![String::new()]), "files");
        assert_eq!(refused(|wire| wire.next_steps = vec!["x".into(); 1001]), "next_steps");
        assert_eq!(refused(|wire| wire.checkpoint = checkpoint(4, 0)), "checkpoint.step");
        assert_eq!(refused(|wire| wire.checkpoint = checkpoint(1, 9)), "checkpoint.status");
        for bad in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            assert_eq!(refused(|wire| wire.credit_state = credit(bad)), "credit_state.error_rate");
        }
        assert_eq!(refused(|wire| wire.task_queue = vec![task("", "")]), "task_queue.id");
        assert_eq!(refused(|wire| wire.task_queue = vec![task("a", "now")]), "task_queue.priority");
        assert_eq!(refused(|wire| wire.task_queue = vec![task("a", ""); 2]), "task_queue");
    }

    #[test]
    fn what_lists_show_comes_back_as_it_was() {
        let info = PackageInfo {
            header: PackageHeader {
                id: PackageId::from_parts(WallTime(7), 9),
                session: SessionId::parse("s1").ok(),
                project: "p".into(),
                sender: "opus".into(),
                recipient: crate::ModelName::parse("sonnet").ok(),
                level: Preservation::Full,
                created_at: WallTime(7),
                expires_at: WallTime(9),
                hops: 3,
                nonce: [1; 16],
                reason: "r".into(),
            },
            task: "t".into(),
            parts: vec![PackagePart {
                name: "files".into(),
                sha256: [2; 32],
                size_bytes: 5,
                tokens: 2,
            }],
            tokenizer: "o200k_base".into(),
            size_bytes: 900,
            checksum: [3; 32],
            signer: PackageKey([4; 32]),
            signed_by: Some("self".into()),
            is_imported: true,
            is_expired: true,
            archived_at: Some(WallTime(5)),
        };
        let wire = pb::PackageInfo::from(info.clone());
        assert_eq!(PackageInfo::try_from(wire.clone()).unwrap(), info);
        let bad = pb::PackageInfo { package_id: "../../etc".into(), ..wire.clone() };
        assert_eq!(PackageInfo::try_from(bad).unwrap_err().field, "package_id");
        let bad = pb::PackageInfo { checksum: vec![1].into(), ..wire };
        assert_eq!(PackageInfo::try_from(bad).unwrap_err().field, "checksum");
    }

    #[test]
    fn a_key_needs_a_name_and_32_bytes() {
        let request = |name: &str, key: &[u8]| {
            let wire = pb::TrustKeyRequest { name: name.into(), key: key.to_vec().into() };
            TrustedKey::try_from(wire).map_err(|invalid| invalid.field)
        };
        assert!(request("laptop", &[1; 32]).is_ok());
        assert_eq!(request("self", &[1; 32]).unwrap_err(), "name");
        assert_eq!(request("laptop", &[1; 31]).unwrap_err(), "key");
    }
}
