//! Sessions: conversations that the broker keeps.

use broker_proto::{
    AgentName, EntryHash, HandoffId, MessageId, ModelName, NewSessionEntry, OnConflict, PackageId,
    Part, PartRef, RenderAsk, Rendering, SessionDetail, SessionDiff, SessionEntry, SessionHistory,
    SessionId, SessionInfo, SessionOutcome, SessionPoint, SessionResumed, SessionTask,
    SessionVersion, SharedValue, TaskEdit, Unverified, WallTime,
    convert::{self, InvalidField, Stored as _},
    pb,
};

use crate::{Client, Error, Page, each, required};

/// Encoded bytes of entries that one frame carries; more go up apart.
const INLINE: usize = 512 * 1024;

/// Characters of a question that its history is chosen by.
const NEXT: usize = 100_000;

/// A session that is to begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewSession {
    /// The broker draws one when there is none.
    pub id: Option<SessionId>,
    /// Who owns it; without one it is the first configured model, and of a fork the owner of its origin.
    pub model: Option<ModelName>,
    pub title: String,
}

/// Which sessions a list shows, and from where on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionFilter {
    /// Only those of this owner.
    pub model: Option<ModelName>,
    /// Zero: the broker's default.
    pub page_size: u32,
    /// Where the page before ended.
    pub page_token: Option<String>,
}

/// A point that is to be the head again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreSession {
    pub to: SessionPoint,
    /// The version that the caller has seen; without one, the one it has when the call comes.
    pub expected_version: Option<u64>,
    pub on_conflict: OnConflict,
    /// Of the fork, where there is one.
    pub new_id: Option<SessionId>,
}

/// A conversation that is to be a session, or what one goes on with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImportSession {
    pub id: Option<SessionId>,
    pub entries: Vec<NewSessionEntry>,
    pub model: Option<ModelName>,
    pub title: String,
    pub on_conflict: OnConflict,
    /// Of the fork, where there is one.
    pub new_id: Option<SessionId>,
}

impl Client {
    /// Begins a session.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is one of this id, or no such model.
    pub async fn start_session(&self, new: NewSession) -> Result<SessionInfo, Error> {
        let request = self.unary_request(pb::StartSessionRequest {
            session_id: text(new.id),
            model: text(new.model),
            title: new.title,
        })?;
        info(self.reply(self.sessions_of().start_session(request).await)?.session)
    }

    /// A session, its task and its shared context, at a point of it.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such session or point.
    pub async fn session(&self, id: &SessionId, at: &SessionPoint) -> Result<SessionDetail, Error> {
        let (session_id, at) = (id.to_string(), at.to_string());
        let request = self.unary_request(pb::GetSessionRequest { session_id, at })?;
        Ok(self.reply(self.sessions_of().get_session(request).await)?.try_into()?)
    }

    /// A page of sessions, the one that changed last first.
    ///
    /// # Errors
    /// [`Error::Refused`] when the page token is not one.
    pub async fn sessions(&self, filter: SessionFilter) -> Result<Page<SessionInfo>, Error> {
        let request = self.unary_request(pb::ListSessionsRequest {
            page_size: filter.page_size,
            page_token: filter.page_token.unwrap_or_default(),
            model: text(filter.model),
        })?;
        let reply = self.reply(self.sessions_of().list_sessions(request).await)?;
        Ok(Page {
            items: each(reply.sessions)?,
            next_page_token: Some(reply.next_page_token).filter(|token| !token.is_empty()),
        })
    }

