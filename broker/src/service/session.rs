//! `SessionService`.

use futures::{StreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status};

use broker_proto::{
    AgentName, Entry, MessageId, ModelName, NewSessionEntry, OnConflict, Part, PartRef, RenderAsk,
    SessionDetail, SessionHistory, SessionId, SessionPoint, SharedValue, TaskEdit,
    convert::{
        InvalidField, Stored as _, entry_hash, handoff_line, optional_session_id, package_id,
        session_id, session_point, session_title,
    },
    pb,
};

use super::{Caller, status};
use crate::{
    core::session::{Expected, Session, task},
    handoffs::Transfers,
    packages::Packages,
    session::{Import, NewSession, Restore, Sessions, Written},
};

/// Rows of a page when the caller names no size, and at most.
const PAGE: u32 = 100;
const LONGEST_PAGE: u32 = 1000;
/// Bytes of a rendering in one frame.
const PIECE: usize = 256 * 1024;
/// Edits of one call.
const EDITS: usize = 1000;

/// Keeps conversations.
#[derive(Debug, Clone)]
pub struct SessionService {
    pub sessions: Sessions,
    pub packages: Packages,
    pub transfers: Transfers,
}

fn id(text: &str) -> Result<SessionId, InvalidField> {
    session_id(text, "session_id")
}

fn at(text: &str) -> Result<SessionPoint, InvalidField> {
    session_point(text, "at")
}

fn model(text: &str) -> Result<Option<ModelName>, InvalidField> {
    if text.is_empty() {
        return Ok(None);
    }
    let name = ModelName::parse(&text.to_lowercase());
    name.map(Some).map_err(|invalid| InvalidField::new("model", invalid.to_string()))
}

fn page_size(asked: u32) -> u32 {
    if asked == 0 { PAGE } else { asked.min(LONGEST_PAGE) }
}

fn info(session: Session) -> Option<pb::SessionInfo> {
    Some(session.info.into())
}

fn entries(wire: Vec<pb::NewSessionEntry>) -> Result<Vec<NewSessionEntry>, InvalidField> {
    wire.into_iter().map(NewSessionEntry::try_from).collect()
}

pub(super) fn on_conflict(wire: i32) -> Result<OnConflict, InvalidField> {
    OnConflict::from_wire(wire).ok_or_else(|| InvalidField::new("on_conflict", "is no choice"))
}

impl SessionService {
    /// What was uploaded because no frame holds it.
    async fn uploaded(&self, named: pb::PartRef) -> Result<Vec<NewSessionEntry>, Status> {
        let hash = named.hash.as_ref().try_into().ok().map(broker_proto::ContentHash);
        let hash = hash.ok_or_else(|| InvalidField::new("uploaded.hash", "is not 32 bytes"))?;
        let part = Part::Ref(PartRef { hash, size_bytes: named.size_bytes });
        let fetched = self.sessions.intake.check_refs([&part]).await.map_err(status::intake)?;
        match fetched.into_iter().next() {
            Some(Part::Opaque { provider, kind, data })
                if provider == "broker" && kind == "entries" =>
            {
                Ok(Vec::decode(data)?)
            }
            _ => Err(InvalidField::new("uploaded", "holds no entries").into()),
        }
    }
}

#[tonic::async_trait]
impl pb::session_service_server::SessionService for SessionService {
    type ReadHistoryStream = BoxStream<'static, Result<pb::ReadHistoryResponse, Status>>;
    type RenderSessionStream = BoxStream<'static, Result<pb::RenderSessionResponse, Status>>;

    async fn pause_session(
        &self,
        request: Request<pb::PauseSessionRequest>,
    ) -> Result<Response<pb::PauseSessionResponse>, Status> {
        let caller = Caller::of(&request).sender()?.to_string();
        let request = request.into_inner();
        let (id, reason) = (id(&request.session_id)?, handoff_line(request.reason, "reason")?);
        let info = self.packages.pause(&caller, &id, reason).await.map_err(status::packages)?;
        Ok(Response::new(pb::PauseSessionResponse { session: Some(info.into()) }))
    }

    async fn verify_session(
        &self,
        request: Request<pb::VerifySessionRequest>,
    ) -> Result<Response<pb::VerifySessionResponse>, Status> {
        let id = id(&request.into_inner().session_id)?;
        let (session, was) = self.sessions.verify(&id).await.map_err(status::session)?;
        Ok(Response::new(pb::VerifySessionResponse {
            session: Some(session.info.into()),
            verified: was.map(Into::into),
        }))
    }

