//! Every rule with a history that must be found, beside one that must not.

use super::{Verdict, check};
use crate::history::{
    Accepted, Delivered, Entry, Fault, Frame, How, Outcome, Role, Said, Settings, What,
};

/// When deadlines of these histories are, by the wall clock that begins with zero.
const FAR: u64 = 1_000_000;

/// A history made by hand, a millisecond between two lines.
#[derive(Clone)]
struct Tale {
    entries: Vec<Entry>,
    now_ms: u64,
    calls: u64,
}

impl Tale {
    fn new() -> Self {
        let mut tale = Self { entries: Vec::new(), now_ms: 0, calls: 0 };
        tale.say("harness", What::Began { seed: 7, role: Role::Harness, pid: 1 });
        let settings = Settings { lease_ms: 1000, max_lost_leases: 2, queue_messages: 10 };
        tale.say("harness", What::Settings(settings));
        tale.say("sender", What::Began { seed: 7, role: Role::Sender, pid: 2 });
        tale.linked("1");
        tale
    }

    fn say(&mut self, by: &str, what: What) -> &mut Self {
        let (at, wall) = (self.now_ms * 1_000_000, self.now_ms);
        self.entries.push(Entry { at, wall, by: by.to_owned(), what });
        self.now_ms += 1;
        self
    }

    fn wait(&mut self, millis: u64) -> &mut Self {
        self.now_ms += millis;
        self
    }

    fn call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    fn linked(&mut self, link: &str) -> &mut Self {
        self.say(
            "agent",
            What::Linked {
                link: link.to_owned(),
                agent: "ann".into(),
                instance: "i".into(),
                lease_ms: 1000,
                resumed: Vec::new(),
            },
        );
        self.say("agent", What::Credit { link: link.to_owned(), messages: 1000, size_bytes: FAR })
    }

    fn said(id: &str) -> Said {
        Said {
            to: "agent/ann".into(),
            kind: "status".into(),
            priority: 1,
            key: None,
            digest: format!("bytes of {id}"),
            size_bytes: 10,
            expires_at: None,
        }
    }

    /// Sends, and is answered so.
    fn send_as(&mut self, id: &str, said: Said, outcome: Outcome<Accepted>) -> &mut Self {
        let (call, id) = (self.call(), id.to_owned());
        self.say("sender", What::Send { call, id: id.clone(), said });
        self.say("sender", What::Sent { call, id, outcome })
    }

    fn send(&mut self, id: &str) -> &mut Self {
        self.send_as(id, Self::said(id), receipt(false, FAR))
    }

    fn ask(&mut self, id: &str) -> &mut Self {
        let said = Said { kind: "consultation".into(), ..Self::said(id) };
        self.send_as(id, said, receipt(false, FAR))
    }

    fn delivered(id: &str, number: u64, attempt: u32) -> Delivered {
        Delivered {
            link: "1".into(),
            agent: "ann".into(),
            queue: "agent/ann".into(),
            id: id.to_owned(),
            number,
            attempt,
            lease: format!("{id}#{attempt}"),
            digest: format!("bytes of {id}"),
            priority: 1,
            key: None,
            left_ms: 1,
            size_bytes: 10,
        }
    }

    /// Delivers now, as the broker says itself.
    fn deliver_as(&mut self, delivered: Delivered) -> &mut Self {
        let left_ms = if delivered.left_ms == 1 { FAR - self.now_ms } else { delivered.left_ms };
        self.say("agent", What::Delivered(Delivered { left_ms, ..delivered }))
    }

    fn deliver(&mut self, id: &str, number: u64, attempt: u32) -> &mut Self {
        self.deliver_as(Self::delivered(id, number, attempt))
    }

    fn settle_as(&mut self, id: &str, attempt: u32, how: How, outcome: Outcome<()>) -> &mut Self {
        let (call, lease) = (self.call(), format!("{id}#{attempt}"));
        let reply = (how == How::Done).then(|| format!("reply {id}#{attempt}"));
        let id = id.to_owned();
        self.say(
            "agent",
            What::Settle { call, lease: lease.clone(), id: id.clone(), attempt, how, reply },
        );
        self.say("agent", What::Settled { call, lease, id, outcome })
    }

