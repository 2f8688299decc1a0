//! `session.proto`.

use super::{
    InvalidField,
    common::{model, optional_agent, optional_model, text_of, time},
    each, required,
};
use crate::{
    EntryHash, EntryKind, HandedOver, NewSessionEntry, OnConflict, PendingSubagent, SessionDetail,
    SessionDiff, SessionEntry, SessionHead, SessionId, SessionInfo, SessionItem, SessionOutcome,
    SessionOwner, SessionPause, SessionPoint, SessionResumed, SessionTask, SessionVersion,
    SharedValue, TaskEdit, TaskList, Unverified, pb,
};

/// Bytes of a title, of a key and of a source.
const NAME: usize = 256;
/// Bytes of one item of a task, and of its goal.
const ITEM: usize = 16 * 1024;
/// Bytes of one shared value.
const VALUE: usize = 64 * 1024;
/// Tags of one shared value.
const TAGS: usize = 32;

/// A session's id.
///
/// # Errors
/// [`InvalidField`] when it is none.
pub fn session_id(text: &str, field: &'static str) -> Result<SessionId, InvalidField> {
    SessionId::parse(text).map_err(|_| {
        InvalidField::new(field, "is no session's id: 1 to 64 of a-z, 0-9, `_`, `-` are")
    })
}

/// A session's id, or none.
///
/// # Errors
/// As [`session_id`].
pub fn optional_session_id(
    text: &str,
    field: &'static str,
) -> Result<Option<SessionId>, InvalidField> {
    if text.is_empty() { Ok(None) } else { session_id(text, field).map(Some) }
}

/// A point of a session.
///
/// # Errors
/// [`InvalidField`] when it is none.
pub fn session_point(text: &str, field: &'static str) -> Result<SessionPoint, InvalidField> {
    SessionPoint::parse(text).map_err(|invalid| InvalidField::new(field, invalid.to_string()))
}

/// A title: one line.
///
/// # Errors
/// [`InvalidField`] when it is longer.
pub fn session_title(text: String) -> Result<String, InvalidField> {
    short(text, "title")
}

/// A hash, or none.
///
/// # Errors
/// [`InvalidField`] when it has not 32 bytes.
pub fn entry_hash(wire: &[u8], field: &'static str) -> Result<Option<EntryHash>, InvalidField> {
    if wire.is_empty() {
        return Ok(None);
    }
    let hash = wire.try_into().map_err(|_| InvalidField::new(field, "is not 32 bytes"))?;
    Ok(Some(EntryHash(hash)))
}

fn short(text: String, field: &'static str) -> Result<String, InvalidField> {
    if text.len() > NAME || text.chars().any(char::is_control) {
        let problem = format!("is not one line of at most {NAME} bytes");
        return Err(InvalidField::new(field, problem));
    }
    Ok(text)
}

fn bounded(text: String, field: &'static str) -> Result<String, InvalidField> {
    if text.trim().is_empty() {
        return Err(InvalidField::missing(field));
    }
    if text.len() > ITEM {
        return Err(InvalidField::new(field, format!("has more than {ITEM} bytes")));
    }
    Ok(text)
}

impl OnConflict {
    /// The wire's number read back; unspecified is to fail, an unknown number `None`.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        Some(match pb::OnConflict::try_from(number).ok()? {
            pb::OnConflict::Unspecified | pb::OnConflict::Fail => Self::Fail,
            pb::OnConflict::Keep => Self::Keep,
            pb::OnConflict::Replace => Self::Replace,
            pb::OnConflict::Fork => Self::Fork,
        })
    }

    /// The number on the wire.
    #[must_use]
    pub fn to_wire(self) -> i32 {
        let wire = match self {
            Self::Fail => pb::OnConflict::Fail,
            Self::Keep => pb::OnConflict::Keep,
            Self::Replace => pb::OnConflict::Replace,
            Self::Fork => pb::OnConflict::Fork,
        };
        wire as i32
    }
}

