//! What is typed behind `brokerctl usage`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Written, WrittenParser};

/// One verb of `usage`.
#[derive(Debug, Subcommand)]
pub(crate) enum UsageCommand {
    /// Level, limits, burn rate and forecast of every model; keys and sessions too with --output json
    ///
    /// With --watch the table is drawn anew until Ctrl-C, at once when a level changes; with --output json each status
    /// is a line. Nothing here calls a provider: what they say is read from the headers of their replies.
    #[command(
        after_help = "Examples:\n  brokerctl usage status\n  brokerctl usage status --watch\n  brokerctl usage status --session review-7 --output json | jq '.sessions[0].tokens'"
    )]
    Status(UsageStatusArgs),
    /// When each limit is reached, as things go, and how sure that is
    #[command(
        after_help = "Examples:\n  brokerctl usage forecast\n  brokerctl usage forecast --output json"
    )]
    Forecast,
    /// The settings that make levels of usage: show, set
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl usage policy show\n  brokerctl usage policy set warning=60 critical=80"
    )]
    Policy(PolicyCommand),
    /// One line for each attempt, the newest first
    ///
    /// Calls that were reported or recorded are lines too. With --output csv or json all columns are there.
    #[command(
        after_help = "Examples:\n  brokerctl usage ledger --model opus --since 1h\n  brokerctl usage ledger --outcome RATE_LIMITED --output json\n  brokerctl usage ledger --all --output csv > calls.csv"
    )]
    Ledger(LedgerArgs),
    /// Let what was counted for a model, a key, a session or everything begin anew; the ledger stays
    #[command(
        after_help = "Examples:\n  brokerctl usage reset --model opus\n  brokerctl usage reset --session review-7"
    )]
    Reset(ResetArgs),
    /// Count what is known of a call that was made elsewhere
    #[command(
        subcommand,
        after_help = "Examples:\n  brokerctl usage record tokens --model opus --session review-7 --input 1200 --output 300\n  brokerctl usage record rate-limit --model opus\n  brokerctl usage record slow 15 --model opus"
    )]
    Record(RecordCommand),
}

#[derive(Debug, Args)]
pub(crate) struct UsageStatusArgs {
    /// Draw it anew until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
    /// How often, where nothing changes
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "watch", value_parser = humantime::parse_duration)]
    pub(crate) interval: Duration,
    /// Only this session beside the models
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Every setting: what counts, what the file says, and what overrides it
    #[command(after_help = "Examples:\n  brokerctl usage policy show --output json")]
    Show,
    /// Override settings, until they are unset; this survives restarts
    ///
    /// Settings are named as the thresholds of broker.toml. A budget is `budget.SCOPE.NAME.WINDOW.UNIT`, with scope
    /// model, key or session (name `*` is each of them), or `budget.namespace.WINDOW.UNIT`; windows are minute, 5h, day,
    /// week, month, units are requests, tokens, usd; the value `none` takes it away.
    #[command(
        after_help = "Examples:\n  brokerctl usage policy set warning=60 critical=80\n  brokerctl usage policy set budget.model.opus.day.usd=20 'budget.session.*.day.tokens=2000000'\n  brokerctl usage policy set --unset warning --unset critical"
    )]
    Set {
        /// The settings, each as KEY=VALUE
        #[arg(value_name = "KEY=VALUE", value_parser = pair, required_unless_present = "unset")]
        set: Vec<(String, String)>,
        /// Let this one be as the file says again
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LedgerArgs {
    /// Only calls of this model
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Only calls with this key, by the name of its variable
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) key: Option<String>,
    /// Only calls of this session
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
    /// Only calls that this agent made
    #[arg(long, value_name = "AGENT")]
    pub(crate) agent: Option<String>,
    /// Only attempts at this message
    #[arg(long, value_name = "ID")]
    pub(crate) message: Option<String>,
    /// Only calls that ended so: done, or a class of failures such as RATE_LIMITED
    #[arg(long, value_name = "OUTCOME")]
    pub(crate) outcome: Option<String>,
    /// Not before this: a time such as 2026-11-20T08:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only before this
    #[arg(long, value_name = "WHEN")]
    pub(crate) until: Option<String>,
    /// How many lines on a page, 1 to 1000
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Where an earlier page ended
    #[arg(long, value_name = "TOKEN", conflicts_with = "all")]
    pub(crate) page: Option<String>,
    /// Every page, one behind the other
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ResetArgs {
    /// A model: its windows, signals and level
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// A key, by the name of its variable
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) key: Option<String>,
    /// A session
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
    /// What is counted for everything together
    #[arg(long)]
    pub(crate) namespace: bool,
}

/// Whom it is counted for.
#[derive(Debug, Args)]
pub(crate) struct RecordedFor {
    /// The model [default: the session's, else the first that is configured]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// The session
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RecordCommand {
    /// A call that used these tokens; they count towards the session's window too
    #[command(
        after_help = "Examples:\n  brokerctl usage record tokens --input 1200 --output 300\n  brokerctl usage record tokens --model gpt-4o --session review-7 --input 90000 --output 25200\n  brokerctl usage record tokens --input 1200 --output-tokens 300 --output json"
    )]
    Tokens {
        #[command(flatten)]
        whom: RecordedFor,
        /// Input tokens, without those below
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        input: u64,
        /// Output tokens, reasoning included; `text` and `json` are formats of what is printed, as everywhere
        #[arg(long = "output", id = "output", value_name = "N", allow_negative_numbers = true, value_parser = WrittenParser, action = clap::ArgAction::Append, hide_possible_values = true)]
        output: Vec<Written>,
        /// Output tokens, where --output names a format
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        output_tokens: Option<u64>,
        /// Input tokens that were read from a cache
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        cache_read: Option<u64>,
        /// Input tokens that were written to a cache
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        cache_write: Option<u64>,
    },
    /// A provider has refused a call as one too many
    #[command(after_help = "Examples:\n  brokerctl usage record rate-limit --model opus")]
    RateLimit {
        #[command(flatten)]
        whom: RecordedFor,
    },
    /// A reply that took so long to begin
    #[command(after_help = "Examples:\n  brokerctl usage record slow 15 --model opus")]
    Slow {
        /// Seconds
        #[arg(value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
        seconds: Duration,
        #[command(flatten)]
        whom: RecordedFor,
    },
    /// A call that went well
    #[command(after_help = "Examples:\n  brokerctl usage record success --model opus")]
    Success {
        #[command(flatten)]
        whom: RecordedFor,
    },
    /// A call that failed, and not for a limit
    #[command(after_help = "Examples:\n  brokerctl usage record error --model opus")]
    Error {
        #[command(flatten)]
        whom: RecordedFor,
    },
    /// What people think of a session
    #[command(
        after_help = "Examples:\n  brokerctl usage record opinion --session review-7 --complexity 0.7 --rating 4"
    )]
    Opinion {
        /// The session
        #[arg(long, value_name = "SESSION")]
        session: String,
        /// How hard it is, 0 to 1
        #[arg(long, value_name = "SHARE", value_parser = share, required_unless_present = "rating")]
        complexity: Option<f64>,
        /// How well it goes, 1 to 5
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5))]
        rating: Option<u32>,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is not KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    let wrong = || "it is no number of seconds between 0 and 86400".to_owned();
    seconds.map(Duration::from_secs_f64).ok_or_else(wrong)
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "it is no number between 0 and 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_number_that_can_be() {
        assert_eq!(seconds("15"), Ok(Duration::from_secs(15)));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["-1", "NaN", "inf", "soon", "86401"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!(share("0.7"), Ok(0.7));
        for text in ["-0.1", "1.1", "NaN"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
