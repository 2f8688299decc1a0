use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tonic::{Code, Request, Status};

use broker_proto::{
    AgentName, AskOptions, ContentHash, MessageId, MessageState, Part, Sender,
    convert::encode_part,
    pb,
    pb::{
        consult_service_server::ConsultService as _, content_service_server::ContentService as _,
        event_service_server::EventService as _, message_service_server::MessageService as _,
    },
};

use super::{
    Caller, ConsultService, ContentService, EventService, MessageService, Uploads, Watches, find,
    reason, told::KINDS,
};
use crate::{
    app::rehearsal::{Shell, letter, local, question, send, soon},
    core::{Command, NewMessage},
    journal::{BatchNo, Claim, Cursor, Journal, JournalId, Manifest, memory::MemoryJournal},
};

fn reason_of(status: &Status) -> String {
    reason::frame(status).reason
}

fn id(number: u128) -> MessageId {
    MessageId::from_u128(number)
}

async fn cancel(shell: &Shell, number: u128) {
    let command = Command::Cancel { sender: local(), id: id(number) };
    soon(shell.engine.command(command)).await.unwrap();
}

fn consults(shell: &Shell) -> ConsultService {
    ConsultService {
        intake: shell.intake.clone(),
        slots: shell.slots.clone(),
        stop: shell.stop.clone(),
    }
}

fn messages(shell: &Shell) -> MessageService {
    MessageService { intake: shell.intake.clone(), watches: watches(shell) }
}

fn watches(shell: &Shell) -> Watches {
    Watches {
        engine: shell.engine.clone(),
        journal: Arc::clone(&shell.journal),
        stop: shell.stop.clone(),
    }
}

fn contents(shell: &Shell) -> ContentService {
    ContentService {
        intake: shell.intake.clone(),
        journal: Arc::clone(&shell.journal),
        uploads: Uploads::default(),
    }
}

fn attach(number: u128) -> pb::AttachRequest {
    pb::AttachRequest { message_id: id(number).to_string(), ..Default::default() }
}

fn poll(number: u128, seconds: i64) -> pb::PollConsultationRequest {
    let mut request =
        pb::PollConsultationRequest { message_id: id(number).to_string(), wait: None };
    request.wait.get_or_insert_default().seconds = seconds;
    request
}

fn by_agent<T>(name: &str, body: T) -> Request<T> {
    let mut request = Request::new(body);
    request.extensions_mut().insert(Caller::Agent(AgentName::parse(name).unwrap()));
    request
}

#[tokio::test]
async fn an_agent_reads_only_the_answers_it_asked_for() {
    let shell = Shell::start().await;
    let service = consults(&shell);
    shell.ask(1).await;
    let asked = broker_proto::Sender::parse("opus").unwrap();
    let options = AskOptions { keep: true, ..AskOptions::default() };
    shell.intake.consult(&asked, question(2, "why?"), options).await.unwrap();

    let refused = soon(service.attach(by_agent("opus", attach(1)))).await.err().unwrap();
    assert_eq!(reason_of(&refused), "UNKNOWN_MESSAGE");
    let refused = soon(service.poll_consultation(by_agent("opus", poll(1, 0)))).await.unwrap_err();
    assert_eq!(reason_of(&refused), "UNKNOWN_MESSAGE");
    assert!(soon(service.attach(by_agent("opus", attach(2)))).await.is_ok());
    assert!(soon(service.attach(Request::new(attach(1)))).await.is_ok());
    assert!(soon(service.attach(Request::new(attach(2)))).await.is_ok());
}

