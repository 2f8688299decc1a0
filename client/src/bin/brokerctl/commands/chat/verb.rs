//! What is typed in a chat: a question, or a verb behind a slash. Pure.

use broker_proto::types::{ModelName, SessionId};

use crate::{cli::Misused, commands::consult::input::model_name};

/// One line of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Empty,
    Ask(String),
    Verb(Verb),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verb {
    /// To this model, else with the package prepared last, else to whom the broker chooses.
    Handoff(Option<ModelName>),
    /// One question to another model; the session keeps its owner.
    Consult(ModelName, String),
    Status,
    Fork(Option<SessionId>),
    Undo,
    /// To this file, else to one named after the session.
    Save(Option<String>),
    Model(Asked),
    Help,
    Quit,
}

/// Who is asked from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// Only says who.
    Same,
    Owner,
    Model(ModelName),
}

/// Why a line says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error(
        "there is no `/{0}`: /help lists what there is; a question that begins with a slash is written with two"
    )]
    Verb(String),
    #[error("/{0} takes {1}")]
    Words(&'static str, &'static str),
    #[error(transparent)]
    Name(#[from] Misused),
}

/// What `/help` prints.
pub(super) const HELP: &str = "\
/handoff [MODEL]       hand the session over: to MODEL, else with the package prepared last
/consult MODEL TEXT    ask MODEL once; its answer is kept as advice, the session keeps its owner
/model [MODEL|owner]   ask MODEL from now on, or the owner again; alone: who is asked
/status                who owns the session, what is used of its window, its handoffs
/fork [ID]             go on in a copy; this session stays as it is
/undo                  take the last question and its answer back
/save [FILE]           write the conversation, one JSON object a line [default: SESSION.jsonl]
/help                  this
/quit                  leave; Ctrl-D does too. Ctrl-C cancels an answer";

/// The verbs, as they are written.
const VERBS: [&str; 9] =
    ["/handoff ", "/consult ", "/model ", "/status", "/fork ", "/undo", "/save ", "/help", "/quit"];

/// The verbs that begin so; of anything but the beginning of one, none.
pub(super) fn beginning(typed: &str) -> Vec<String> {
    let is_verb = typed.starts_with('/');
    let begin = VERBS.iter().filter(|verb| is_verb && verb.starts_with(typed));
    begin.map(|verb| (*verb).to_owned()).collect()
}

/// Reads one line.
///
/// # Errors
/// [`Unread`], which says what could be meant.
pub(super) fn read(line: &str) -> Result<Line, Unread> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(Line::Empty);
    }
    let Some(typed) = line.strip_prefix('/') else { return Ok(Line::Ask(line.to_owned())) };
    if typed.starts_with('/') {
        return Ok(Line::Ask(typed.to_owned()));
    }
    let (word, rest) = typed.split_once(char::is_whitespace).unwrap_or((typed, ""));
    let rest = rest.trim();
    let one = |verb, takes| match rest.contains(char::is_whitespace) {
        true => Err(Unread::Words(verb, takes)),
        false => Ok(Some(rest).filter(|rest| !rest.is_empty())),
    };
    let none = |verb| if rest.is_empty() { Ok(()) } else { Err(Unread::Words(verb, "nothing")) };
    let verb = match word {
        "handoff" => {
            Verb::Handoff(one("handoff", "one model at most")?.map(model_name).transpose()?)
        }
        "consult" => match rest.split_once(char::is_whitespace) {
            Some((model, text)) => Verb::Consult(model_name(model)?, text.trim().to_owned()),
            None => return Err(Unread::Words("consult", "a model and a question")),
        },
        "status" => none("status").map(|()| Verb::Status)?,
        "fork" => {
            let id = one("fork", "one id at most")?;
            let read = |id: &str| SessionId::parse(id).map_err(|_| Misused::SessionId(id.into()));
            Verb::Fork(id.map(read).transpose()?)
        }
        "undo" => none("undo").map(|()| Verb::Undo)?,
        "save" => Verb::Save(Some(rest.to_owned()).filter(|rest| !rest.is_empty())),
        "model" => Verb::Model(match one("model", "one model at most")? {
            None => Asked::Same,
            Some("owner") => Asked::Owner,
            Some(model) => Asked::Model(model_name(model)?),
        }),
        "help" | "?" => none("help").map(|()| Verb::Help)?,
        "quit" | "exit" | "q" => none("quit").map(|()| Verb::Quit)?,
        other => return Err(Unread::Verb(other.to_owned())),
    };
    Ok(Line::Verb(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    #[test]
    fn a_line_is_a_question_or_a_verb() {
        let check = |line: &str, want: Line| assert_eq!(read(line).unwrap(), want, "{line}");
        check("  ", Line::Empty);
        check(" Why? ", Line::Ask("Why?".into()));
        check("//etc/hosts is what?", Line::Ask("/etc/hosts is what?".into()));
        check("/handoff", Line::Verb(Verb::Handoff(None)));
        check("/handoff Sonnet", Line::Verb(Verb::Handoff(Some(model("sonnet")))));
        let text = "is it  right?".to_owned();
        check("/consult opus is it  right?", Line::Verb(Verb::Consult(model("opus"), text)));
        check("/model", Line::Verb(Verb::Model(Asked::Same)));
        check("/model owner", Line::Verb(Verb::Model(Asked::Owner)));
        check("/save my talk.jsonl", Line::Verb(Verb::Save(Some("my talk.jsonl".into()))));
        check("/q", Line::Verb(Verb::Quit));
    }

    #[test]
    fn every_verb_is_found_by_its_beginning_and_in_the_help() {
        assert_eq!(beginning("/h"), ["/handoff ", "/help"]);
        assert_eq!(beginning("/sa"), ["/save "]);
        assert_eq!(beginning("h"), Vec::<String>::new());
        assert_eq!(beginning(""), Vec::<String>::new());
        for verb in VERBS {
            assert!(HELP.contains(verb.trim_end()), "{verb}");
            let unknown = matches!(read(verb), Err(Unread::Verb(_)));
            assert!(!unknown, "{verb}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_what_could() {
        let check = |line: &str, want: &str| {
            let said = read(line).unwrap_err().to_string();
            assert!(said.contains(want), "{line}: {said}");
        };
        check("/hand", "there is no `/hand`");
        check("/consult opus", "a model and a question");
        check("/handoff a b", "one model at most");
        check("/undo 3", "/undo takes nothing");
        check("/fork ../x", "no session's id");
    }
}
