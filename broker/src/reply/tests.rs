use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::mpsc;

use broker_proto::{
    AnswerFrame, AnswerSummary, Failure, FailureClass, MessageId, ModelName, Part, Receipt, Routed,
    Terminal, Usage, WallTime,
};

use super::{Asker, AskerLeft, Seen, Slot, Slots, TooLarge};
use crate::app::rehearsal::local;
use crate::core::queue::Seq;

const SEQ: Seq = Seq(7);
const LIMIT: u64 = 1024;

fn id() -> MessageId {
    MessageId::from_u128(7)
}

fn model(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

fn slots() -> (Slots, mpsc::UnboundedReceiver<AskerLeft>) {
    Slots::new(LIMIT)
}

fn slot() -> Arc<Slot> {
    slots().0.open(SEQ, &local(), id())
}

fn begin(slot: &Slot, attempt: u32, name: &str) {
    slot.begin(Routed {
        model: model(name),
        agent: None,
        attempt,
        why: "because".into(),
        attempts: vec![],
        passed_over: vec![],
        is_degraded: false,
        is_simulated: false,
    });
}

fn start(attempt: u32, part: u32) -> AnswerFrame {
    AnswerFrame::PartStart { attempt, part, opening: Part::text("") }
}

fn delta(attempt: u32, part: u32, offset: u64, text: &str) -> AnswerFrame {
    let data = Bytes::copy_from_slice(text.as_bytes());
    AnswerFrame::PartDelta { attempt, part, offset, data }
}

fn end(attempt: u32, part: u32) -> AnswerFrame {
    AnswerFrame::PartEnd { attempt, part, closing: None }
}

fn say(slot: &Slot, frames: impl IntoIterator<Item = AnswerFrame>) {
    for frame in frames {
        slot.part(frame).unwrap();
    }
}

fn summary() -> AnswerSummary {
    AnswerSummary {
        message_id: id(),
        asked: model("opus"),
        model: Some(model("opus")),
        agent: None,
        is_degraded: false,
        is_simulated: false,
        stop_reason: None,
        attempts: vec![],
        passed_over: vec![],
        usage: Usage::default(),
        cost_usd: None,
        not_appended: None,
        shortened: None,
    }
}

fn done() -> Terminal {
    Terminal::Done(summary())
}

fn failed() -> Terminal {
    let failure = Failure::new(FailureClass::Truncated, "provider", "cut");
    Terminal::Failed { failure, summary: summary() }
}

fn receipt() -> Receipt {
    let at = WallTime(1);
    Receipt { message_id: id(), is_duplicate: false, accepted_at: at, deadline: at }
}

fn asker(slot: &Arc<Slot>) -> Asker {
    Asker::join(Arc::clone(slot), Seen::default(), false).0
}

fn returning(slot: &Arc<Slot>, attempt: u32, part: u32, offset: u64) -> Asker {
    Asker::join(Arc::clone(slot), Seen { attempt, part, offset }, true).0
}

/// What this asker gets without waiting, in short.
fn heard(asker: &mut Asker) -> Vec<String> {
    std::iter::from_fn(|| asker.next().now_or_never()?).map(brief).collect()
}

fn brief(frame: AnswerFrame) -> String {
    match frame {
        AnswerFrame::Accepted(_) => "accepted".into(),
        AnswerFrame::Routed(routed) => format!("routed {} {}", routed.attempt, routed.model),
        AnswerFrame::PartStart { attempt, part, .. } => format!("start {attempt}.{part}"),
        AnswerFrame::PartDelta { attempt, part, offset, data } => {
            format!("{attempt}.{part}@{offset} {}", String::from_utf8(data.to_vec()).unwrap())
        }
        AnswerFrame::PartEnd { attempt, part, closing: None } => format!("end {attempt}.{part}"),
        AnswerFrame::PartEnd { attempt, part, .. } => format!("end {attempt}.{part} whole"),
        AnswerFrame::Restarted { attempt, .. } => format!("restarted {attempt}"),
        AnswerFrame::Switched { from, to, attempt, .. } => format!("{from} to {to} {attempt}"),
        AnswerFrame::Usage(_) => "usage".into(),
        AnswerFrame::Terminal(terminal) => match *terminal {
            Terminal::Done(_) => "done".into(),
            Terminal::Failed { failure, .. } => format!("failed {}", failure.class.as_str()),
            Terminal::Expired(_) => "expired".into(),
            Terminal::Cancelled(_) => "cancelled".into(),
        },
    }
}

#[test]
fn an_asker_hears_an_answer_from_its_acceptance_to_its_end() {
    let slot = slot();
    slot.accepted(receipt());
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0), delta(1, 0, 0, "be"), delta(1, 0, 2, "cause"), end(1, 0)]);
    slot.close(done());
    assert_eq!(
        heard(&mut asker(&slot)),
        [
            "accepted",
            "routed 1 opus",
            "start 1.0",
            "1.0@0 be",
            "1.0@2 cause",
            "end 1.0",
            "usage",
            "done"
        ]
    );
}