impl SessionOutcome {
    /// The wire's number read back; unspecified and unknown numbers are `None`.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        Some(match pb::SessionOutcome::try_from(number).ok()? {
            pb::SessionOutcome::Unspecified => return None,
            pb::SessionOutcome::Done => Self::Done,
            pb::SessionOutcome::Unchanged => Self::Unchanged,
            pb::SessionOutcome::Kept => Self::Kept,
            pb::SessionOutcome::Replaced => Self::Replaced,
            pb::SessionOutcome::Forked => Self::Forked,
        })
    }

    /// The number on the wire.
    #[must_use]
    pub fn to_wire(self) -> i32 {
        let wire = match self {
            Self::Done => pb::SessionOutcome::Done,
            Self::Unchanged => pb::SessionOutcome::Unchanged,
            Self::Kept => pb::SessionOutcome::Kept,
            Self::Replaced => pb::SessionOutcome::Replaced,
            Self::Forked => pb::SessionOutcome::Forked,
        };
        wire as i32
    }
}

impl TaskList {
    /// The wire's number read back; unspecified and unknown numbers are `None`.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|list| list.to_wire() == number)
    }

    /// The number on the wire.
    #[must_use]
    pub fn to_wire(self) -> i32 {
        use pb::SessionTaskList as Wire;
        let wire = match self {
            Self::SubGoals => Wire::SubGoals,
            Self::Constraints => Wire::Constraints,
            Self::Decisions => Wire::Decisions,
            Self::NextSteps => Wire::NextSteps,
            Self::OpenItems => Wire::OpenItems,
            Self::Files => Wire::Files,
            Self::CriticalFacts => Wire::CriticalFacts,
            Self::Preferences => Wire::Preferences,
        };
        wire as i32
    }
}

impl TryFrom<pb::NewSessionEntry> for NewSessionEntry {
    type Error = InvalidField;

    fn try_from(wire: pb::NewSessionEntry) -> Result<Self, InvalidField> {
        let kind = match pb::EntryKind::try_from(wire.kind) {
            Ok(pb::EntryKind::Unspecified | pb::EntryKind::Turn) => EntryKind::Turn,
            Ok(pb::EntryKind::Advice) => EntryKind::Advice,
            Err(_) => return Err(InvalidField::new("entries.kind", "is not a kind of entry")),
        };
        let entry: crate::Entry = required(wire.entry, "entries.entry")?.try_into()?;
        Ok(Self {
            kind,
            entry: crate::Entry { name: short(entry.name, "entries.name")?, ..entry },
            model: optional_model(&wire.model, "entries.model")?,
            created_at: time(wire.created_at, "entries.created_at")?,
        })
    }
}

impl From<NewSessionEntry> for pb::NewSessionEntry {
    fn from(said: NewSessionEntry) -> Self {
        let kind = match said.kind {
            EntryKind::Turn => pb::EntryKind::Turn,
            EntryKind::Advice => pb::EntryKind::Advice,
        };
        Self {
            kind: kind as i32,
            entry: Some(said.entry.into()),
            model: text_of(said.model),
            created_at: said.created_at.map(Into::into),
        }
    }
}

impl TryFrom<pb::NewSessionEntries> for Vec<NewSessionEntry> {
    type Error = InvalidField;

    fn try_from(wire: pb::NewSessionEntries) -> Result<Self, InvalidField> {
        each(wire.entries)
    }
}

impl From<Vec<NewSessionEntry>> for pb::NewSessionEntries {
    fn from(entries: Vec<NewSessionEntry>) -> Self {
        Self { entries: all(entries) }
    }
}

impl TryFrom<pb::SessionEntry> for SessionEntry {
    type Error = InvalidField;