    fn settle(&mut self, id: &str, attempt: u32, how: How) -> &mut Self {
        self.settle_as(id, attempt, how, Outcome::Ok(()))
    }

    /// Sent, delivered and done.
    fn whole(&mut self, id: &str, number: u64) -> &mut Self {
        self.send(id).deliver(id, number, 1).settle(id, 1, How::Done)
    }

    fn cancel(&mut self, id: &str) -> &mut Self {
        let (call, id) = (self.call(), id.to_owned());
        self.say("sender", What::Cancel { call, id: id.clone() });
        self.say("sender", What::Cancelled { call, id, outcome: Outcome::Ok("cancelled".into()) })
    }

    fn frames(&mut self, id: &str, frames: Vec<Frame>) -> &mut Self {
        let stream = self.call();
        for frame in frames {
            self.say("sender", What::Frame { id: id.to_owned(), stream, frame });
        }
        self.say("sender", What::StreamEnded { id: id.to_owned(), stream, broken: None })
    }

    fn learn_as(&mut self, id: &str, state: &str, reply: Option<&str>) -> &mut Self {
        self.say(
            "sender",
            What::Learned {
                id: id.to_owned(),
                state: state.to_owned(),
                class: None,
                reply: reply.map(str::to_owned),
            },
        )
    }

    fn learn(&mut self, id: &str, state: &str) -> &mut Self {
        self.learn_as(id, state, None)
    }

    fn fault(&mut self, fault: Fault) -> &mut Self {
        self.say("harness", What::Fault { fault })
    }

    #[track_caller]
    fn is_clean(&mut self) {
        self.finds(&[]);
    }

    /// Exactly these promises are broken, in exactly these ways.
    #[track_caller]
    fn finds(&mut self, want: &[(&str, Verdict)]) {
        self.say("sender", What::Ended);
        let report = check(&self.entries);
        let want: Vec<_> =
            want.iter().map(|(name, verdict)| ((*name).to_owned(), *verdict)).collect();
        assert_eq!(report.broken(), want, "{:#?}", report.findings);
        assert_eq!(report.is_clean, want.is_empty());
    }
}

fn receipt(is_duplicate: bool, deadline: u64) -> Outcome<Accepted> {
    Outcome::Ok(Accepted { is_duplicate, accepted_at: 1, deadline })
}

fn refused<T>(code: &str, reason: &str) -> Outcome<T> {
    Outcome::Refused { code: code.into(), reason: reason.into(), retry_ms: None }
}

fn unknown<T>() -> Outcome<T> {
    Outcome::Unknown { why: "the connection broke".into() }
}

fn lease_lost() -> Outcome<()> {
    refused("FAILED_PRECONDITION", "LEASE_LOST")
}

#[test]
fn i_1_an_acknowledged_message_is_known_at_the_end() {
    Tale::new().whole("m", 1).learn("m", "done").is_clean();
    let mut lost = Tale::new();
    lost.send("m").fault(Fault::BrokerKilled).fault(Fault::BrokerUp).learn("m", "lost");
    lost.finds(&[("I-1", Verdict::Lost)]);
}

#[test]
fn i_1_a_message_that_is_taken_anew_unseen_had_been_lost() {
    let mut tale = Tale::new();
    tale.send("m").fault(Fault::BrokerKilled).send("m").deliver("m", 1, 1);
    tale.settle("m", 1, How::Done).learn("m", "done").finds(&[("I-1", Verdict::Lost)]);
}

#[test]
fn i_2_what_was_refused_is_not_stored() {
    let mut tale = Tale::new();
    tale.send_as("m", Tale::said("m"), refused("INVALID_ARGUMENT", "TOO_LARGE"));
    tale.clone().learn("m", "lost").is_clean();
    tale.deliver("m", 1, 1).finds(&[("I-2", Verdict::Unknown)]);
}