#[test]
fn what_nobody_saw_of_a_failed_attempt_vanishes() {
    let slot = slot();
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0), delta(1, 0, 0, "never")]);
    assert!(!slot.seal(1));
    begin(&slot, 2, "sonnet");
    say(&slot, [start(2, 0), delta(2, 0, 0, "yes")]);
    assert_eq!(
        heard(&mut asker(&slot)),
        ["routed 1 opus", "routed 2 sonnet", "start 2.0", "2.0@0 yes"]
    );
}

#[test]
fn what_was_seen_of_a_failed_attempt_is_marked_as_over() {
    for (next, mark) in [("opus", "restarted 2"), ("sonnet", "opus to sonnet 2")] {
        let slot = slot();
        let mut asker = asker(&slot);
        begin(&slot, 1, "opus");
        say(&slot, [start(1, 0), delta(1, 0, 0, "seen")]);
        heard(&mut asker);
        assert!(slot.seal(1));
        begin(&slot, 2, next);
        say(&slot, [start(2, 0), delta(2, 0, 0, "anew")]);
        assert_eq!(
            heard(&mut asker),
            [&format!("routed 2 {next}"), mark, "start 2.0", "2.0@0 anew"]
        );
    }
}

/// The rules were told that nothing was shown and may change the model because of it.
#[test]
fn what_was_sealed_unseen_is_not_shown_while_the_next_step_is_decided() {
    let slot = slot();
    let mut asker = asker(&slot);
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0), delta(1, 0, 0, "never")]);
    assert!(!slot.seal(1));
    assert_eq!(heard(&mut asker), ["routed 1 opus"]);
    begin(&slot, 2, "sonnet");
    say(&slot, [start(2, 0), delta(2, 0, 0, "yes")]);
    assert_eq!(heard(&mut asker), ["routed 2 sonnet", "start 2.0", "2.0@0 yes"]);
}

#[test]
fn a_failure_that_ends_it_shows_what_arrived() {
    let slot = slot();
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0), delta(1, 0, 0, "half")]);
    slot.seal(1);
    slot.close(failed());
    assert_eq!(
        heard(&mut asker(&slot)),
        ["routed 1 opus", "start 1.0", "1.0@0 half", "failed TRUNCATED"]
    );
}

#[test]
fn an_attempt_sealed_in_vain_goes_on_when_its_agent_links_again() {
    let slot = slot();
    let mut asker = asker(&slot);
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0), delta(1, 0, 0, "on")]);
    heard(&mut asker);
    slot.seal(1);
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0), delta(1, 0, 0, "on and")]);
    assert_eq!(heard(&mut asker), ["1.0@2  and"]);
}

#[test]
fn parts_sent_again_are_taken_once() {
    let slot = slot();
    begin(&slot, 1, "opus");
    let all = [start(1, 0), delta(1, 0, 0, "wör"), delta(1, 0, 4, "ter"), end(1, 0), start(1, 1)];
    say(&slot, all.clone());
    say(&slot, all);
    say(&slot, [delta(1, 0, 0, "wörter and more"), delta(1, 1, 0, "x"), delta(1, 1, 0, "xy")]);
    assert_eq!(
        heard(&mut asker(&slot))[1..],
        ["start 1.0", "1.0@0 wör", "1.0@4 ter", "end 1.0", "start 1.1", "1.1@0 x", "1.1@1 y"]
    );
}