    /// Appends entries in one commit; gives the number of the first. With an `expected_head` a session that went on
    /// meanwhile is left as it is.
    ///
    /// # Errors
    /// [`Error::Refused`] with `SESSION_CONFLICT` when it did.
    pub async fn append_entries(
        &self,
        id: &SessionId,
        entries: Vec<NewSessionEntry>,
        expected_head: Option<EntryHash>,
    ) -> Result<(SessionInfo, u64), Error> {
        let mut wire: Vec<pb::NewSessionEntry> = entries.into_iter().map(Into::into).collect();
        self.offload_entries(&mut wire, false).await?;
        let request = self.unary_request(pb::AppendEntriesRequest {
            session_id: id.to_string(),
            entries: wire,
            expected_head: expected_head.map(|head| head.0.to_vec().into()).unwrap_or_default(),
            message_id: String::new(),
        })?;
        let reply = self.reply(self.sessions_of().append_entries(request).await)?;
        Ok((info(reply.session)?, reply.first))
    }

    /// Appends what a consultation led to, once however often it is said; gives the number of the first, and whether it
    /// was appended before.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such session.
    pub async fn append_answer(
        &self,
        id: &SessionId,
        entries: Vec<NewSessionEntry>,
        of: MessageId,
    ) -> Result<(SessionInfo, u64, bool), Error> {
        let mut wire: Vec<pb::NewSessionEntry> = entries.into_iter().map(Into::into).collect();
        self.offload_entries(&mut wire, false).await?;
        let request = self.unary_request(pb::AppendEntriesRequest {
            session_id: id.to_string(),
            entries: wire,
            expected_head: bytes::Bytes::new(),
            message_id: of.to_string(),
        })?;
        let reply = self.reply(self.sessions_of().append_entries(request).await)?;
        Ok((info(reply.session)?, reply.first, reply.duplicate))
    }

    /// Entries of a session at a point, from this number on, at most so many, with everything in its place.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such session or point.
    pub async fn session_entries(
        &self,
        id: &SessionId,
        at: &SessionPoint,
        from: u64,
        most: usize,
    ) -> Result<Vec<SessionEntry>, Error> {
        let (mut all, mut from) = (Vec::new(), from);
        loop {
            let left = most.saturating_sub(all.len());
            let request = self.unary_request(pb::ListEntriesRequest {
                session_id: id.to_string(),
                at: at.to_string(),
                from,
                page_size: u32::try_from(left.min(1000)).unwrap_or(1000),
            })?;
            let reply = self.reply(self.sessions_of().list_entries(request).await)?;
            let mut page: Vec<SessionEntry> = each(reply.entries)?;
            page.truncate(left);
            all.append(&mut page);
            match reply.next.filter(|_| all.len() < most) {
                Some(next) => from = next,
                None => break,
            }
        }
        let parts = all.iter_mut().flat_map(|entry| &mut entry.entry.parts).collect();
        self.fetch_into(parts, None).await?;
        Ok(all)
    }

    /// Stops a session between two steps: what runs for it is suspended, and a package of it is made.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not running.
    pub async fn pause_session(&self, id: &SessionId, reason: &str) -> Result<SessionInfo, Error> {
        let (session_id, reason) = (id.to_string(), reason.to_owned());
        let request = self.unary_request(pb::PauseSessionRequest { session_id, reason })?;
        let reply = self.reply(self.sessions_of().pause_session(request).await)?;
        Ok(required(reply.session, "session")?.try_into()?)
    }

    /// Says that what others wrote in a session while it was away has been checked. Gives the session, and what that was;
    /// `None` where nothing was unverified.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such session.
    pub async fn verify_session(
        &self,
        id: &SessionId,
    ) -> Result<(SessionInfo, Option<Unverified>), Error> {
        let request =
            self.unary_request(pb::VerifySessionRequest { session_id: id.to_string() })?;
        let reply = self.reply(self.sessions_of().verify_session(request).await)?;
        let was = reply.verified.map(Unverified::try_from).transpose()?;
        Ok((required(reply.session, "session")?.try_into()?, was))
    }

