//! `ConsultService`.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use broker_proto::{
    AnswerFrame, AskOptions, Message, MessageName, MessageState, Part, Payload, Receipt, Routed,
    Terminal,
    convert::{InvalidField, Stored as _},
    pb,
};

use super::{Caller, find, reason, status};
use crate::{
    core::{Command, Finished},
    intake::Intake,
    projection::Row,
    reply::{Asker, Seen, Slot, Slots},
};

/// The longest a poll waits.
const LONGEST_POLL: Duration = Duration::from_secs(25);

/// Asks models.
#[derive(Debug)]
pub struct ConsultService {
    pub intake: Intake,
    pub slots: Slots,
    /// Fires when the broker stops; askers come back to the next one.
    pub stop: CancellationToken,
}

type Frames<T> = BoxStream<'static, Result<T, Status>>;

impl ConsultService {
    /// The stream of a consultation: its slot while it is alive, its stored answer afterwards.
    async fn slot(&self, caller: &Caller, name: MessageName) -> Result<Arc<Slot>, Status> {
        let own = caller.sender()?;
        let sender = name.sender.as_ref().unwrap_or(&own);
        if (*caller == Caller::Local || *sender == own)
            && let Some(slot) = self.slots.find(sender, name.id)
        {
            return Ok(slot);
        }
        let row = self.row(caller, name).await?;
        if let Some(slot) = self.slots.get(row.accepted.subject.seq) {
            return Ok(slot);
        }
        match row.finished.clone() {
            Some(finished) => self.replay(row, finished).await,
            None => Ok(self.opened(&row)),
        }
    }

    /// The slot of a living consultation. One that was not streamed since the broker started finds it with its next
    /// attempt.
    fn opened(&self, row: &Row) -> Arc<Slot> {
        let (subject, sender) = (row.accepted.subject, &row.accepted.sender);
        let slot = self.slots.open(subject.seq, sender, subject.id);
        slot.accepted(receipt(row));
        slot
    }

    /// A consultation that this caller may see: an agent sees what it asked itself.
    async fn row(&self, caller: &Caller, name: MessageName) -> Result<Row, Status> {
        let row = find::row(&self.intake, caller, name).await?;
        if row.accepted.consultation.is_none() {
            let id = row.accepted.subject.id;
            return Err(
                reason::NOT_A_CONSULTATION.status(format!("message {id} is no consultation"))
            );
        }
        Ok(row)
    }

    async fn replay(&self, row: Row, finished: Finished) -> Result<Arc<Slot>, Status> {
        let parts = self.parts(&finished).await?;
        let id = row.accepted.subject.id;
        let summary = finished.summary.clone().ok_or_else(|| {
            reason::NOT_A_CONSULTATION.status(format!("message {id} is no consultation"))
        })?;
        let last = summary.attempts.last();
        let routed = last.map(|attempt| Routed {
            model: attempt.model.clone(),
            agent: attempt.agent.clone(),
            attempt: attempt.number,
            why: "answered before".into(),
            attempts: Vec::new(),
            passed_over: summary.passed_over.clone(),
            is_degraded: summary.is_degraded,
            is_simulated: summary.is_simulated,
        });
        let terminal = terminal(finished, summary);
        Ok(Slots::finished(id, receipt(&row), routed, &parts, terminal))
    }

    /// What was answered, or what arrived of it.
    async fn parts(&self, finished: &Finished) -> Result<Vec<Part>, Status> {
        let Some(body) = &finished.reply else { return Ok(Vec::new()) };
        let bytes = self.intake.bodies.load(body).await.map_err(|error| status::context(&error))?;
        Ok(Payload::decode(bytes)?.response)
    }

    async fn join(
        &self,
        slot: Arc<Slot>,
        seen: Seen,
        allow_restart: bool,
    ) -> impl futures::Stream<Item = Result<AnswerFrame, Status>> + Send + use<> {
        let seq = slot.seq();
        let (asker, is_first) = Asker::join(slot, seen, allow_restart);
        if is_first {
            self.intake.engine.tell(Command::AskerBack { seq }).await;
        }
        unfold(Some((asker, self.stop.clone())), |reading| async {
            let (mut asker, stop) = reading?;
            let frame = tokio::select! {
                biased;
                frame = asker.next() => frame?,
                () = stop.cancelled() => return Some((Err(reason::stopping()), None)),
            };
            Some((Ok(frame), Some((asker, stop))))
        })
    }
}

fn terminal(finished: Finished, summary: broker_proto::AnswerSummary) -> Terminal {
    crate::core::terminal(finished.state, finished.failure, summary)
}