#[test]
fn what_leaves_a_gap_is_dropped() {
    let slot = slot();
    begin(&slot, 1, "opus");
    say(&slot, [delta(1, 0, 0, "unbegun"), start(1, 1), end(1, 0)]);
    say(&slot, [start(1, 0), delta(1, 0, 3, "far"), delta(1, 0, u64::MAX, "farther")]);
    assert_eq!(heard(&mut asker(&slot)), ["routed 1 opus"]);
}

/// An attempt that fails between a part's beginning and its first word has shown nothing.
#[test]
fn a_part_is_shown_with_its_first_word() {
    let slot = slot();
    let mut asker = asker(&slot);
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0)]);
    assert_eq!(heard(&mut asker), ["routed 1 opus"]);
    assert!(!slot.seal(1));
    begin(&slot, 2, "opus");
    say(&slot, [start(2, 0), delta(2, 0, 0, "a")]);
    assert_eq!(heard(&mut asker), ["routed 2 opus", "start 2.0", "2.0@0 a"]);
}

#[test]
fn frames_of_another_attempt_are_dropped() {
    let slot = slot();
    say(&slot, [start(1, 0)]);
    begin(&slot, 2, "opus");
    say(&slot, [start(1, 0), start(3, 0)]);
    slot.seal(2);
    say(&slot, [start(2, 0)]);
    assert!(!slot.seal(1));
    slot.close(done());
    assert_eq!(heard(&mut asker(&slot)), ["routed 2 opus", "usage", "done"]);
}

#[test]
fn an_answer_beyond_the_limit_ends_its_attempt() {
    let slot = slot();
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0), delta(1, 0, 0, &"x".repeat(900))]);
    let over = slot.part(delta(1, 0, 900, &"x".repeat(200)));
    assert_eq!(over, Err(TooLarge { limit: LIMIT }));
    assert_eq!(slot.open_attempt(), None);
    say(&slot, [delta(1, 0, 900, "y")]);
}

#[test]
fn openings_and_closings_count_towards_the_limit() {
    let image = || Part::Image { media_type: "image/png".into(), data: vec![0; 2000].into() };
    let slot = slot();
    begin(&slot, 1, "opus");
    let opening = AnswerFrame::PartStart { attempt: 1, part: 0, opening: image() };
    assert_eq!(slot.part(opening), Err(TooLarge { limit: LIMIT }));

    begin(&slot, 2, "opus");
    say(&slot, [start(2, 0)]);
    let closing = AnswerFrame::PartEnd { attempt: 2, part: 0, closing: Some(image()) };
    assert_eq!(slot.part(closing), Err(TooLarge { limit: LIMIT }));

    begin(&slot, 3, "opus");
    let empty = (0..).map(|part| slot.part(start(3, part))).find(Result::is_err);
    assert_eq!(empty, Some(Err(TooLarge { limit: LIMIT })));
}

#[test]
fn a_settled_answer_adds_what_its_stream_has_not_said() {
    let slot = slot();
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0), delta(1, 0, 0, "be")]);
    let call = Part::ToolCall { id: "c".into(), name: "run".into(), arguments: "{}".into() };
    let opaque =
        Part::Opaque { provider: "p".into(), kind: "k".into(), data: Bytes::from_static(b"o") };
    slot.complete(1, &[Part::text("because"), call, opaque]).unwrap();
    slot.complete(1, &[Part::text("because")]).unwrap();
    assert_eq!(
        heard(&mut asker(&slot))[1..],
        [
            "start 1.0",
            "1.0@0 be",
            "1.0@2 cause",
            "end 1.0",
            "start 1.1",
            "1.1@0 {}",
            "end 1.1",
            "start 1.2",
            "end 1.2 whole"
        ]
    );
}

#[test]
fn an_answer_has_exactly_one_end() {
    let slot = slot();
    slot.close(done());
    slot.close(failed());
    slot.accepted(receipt());
    begin(&slot, 2, "opus");
    say(&slot, [start(2, 0)]);
    let mut asker = asker(&slot);
    assert_eq!(heard(&mut asker), ["usage", "done"]);
    assert_eq!(asker.next().now_or_never(), Some(None));
}