    fn try_from(wire: pb::SessionEntry) -> Result<Self, InvalidField> {
        let said: NewSessionEntry = required(wire.said, "entry.said")?.try_into()?;
        Ok(Self {
            number: wire.number,
            kind: said.kind,
            entry: said.entry,
            model: said.model,
            created_at: said.created_at,
            tokens: wire.tokens,
            previous: required(entry_hash(&wire.previous, "entry.previous")?, "entry.previous")?,
            hash: required(entry_hash(&wire.hash, "entry.hash")?, "entry.hash")?,
        })
    }
}

impl From<SessionEntry> for pb::SessionEntry {
    fn from(entry: SessionEntry) -> Self {
        let SessionEntry { number, kind, entry, model, created_at, tokens, previous, hash } = entry;
        Self {
            number,
            said: Some(NewSessionEntry { kind, entry, model, created_at }.into()),
            tokens,
            hash: hash.0.to_vec().into(),
            previous: previous.0.to_vec().into(),
        }
    }
}

impl TryFrom<pb::SessionHead> for SessionHead {
    type Error = InvalidField;

    fn try_from(wire: pb::SessionHead) -> Result<Self, InvalidField> {
        let hash = required(entry_hash(&wire.hash, "head.hash")?, "head.hash")?;
        Ok(Self { entries: wire.entries, hash })
    }
}

impl From<SessionHead> for pb::SessionHead {
    fn from(head: SessionHead) -> Self {
        Self { entries: head.entries, hash: head.hash.0.to_vec().into() }
    }
}

impl TryFrom<pb::SessionOwner> for SessionOwner {
    type Error = InvalidField;

    fn try_from(wire: pb::SessionOwner) -> Result<Self, InvalidField> {
        Ok(Self {
            model: model(&wire.model, "owner.model")?,
            agent: optional_agent(&wire.agent, "owner.agent")?,
            epoch: wire.epoch,
        })
    }
}

impl From<SessionOwner> for pb::SessionOwner {
    fn from(owner: SessionOwner) -> Self {
        Self { model: owner.model.to_string(), agent: text_of(owner.agent), epoch: owner.epoch }
    }
}

impl TryFrom<pb::SessionPause> for SessionPause {
    type Error = InvalidField;

    fn try_from(wire: pb::SessionPause) -> Result<Self, InvalidField> {
        let at = required(time(wire.at, "session.pause.at")?, "session.pause.at")?;
        let package = super::package_id(&wire.package_id)?;
        let handoff = Some(wire.handoff_id).filter(|id| !id.is_empty());
        let handoff = handoff.map(|id| super::handoff_id(&id)).transpose()?;
        Ok(Self { at, reason: wire.reason, package, by: wire.by, handoff })
    }
}

impl From<SessionPause> for pb::SessionPause {
    fn from(pause: SessionPause) -> Self {
        let SessionPause { at, reason, package, by, handoff } = pause;
        let package_id = package.to_string();
        Self { at: Some(at.into()), reason, package_id, by, handoff_id: text_of(handoff) }
    }
}

impl TryFrom<pb::ResumeSessionResponse> for SessionResumed {
    type Error = InvalidField;

    fn try_from(wire: pb::ResumeSessionResponse) -> Result<Self, InvalidField> {
        let package = Some(wire.package_id).filter(|id| !id.is_empty());
        Ok(Self {
            session: required(wire.session, "session")?.try_into()?,
            package: package.map(|id| super::package_id(&id)).transpose()?,
            resume_point: wire.resume_point,
            instructions: wire.instructions,
        })
    }
}

impl From<SessionResumed> for pb::ResumeSessionResponse {
    fn from(resumed: SessionResumed) -> Self {
        Self {
            session: Some(resumed.session.into()),
            package_id: text_of(resumed.package),
            resume_point: resumed.resume_point,
            instructions: resumed.instructions,
        }
    }
}

