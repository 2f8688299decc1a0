//! `chat`: a conversation in a session, line by line, whoever owns it.
//!
//! Each question is a consultation of the session; what was said is kept by the broker, so a chat can be left and come
//! back to, or gone on with by `consult --session`. Without a terminal it reads lines and shows no prompt.

mod carry;
mod line;
mod prompt;
mod verb;
mod window;

use std::path::PathBuf;

use broker_client::{Client, NewSession, layer::Due};
use broker_proto::types::{
    AskOptions, Message, ModelName, Part, Payload, SessionId, SessionInfo, SessionPoint,
};
use tokio::signal::unix::{SignalKind, signal};

use self::{
    line::{Lines, Read},
    verb::{Line, Verb},
};
use super::{connect, consult, current};
use crate::{
    cli::{ChatArgs, ConsultArgs, Global, Misused, QuestionArgs},
    error,
    exit_code::Exit,
    output::{self, Format},
};

/// Talks until the end of what is typed.
pub(crate) async fn run(global: &Global, args: ChatArgs) -> anyhow::Result<Exit> {
    if global.output == Format::Json {
        return Err(Misused::ChatIsText.into());
    }
    let model = args.model.as_deref().map(consult::input::model_name).transpose()?;
    let client = connect(global).await?;
    let model = match model {
        Some(model) => Some(known(&client, model).await?),
        None => None,
    };
    let (session, model) = begin(global, &client, args.session, model).await?;
    let lines = Lines::begin(global, args.no_history)?;
    let moves = args.handoff_enabled;
    let mut chat = Chat { global, client, session, model, moves, owner: None, told: None };
    if lines.is_terminal() {
        output::note(&format!("session {}; /help lists what can be typed", chat.session));
    }
    chat.owned().await?;
    chat.talk(&lines).await
}

/// The model as the broker calls it. Asked before the first question: who mistypes a name has not typed that in vain.
///
/// # Errors
/// The broker's refusal, with the nearest names.
async fn known(client: &Client, model: ModelName) -> anyhow::Result<ModelName> {
    let payload = Payload { request: vec![Part::text("?")], ..Payload::default() };
    let message = Message::consultation(consult::input::new_id()?, model, payload);
    Ok(client.explain(message, AskOptions::default()).await?.asked)
}

/// The session that is talked in, and the model that is asked in place of its owner. One that is named and not there yet
/// begins, with that model as its owner.
async fn begin(
    global: &Global,
    client: &Client,
    named: Option<SessionId>,
    model: Option<ModelName>,
) -> anyhow::Result<(SessionId, Option<ModelName>)> {
    let known = current::known(global, client, named).await?;
    if let Some(id) = &known {
        match client.session(id, &SessionPoint::Head).await {
            Ok(detail) => {
                current::remember(global, id);
                // Who asks for the owner wants the one that comes after it, too.
                let model = model.filter(|model| *model != detail.info.owner.model);
                return Ok((id.clone(), model));
            }
            Err(err) if err.reason() == Some("UNKNOWN_SESSION") => {}
            Err(err) => return Err(err.into()),
        }
    }
    let new = NewSession { id: known, model, title: String::new() };
    let id = client.start_session(new).await?.id;
    output::note(&format!("session {id} (new)"));
    current::remember(global, &id);
    Ok((id, None))
}

/// One conversation.
struct Chat<'a> {
    global: &'a Global,
    client: Client,
    session: SessionId,
    /// Asked in place of the owner.
    model: Option<ModelName>,
    /// Whether the session is handed over where its window is full, before the next question.
    moves: bool,
    /// The owner that was told of last, and its epoch.
    owner: Option<(ModelName, u64)>,
    /// What was said last of a window that fills, and whose it is.
    told: Option<(ModelName, Due)>,
}