#[test]
fn an_acceptance_is_said_once() {
    let slot = slot();
    slot.accepted(receipt());
    slot.accepted(receipt());
    assert_eq!(heard(&mut asker(&slot)), ["accepted"]);
}

#[test]
fn askers_read_at_their_own_places() {
    let slot = slot();
    begin(&slot, 1, "opus");
    let (mut early, mut idle) = (asker(&slot), asker(&slot));
    say(&slot, [start(1, 0), delta(1, 0, 0, "a")]);
    assert_eq!(heard(&mut early), ["routed 1 opus", "start 1.0", "1.0@0 a"]);
    say(&slot, [delta(1, 0, 1, "b")]);
    assert_eq!(heard(&mut early), ["1.0@1 b"]);
    let all = ["routed 1 opus", "start 1.0", "1.0@0 a", "1.0@1 b"];
    assert_eq!(heard(&mut idle), all);
    assert_eq!(heard(&mut asker(&slot)), all);
}

#[tokio::test]
async fn a_waiting_asker_is_woken_by_every_kind_of_change() {
    let slot = slot();
    let mut asker = asker(&slot);
    for change in [
        (|slot: &Slot| slot.accepted(receipt())) as fn(&Slot),
        |slot| begin(slot, 1, "opus"),
        |slot| say(slot, [start(1, 0), end(1, 0)]),
        |slot| slot.close(failed()),
    ] {
        {
            let waiting = asker.next();
            tokio::pin!(waiting);
            assert!(waiting.as_mut().now_or_never().is_none());
            change(&slot);
            assert!(waiting.now_or_never().is_some());
        }
        heard(&mut asker);
    }
}

#[test]
fn an_asker_that_comes_back_hears_only_what_it_lacks() {
    let slot = slot();
    slot.accepted(receipt());
    begin(&slot, 2, "opus");
    say(&slot, [start(2, 0), delta(2, 0, 0, "abc"), end(2, 0), start(2, 1)]);
    say(&slot, [delta(2, 1, 0, "def"), delta(2, 1, 3, "ghi")]);
    let parts = |asker: &mut Asker| heard(asker).split_off(2);
    assert_eq!(parts(&mut returning(&slot, 2, 1, 4)), ["2.1@4 hi"]);
    assert_eq!(parts(&mut returning(&slot, 2, 1, 6)), [""; 0]);
    assert_eq!(
        parts(&mut returning(&slot, 2, 0, 3)),
        ["end 2.0", "start 2.1", "2.1@0 def", "2.1@3 ghi"]
    );
    assert_eq!(parts(&mut returning(&slot, 2, 1, 0)), ["2.1@0 def", "2.1@3 ghi"]);
}

#[test]
fn an_asker_that_comes_back_after_a_switch_is_told_once() {
    let slot = slot();
    let mut first = asker(&slot);
    begin(&slot, 1, "opus");
    say(&slot, [start(1, 0), delta(1, 0, 0, "seen")]);
    heard(&mut first);
    begin(&slot, 2, "sonnet");
    say(&slot, [start(2, 0), delta(2, 0, 0, "anew")]);
    assert_eq!(
        heard(&mut returning(&slot, 1, 0, 2)),
        [
            "routed 1 opus",
            "1.0@2 en",
            "routed 2 sonnet",
            "opus to sonnet 2",
            "start 2.0",
            "2.0@0 anew"
        ]
    );
    assert_eq!(
        heard(&mut returning(&slot, 2, 0, 2)),
        ["routed 1 opus", "routed 2 sonnet", "2.0@2 ew"]
    );
}