    /// Lets a session go on, named by itself or by the package that it was paused with. `force` does so although the
    /// package has expired or is gone.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not paused, and when its package is refused.
    pub async fn resume_session(
        &self,
        session: Option<&SessionId>,
        package: Option<PackageId>,
        force: bool,
    ) -> Result<SessionResumed, Error> {
        let request = pb::ResumeSessionRequest {
            session_id: session.map(ToString::to_string).unwrap_or_default(),
            package_id: package.map(|id| id.to_string()).unwrap_or_default(),
            force,
        };
        let request = self.unary_request(request)?;
        Ok(self.reply(self.sessions_of().resume_session(request).await)?.try_into()?)
    }

    /// Hands a session to another agent's process, where it goes on. Gives the handoff's id, the model, and when it began.
    ///
    /// # Errors
    /// [`Error::Refused`] when nobody knows the agent, it is not connected, or it has the session.
    pub async fn transfer_session(
        &self,
        id: &SessionId,
        agent: &AgentName,
        reason: &str,
    ) -> Result<(HandoffId, ModelName, WallTime), Error> {
        let request = pb::TransferSessionRequest {
            session_id: id.to_string(),
            agent: agent.to_string(),
            reason: reason.to_owned(),
        };
        let request = self.unary_request(request)?;
        let reply = self.reply(self.sessions_of().transfer_session(request).await)?;
        let at = required(convert::moment(reply.at, "at")?, "at")?;
        let model = convert::model_name(&reply.model, "model")?;
        Ok((convert::handoff_id(&reply.handoff_id)?, model, at))
    }

    /// A session at a point as one text for its reader.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such session, point or model, and with `TOKEN_BUDGET` when the budget does
    /// not hold what must be kept.
    pub async fn render_session(
        &self,
        id: &SessionId,
        at: &SessionPoint,
        ask: RenderAsk,
    ) -> Result<Rendering, Error> {
        use pb::render_session_response::Part;
        let request = pb::RenderSessionRequest {
            session_id: id.to_string(),
            at: at.to_string(),
            ..ask.into()
        };
        let request = self.request(request, None)?;
        let mut parts = self.reply(self.sessions_of().render_session(request).await)?;
        let (mut rendering, mut text) = (None, String::new());
        while let Some(part) = parts.message().await.map_err(|status| self.error(status))? {
            match part.part {
                Some(Part::Rendering(first)) => rendering = Some(Rendering::try_from(first)?),
                Some(Part::Text(more)) => text.push_str(&more),
                None => {}
            }
        }
        Ok(Rendering { text, ..required(rendering, "rendering")? })
    }

    /// The conversation at a point as the wire of `reader` takes it (the owner's without one), for a question that ends
    /// with `next`. What is large stays named by its hash.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such session, point or model.
    pub async fn session_history(
        &self,
        id: &SessionId,
        at: &SessionPoint,
        reader: Option<ModelName>,
        next: &str,
    ) -> Result<SessionHistory, Error> {
        use pb::read_history_response::Part;
        let request = pb::ReadHistoryRequest {
            session_id: id.to_string(),
            at: at.to_string(),
            model: text(reader),
            // What is longer fits no frame, and its beginning says what it is about.
            next: next.chars().take(NEXT).collect(),
        };
        let request = self.request(request, None)?;
        let mut frames = self.reply(self.sessions_of().read_history(request).await)?;
        let mut history = SessionHistory::default();
        while let Some(frame) = frames.message().await.map_err(|status| self.error(status))? {
            match frame.part {
                Some(Part::Rendering(rendering)) => history.rendering = Some(rendering.try_into()?),
                Some(Part::TakenOver(rendering)) => {
                    history.rendering = Some(rendering.try_into()?);
                    history.is_taken_over = true;
                }
                Some(Part::Entry(entry)) => history.entries.push(entry.try_into()?),
                Some(Part::More(more)) => {
                    let last = history.entries.last_mut();
                    let last = last.ok_or_else(|| InvalidField::new("more", "follows nothing"))?;
                    last.parts.extend(broker_proto::Entry::try_from(more)?.parts);
                }
                None => {}
            }
        }
        Ok(history)
    }