#[test]
fn i_2_what_is_delivered_was_sent() {
    Tale::new().deliver("m", 1, 1).finds(&[("I-2", Verdict::Unknown)]);
}

#[test]
fn i_3_what_was_cut_off_is_delivered_whole_or_not_at_all() {
    let mut tale = Tale::new();
    tale.send_as("m", Tale::said("m"), unknown());
    tale.clone().deliver("m", 1, 1).settle("m", 1, How::Done).learn("m", "done").is_clean();
    tale.clone().learn("m", "lost").is_clean();
    tale.deliver_as(Delivered { digest: "half".into(), ..Tale::delivered("m", 1, 1) });
    tale.finds(&[("I-3", Verdict::Altered)]);
}

#[test]
fn i_5_what_is_delivered_is_what_was_acknowledged() {
    let mut tale = Tale::new();
    tale.send("m");
    tale.deliver_as(Delivered { digest: "other".into(), ..Tale::delivered("m", 1, 1) });
    tale.settle("m", 1, How::Done).learn("m", "done").finds(&[("I-5", Verdict::Altered)]);
}

#[test]
fn i_6_every_message_comes_to_one_end_that_somebody_caused() {
    Tale::new().send("m").learn("m", "queued").finds(&[("I-6", Verdict::Late)]);
    Tale::new().send("m").finds(&[("I-6", Verdict::Lost)]);
    Tale::new().send("m").deliver("m", 1, 1).learn("m", "done").finds(&[("I-6", Verdict::Unknown)]);
    let mut failed = Tale::new();
    failed.send("m").deliver("m", 1, 1).settle("m", 1, How::Failed).learn("m", "failed").is_clean();
    Tale::new().send("m").learn("m", "failed").finds(&[("I-6", Verdict::Unknown)]);
}

#[test]
fn i_6_says_nothing_of_a_sender_that_did_not_come_to_its_end() {
    let mut tale = Tale::new();
    tale.send("m");
    assert!(check(&tale.entries).is_clean);
    assert!(!check(&tale.entries).is_whole);
}

#[test]
fn i_7_the_same_id_again_is_the_first_receipt() {
    let mut tale = Tale::new();
    tale.whole("m", 1).learn("m", "done");
    tale.clone().send_as("m", Tale::said("m"), receipt(true, FAR)).is_clean();
    tale.clone().send("m").finds(&[("I-7", Verdict::Duplicated)]);
    let mut other_receipt = tale.clone();
    other_receipt.send_as("m", Tale::said("m"), receipt(true, FAR + 1));
    other_receipt.finds(&[("I-7", Verdict::Altered)]);
    let reused = refused("ALREADY_EXISTS", "ID_REUSED");
    tale.send_as("m", Tale::said("m"), reused).finds(&[("I-7", Verdict::Wrong)]);
}

#[test]
fn i_7_the_same_id_with_another_content_is_refused() {
    let mut tale = Tale::new();
    tale.whole("m", 1).learn("m", "done");
    let other = Said { digest: "other".into(), ..Tale::said("m") };
    let reused = refused("ALREADY_EXISTS", "ID_REUSED");
    tale.clone().send_as("m", other.clone(), reused).is_clean();
    tale.send_as("m", other, receipt(true, FAR)).finds(&[("I-7", Verdict::Duplicated)]);
}

#[test]
fn i_9_numbers_rise_with_the_sends_and_are_not_given_twice() {
    Tale::new().whole("a", 1).learn("a", "done").whole("b", 5).learn("b", "done").is_clean();
    let mut twice = Tale::new();
    twice.whole("a", 1).learn("a", "done").whole("b", 1).learn("b", "done");
    twice.finds(&[("I-9", Verdict::Duplicated)]);
    let mut falling = Tale::new();
    falling.whole("a", 5).learn("a", "done").whole("b", 4).learn("b", "done");
    falling.finds(&[("I-9", Verdict::Reordered)]);
}

