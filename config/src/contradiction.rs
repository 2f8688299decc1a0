//! Settings that must agree with each other.

use crate::Config;

/// Two settings, whether they agree, and what must hold.
pub(crate) type Contradiction = ([&'static str; 2], bool, &'static str);

/// Every pair that must agree.
pub(crate) fn contradictions(config: &Config) -> Vec<Contradiction> {
    let Config { broker, links, routing, thresholds, limits, sessions, rotation, up, .. } = config;
    vec![
        (
            ["sessions.summary_deadline", "limits.unary_deadline"],
            sessions.summary_model.is_none() || sessions.summary_deadline < limits.unary_deadline,
            "`summary_deadline` must be below `unary_deadline`: the rendering is waited for meanwhile",
        ),
        (
            ["broker.inline_part", "broker.max_frame"],
            broker.inline_part <= broker.max_frame,
            "`inline_part` must be at most `max_frame`",
        ),
        (
            ["broker.max_frame", "broker.max_message"],
            broker.max_frame <= broker.max_message,
            "`max_frame` must be at most `max_message`",
        ),
        (
            ["broker.max_message", "broker.queue_bytes"],
            broker.max_message <= broker.queue_bytes,
            "`max_message` must be at most `queue_bytes`",
        ),
        (
            ["broker.default_deadline", "broker.max_lifetime"],
            broker.default_deadline <= broker.max_lifetime,
            "`default_deadline` must be at most `max_lifetime`",
        ),
        (
            ["links.heartbeat", "links.lease"],
            links.heartbeat < links.lease,
            "`heartbeat` must be below `lease`",
        ),
        (
            ["links.heartbeat", "links.heartbeat_deadline"],
            links.heartbeat < links.heartbeat_deadline,
            "`heartbeat` must be below `heartbeat_deadline`",
        ),
        (
            ["links.lease", "links.lease_cap"],
            links.lease <= links.lease_cap,
            "`lease` must be at most `lease_cap`",
        ),
        (
            ["links.reconnect_min", "links.reconnect_max"],
            links.reconnect_min <= links.reconnect_max,
            "`reconnect_min` must be at most `reconnect_max`",
        ),
        (
            ["routing.patience", "routing.max_total"],
            routing.patience <= routing.max_total,
            "`patience` must be at most `max_total`",
        ),
        (
            ["routing.breaker_open", "routing.breaker_open_max"],
            routing.breaker_open <= routing.breaker_open_max,
            "`breaker_open` must be at most `breaker_open_max`",
        ),
        (
            ["thresholds.warning", "thresholds.critical"],
            thresholds.warning < thresholds.critical,
            "`warning` must be below `critical`",
        ),
        (
            ["thresholds.critical", "thresholds.exhausted"],
            thresholds.critical < thresholds.exhausted,
            "`critical` must be below `exhausted`",
        ),
        (
            ["thresholds.margin", "thresholds.warning"],
            thresholds.margin < thresholds.warning,
            "`margin` must be below `warning`",
        ),
        (
            ["thresholds.session_warning", "thresholds.session_switch"],
            thresholds.session_warning < thresholds.session_switch,
            "`session_warning` must be below `session_switch`",
        ),
        (
            ["thresholds.error_min", "thresholds.error_calls"],
            thresholds.error_min <= thresholds.error_calls,
            "`error_min` must be at most `error_calls`",
        ),
        (
            ["rotation.accept_deadline", "rotation.pause"],
            rotation.accept_deadline <= rotation.pause,
            "`accept_deadline` must be at most `pause`: who handed on would be asked again before the next one answers",
        ),
        (
            ["rotation.wake_deadline", "rotation.accept_deadline"],
            rotation.wake_deadline <= rotation.accept_deadline,
            "`wake_deadline` must be at most `accept_deadline`",
        ),
        (
            ["up.restart_min", "up.restart_max"],
            up.restart_min <= up.restart_max,
            "`restart_min` must be at most `restart_max`",
        ),
    ]
}