    /// What became of a session, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such session, or the page token is not one.
    pub async fn session_versions(
        &self,
        id: &SessionId,
        page_size: u32,
        page_token: Option<String>,
    ) -> Result<Page<SessionVersion>, Error> {
        let request = self.unary_request(pb::ListVersionsRequest {
            session_id: id.to_string(),
            page_size,
            page_token: page_token.unwrap_or_default(),
        })?;
        let reply = self.reply(self.sessions_of().list_versions(request).await)?;
        Ok(Page {
            items: each(reply.versions)?,
            next_page_token: Some(reply.next_page_token).filter(|token| !token.is_empty()),
        })
    }

    /// Changes what a session is about: all edits or none.
    ///
    /// # Errors
    /// [`Error::Refused`] for the first that cannot be made.
    pub async fn edit_session_task(
        &self,
        id: &SessionId,
        edits: Vec<TaskEdit>,
    ) -> Result<(SessionInfo, SessionTask), Error> {
        let request = self.unary_request(pb::EditTaskRequest {
            session_id: id.to_string(),
            edits: edits.into_iter().map(Into::into).collect(),
        })?;
        let reply = self.reply(self.sessions_of().edit_task(request).await)?;
        Ok((info(reply.session)?, reply.task.map(Into::into).unwrap_or_default()))
    }

    /// Begins a session at a point of another one, which stays as it is.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such point, or there is a session of the new id.
    pub async fn fork_session(
        &self,
        id: &SessionId,
        at: &SessionPoint,
        new: NewSession,
    ) -> Result<SessionInfo, Error> {
        let request = self.unary_request(pb::ForkSessionRequest {
            session_id: id.to_string(),
            at: at.to_string(),
            new_session_id: text(new.id),
            model: text(new.model),
            title: new.title,
        })?;
        info(self.reply(self.sessions_of().fork_session(request).await)?.session)
    }

    /// Makes an earlier point the head again.
    ///
    /// # Errors
    /// [`Error::Refused`] with `SESSION_CONFLICT` when it went on meanwhile and nobody chose what to do then.
    pub async fn restore_session(
        &self,
        id: &SessionId,
        restore: RestoreSession,
    ) -> Result<(SessionInfo, SessionOutcome), Error> {
        let request = self.unary_request(pb::RestoreSessionRequest {
            session_id: id.to_string(),
            to: restore.to.to_string(),
            expected_version: restore.expected_version.unwrap_or_default(),
            on_conflict: restore.on_conflict.to_wire(),
            new_session_id: text(restore.new_id),
        })?;
        let reply = self.reply(self.sessions_of().restore_session(request).await)?;
        Ok((info(reply.session)?, outcome(reply.outcome)?))
    }

    /// Takes a conversation in, all of it or nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with `SESSION_CONFLICT` when the session has what the conversation has not, and nobody chose
    /// what to do then.
    pub async fn import_session(
        &self,
        import: ImportSession,
    ) -> Result<(SessionInfo, SessionOutcome), Error> {
        let mut entries: Vec<pb::NewSessionEntry> =
            import.entries.into_iter().map(Into::into).collect();
        let uploaded = self.offload_entries(&mut entries, true).await?;
        let request = self.unary_request(pb::ImportSessionRequest {
            session_id: text(import.id),
            entries,
            uploaded,
            model: text(import.model),
            title: import.title,
            on_conflict: import.on_conflict.to_wire(),
            new_session_id: text(import.new_id),
        })?;
        let reply = self.reply(self.sessions_of().import_session(request).await)?;
        Ok((info(reply.session)?, outcome(reply.outcome)?))
    }