#[test]
fn i_10_first_deliveries_of_one_key_and_priority_come_in_order() {
    let end = |tale: &mut Tale| {
        for id in ["a", "b"] {
            tale.settle(id, 1, How::Done).learn(id, "done");
        }
    };
    let mut ordered = Tale::new();
    ordered.send("a").send("b").deliver("a", 1, 1).deliver("b", 2, 1);
    end(&mut ordered);
    ordered.is_clean();
    let mut reversed = Tale::new();
    reversed.send("a").send("b").deliver("b", 2, 1).deliver("a", 1, 1);
    end(&mut reversed);
    reversed.finds(&[("I-10", Verdict::Reordered)]);
}

#[test]
fn i_10_promises_nothing_across_priorities_keys_and_later_attempts() {
    let mut tale = Tale::new();
    let urgent = Said { priority: 3, ..Tale::said("b") };
    let keyed = Said { key: Some("k".into()), ..Tale::said("c") };
    tale.send("a").send_as("b", urgent, receipt(false, FAR));
    tale.send_as("c", keyed, receipt(false, FAR));
    for (id, number) in [("c", 3), ("b", 2), ("a", 1)] {
        tale.deliver(id, number, 1).settle(id, 1, How::Done).learn(id, "done");
    }
    tale.is_clean();
}

#[test]
fn i_11_a_later_one_of_a_strict_key_waits_for_the_end_of_the_one_before() {
    let strict =
        |id: &str| Said { kind: "delegation".into(), key: Some("k".into()), ..Tale::said(id) };
    let mut tale = Tale::new();
    for id in ["a", "b"] {
        tale.send_as(id, strict(id), receipt(false, FAR));
    }
    let mut early = tale.clone();
    early.deliver("a", 1, 1).deliver("b", 2, 1);
    for id in ["a", "b"] {
        early.settle(id, 1, How::Done).learn(id, "done");
    }
    early.finds(&[("I-11", Verdict::Reordered)]);
    for (id, number) in [("a", 1), ("b", 2)] {
        tale.deliver(id, number, 1).settle(id, 1, How::Done).learn(id, "done");
    }
    tale.is_clean();
}

/// A backlog of all priorities, delivered in the order that `next` gives.
fn backlog(next: impl Fn(usize, &[usize; 4]) -> usize) -> Tale {
    backlog_after(&[], next)
}

/// The same, after these faults.
fn backlog_after(faults: &[Fault], next: impl Fn(usize, &[usize; 4]) -> usize) -> Tale {
    let mut tale = Tale::new();
    for fault in faults {
        tale.fault(fault.clone());
    }
    tale.say(
        "harness",
        What::Settings(Settings { lease_ms: 1000, max_lost_leases: 2, queue_messages: 10_000 }),
    );
    let counts = [30, 60, 120, 240];
    for (lane, count) in counts.into_iter().enumerate() {
        for number in 0..count {
            let id = format!("{lane}-{number}");
            let priority = u8::try_from(lane).unwrap();
            let said = Said { priority, ..Tale::said(&id) };
            tale.send_as(&id, said, receipt(false, FAR));
        }
    }
    let mut taken = [0; 4];
    // Numbers as the sends had them: all of a lane before the next lane's.
    let first = [1, 31, 91, 211];
    for place in 0..450 {
        let lane = next(place, &taken);
        let id = format!("{lane}-{}", taken[lane]);
        let priority = u8::try_from(lane).unwrap();
        let number = first[lane] + taken[lane] as u64;
        taken[lane] += 1;
        tale.deliver_as(Delivered { priority, ..Tale::delivered(&id, number, 1) });
        tale.settle(&id, 1, How::Done).learn(&id, "done");
    }
    tale
}