    async fn resume_session(
        &self,
        request: Request<pb::ResumeSessionRequest>,
    ) -> Result<Response<pb::ResumeSessionResponse>, Status> {
        let request = request.into_inner();
        let session = optional_session_id(&request.session_id, "session_id")?;
        let package = Some(request.package_id).filter(|id| !id.is_empty());
        let package = package.map(|id| package_id(&id)).transpose()?;
        let resumed = self.packages.resume((session, package), request.force).await;
        Ok(Response::new(resumed.map_err(status::packages)?.into()))
    }

    async fn transfer_session(
        &self,
        request: Request<pb::TransferSessionRequest>,
    ) -> Result<Response<pb::TransferSessionResponse>, Status> {
        let caller = Caller::of(&request).sender()?.to_string();
        let request = request.into_inner();
        let (id, reason) = (id(&request.session_id)?, handoff_line(request.reason, "reason")?);
        let agent = AgentName::parse(&request.agent)
            .map_err(|invalid| InvalidField::new("agent", invalid.to_string()))?;
        let handoff = self.transfers.begin(&caller, id, agent, reason).await;
        let handoff = handoff.map_err(status::packages)?;
        Ok(Response::new(pb::TransferSessionResponse {
            handoff_id: handoff.id.to_string(),
            model: handoff.to.to_string(),
            agent: handoff.agent.map(|agent| agent.to_string()).unwrap_or_default(),
            at: Some(handoff.begun_at.into()),
        }))
    }

    async fn start_session(
        &self,
        request: Request<pb::StartSessionRequest>,
    ) -> Result<Response<pb::StartSessionResponse>, Status> {
        let request = request.into_inner();
        let new = NewSession {
            id: optional_session_id(&request.session_id, "session_id")?,
            model: model(&request.model)?,
            title: session_title(request.title)?,
        };
        let session = self.sessions.start(new).await.map_err(status::session)?;
        Ok(Response::new(pb::StartSessionResponse { session: info(session) }))
    }