    /// Where two sessions, or two points, part.
    ///
    /// # Errors
    /// [`Error::Refused`] when one of them is not there.
    pub async fn diff_sessions(
        &self,
        one: (&SessionId, &SessionPoint),
        other: (&SessionId, &SessionPoint),
    ) -> Result<SessionDiff, Error> {
        let request = self.unary_request(pb::DiffSessionsRequest {
            session_id: one.0.to_string(),
            at: one.1.to_string(),
            other_session_id: other.0.to_string(),
            other_at: other.1.to_string(),
        })?;
        Ok(self.reply(self.sessions_of().diff_sessions(request).await)?.try_into()?)
    }

    /// Deletes a session; forks of it stay.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub async fn delete_session(&self, id: &SessionId) -> Result<(), Error> {
        let session_id = id.to_string();
        let request = self.unary_request(pb::DeleteSessionRequest { session_id })?;
        self.reply(self.sessions_of().delete_session(request).await)?;
        Ok(())
    }

    /// Sets one value of the shared context; its time is the broker's.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not JSON.
    pub async fn set_shared_value(
        &self,
        id: &SessionId,
        value: SharedValue,
    ) -> Result<SessionInfo, Error> {
        let (session_id, value) = (id.to_string(), Some(value.into()));
        let request = self.unary_request(pb::SetSharedValueRequest { session_id, value })?;
        info(self.reply(self.sessions_of().set_shared_value(request).await)?.session)
    }

    /// What a session shares: all of it, or the keys that match, in which `*` stands for anything.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such session.
    pub async fn shared_values(
        &self,
        id: &SessionId,
        matching: &str,
    ) -> Result<Vec<SharedValue>, Error> {
        let request = self.unary_request(pb::ListSharedValuesRequest {
            session_id: id.to_string(),
            r#match: matching.to_owned(),
        })?;
        each(self.reply(self.sessions_of().list_shared_values(request).await)?.values)
    }

    /// Takes one value of the shared context back.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none of this key.
    pub async fn delete_shared_value(
        &self,
        id: &SessionId,
        key: &str,
    ) -> Result<SessionInfo, Error> {
        let (session_id, key) = (id.to_string(), key.to_owned());
        let request = self.unary_request(pb::DeleteSharedValueRequest { session_id, key })?;
        info(self.reply(self.sessions_of().delete_shared_value(request).await)?.session)
    }

    /// Sends up what no frame holds. Where the call takes them so, entries that are too many for one go up as a whole
    /// and `entries` is empty then.
    async fn offload_entries(
        &self,
        entries: &mut Vec<pb::NewSessionEntry>,
        as_a_whole: bool,
    ) -> Result<Option<pb::PartRef>, Error> {
        let parts =
            entries.iter_mut().flat_map(|said| &mut said.entry).flat_map(|entry| &mut entry.parts);
        self.offload_wire_parts(parts.collect(), !as_a_whole).await?;
        let size: usize = entries.iter().map(prost::Message::encoded_len).sum();
        if !as_a_whole || size <= INLINE {
            return Ok(None);
        }
        let whole = pb::NewSessionEntries { entries: std::mem::take(entries) };
        let whole = Vec::<NewSessionEntry>::try_from(whole)?.encode();
        let (provider, kind) = ("broker".to_owned(), "entries".to_owned());
        let PartRef { hash, size_bytes } =
            self.upload(Part::Opaque { provider, kind, data: whole }).await?;
        Ok(Some(pb::PartRef { hash: hash.0.to_vec().into(), size_bytes }))
    }
}

fn text<T: ToString>(name: Option<T>) -> String {
    name.map(|name| name.to_string()).unwrap_or_default()
}

fn info(wire: Option<pb::SessionInfo>) -> Result<SessionInfo, Error> {
    Ok(required(wire, "session")?.try_into()?)
}

fn outcome(wire: i32) -> Result<SessionOutcome, Error> {
    let outcome = SessionOutcome::from_wire(wire);
    Ok(outcome.ok_or_else(|| InvalidField::new("outcome", "is missing"))?)
}