impl TryFrom<pb::SessionInfo> for SessionInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::SessionInfo) -> Result<Self, InvalidField> {
        let from = optional_session_id(&wire.forked_from, "session.forked_from")?;
        let models = wire.models.iter().map(|name| model(name, "session.models"));
        let started_at = time(wire.started_at, "session.started_at")?;
        let changed_at = time(wire.changed_at, "session.changed_at")?;
        Ok(Self {
            id: session_id(&wire.session_id, "session.session_id")?,
            title: wire.title,
            owner: required(wire.owner, "session.owner")?.try_into()?,
            head: required(wire.head, "session.head")?.try_into()?,
            tokens: wire.tokens,
            size_bytes: wire.size_bytes,
            version: wire.version,
            started_at: required(started_at, "session.started_at")?,
            changed_at: required(changed_at, "session.changed_at")?,
            forked_from: from.map(|from| (from, wire.forked_entries)),
            models: models.collect::<Result<_, _>>()?,
            handed_over: wire.handed_over.map(HandedOver::try_from).transpose()?,
            pause: wire.pause.map(SessionPause::try_from).transpose()?,
            unverified: wire.unverified.map(Unverified::try_from).transpose()?,
        })
    }
}

impl From<SessionInfo> for pb::SessionInfo {
    fn from(info: SessionInfo) -> Self {
        let (forked_from, forked_entries) = info.forked_from.unzip();
        Self {
            session_id: info.id.to_string(),
            title: info.title,
            owner: Some(info.owner.into()),
            head: Some(info.head.into()),
            tokens: info.tokens,
            size_bytes: info.size_bytes,
            version: info.version,
            started_at: Some(info.started_at.into()),
            changed_at: Some(info.changed_at.into()),
            forked_from: text_of(forked_from),
            forked_entries: forked_entries.unwrap_or_default(),
            models: info.models.iter().map(ToString::to_string).collect(),
            handed_over: info.handed_over.map(Into::into),
            pause: info.pause.map(Into::into),
            unverified: info.unverified.map(Into::into),
        }
    }
}

impl TryFrom<pb::Unverified> for Unverified {
    type Error = InvalidField;

    fn try_from(wire: pb::Unverified) -> Result<Self, InvalidField> {
        let by = wire.by.iter().map(|name| model(name, "unverified.by"));
        Ok(Self {
            home: model(&wire.home, "unverified.home")?,
            from: wire.from,
            until: wire.until,
            by: by.collect::<Result<_, _>>()?,
        })
    }
}

impl From<Unverified> for pb::Unverified {
    fn from(of: Unverified) -> Self {
        let by = of.by.iter().map(ToString::to_string).collect();
        Self { home: of.home.to_string(), from: of.from, until: of.until, by }
    }
}

impl From<pb::SessionItem> for SessionItem {
    fn from(wire: pb::SessionItem) -> Self {
        Self { id: wire.id, text: wire.text, is_done: wire.done, entry: wire.entry }
    }
}

impl From<SessionItem> for pb::SessionItem {
    fn from(item: SessionItem) -> Self {
        Self { id: item.id, text: item.text, done: item.is_done, entry: item.entry }
    }
}

impl From<pb::PendingSubagent> for PendingSubagent {
    fn from(wire: pb::PendingSubagent) -> Self {
        let pb::PendingSubagent { id, kind, model, status, description } = wire;
        Self { id, kind, model, status, description }
    }
}

impl From<PendingSubagent> for pb::PendingSubagent {
    fn from(pending: PendingSubagent) -> Self {
        let PendingSubagent { id, kind, model, status, description } = pending;
        Self { id, kind, model, status, description }
    }
}

fn all<A, B: From<A>>(list: Vec<A>) -> Vec<B> {
    list.into_iter().map(Into::into).collect()
}