    async fn get_session(
        &self,
        request: Request<pb::GetSessionRequest>,
    ) -> Result<Response<pb::GetSessionResponse>, Status> {
        let request = request.into_inner();
        let (id, at) = (id(&request.session_id)?, at(&request.at)?);
        let detail: SessionDetail =
            self.sessions.detail(&id, &at).await.map_err(status::session)?;
        Ok(Response::new(detail.into()))
    }

    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let request = request.into_inner();
        let behind = list_token(&request.page_token)?;
        let (owner, limit) = (model(&request.model)?, page_size(request.page_size));
        let (sessions, next) =
            self.sessions.list(owner, behind, limit).await.map_err(status::session)?;
        Ok(Response::new(pb::ListSessionsResponse {
            sessions: sessions.into_iter().map(Into::into).collect(),
            next_page_token: next.map(|(at, id)| format!("{at}/{id}")).unwrap_or_default(),
        }))
    }

    async fn append_entries(
        &self,
        request: Request<pb::AppendEntriesRequest>,
    ) -> Result<Response<pb::AppendEntriesResponse>, Status> {
        let request = request.into_inner();
        let id = id(&request.session_id)?;
        let head = entry_hash(&request.expected_head, "expected_head")?;
        let entries = entries(request.entries)?;
        let expected = Expected { head, version: None };
        let of = match request.message_id.as_str() {
            "" => None,
            text => Some(MessageId::parse(text).ok_or_else(|| {
                InvalidField::new("message_id", "is not a ULID (26 characters, upper case)")
            })?),
        };
        let written = self.sessions.append(&id, entries, expected, of).await;
        let Written { session, first, is_duplicate } = written.map_err(status::session)?;
        let (session, duplicate) = (info(session), is_duplicate);
        Ok(Response::new(pb::AppendEntriesResponse { session, first, duplicate }))
    }

    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<pb::ListEntriesResponse>, Status> {
        let request = request.into_inner();
        let (id, at) = (id(&request.session_id)?, at(&request.at)?);
        let head = self.sessions.head_at(&id, &at).await.map_err(status::session)?;
        let page = self.sessions.page(head, request.from, page_size(request.page_size)).await;
        let page = page.map_err(status::session)?;
        Ok(Response::new(pb::ListEntriesResponse {
            entries: page.entries.into_iter().map(Into::into).collect(),
            next: page.next,
        }))
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        let request = request.into_inner();
        let id = id(&request.session_id)?;
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| no_token())?),
        };
        let limit = page_size(request.page_size);
        let (versions, next) =
            self.sessions.versions(&id, before, limit).await.map_err(status::session)?;
        Ok(Response::new(pb::ListVersionsResponse {
            versions: versions.into_iter().map(Into::into).collect(),
            next_page_token: next.map(|next| next.to_string()).unwrap_or_default(),
        }))
    }

    async fn edit_task(
        &self,
        request: Request<pb::EditTaskRequest>,
    ) -> Result<Response<pb::EditTaskResponse>, Status> {
        let request = request.into_inner();
        let id = id(&request.session_id)?;
        if request.edits.is_empty() || request.edits.len() > EDITS {
            let problem = format!("are not between 1 and {EDITS}");
            return Err(InvalidField::new("edits", problem).into());
        }
        let edits = request.edits.into_iter().map(TaskEdit::try_from);
        let edits = edits.collect::<Result<Vec<_>, _>>()?;
        let (session, task) = self.sessions.edit(&id, &edits).await.map_err(status::session)?;
        Ok(Response::new(pb::EditTaskResponse { session: info(session), task: Some(task.into()) }))
    }

    async fn fork_session(
        &self,
        request: Request<pb::ForkSessionRequest>,
    ) -> Result<Response<pb::ForkSessionResponse>, Status> {
        let request = request.into_inner();
        let (id, at) = (id(&request.session_id)?, at(&request.at)?);
        let new = NewSession {
            id: optional_session_id(&request.new_session_id, "new_session_id")?,
            model: model(&request.model)?,
            title: session_title(request.title)?,
        };
        let session = self.sessions.fork(&id, &at, new).await.map_err(status::session)?;
        Ok(Response::new(pb::ForkSessionResponse { session: info(session) }))
    }

    async fn restore_session(
        &self,
        request: Request<pb::RestoreSessionRequest>,
    ) -> Result<Response<pb::RestoreSessionResponse>, Status> {
        let request = request.into_inner();
        let restore = Restore {
            id: id(&request.session_id)?,
            to: session_point(&request.to, "to")?,
            expected: (request.expected_version > 0).then_some(request.expected_version),
            on_conflict: on_conflict(request.on_conflict)?,
            new_id: optional_session_id(&request.new_session_id, "new_session_id")?,
        };
        let (session, outcome) = self.sessions.restore(restore).await.map_err(status::session)?;
        let outcome = outcome.to_wire();
        Ok(Response::new(pb::RestoreSessionResponse { session: info(session), outcome }))
    }

    async fn import_session(
        &self,
        request: Request<pb::ImportSessionRequest>,
    ) -> Result<Response<pb::ImportSessionResponse>, Status> {
        let request = request.into_inner();
        let import = Import {
            id: optional_session_id(&request.session_id, "session_id")?,
            entries: match request.uploaded {
                Some(named) => self.uploaded(named).await?,
                None => entries(request.entries)?,
            },
            model: model(&request.model)?,
            title: session_title(request.title)?,
            on_conflict: on_conflict(request.on_conflict)?,
            new_id: optional_session_id(&request.new_session_id, "new_session_id")?,
            ..Import::default()
        };
        let (session, outcome) = self.sessions.import(import).await.map_err(status::session)?;
        let outcome = outcome.to_wire();
        Ok(Response::new(pb::ImportSessionResponse { session: info(session), outcome }))
    }

    async fn diff_sessions(
        &self,
        request: Request<pb::DiffSessionsRequest>,
    ) -> Result<Response<pb::DiffSessionsResponse>, Status> {
        let request = request.into_inner();
        let one = (id(&request.session_id)?, at(&request.at)?);
        let other = session_id(&request.other_session_id, "other_session_id")?;
        let other = (other, session_point(&request.other_at, "other_at")?);
        let diff = self.sessions.diff((&one.0, &one.1), (&other.0, &other.1)).await;
        Ok(Response::new(diff.map_err(status::session)?.into()))
    }

    async fn render_session(
        &self,
        request: Request<pb::RenderSessionRequest>,
    ) -> Result<Response<Self::RenderSessionStream>, Status> {
        let request = request.into_inner();
        let (id, at) = (id(&request.session_id)?, at(&request.at)?);
        let ask = RenderAsk::try_from(request)?;
        let mut rendering = self.sessions.render(&id, &at, ask).await.map_err(status::session)?;
        let text = std::mem::take(&mut rendering.text);
        let first = pb::render_session_response::Part::Rendering(rendering.into());
        let pieces = pieces(&text).map(|piece| piece.to_owned());
        let pieces = pieces.map(pb::render_session_response::Part::Text);
        let parts: Vec<_> = std::iter::once(first).chain(pieces).collect();
        let parts =
            parts.into_iter().map(|part| Ok(pb::RenderSessionResponse { part: Some(part) }));
        Ok(Response::new(futures::stream::iter(parts).boxed()))
    }

    async fn read_history(
        &self,
        request: Request<pb::ReadHistoryRequest>,
    ) -> Result<Response<Self::ReadHistoryStream>, Status> {
        use pb::read_history_response::Part;
        let request = request.into_inner();
        let (id, at) = (id(&request.session_id)?, at(&request.at)?);
        let reader = model(&request.model)?;
        let history = self.sessions.history(&id, &at, reader, request.next).await;
        let SessionHistory { entries, rendering, is_taken_over } =
            history.map_err(status::session)?;
        let first = rendering.map(|rendering| match is_taken_over {
            true => Part::TakenOver(rendering.into()),
            false => Part::Rendering(rendering.into()),
        });
        let parts: Vec<Part> =
            first.into_iter().chain(entries.into_iter().flat_map(framed)).collect();
        let parts = parts.into_iter().map(|part| Ok(pb::ReadHistoryResponse { part: Some(part) }));
        Ok(Response::new(futures::stream::iter(parts).boxed()))
    }

    async fn delete_session(
        &self,
        request: Request<pb::DeleteSessionRequest>,
    ) -> Result<Response<pb::DeleteSessionResponse>, Status> {
        let id = id(&request.into_inner().session_id)?;
        self.sessions.delete(&id).await.map_err(status::session)?;
        Ok(Response::new(pb::DeleteSessionResponse {}))
    }

    async fn set_shared_value(
        &self,
        request: Request<pb::SetSharedValueRequest>,
    ) -> Result<Response<pb::SetSharedValueResponse>, Status> {
        let request = request.into_inner();
        let id = id(&request.session_id)?;
        let value: SharedValue =
            request.value.ok_or_else(|| InvalidField::new("value", "is missing"))?.try_into()?;
        let session = self.sessions.set_shared(&id, value).await.map_err(status::session)?;
        Ok(Response::new(pb::SetSharedValueResponse { session: info(session) }))
    }

    async fn list_shared_values(
        &self,
        request: Request<pb::ListSharedValuesRequest>,
    ) -> Result<Response<pb::ListSharedValuesResponse>, Status> {
        let request = request.into_inner();
        let id = id(&request.session_id)?;
        let detail = self.sessions.detail(&id, &SessionPoint::Head).await;
        let shared = detail.map_err(status::session)?.shared.into_iter();
        let values = shared.filter(|value| task::matches(&request.r#match, &value.key));
        let values = values.map(Into::into).collect();
        Ok(Response::new(pb::ListSharedValuesResponse { values }))
    }

    async fn delete_shared_value(
        &self,
        request: Request<pb::DeleteSharedValueRequest>,
    ) -> Result<Response<pb::DeleteSharedValueResponse>, Status> {
        let request = request.into_inner();
        let id = id(&request.session_id)?;
        let session = self.sessions.delete_shared(&id, &request.key).await;
        let session = info(session.map_err(status::session)?);
        Ok(Response::new(pb::DeleteSharedValueResponse { session }))
    }
}

/// A text in pieces that a frame holds, none of which ends within a character.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let most = PIECE.min(text.len());
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(most);
        let (piece, rest) = text.split_at(end);
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// An entry in frames of a few parts each.
fn framed(entry: Entry) -> Vec<pb::read_history_response::Part> {
    use pb::read_history_response::Part;
    let Entry { role, name, parts } = entry;
    let mut frames: Vec<(u64, Vec<broker_proto::Part>)> = Vec::new();
    for part in parts {
        let bytes = part.inline_bytes();
        match frames.last_mut() {
            Some((size, frame)) if *size + bytes <= PIECE as u64 => {
                *size += bytes;
                frame.push(part);
            }
            _ => frames.push((bytes, vec![part])),
        }
    }
    let entry = |parts| pb::Entry::from(Entry { role, name: name.clone(), parts });
    let frames = frames.into_iter().enumerate().map(|(place, (_, parts))| match place {
        0 => Part::Entry(entry(parts)),
        _ => Part::More(entry(parts)),
    });
    frames.collect()
}

fn no_token() -> Status {
    InvalidField::new("page_token", "is not one that a list gave").into()
}

/// When a session changed, and which it was.
fn list_token(token: &str) -> Result<Option<(u64, SessionId)>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let (at, id) = token.split_once('/').ok_or_else(no_token)?;
    let at = at.parse().map_err(|_| no_token())?;
    Ok(Some((at, SessionId::parse(id).map_err(|_| no_token())?)))
}