impl Chat<'_> {
    async fn talk(&mut self, lines: &Lines) -> anyhow::Result<Exit> {
        // One that comes while an answer is cancelled for it ends the chat behind that.
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            let prompt = if lines.is_terminal() { self.prompt().await } else { String::new() };
            // One that cancelled an answer is no word about the next line.
            let mut interrupt = signal(SignalKind::interrupt())?;
            let read = tokio::select! {
                biased;
                _ = terminate.recv() => return Ok(Exit::Interrupted),
                _ = interrupt.recv() => return Ok(Exit::Interrupted),
                read = lines.next(prompt) => read,
            };
            let line = match read {
                Read::Line(line) => line,
                Read::Dropped => continue,
                Read::End => return Ok(self.left(lines)),
                Read::Failed(err) => return Err(err.into()),
            };
            let verb = match verb::read(&line) {
                Ok(Line::Empty) => continue,
                Ok(Line::Ask(question)) => {
                    tried(Box::pin(self.question(question)).await)?;
                    tried(self.owned().await)?;
                    continue;
                }
                Ok(Line::Verb(Verb::Quit)) => return Ok(self.left(lines)),
                Ok(Line::Verb(verb)) => verb,
                Err(err) => {
                    output::note(&err.to_string());
                    continue;
                }
            };
            let done = Box::pin(self.carry_out(verb)).await;
            tried(done)?;
        }
    }

    /// Who ended it by mistake finds back.
    fn left(&self, lines: &Lines) -> Exit {
        if lines.is_terminal() {
            output::note(&format!("left; `brokerctl chat --session {}` goes on", self.session));
        }
        Exit::Done
    }

    async fn question(&mut self, question: String) -> anyhow::Result<()> {
        // Another model's window is another one.
        if self.model.is_none() {
            self.look_ahead().await?;
        }
        self.ask(self.model.clone(), question, None).await
    }

    async fn ask(
        &self,
        model: Option<ModelName>,
        question: String,
        context: Option<PathBuf>,
    ) -> anyhow::Result<()> {
        let question = QuestionArgs {
            model: model.map(|model| model.to_string()),
            session: Some(self.session.clone()),
            question: Some(question),
            stdin: None,
            context,
            system: None,
            image: Vec::new(),
            no_fallback: false,
            deadline: None,
            max_cost: None,
            max_output_tokens: None,
            id: None,
        };
        let payload = consult::input::question(&question)?;
        let args = ConsultArgs { question, no_stream: false, restart: false, keep: false };
        let tell = consult::Tell::Trouble;
        // How it ended was told; the next line may be another question.
        consult::asked(self.global, &self.client, args, payload, tell).await.map(|_| ())
    }

    async fn info(&self) -> anyhow::Result<SessionInfo> {
        Ok(self.client.session(&self.session, &SessionPoint::Head).await?.info)
    }

    /// Says who owns the session where that is another than was told of last, and why.
    async fn owned(&mut self) -> anyhow::Result<()> {
        let info = self.info().await?;
        let now = (info.owner.model.clone(), info.owner.epoch);
        let before = self.owner.replace(now.clone());
        if before.as_ref() == Some(&now) {
            return Ok(());
        }
        let handoff = match info.handed_over {
            Some(over) => consult::thread::found(&self.client, over.handoff).await?,
            None => None,
        };
        match (before, handoff) {
            (Some(before), Some(handoff)) => {
                let (kind, why) = (handoff.trigger.kind.as_str(), &handoff.trigger.reasoning);
                output::note(&format!("{} → {}: {kind}: {why}", before.0, now.0));
            }
            (Some(before), None) => output::note(&format!("{} → {}", before.0, now.0)),
            // Who comes back learns why it is not the model that was left.
            (None, Some(handoff)) => output::note(&consult::thread::owned(&handoff)),
            (None, None) => {}
        }
        Ok(())
    }
}

/// What goes wrong with one line ends no chat, unless nobody reads it any more.
fn tried(done: anyhow::Result<()>) -> anyhow::Result<()> {
    match done {
        Err(err) if consult::is_output(&err) => Err(err),
        Err(err) => {
            output::note(&error::line(&err));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
