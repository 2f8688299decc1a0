use std::time::Duration;

use broker_proto::{Failure, FailureClass, WallTime};

use super::*;
use crate::core::policy::Routing;

const NOW: Now = Now { wall: WallTime(1_000_000), boot: BootTime(Duration::ZERO) };
const ROUTING: Routing = Routing {
    patience: Duration::from_secs(5),
    max_attempts: 8,
    max_total: Duration::from_secs(600),
    breaker_failures: 3,
    breaker_open: Duration::from_secs(10),
    breaker_open_max: Duration::from_secs(300),
    probe_after: Duration::from_secs(60),
    credit_probe_after: Duration::from_secs(300),
    agent_grace: Duration::from_secs(5),
    min_output_tokens: 16,
};

#[track_caller]
fn check(class: FailureClass, retry_after: Option<u64>, tries_here: u32, want: Verdict) {
    let retry_at = retry_after.map(|secs| NOW.wall.after(Duration::from_secs(secs)));
    let failure = Failure { retry_at, ..Failure::new(class, "provider", "") };
    let verdict = verdict(&failure, tries_here, &ROUTING, NOW);
    assert_eq!(verdict, want, "{class:?} {retry_after:?} at try {tries_here}");
}

fn at(millis: u64) -> WallTime {
    WallTime(NOW.wall.0 + millis)
}

#[test]
fn each_class_means_for_its_message_what_the_table_says() {
    use FailureClass as C;
    let breath = Verdict::Again { at: at(250) };
    check(C::RateLimited, Some(5), 1, Verdict::ShortWait { until: at(5_000) });
    check(C::RateLimited, Some(6), 1, Verdict::Next);
    check(C::RateLimited, None, 1, Verdict::Next);
    for class in [C::QuotaExhausted, C::CreditExhausted, C::CredentialsRejected, C::ModelNotFound] {
        check(class, None, 1, Verdict::Next);
        check(class, Some(1), 1, Verdict::Next);
    }
    for class in
        [C::Overloaded, C::Timeout, C::Unreachable, C::Truncated, C::MalformedReply, C::Internal]
    {
        check(class, None, 1, breath);
        check(class, None, 2, Verdict::Next);
        check(class, Some(2), 1, Verdict::Again { at: at(2_000) });
        check(class, Some(2), 2, Verdict::Next);
        check(class, Some(6), 1, Verdict::Next);
    }
    check(C::AgentLost, None, 4, Verdict::Again { at: NOW.wall });
    check(C::ContextTooLong, None, 1, Verdict::Larger);
    check(C::RequestTooLarge, None, 1, Verdict::Next);
    for class in [C::InvalidRequest, C::ContentRefused, C::Budget, C::Cancelled] {
        check(class, None, 1, Verdict::Fail);
    }
}

#[test]
fn a_gate_opens_to_one_at_its_time() {
    let model = ModelName::parse("opus").unwrap();
    let shut = |until| {
        let mut state = State::default();
        let class = FailureClass::QuotaExhausted;
        let shut = Shut { until, is_told: true, class, reason: String::new() };
        let route = ModelRoute { failures: 0, closings: 1, shut: Some(shut) };
        state.apply(&Event::RouteChanged { model: model.clone(), at: NOW.wall, route });
        state
    };
    let mut due = shut(Some(at(0)));

    assert_eq!(State::default().gate(&model, NOW), Gate::Open);
    assert_eq!(shut(Some(at(1))).gate(&model, NOW), Gate::Shut);
    assert_eq!(shut(None).gate(&model, NOW), Gate::Shut);
    assert_eq!(due.gate(&model, NOW), Gate::Due);
    due.note(&Note::Probing { model: model.clone(), seq: Some(Seq(7)) });
    assert_eq!(due.gate(&model, NOW), Gate::Probing(Seq(7)));
}

mod history {
    use super::*;
    use crate::core::tests::given::policy;

    /// 40 bytes of question and instructions, and a history of so many, 4 bytes a token.
    fn needs(history_bytes: u64) -> Needs {
        Needs {
            prompt_bytes: 40 + history_bytes,
            history_bytes,
            has_images: false,
            max_output_tokens: Some(100),
            max_cost_usd: None,
            max_tokens: None,
            too_small: 0,
        }
    }

    fn window(tokens: u64) -> crate::core::policy::Model {
        let policy = policy();
        let model = policy.models.values().next().unwrap().clone();
        crate::core::policy::Model {
            context_window: tokens,
            max_output_tokens: tokens / 4,
            bytes_per_token: 4.0,
            ..model
        }
    }

    #[test]
    fn a_history_that_does_not_fit_leaves_the_model_the_room_it_has() {
        let needs = needs(40_000);
        assert_eq!(needs.fit(&window(20_000), 16), Ok(Fit { input: 10_010, history: None }));
        let small = needs.fit(&window(4_000), 16);
        assert_eq!(small, Ok(Fit { input: 3_900, history: Some(3_890) }));
        assert_eq!(needs.input(&window(4_000), 16), 3_900);
        // Too little to be worth anything, and nothing that could be made smaller.
        assert_eq!(needs.fit(&window(300), 16), Err(10_010));
        let fixed = Needs { history_bytes: 0, ..needs };
        assert_eq!(fixed.fit(&window(4_000), 16), Err(10_010));
    }

    /// Who said that it is too long counts otherwise than the estimate.
    #[test]
    fn a_window_that_was_too_small_is_filled_by_half() {
        let needs = Needs { too_small: 20_000, ..needs(40_000) };
        let again = needs.fit(&window(20_000), 16);
        assert_eq!(again, Ok(Fit { input: 9_950, history: Some(9_940) }));
        assert_eq!(needs.fit(&window(30_000), 16).map(|fit| fit.history), Ok(None));
    }
}