#[test]
fn i_12_a_backlog_is_shared_eight_to_four_to_two_to_one() {
    let fair = [3, 3, 2, 3, 3, 2, 1, 3, 3, 2, 3, 3, 2, 1, 0];
    backlog(|place, _| fair[place % 15]).is_clean();
}

#[test]
fn i_12_a_share_that_is_too_large_is_found_and_so_is_a_low_one_that_waits() {
    backlog(greedy).finds(&[("I-12", Verdict::Reordered)]);
    // The same shares, but the low ones of each thirty at its end.
    let mut late = backlog(|place, _| match place % 30 {
        28 | 29 => 0,
        0..=15 => 3,
        16..=23 => 2,
        _ => 1,
    });
    late.finds(&[("I-12", Verdict::Late)]);
}

/// The most urgent first, as long as there is one.
fn greedy(_: usize, taken: &[usize; 4]) -> usize {
    match *taken {
        [_, _, _, ..240] => 3,
        [_, _, ..120, _] => 2,
        [_, ..60, _, _] => 1,
        _ => 0,
    }
}

#[test]
fn i_12_is_not_judged_of_an_agent_that_was_held_when_its_turns_were_chosen() {
    let held = |agent: &str| Fault::AgentHeld { agent: agent.to_owned() };
    backlog_after(&[held("ann")], greedy).is_clean();
    backlog_after(&[held("bea")], greedy).finds(&[("I-12", Verdict::Reordered)]);
}

#[test]
fn i_13_a_delivery_has_a_number_and_a_token_of_its_own() {
    let mut tale = Tale::new();
    tale.send("m").deliver("m", 1, 1).deliver("m", 1, 1);
    tale.settle("m", 1, How::Done).learn("m", "done");
    tale.finds(&[("I-13", Verdict::Duplicated)]);
    let mut token = Tale::new();
    token.send("a").send("b").deliver("a", 1, 1);
    token.deliver_as(Delivered { lease: "a#1".into(), ..Tale::delivered("b", 2, 1) });
    token.settle("a", 1, How::Done).learn("a", "done");
    token.settle("b", 1, How::Done).learn("b", "done");
    token.finds(&[("I-13", Verdict::Duplicated)]);
}

#[test]
fn i_14_a_stale_token_settles_nothing() {
    let mut tale = Tale::new();
    tale.send("m").deliver("m", 1, 1).wait(1000).deliver("m", 1, 2);
    let mut fenced = tale.clone();
    fenced.settle_as("m", 1, How::Done, lease_lost()).settle("m", 2, How::Done);
    fenced.learn("m", "done").is_clean();
    tale.settle("m", 1, How::Done).settle_as("m", 2, How::Done, lease_lost());
    tale.learn("m", "done").finds(&[("I-14", Verdict::Wrong)]);
}

#[test]
fn i_14_a_forged_token_is_refused_in_the_word_for_it() {
    let mut tale = Tale::new();
    tale.send("m").deliver("m", 1, 1);
    tale.clone()
        .settle("m", 1, How::Forged)
        .settle("m", 1, How::Done)
        .learn("m", "done")
        .finds(&[("I-14", Verdict::Wrong)]);
    let other = refused("NOT_FOUND", "UNKNOWN_MESSAGE");
    tale.settle_as("m", 1, How::Forged, other).settle("m", 1, How::Done).learn("m", "done");
    tale.finds(&[("I-14", Verdict::Wrong)]);
}

#[test]
fn i_16_no_lease_ends_before_its_time() {
    let mut tale = Tale::new();
    tale.send("m").deliver("m", 1, 1).wait(300).deliver("m", 1, 2);
    tale.settle("m", 2, How::Done).learn("m", "done").finds(&[("I-16", Verdict::Early)]);
}

#[test]
fn i_16_a_lease_begins_before_a_slow_sync() {
    let mut slow = Tale::new();
    slow.send("m");
    let call = slow.call();
    slow.say("sender", What::Send { call, id: "n".into(), said: Tale::said("n") }).wait(300);
    slow.say("sender", What::Sent { call, id: "n".into(), outcome: receipt(false, FAR) });
    slow.deliver("m", 1, 1).wait(300).deliver("m", 1, 2).settle("m", 2, How::Done);
    slow.learn("m", "done").deliver("n", 2, 1).settle("n", 1, How::Done).learn("n", "done");
    slow.is_clean();
}