/// After a restart nobody has streamed it yet, and a poll that came back at once would come again at once.
#[tokio::test]
async fn a_poll_waits_for_the_end_also_where_nothing_was_streamed() {
    let shell = Shell::start().await;
    shell.ask(1).await;
    let shell = Shell::on(shell.end().await).await;
    let service = consults(&shell);
    let polled = service.poll_consultation(Request::new(poll(1, 20)));
    tokio::pin!(polled);
    for _ in 0..100 {
        assert!(polled.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }

    cancel(&shell, 1).await;

    let polled = soon(polled).await.unwrap().into_inner();
    assert_eq!(polled.state, MessageState::Cancelled.to_wire());
}

#[tokio::test]
async fn a_poll_without_patience_tells_the_state_at_once() {
    let shell = Shell::start().await;
    shell.ask(1).await;
    let service = consults(&shell);
    let polled = service.poll_consultation(Request::new(poll(1, 0)));
    assert_eq!(soon(polled).await.unwrap().into_inner().state, MessageState::Queued.to_wire());
}

/// A stop must not wait for those who wait.
#[tokio::test]
async fn whoever_waits_is_told_that_the_broker_stops() {
    let shell = Shell::start().await;
    shell.ask(1).await;
    let (consults, messages) = (consults(&shell), messages(&shell));
    let mut answer = soon(consults.attach(Request::new(attach(1)))).await.unwrap().into_inner();
    let watch = pb::WatchMessagesRequest::default();
    let mut watch = soon(messages.watch_messages(Request::new(watch))).await.unwrap().into_inner();
    assert!(soon(answer.next()).await.unwrap().is_ok());
    let polled = consults.poll_consultation(Request::new(poll(1, 20)));

    shell.stop.cancel();

    assert_eq!(reason_of(&soon(polled).await.unwrap_err()), "STOPPING");
    let told = soon(watch.next()).await.unwrap().unwrap_err();
    assert_eq!(reason_of(&told), "STOPPING");
    let told = loop {
        if let Err(status) = soon(answer.next()).await.unwrap() {
            break status;
        }
    };
    assert_eq!(reason_of(&told), "STOPPING");
    assert!(soon(answer.next()).await.is_none());
}

/// I-37: who comes back in time is not left for dead, whichever of the two words arrives first.
#[tokio::test]
async fn an_asker_that_comes_back_keeps_its_question_alive() {
    let shell = Shell::start().await;
    let service = consults(&shell);
    shell.intake.consult(&local(), question(1, "why?"), AskOptions::default()).await.unwrap();
    let join = async || soon(service.attach(Request::new(attach(1)))).await.unwrap().into_inner();
    let mut stream = join().await;
    for _ in 0..20 {
        let next = join().await;
        drop(std::mem::replace(&mut stream, next));
        drop(stream);
        stream = join().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    shell.clock.advance(Duration::from_secs(31));
    shell.tick().await;
    let polled = service.poll_consultation(Request::new(poll(1, 0)));
    let state = soon(polled).await.unwrap().into_inner().state;
    assert_ne!(state, MessageState::Cancelled.to_wire());

    drop(stream);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    shell.settled().await;
    shell.clock.advance(Duration::from_secs(31));
    shell.tick().await;
    let polled = service.poll_consultation(Request::new(poll(1, 0)));
    let state = soon(polled).await.unwrap().into_inner().state;
    assert_eq!(state, MessageState::Cancelled.to_wire());
}

/// The cursor and what changed, until `count` changes have come.
async fn watched(
    service: &MessageService,
    cursor: &str,
    message: Option<u128>,
    count: usize,
) -> Vec<(String, String)> {
    let message_id = message.map(|number| id(number).to_string()).unwrap_or_default();
    let request = pb::WatchMessagesRequest { cursor: cursor.into(), message_id };
    let stream = soon(service.watch_messages(Request::new(request))).await.unwrap().into_inner();
    let changes = stream.take(count).map(|change| {
        let change = change.unwrap();
        match change.change.unwrap() {
            pb::watch_messages_response::Change::Message(message) => {
                let number = MessageId::parse(&message.message_id).unwrap().as_u128();
                (change.cursor, format!("{number} {}", message.change))
            }
            pb::watch_messages_response::Change::Gap(_) => (change.cursor, "gap".into()),
        }
    });
    soon(changes.collect()).await
}

/// I-30.
#[tokio::test]
async fn a_watch_goes_on_exactly_behind_its_cursor() {
    let shell = Shell::start().await;
    let service = messages(&shell);
    for number in 1..=2 {
        soon(shell.engine.command(send(letter(number)))).await.unwrap();
    }
    cancel(&shell, 1).await;
    let journal = shell.journal.identity().journal;
    let first = Cursor { journal, batch: BatchNo(1), index: 0 }.to_string();
    let whole = watched(&service, &first, None, 5).await;
    let words: Vec<&str> = whole.iter().map(|(_, word)| word.as_str()).collect();
    assert_eq!(words, ["1 accepted", "1 routed", "2 accepted", "2 routed", "1 finished"]);

    for (place, (cursor, _)) in whole.iter().enumerate().take(4) {
        let rest = watched(&service, cursor, None, 4 - place).await;
        assert_eq!(rest, whole[place + 1..], "behind {cursor}");
    }
    let (next, _) = tokio::join!(
        watched(&service, &whole[4].0, None, 1),
        shell.engine.command(Command::Cancel { sender: local(), id: id(2) })
    );
    assert_eq!(next[0].1, "2 finished");
}

#[tokio::test]
async fn a_watch_of_one_message_tells_its_life_and_ends_with_it() {
    let shell = Shell::start().await;
    let service = messages(&shell);
    for number in 1..=2 {
        soon(shell.engine.command(send(letter(number)))).await.unwrap();
    }
    cancel(&shell, 1).await;
    let life = watched(&service, "", Some(1), 99).await;
    let words: Vec<&str> = life.iter().map(|(_, word)| word.as_str()).collect();
    assert_eq!(words, ["1 accepted", "1 routed", "1 finished"]);
}

#[tokio::test]
async fn a_watch_begins_only_at_a_place_of_this_journal() {
    let shell = Shell::start().await;
    let service = messages(&shell);
    let watch = async |cursor: String| {
        let request = pb::WatchMessagesRequest { cursor, message_id: String::new() };
        soon(service.watch_messages(Request::new(request))).await.err().map(|s| reason_of(&s))
    };
    let batch = BatchNo(1);
    let elsewhere = Cursor { journal: JournalId([1; 16]), batch, index: 0 };
    assert_eq!(watch(elsewhere.to_string()).await.as_deref(), Some("CURSOR_ELSEWHERE"));
    assert_eq!(watch("7".into()).await.as_deref(), Some("INVALID_FIELD"));
    let journal = shell.journal.identity().journal;
    let batch = BatchNo(shell.engine.head().0 + 2);
    let ahead = Cursor { journal, batch, index: 0 };
    assert_eq!(watch(ahead.to_string()).await.as_deref(), Some("CURSOR_AHEAD"));
}

fn events(shell: &Shell) -> EventService {
    EventService { intake: shell.intake.clone(), watches: watches(shell) }
}

/// What a subscription tells first: `count` items, each the message's number or `-`, and the kind.
async fn subscribed(
    service: &EventService,
    request: pb::SubscribeRequest,
    count: usize,
) -> Vec<(String, String)> {
    use pb::subscribe_response::Item;
    let stream = soon(service.subscribe(Request::new(request))).await.unwrap().into_inner();
    let items = stream.take(count).map(|item| {
        let item = item.unwrap();
        let told = match item.item.unwrap() {
            Item::Event(event) => {
                let number = MessageId::parse(&event.message_id).map(MessageId::as_u128);
                let number = number.map_or("-".to_owned(), |number| number.to_string());
                format!("{number} {}", event.kind)
            }
            Item::Gap(gap) => {
                assert_eq!(gap.first_cursor, item.cursor);
                "gap".into()
            }
        };
        (item.cursor, told)
    });
    soon(items.collect()).await
}

fn from_start(filter: pb::EventFilter) -> pb::SubscribeRequest {
    let from = Some(pb::subscribe_request::From::Start(true));
    pb::SubscribeRequest { from, filter: Some(filter) }
}

fn words(items: &[(String, String)]) -> Vec<&str> {
    items.iter().map(|(_, word)| word.as_str()).collect()
}

/// I-30
#[tokio::test]
async fn a_subscription_goes_on_behind_its_cursor_and_tells_only_what_is_wanted() {
    let shell = Shell::start().await;
    let service = events(&shell);
    shell.token("reviewer").await;
    let in_session = NewMessage { session: Some("s".into()), ..letter(1) };
    soon(shell.engine.command(send(in_session))).await.unwrap();
    soon(shell.engine.command(send(letter(2)))).await.unwrap();
    shell.ask(3).await;
    cancel(&shell, 1).await;

    let whole = subscribed(&service, from_start(pb::EventFilter::default()), 8).await;
    let want = [
        "- token_created",
        "1 accepted",
        "1 routed",
        "2 accepted",
        "2 routed",
        "3 accepted",
        "3 routed",
        "1 finished",
    ];
    assert_eq!(words(&whole), want);
    for (place, (cursor, _)) in whole.iter().enumerate().take(7) {
        let from = Some(pb::subscribe_request::From::Cursor(cursor.clone()));
        let request = pb::SubscribeRequest { from, filter: None };
        assert_eq!(subscribed(&service, request, 7 - place).await, whole[place + 1..], "{place}");
    }

    let only = async |filter, count| {
        let told = subscribed(&service, from_start(filter), count).await;
        told.into_iter().map(|(_, word)| word).collect::<Vec<_>>()
    };
    let all = pb::EventFilter::default();
    let kinds = vec!["finished".into(), "token_created".into()];
    let filter = pb::EventFilter { kinds, ..all.clone() };
    assert_eq!(only(filter, 2).await, ["- token_created", "1 finished"]);
    let filter = pb::EventFilter { session: "s".into(), ..all.clone() };
    assert_eq!(only(filter, 3).await, ["1 accepted", "1 routed", "1 finished"]);
    let filter = pb::EventFilter { model: "opus".into(), ..all.clone() };
    assert_eq!(only(filter, 2).await, ["3 accepted", "3 routed"]);
    let kinds = vec!["finished".into()];
    let agent = "reviewer".to_owned();
    let filter = pb::EventFilter { agent, kinds, ..all.clone() };
    assert_eq!(only(filter, 1).await, ["1 finished"], "it was sent to that agent");
    let message_id = id(2).to_string();
    let filter = pb::EventFilter { message_id, ..all };
    assert_eq!(only(filter, 2).await, ["2 accepted", "2 routed"]);
}

/// I-30: what was cut off is told, and the watch goes on behind it.
#[tokio::test]
async fn a_watch_from_before_what_is_kept_is_told_the_gap_and_goes_on() {
    let shell = Shell::start().await;
    for number in 1..=4 {
        soon(shell.engine.command(send(letter(number)))).await.unwrap();
    }
    shell.settled().await;
    let first = Cursor { journal: shell.journal.identity().journal, batch: BatchNo(1), index: 0 };
    let journal: Arc<dyn Journal> = Arc::new(MemoryJournal::open(&shell.store));
    let mut writer = journal.claim(Claim::new(7, 7).unwrap()).await.unwrap();
    for batch in [BatchNo(3), BatchNo(4)] {
        let (parts, digest) = (vec![], crate::journal::Digest([0; 32]));
        journal.publish(Manifest { batch, format: 1, parts, digest }).await.unwrap();
    }
    writer.truncate(BatchNo(3)).await.unwrap();

    let told = subscribed(&events(&shell), from_start(pb::EventFilter::default()), 3).await;
    assert_eq!(words(&told), ["gap", "2 accepted", "2 routed"]);
    let seen = watched(&messages(&shell), &first.to_string(), None, 3).await;
    assert_eq!(words(&seen), ["gap", "2 accepted", "2 routed"]);
    assert_eq!(seen[0].0, Cursor { batch: BatchNo(3), ..first }.to_string());
}

#[tokio::test]
async fn a_subscription_that_makes_no_sense_is_refused() {
    let shell = Shell::start().await;
    let service = events(&shell);
    let journal = shell.journal.identity().journal;
    let refused = async |from: Option<String>, filter: pb::EventFilter| {
        let from = from.map(pb::subscribe_request::From::Cursor);
        let request = pb::SubscribeRequest { from, filter: Some(filter) };
        soon(service.subscribe(Request::new(request))).await.err().map(|status| reason_of(&status))
    };
    let all = pb::EventFilter::default;
    let at = |journal, batch| Some(Cursor { journal, batch, index: 0 }.to_string());
    let elsewhere = at(JournalId([1; 16]), BatchNo(1));
    assert_eq!(refused(elsewhere, all()).await.as_deref(), Some("CURSOR_ELSEWHERE"));
    assert_eq!(refused(Some("7".into()), all()).await.as_deref(), Some("INVALID_FIELD"));
    assert_eq!(refused(Some(String::new()), all()).await.as_deref(), Some("INVALID_FIELD"));
    let head = shell.engine.head();
    let ahead = at(journal, BatchNo(head.0 + 2));
    assert_eq!(refused(ahead, all()).await.as_deref(), Some("CURSOR_AHEAD"));
    assert_eq!(refused(at(journal, head), all()).await, None);
    let filter = pb::EventFilter { kinds: vec!["sneezed".into()], ..all() };
    assert_eq!(refused(None, filter).await.as_deref(), Some("INVALID_FIELD"));
    let filter = pb::EventFilter { message_id: id(9).to_string(), ..all() };
    assert_eq!(refused(None, filter).await.as_deref(), Some("UNKNOWN_MESSAGE"));
}

#[test]
fn the_events_are_documented_as_they_are_told() {
    let page = include_str!("../../../docs/events.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<Vec<_>>(), KINDS);
}

#[tokio::test]
async fn a_trace_tells_every_step_once_page_by_page() {
    let shell = Shell::start().await;
    let service = messages(&shell);
    soon(shell.engine.command(send(letter(1)))).await.unwrap();
    shell.clock.advance(Duration::from_secs(3));
    cancel(&shell, 1).await;
    let trace = async |page_size, page_token: &str| {
        let (message_id, page_token) = (id(1).to_string(), page_token.to_owned());
        let request = pb::TraceMessageRequest { message_id, page_size, page_token };
        soon(service.trace_message(Request::new(request))).await
    };
    let brief = |steps: &[pb::TraceStep]| -> Vec<(String, i64)> {
        let step = |step: &pb::TraceStep| {
            let since = step.since_previous.map_or(-1, |span| span.seconds);
            (step.change.as_ref().unwrap().change.clone(), since)
        };
        steps.iter().map(step).collect()
    };
    let whole = trace(0, "").await.unwrap().into_inner();
    let want = [("accepted", 0), ("routed", 0), ("finished", 3)];
    let want: Vec<_> = want.map(|(word, seconds)| (word.to_owned(), seconds)).into();
    assert_eq!((brief(&whole.steps), whole.next_page_token.as_str()), (want.clone(), ""));
    assert_eq!(whole.info.unwrap().id, id(1).to_string());

    let (mut steps, mut token) = (Vec::new(), String::new());
    for _ in 0..3 {
        let page = trace(1, &token).await.unwrap().into_inner();
        assert_eq!(page.steps.len(), 1);
        steps.extend(brief(&page.steps));
        token = page.next_page_token;
    }
    assert_eq!((steps, token.as_str()), (want, ""));
    assert_eq!(reason_of(&trace(1, "x").await.unwrap_err()), "INVALID_FIELD");
}

#[tokio::test]
async fn a_list_goes_on_with_its_token() {
    let shell = Shell::start().await;
    let service = messages(&shell);
    for number in 1..=5 {
        soon(shell.engine.command(send(letter(number)))).await.unwrap();
    }
    let mut token = String::new();
    let mut pages = Vec::new();
    loop {
        let request = pb::ListMessagesRequest {
            page_size: 2,
            page_token: token,
            to: "agent/reviewer".into(),
            ..Default::default()
        };
        let page = soon(service.list_messages(Request::new(request))).await.unwrap().into_inner();
        pages.push(page.messages.len());
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [2, 2, 1]);
    for request in [
        pb::ListMessagesRequest { page_token: "x".into(), ..Default::default() },
        pb::ListMessagesRequest { states: vec![99], ..Default::default() },
        pb::ListMessagesRequest { to: "agent/".into(), ..Default::default() },
        pb::ListMessagesRequest { to: "O".into(), ..Default::default() },
    ] {
        let refused = soon(service.list_messages(Request::new(request))).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_message_is_shown_with_what_it_carries_and_cancelled_once() {
    let shell = Shell::start().await;
    let service = messages(&shell);
    shell.ask(1).await;
    let get = async |number, include_payload| {
        let message_id = id(number).to_string();
        let request = pb::GetMessageRequest { message_id, include_payload };
        soon(service.get_message(Request::new(request))).await
    };
    let shown = get(1, true).await.unwrap().into_inner();
    assert_eq!(shown.payload.unwrap().request[0], Part::text("why?").into());
    assert!(get(1, false).await.unwrap().into_inner().payload.is_none());
    assert_eq!(reason_of(&get(9, false).await.unwrap_err()), "UNKNOWN_MESSAGE");

    for _ in 0..2 {
        let request = pb::CancelMessageRequest { message_id: id(1).to_string() };
        let ended = soon(service.cancel_message(Request::new(request))).await.unwrap();
        assert_eq!(ended.into_inner().state, MessageState::Cancelled.to_wire());
    }
}

/// I-6: ids are unique for each sender only, so that one sender's never stands for another's.
#[tokio::test]
async fn an_id_alone_is_the_callers_own_or_the_only_one_and_never_a_guess() {
    let shell = Shell::start().await;
    let service = messages(&shell);
    let from =
        |name: &str, number| NewMessage { sender: Sender::parse(name).unwrap(), ..letter(number) };
    for new in [letter(1), from("a", 1), from("a", 2), from("b", 2), from("b", 3)] {
        soon(shell.engine.command(send(new))).await.unwrap();
    }
    let get = async |name: &str, caller: Option<&str>| {
        let message_id = name.to_owned();
        let mut request =
            Request::new(pb::GetMessageRequest { message_id, include_payload: false });
        if let Some(agent) = caller {
            request.extensions_mut().insert(Caller::Agent(AgentName::parse(agent).unwrap()));
        }
        match soon(service.get_message(request)).await {
            Ok(shown) => shown.into_inner().info.unwrap().from,
            Err(status) => reason_of(&status),
        }
    };
    let [one, two, three] = [1, 2, 3].map(|number| id(number).to_string());

    assert_eq!(get(&one, None).await, "local");
    assert_eq!(get(&format!("a/{one}"), None).await, "a");
    assert_eq!(get(&two, None).await, "AMBIGUOUS_MESSAGE");
    assert_eq!(get(&format!("b/{two}"), None).await, "b");
    assert_eq!(get(&three, None).await, "b");
    assert_eq!(get(&three, Some("b")).await, "b");
    for others in [three.clone(), format!("b/{three}"), one.clone()] {
        assert_eq!(get(&others, Some("c")).await, "UNKNOWN_MESSAGE");
    }

    let request = pb::CancelMessageRequest { message_id: format!("a/{one}") };
    soon(service.cancel_message(Request::new(request))).await.unwrap();
    assert_eq!(
        soon(find::row(&shell.intake, &Caller::Local, id(1).into())).await.unwrap().state,
        MessageState::Queued
    );
}

fn chunk(whole: &Bytes, offset: usize, length: usize) -> pb::UploadChunkRequest {
    pb::UploadChunkRequest {
        hash: ContentHash::of(whole).0.to_vec().into(),
        size_bytes: whole.len() as u64,
        offset: offset as u64,
        chunk: whole.slice(offset..offset + length),
    }
}

#[tokio::test]
async fn a_part_is_uploaded_in_order_and_fetched_from_any_byte() {
    let shell = Shell::start().await;
    let service = contents(&shell);
    let text: String = (0..100_000).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
    let whole = encode_part(Part::text(text));
    let hash: Bytes = ContentHash::of(&whole).0.to_vec().into();
    let upload = async |request| soon(service.upload_chunk(Request::new(request))).await;
    let missing = async || {
        let request = pb::FindMissingRequest { hashes: vec![hash.clone()] };
        soon(service.find_missing(Request::new(request))).await.unwrap().into_inner().missing
    };

    let first = upload(chunk(&whole, 0, 60_000)).await.unwrap().into_inner();
    assert_eq!((first.received_bytes, first.complete), (60_000, false));
    let early = upload(chunk(&whole, 70_000, 9)).await.unwrap_err();
    assert_eq!(reason_of(&early), "UPLOAD_OUT_OF_ORDER");
    let again = upload(chunk(&whole, 0, 60_000)).await.unwrap().into_inner();
    assert_eq!(again.received_bytes, 60_000);
    assert_eq!(missing().await.len(), 1);
    let last = upload(chunk(&whole, 60_000, whole.len() - 60_000)).await.unwrap().into_inner();
    assert!(last.complete);
    assert!(missing().await.is_empty());
    assert!(upload(chunk(&whole, 0, 1)).await.unwrap().into_inner().complete);

    for offset in [0, 1, 60_000, whole.len() - 1, whole.len()] {
        let request = pb::FetchContentRequest { hash: hash.clone(), offset: offset as u64 };
        let stream = soon(service.fetch_content(Request::new(request))).await.unwrap();
        let pieces: Vec<_> = soon(stream.into_inner().collect()).await;
        let pieces: Vec<Bytes> = pieces.into_iter().map(|piece| piece.unwrap().chunk).collect();
        assert_eq!(pieces.concat(), whole[offset..], "{offset}");
    }
}

#[tokio::test]
async fn an_upload_that_is_not_what_it_says_is_refused() {
    let shell = Shell::start().await;
    let service = contents(&shell);
    let whole = Bytes::from_static(b"some bytes");
    let upload = async |request| {
        let refused = soon(service.upload_chunk(Request::new(request))).await.unwrap_err();
        reason_of(&refused)
    };
    let good = || chunk(&whole, 0, whole.len());
    let other = ContentHash::of(b"other").0.to_vec();
    let request = pb::UploadChunkRequest { hash: other.into(), ..good() };
    assert_eq!(upload(request).await, "HASH_MISMATCH");
    for request in [
        pb::UploadChunkRequest { hash: vec![0; 31].into(), ..good() },
        pb::UploadChunkRequest { size_bytes: 0, ..good() },
        pb::UploadChunkRequest { size_bytes: 5, ..good() },
        pb::UploadChunkRequest { offset: u64::MAX, ..good() },
        pb::UploadChunkRequest { chunk: Bytes::new(), ..good() },
        pb::UploadChunkRequest {
            chunk: vec![0; 256 * 1024 + 1].into(),
            size_bytes: 1 << 19,
            ..good()
        },
    ] {
        assert_eq!(upload(request).await, "INVALID_FIELD");
    }
    let request = pb::UploadChunkRequest { size_bytes: u64::MAX, ..good() };
    assert_eq!(upload(request).await, "TOO_LARGE");
    let hash = vec![7; 32].into();
    let fetched = service.fetch_content(Request::new(pb::FetchContentRequest { hash, offset: 0 }));
    let refused = soon(fetched).await.err().unwrap();
    assert_eq!(reason_of(&refused), "UNKNOWN_CONTENT");
}
