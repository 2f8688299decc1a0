//! What is typed behind `handoff init`, `config`, `models`, `status` and `check`.

use std::ffi::OsString;

use broker_proto::types::{ModelName, Preservation};
use clap::{Args, ValueEnum};

use crate::commands::consult::input;

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Whether sessions move by themselves: at a model's limit, and with the next turn at their own
    #[arg(long, value_name = "BOOL")]
    pub(crate) auto: Option<bool>,
    /// Whether a session moves the moment its own limit is reached, and recommendations are carried out
    #[arg(long, value_name = "BOOL")]
    pub(crate) auto_switch: Option<bool>,
    /// Percent at which a model's limits and its sessions' windows count as reached; also --MODEL-limit 80%
    #[arg(long = "limit", value_name = "MODEL=N%", value_parser = limit)]
    pub(crate) limits: Vec<(ModelName, String)>,
    /// How much of a conversation is handed over
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) preserve: Option<Preserve>,
    /// How often a session with new turns gets a saved package, such as 30m; `off`: not by the clock
    #[arg(long, value_name = "TIME")]
    pub(crate) checkpoint_every: Option<String>,
    /// Let a setting be as the file says again, by its name in the list
    #[arg(long, value_name = "SETTING")]
    pub(crate) unset: Vec<String>,
    /// Beside it, how near this session is to a move, and who would take it; what is set holds for all sessions
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// They may receive sessions from now on
    #[arg(long, value_name = "MODEL", num_args = 1.., value_parser = model)]
    pub(crate) add: Vec<ModelName>,
    /// They may not
    #[arg(long, value_name = "MODEL", num_args = 1.., value_parser = model)]
    pub(crate) remove: Vec<ModelName>,
    /// Beside it, how near this session is to a move, and who would take it; what is set holds for all sessions
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HandoffStatusArgs {
    /// Only this session beside the models [default: those that are near a limit]
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A warning is no reason yet
    #[arg(long)]
    pub(crate) warning_only: bool,
    /// The session [default: BROKER_SESSION, else the one last used from this folder]
    #[arg(long, value_name = "SESSION")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Replace the file that is there; it stays as config.toml.bak
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the file and write nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// The session that is checked [default: BROKER_SESSION, the one last used from this folder, the one that changed last]
    #[arg(long, value_name = "SESSION", conflicts_with = "print")]
    pub(crate) session: Option<String>,
}

/// How much of a conversation is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preserve {
    /// At most 500 tokens
    Minimal,
    /// At most 1,200 tokens
    Standard,
    /// At most 2,000 tokens
    Full,
    /// All that fits the receiver
    Complete,
}

impl From<Preserve> for Preservation {
    fn from(level: Preserve) -> Self {
        match level {
            Preserve::Minimal => Self::Minimal,
            Preserve::Standard => Self::Standard,
            Preserve::Full => Self::Full,
            Preserve::Complete => Self::Complete,
        }
    }
}

fn model(text: &str) -> Result<ModelName, String> {
    // People also write GPT-4o.
    input::model_name(text).map_err(|misused| misused.to_string())
}

fn limit(text: &str) -> Result<(ModelName, String), String> {
    let (name, percent) = text.rsplit_once('=').ok_or("it is not MODEL=N%")?;
    if percent.is_empty() {
        return Err(format!("--{name}-limit is a percentage, such as 80%"));
    }
    Ok((model(name)?, percent.to_owned()))
}

/// The same line with every `--MODEL-limit N%` behind `handoff config` as `--limit MODEL=N%`: which models there are, only
/// the broker knows.
pub(crate) fn with_limits(line: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let line: Vec<OsString> = line.into_iter().collect();
    let is_config = |pair: &[OsString]| pair[0] == "handoff" && pair[1] == "config";
    let Some(config) = line.windows(2).position(is_config) else { return line };
    let mut words = line.into_iter();
    let mut read: Vec<OsString> = words.by_ref().take(config + 2).collect();
    while let Some(word) = words.next() {
        let text = word.to_str().and_then(|word| word.strip_prefix("--"));
        let (flag, value) = match text.map(|text| text.split_once('=').ok_or(text)) {
            Some(Ok((flag, value))) => (flag, Some(OsString::from(value))),
            Some(Err(flag)) => (flag, None),
            None => ("", None),
        };
        let Some(name) = flag.strip_suffix("-limit").filter(|name| !name.is_empty()) else {
            read.push(word);
            continue;
        };
        let mut limit = OsString::from(format!("--limit={name}="));
        limit.push(value.or_else(|| words.next()).unwrap_or_default());
        read.push(limit);
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        let words = with_limits(line.split_whitespace().map(OsString::from));
        let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
        words.join(" ")
    }

    #[test]
    fn a_limit_of_any_model_is_one_flag() {
        let line = "brokerctl -q handoff config --opus-limit 80% --auto true --gpt-4o-limit=95";
        let want = "brokerctl -q handoff config --limit=opus=80% --auto true --limit=gpt-4o=95";
        assert_eq!(read(line), want);
        assert_eq!(
            read("brokerctl handoff config --opus-limit"),
            "brokerctl handoff config --limit=opus="
        );
    }

    #[test]
    fn other_lines_stay_as_they_are() {
        for line in
            ["brokerctl handoff check --a-limit 3", "brokerctl config --a-limit 3", "brokerctl"]
        {
            assert_eq!(read(line), line);
        }
        assert_eq!(read("b handoff config --limit opus=80"), "b handoff config --limit opus=80");
    }

    #[test]
    fn a_limit_without_its_percentage_says_so() {
        assert!(limit("opus=").unwrap_err().contains("--opus-limit is a percentage"));
        assert_eq!(limit("opus=80%"), Ok((ModelName::parse("opus").unwrap(), "80%".into())));
    }
}