#[test]
fn i_16_a_lease_may_end_early_by_a_settlement_a_new_link_or_a_fall() {
    let mut released = Tale::new();
    released.send("m").deliver("m", 1, 1).settle("m", 1, How::Release).deliver("m", 1, 2);
    released.settle("m", 2, How::Done).learn("m", "done").is_clean();
    let mut linked = Tale::new();
    linked.send("m").deliver("m", 1, 1).linked("2").deliver("m", 1, 2);
    linked.settle("m", 2, How::Done).learn("m", "done").is_clean();
    let mut fell = Tale::new();
    fell.send("m").deliver("m", 1, 1).fault(Fault::BrokerKilled).fault(Fault::BrokerUp);
    fell.deliver("m", 1, 2).settle("m", 2, How::Done).learn("m", "done").is_clean();
}

#[test]
fn i_16_a_lease_that_nobody_renews_ends() {
    let mut tale = Tale::new();
    tale.send("m").deliver("m", 1, 1).wait(20_000).learn("m", "leased");
    tale.finds(&[("I-16", Verdict::Late)]);
}

#[test]
fn i_18_what_was_acknowledged_as_done_does_not_come_again() {
    let mut tale = Tale::new();
    tale.whole("m", 1).wait(2000).deliver("m", 1, 2).settle("m", 2, How::Done);
    tale.learn("m", "done").finds(&[("I-18", Verdict::Duplicated)]);
}

#[test]
fn i_19_the_same_token_again_is_acknowledged_and_changes_nothing() {
    let mut tale = Tale::new();
    tale.whole("m", 1);
    tale.clone().settle("m", 1, How::Release).learn("m", "done").is_clean();
    tale.settle_as("m", 1, How::Done, lease_lost()).learn("m", "done");
    tale.finds(&[("I-19", Verdict::Wrong)]);
    let mut second = Tale::new();
    second.send("m").deliver("m", 1, 1).settle("m", 1, How::Retry).settle("m", 1, How::Done);
    second.clone().deliver("m", 1, 2).settle("m", 2, How::Done).learn("m", "done").is_clean();
    second.learn("m", "done").finds(&[("I-19", Verdict::Duplicated)]);
}

#[test]
fn i_20_the_answer_is_the_one_it_was_settled_with() {
    let answered = |reply| {
        let mut tale = Tale::new();
        tale.ask("m").deliver("m", 1, 1).settle("m", 1, How::Done);
        tale.ask("n").deliver("n", 2, 1).settle("n", 1, How::Done);
        tale.learn_as("n", "done", Some("reply n#1")).learn_as("m", "done", reply);
        tale
    };
    answered(Some("reply m#1")).is_clean();
    answered(None).finds(&[("I-20", Verdict::Lost)]);
    answered(Some("nobody's")).finds(&[("I-20", Verdict::Lost)]);
    answered(Some("reply n#1")).finds(&[("I-20", Verdict::Altered)]);
}

#[test]
fn i_22_nothing_is_delivered_after_its_deadline_or_ends_before_it() {
    let sent = |deadline| {
        let mut tale = Tale::new();
        let said = Said { expires_at: Some(deadline), ..Tale::said("m") };
        tale.send_as("m", said, receipt(false, deadline));
        tale
    };
    sent(50).wait(100).learn("m", "expired").is_clean();
    sent(5000).learn("m", "expired").finds(&[("I-22", Verdict::Early)]);
    sent(50).wait(9000).learn("m", "queued").finds(&[("I-22", Verdict::Late)]);
    let mut late = sent(50);
    late.wait(2000).deliver_as(Delivered { left_ms: 0, ..Tale::delivered("m", 1, 1) });
    late.settle("m", 1, How::Done).learn("m", "done").finds(&[("I-22", Verdict::Late)]);
}