impl From<pb::SessionTask> for SessionTask {
    fn from(wire: pb::SessionTask) -> Self {
        Self {
            goal: wire.goal,
            sub_goals: all(wire.sub_goals),
            constraints: all(wire.constraints),
            decisions: all(wire.decisions),
            progress: wire.progress,
            next_steps: all(wire.next_steps),
            open_items: all(wire.open_items),
            files: all(wire.files),
            critical_facts: all(wire.critical_facts),
            preferences: all(wire.preferences),
            pending_subagents: all(wire.pending_subagents),
            last_id: wire.last_id,
        }
    }
}

impl From<SessionTask> for pb::SessionTask {
    fn from(task: SessionTask) -> Self {
        Self {
            goal: task.goal,
            sub_goals: all(task.sub_goals),
            constraints: all(task.constraints),
            decisions: all(task.decisions),
            progress: task.progress,
            next_steps: all(task.next_steps),
            open_items: all(task.open_items),
            files: all(task.files),
            critical_facts: all(task.critical_facts),
            preferences: all(task.preferences),
            pending_subagents: all(task.pending_subagents),
            last_id: task.last_id,
        }
    }
}

/// A value that a caller sets has no time yet.
impl TryFrom<pb::SharedValue> for SharedValue {
    type Error = InvalidField;

    fn try_from(wire: pb::SharedValue) -> Result<Self, InvalidField> {
        if wire.key.is_empty() {
            return Err(InvalidField::missing("value.key"));
        }
        if wire.value.len() > VALUE {
            return Err(InvalidField::new("value.value", format!("has more than {VALUE} bytes")));
        }
        if wire.tags.len() > TAGS || wire.tags.iter().any(|tag| tag.is_empty() || tag.len() > NAME)
        {
            let problem = format!("are not at most {TAGS} words of at most {NAME} bytes");
            return Err(InvalidField::new("value.tags", problem));
        }
        Ok(Self {
            key: short(wire.key, "value.key")?,
            value: wire.value,
            source: short(wire.source, "value.source")?,
            tags: wire.tags,
            set_at: time(wire.set_at, "value.set_at")?.unwrap_or_default(),
        })
    }
}

impl From<SharedValue> for pb::SharedValue {
    fn from(value: SharedValue) -> Self {
        let SharedValue { key, value, source, tags, set_at } = value;
        Self { key, value, source, tags, set_at: Some(set_at.into()) }
    }
}

/// What a session shares, as it is stored.
impl TryFrom<pb::SharedContext> for Vec<SharedValue> {
    type Error = InvalidField;

    fn try_from(wire: pb::SharedContext) -> Result<Self, InvalidField> {
        each(wire.values)
    }
}

impl From<Vec<SharedValue>> for pb::SharedContext {
    fn from(values: Vec<SharedValue>) -> Self {
        Self { values: all(values) }
    }
}

impl TryFrom<pb::SessionVersion> for SessionVersion {
    type Error = InvalidField;

    fn try_from(wire: pb::SessionVersion) -> Result<Self, InvalidField> {
        Ok(Self {
            version: wire.version,
            at: required(time(wire.at, "version.at")?, "version.at")?,
            change: wire.change,
            detail: wire.detail,
            head: required(wire.head, "version.head")?.try_into()?,
        })
    }
}

impl From<SessionVersion> for pb::SessionVersion {
    fn from(version: SessionVersion) -> Self {
        Self {
            version: version.version,
            at: Some(version.at.into()),
            change: version.change,
            detail: version.detail,
            head: Some(version.head.into()),
        }
    }
}

impl TryFrom<pb::GetSessionResponse> for SessionDetail {
    type Error = InvalidField;

    fn try_from(wire: pb::GetSessionResponse) -> Result<Self, InvalidField> {
        Ok(Self {
            info: required(wire.session, "session")?.try_into()?,
            task: wire.task.map(Into::into).unwrap_or_default(),
            shared: each(wire.shared)?,
        })
    }
}

impl From<SessionDetail> for pb::GetSessionResponse {
    fn from(detail: SessionDetail) -> Self {
        Self {
            session: Some(detail.info.into()),
            task: Some(detail.task.into()),
            shared: all(detail.shared),
        }
    }
}