fn receipt(row: &Row) -> Receipt {
    Receipt {
        message_id: row.accepted.subject.id,
        is_duplicate: true,
        accepted_at: row.accepted.at,
        deadline: row.accepted.deadline,
    }
}

fn asked(
    message: Option<pb::ModelMessage>,
    options: Option<pb::AskOptions>,
) -> Result<(Message, AskOptions), InvalidField> {
    let message = message.ok_or_else(|| InvalidField::new("message", "is missing"))?;
    let options = options.map(TryInto::try_into).transpose()?.unwrap_or_default();
    Ok((message.try_into()?, options))
}

#[tonic::async_trait]
impl pb::consult_service_server::ConsultService for ConsultService {
    type AskStream = Frames<pb::AskResponse>;
    type AttachStream = Frames<pb::AttachResponse>;

    async fn ask(
        &self,
        request: Request<pb::AskRequest>,
    ) -> Result<Response<Self::AskStream>, Status> {
        let caller = Caller::of(&request);
        let sender = caller.sender()?;
        let request = request.into_inner();
        let (message, options) = asked(request.message, request.options)?;
        let (id, allow_restart) = (message.id, options.allow_restart);
        let receipt =
            self.intake.consult(&sender, message, options).await.map_err(status::intake)?;
        let slot = self.slot(&caller, id.into()).await?;
        let frames = self.join(slot, Seen::default(), allow_restart).await;
        let frames = frames.map(move |frame| {
            let frame = match frame? {
                // The slot has the first asker's.
                AnswerFrame::Accepted(_) => AnswerFrame::Accepted(receipt.clone()),
                other => other,
            };
            Ok(pb::AskResponse { frame: Some(frame.into()) })
        });
        Ok(Response::new(frames.boxed()))
    }

    async fn attach(
        &self,
        request: Request<pb::AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let name = find::message_name(&request.message_id)?;
        let seen = Seen { attempt: request.attempt, part: request.part, offset: request.offset };
        let slot = self.slot(&caller, name).await?;
        let frames = self.join(slot, seen, request.allow_restart).await;
        let frames = frames.map(|frame| Ok(pb::AttachResponse { frame: Some(frame?.into()) }));
        Ok(Response::new(frames.boxed()))
    }

    async fn submit_consultation(
        &self,
        request: Request<pb::SubmitConsultationRequest>,
    ) -> Result<Response<pb::SubmitConsultationResponse>, Status> {
        let sender = Caller::of(&request).sender()?;
        let request = request.into_inner();
        let (message, options) = asked(request.message, request.options)?;
        // Nobody listens to a submitted one, so nothing that was shown forbids another attempt.
        let options = AskOptions { keep: true, allow_restart: true, ..options };
        let receipt =
            self.intake.consult(&sender, message, options).await.map_err(status::intake)?;
        Ok(Response::new(pb::SubmitConsultationResponse { receipt: Some(receipt.into()) }))
    }

    async fn poll_consultation(
        &self,
        request: Request<pb::PollConsultationRequest>,
    ) -> Result<Response<pb::PollConsultationResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let name = find::message_name(&request.message_id)?;
        let wait = request.wait.and_then(|wait| Duration::try_from(wait).ok()).unwrap_or_default();
        let mut row = self.row(&caller, name.clone()).await?;
        if row.finished.is_none() && !wait.is_zero() {
            // A watcher, not an asker: its leaving cancels nothing.
            let slot = self.opened(&row);
            let closed = tokio::time::timeout(wait.min(LONGEST_POLL), slot.closed());
            let Some(_) = self.stop.run_until_cancelled(closed).await else {
                return Err(reason::stopping());
            };
            row = self.row(&caller, name).await?;
        }
        let Some(finished) = row.finished else {
            let state = row.state.to_wire();
            return Ok(Response::new(pb::PollConsultationResponse { state, ..Default::default() }));
        };
        let parts = self.parts(&finished).await?;
        Ok(Response::new(pb::PollConsultationResponse {
            state: MessageState::to_wire(finished.state),
            summary: finished.summary.map(Into::into),
            parts: parts.into_iter().map(Into::into).collect(),
            failure: finished.failure.map(Into::into),
        }))
    }

    async fn explain_route(
        &self,
        request: Request<pb::ExplainRouteRequest>,
    ) -> Result<Response<pb::ExplainRouteResponse>, Status> {
        let request = request.into_inner();
        let (message, options) = asked(request.message, request.options)?;
        let explanation = self.intake.explain(message, options).await.map_err(status::intake)?;
        Ok(Response::new(explanation.into()))
    }
}