#[test]
fn i_23_a_clock_that_steps_back_revives_nothing() {
    let clock = |offset_ms| Fault::Clock { offset_ms };
    let mut tale = Tale::new();
    tale.send_as("m", Tale::said("m"), receipt(false, 15_000));
    tale.fault(clock(20_000)).wait(10).fault(clock(-20_000)).wait(5000);
    tale.clone().learn("m", "expired").is_clean();
    let delivered = Delivered { left_ms: 30_000, ..Tale::delivered("m", 1, 1) };
    tale.deliver_as(delivered).settle("m", 1, How::Done).learn("m", "done");
    tale.finds(&[("I-23", Verdict::Late)]);
}

#[test]
fn i_24_expiry_is_not_a_failure_and_not_a_dead_letter() {
    for state in ["failed", "dead"] {
        let mut tale = Tale::new();
        tale.send_as("m", Tale::said("m"), receipt(false, 50)).wait(100).learn("m", state);
        tale.finds(&[("I-24", Verdict::Wrong)]);
    }
}

#[test]
fn i_25_a_message_dies_of_so_many_lost_leases_and_of_no_other_number() {
    let lost = |times: u32| {
        let mut tale = Tale::new();
        tale.send("m");
        for attempt in 1..=times {
            tale.deliver("m", 1, attempt).wait(1500);
        }
        tale.learn("m", "dead");
        tale
    };
    lost(2).is_clean();
    lost(1).finds(&[("I-25", Verdict::Early)]);
    lost(3).finds(&[("I-25", Verdict::Late)]);
}

#[test]
fn i_25_what_was_rejected_is_dead() {
    let mut tale = Tale::new();
    tale.send("m").deliver("m", 1, 1).settle("m", 1, How::Reject);
    tale.clone().learn("m", "dead").is_clean();
    tale.clone().learn("m", "cancelled").finds(&[("I-25", Verdict::Wrong)]);
    tale.deliver("m", 1, 2).settle("m", 2, How::Done).learn("m", "done");
    tale.finds(&[("I-25", Verdict::Duplicated)]);
}

#[test]
fn i_28_a_full_queue_drops_nothing_and_says_when_to_come_again() {
    let full = || {
        let mut tale = Tale::new();
        for number in 1..=10 {
            tale.send(&format!("m{number}"));
        }
        tale
    };
    let end = |tale: &mut Tale| {
        for number in 1..=10 {
            let id = format!("m{number}");
            tale.deliver(&id, number, 1).settle(&id, 1, How::Done).learn(&id, "done");
        }
    };
    let refusal = |retry_ms| Outcome::Refused {
        code: "RESOURCE_EXHAUSTED".into(),
        reason: "QUEUE_FULL".into(),
        retry_ms,
    };
    let mut right = full();
    right.send_as("over", Tale::said("over"), refusal(Some(1000)));
    end(&mut right);
    right.is_clean();
    let mut bare = full();
    bare.send_as("over", Tale::said("over"), refusal(None));
    end(&mut bare);
    bare.finds(&[("I-28", Verdict::Wrong)]);
    let mut dropped = full();
    dropped.send("over");
    end(&mut dropped);
    dropped.learn("over", "lost").finds(&[("I-28", Verdict::Lost)]);
    let mut over = full();
    over.send("over");
    end(&mut over);
    over.deliver("over", 11, 1).settle("over", 1, How::Done).learn("over", "done");
    over.finds(&[("I-28", Verdict::Wrong)]);
    let mut early = Tale::new();
    early.send_as("m", Tale::said("m"), refusal(Some(1000))).learn("m", "lost");
    early.finds(&[("I-28", Verdict::Early)]);
}