impl TryFrom<pb::DiffSessionsResponse> for SessionDiff {
    type Error = InvalidField;

    fn try_from(wire: pb::DiffSessionsResponse) -> Result<Self, InvalidField> {
        Ok(Self {
            common_entries: wire.common_entries,
            head: required(wire.head, "head")?.try_into()?,
            other_head: required(wire.other_head, "other_head")?.try_into()?,
            keys: wire.keys,
        })
    }
}

impl From<SessionDiff> for pb::DiffSessionsResponse {
    fn from(diff: SessionDiff) -> Self {
        Self {
            common_entries: diff.common_entries,
            head: Some(diff.head.into()),
            other_head: Some(diff.other_head.into()),
            keys: diff.keys,
        }
    }
}

impl TryFrom<pb::SessionTaskEdit> for TaskEdit {
    type Error = InvalidField;

    fn try_from(wire: pb::SessionTaskEdit) -> Result<Self, InvalidField> {
        use pb::session_task_edit::Edit;
        let list = |number| required(TaskList::from_wire(number), "edits.list");
        Ok(match required(wire.edit, "edits.edit")? {
            // An empty goal takes it back.
            Edit::SetGoal(goal) if goal.is_empty() => Self::SetGoal(goal),
            Edit::SetGoal(goal) => Self::SetGoal(bounded(goal, "edits.set_goal")?),
            Edit::SetProgress(progress) if (0.0..=1.0).contains(&progress) => {
                Self::SetProgress(progress)
            }
            Edit::SetProgress(_) => {
                return Err(InvalidField::new("edits.set_progress", "is not between 0 and 1"));
            }
            Edit::Add(add) => {
                let (list, text) = (list(add.list)?, bounded(add.text, "edits.add.text")?);
                Self::Add { list, text, entry: add.entry }
            }
            Edit::Done(item) => Self::Done { list: list(item.list)?, id: item.id, is_done: true },
            Edit::Undone(item) => {
                Self::Done { list: list(item.list)?, id: item.id, is_done: false }
            }
            Edit::Remove(item) => Self::Remove { list: list(item.list)?, id: item.id },
            Edit::SetSubagent(pending) => {
                if pending.id.is_empty() {
                    return Err(InvalidField::missing("edits.set_subagent.id"));
                }
                let pending = PendingSubagent::from(pending);
                let long = [&pending.id, &pending.kind, &pending.model, &pending.status];
                if long.iter().any(|text| text.len() > NAME) || pending.description.len() > ITEM {
                    return Err(InvalidField::new("edits.set_subagent", "is too long"));
                }
                Self::SetSubagent(pending)
            }
            Edit::RemoveSubagent(id) => Self::RemoveSubagent(id),
        })
    }
}

impl From<TaskEdit> for pb::SessionTaskEdit {
    fn from(edit: TaskEdit) -> Self {
        use pb::session_task_edit::Edit;
        let item = |list: TaskList, id| pb::ItemOfList { list: list.to_wire(), id };
        let edit = match edit {
            TaskEdit::SetGoal(goal) => Edit::SetGoal(goal),
            TaskEdit::SetProgress(progress) => Edit::SetProgress(progress),
            TaskEdit::Add { list, text, entry } => {
                Edit::Add(pb::ItemToAdd { list: list.to_wire(), text, entry })
            }
            TaskEdit::Done { list, id, is_done: true } => Edit::Done(item(list, id)),
            TaskEdit::Done { list, id, is_done: false } => Edit::Undone(item(list, id)),
            TaskEdit::Remove { list, id } => Edit::Remove(item(list, id)),
            TaskEdit::SetSubagent(pending) => Edit::SetSubagent(pending.into()),
            TaskEdit::RemoveSubagent(id) => Edit::RemoveSubagent(id),
        };
        Self { edit: Some(edit) }
    }
}