/// The slot is gone with the broker that made it; the asker has text of an attempt that is over.
#[test]
fn an_asker_from_before_a_restart_never_joins_two_attempts_silently() {
    let slot = slot();
    begin(&slot, 2, "opus");
    say(&slot, [start(2, 0), delta(2, 0, 0, "anew")]);
    assert_eq!(
        heard(&mut returning(&slot, 1, 0, 9)),
        ["routed 2 opus", "restarted 2", "start 2.0", "2.0@0 anew"]
    );
    let seen = Seen { attempt: 1, part: 0, offset: 9 };
    let (mut strict, _) = Asker::join(Arc::clone(&slot), seen, false);
    assert_eq!(heard(&mut strict), ["routed 2 opus", "failed AGENT_LOST"]);
    assert_eq!(strict.next().now_or_never(), Some(None));
    let nothing_yet = Seen { attempt: 1, part: 0, offset: 0 };
    let (mut fresh, _) = Asker::join(Arc::clone(&slot), nothing_yet, false);
    assert_eq!(heard(&mut fresh), ["routed 2 opus", "start 2.0", "2.0@0 anew"]);
}

#[test]
fn only_the_last_asker_to_leave_a_living_answer_is_missed() {
    let (slots, mut gone) = slots();
    let slot = slots.open(SEQ, &local(), id());
    let (one, is_first) = Asker::join(Arc::clone(&slot), Seen::default(), false);
    assert!(is_first);
    let (two, is_first) = Asker::join(Arc::clone(&slot), Seen::default(), false);
    assert!(!is_first && slot.has_askers());
    drop(one);
    assert!(gone.try_recv().is_err());
    drop(two);
    assert_eq!(gone.try_recv(), Ok(AskerLeft { seq: SEQ }));
    let (late, is_first) = Asker::join(Arc::clone(&slot), Seen::default(), false);
    assert!(is_first);
    slots.close(SEQ, &local(), id(), done());
    drop(late);
    assert!(gone.try_recv().is_err());
}

#[tokio::test]
async fn the_end_is_waited_for_without_being_an_asker() {
    let (slots, mut gone) = slots();
    let slot = slots.open(SEQ, &local(), id());
    let closed = slot.closed();
    tokio::pin!(closed);
    assert!(closed.as_mut().now_or_never().is_none());
    begin(&slot, 1, "opus");
    assert!(closed.as_mut().now_or_never().is_none());
    slots.close(SEQ, &local(), id(), done());
    assert!(closed.now_or_never().is_some());
    assert!(gone.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn only_slots_closed_long_ago_are_swept() {
    let (slots, _gone) = slots();
    let other = (Seq(8), MessageId::from_u128(8));
    let open = slots.open(other.0, &local(), other.1);
    slots.close(SEQ, &local(), id(), done());
    slots.sweep();
    assert!(slots.find(&local(), id()).is_some());
    tokio::time::advance(std::time::Duration::from_secs(31)).await;
    slots.sweep();
    assert!(slots.find(&local(), id()).is_none() && slots.get(SEQ).is_none());
    assert!(Arc::ptr_eq(&open, &slots.open(other.0, &local(), other.1)));
}

/// I-27, I-35: a new life has a stream of its own, and the old one keeps its one end.
#[tokio::test]
async fn a_slot_that_was_closed_is_not_begun_again() {
    let (slots, _gone) = slots();
    let first = slots.begin(SEQ, &local(), id());
    assert!(Arc::ptr_eq(&first, &slots.begin(SEQ, &local(), id())));
    slots.close(SEQ, &local(), id(), done());
    assert!(Arc::ptr_eq(&first, &slots.open(SEQ, &local(), id())));

    let second = slots.begin(SEQ, &local(), id());

    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &slots.find(&local(), id()).unwrap()));
}

#[test]
fn a_stored_answer_is_heard_like_a_live_one() {
    let routed = Routed {
        model: model("opus"),
        agent: None,
        attempt: 3,
        why: String::new(),
        attempts: vec![],
        passed_over: vec![],
        is_degraded: false,
        is_simulated: false,
    };
    let parts = [Part::text("because")];
    let slot = Slots::finished(id(), receipt(), Some(routed), &parts, done());
    assert_eq!(
        heard(&mut asker(&slot)),
        ["accepted", "routed 3 opus", "start 3.0", "3.0@0 because", "end 3.0", "usage", "done"]
    );
    assert_eq!(
        heard(&mut returning(&slot, 3, 0, 4)).split_off(2),
        ["3.0@4 use", "end 3.0", "usage", "done"]
    );
}