#[test]
fn i_29_nothing_comes_without_credit() {
    let mut tale = Tale::new();
    tale.linked("2");
    tale.entries.pop();
    tale.say("agent", What::Credit { link: "2".into(), messages: 1, size_bytes: 100 });
    tale.send("a").send("b");
    tale.deliver_as(Delivered { link: "2".into(), ..Tale::delivered("a", 1, 1) });
    tale.settle("a", 1, How::Done).learn("a", "done");
    let mut given = tale.clone();
    given.say("agent", What::Credit { link: "2".into(), messages: 1, size_bytes: 10 });
    for tale in [&mut given, &mut tale] {
        tale.deliver_as(Delivered { link: "2".into(), ..Tale::delivered("b", 2, 1) });
        tale.settle("b", 1, How::Done).learn("b", "done");
    }
    given.is_clean();
    tale.finds(&[("I-29", Verdict::Early)]);
}

#[test]
fn i_33_what_the_broker_lists_is_what_was_acknowledged() {
    let counted = |done| What::Counted { states: [("done".to_owned(), done)].into() };
    let mut tale = Tale::new();
    tale.whole("m", 1).learn("m", "done");
    tale.clone().say("sender", counted(1)).is_clean();
    tale.say("sender", counted(2)).finds(&[("I-33", Verdict::Wrong)]);
}

fn said(attempt: u32) -> Frame {
    Frame::Said { attempt, size_bytes: 3 }
}

fn done(reply: &str) -> Frame {
    Frame::Terminal { state: "done".into(), reply: reply.into() }
}

#[test]
fn i_35_a_stream_ends_with_one_terminal_frame_and_joins_no_attempts() {
    let streamed = |frames| {
        let mut tale = Tale::new();
        tale.ask("m").deliver("m", 1, 1).wait(1000).deliver("m", 1, 2).settle("m", 2, How::Done);
        tale.frames("m", frames).learn_as("m", "done", Some("reply m#2"));
        tale
    };
    let anew = Frame::Anew { attempt: 2 };
    streamed(vec![said(1), anew, said(2), done("reply m#2")]).is_clean();
    streamed(vec![said(2)]).finds(&[("I-35", Verdict::Lost)]);
    streamed(vec![said(1), said(2), done("reply m#2")]).finds(&[("I-35", Verdict::Altered)]);
    streamed(vec![done("reply m#2"), said(2)]).finds(&[("I-35", Verdict::Wrong)]);
}

#[test]
fn i_35_all_streams_of_one_answer_end_alike() {
    let mut tale = Tale::new();
    tale.ask("m").deliver("m", 1, 1).settle("m", 1, How::Done);
    let failed = Frame::Terminal { state: "failed".into(), reply: String::new() };
    tale.frames("m", vec![done("reply m#1")]).frames("m", vec![failed]);
    tale.learn_as("m", "done", Some("reply m#1")).finds(&[("I-35", Verdict::Duplicated)]);
}

#[test]
fn i_37_what_was_cancelled_is_not_delivered_and_stays_cancelled() {
    let mut tale = Tale::new();
    tale.send("m").cancel("m");
    tale.clone().learn("m", "cancelled").is_clean();
    tale.clone()
        .wait(600)
        .deliver("m", 1, 1)
        .learn("m", "cancelled")
        .finds(&[("I-37", Verdict::Late)]);
    let mut done = Tale::new();
    done.send("m").deliver("m", 1, 1).cancel("m").settle("m", 1, How::Done).learn("m", "done");
    done.finds(&[("I-37", Verdict::Lost)]);
}

#[test]
fn the_report_names_seed_figures_and_how_much_was_judged() {
    let mut tale = Tale::new();
    tale.whole("m", 1).learn("m", "done").say("sender", What::Ended);
    let report = check(&tale.entries);
    assert_eq!(report.seeds, [7]);
    assert!(report.is_whole);
    assert_eq!((report.figures["accepted"], report.figures["deliveries"]), (1, 1));
    assert_eq!(report.invariants["I-1"].cases, 1);
    assert_eq!(report.invariants["I-12"].cases, 0);
}
