//! From what was typed, files and stdin to a message; everything that is wrong with them is refused here, before the
//! broker hears of it.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use broker_client::transcript;
use broker_config::format_size;
use broker_proto::types::{
    AskOptions, Entry, Message, MessageId, ModelName, Part, Payload, Role, WallTime,
};

use crate::cli::{Misused, QuestionArgs};

/// The largest message, all its parts together: `broker.max_message` as shipped.
const MOST_BYTES: u64 = 32 << 20;
/// The largest picture: what every provider with vision still takes.
const MOST_IMAGE_BYTES: u64 = 20 << 20;

/// Why a question was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the question is empty")]
    Empty,
    #[error("{what} is binary: only UTF-8 text without zero bytes is taken")]
    Binary { what: String },
    #[error("{what} is over the limit of {}", format_size(*.limit))]
    TooLarge { what: String, limit: u64 },
    #[error("cannot read {what}")]
    Read { what: String, source: io::Error },
    #[error("{}:{}: {}", .path.display(), .wrong.line, .wrong.problem)]
    Transcript { path: PathBuf, wrong: transcript::Error },
    #[error("{} holds no turn", .path.display())]
    NoEntries { path: PathBuf },
    #[error("{} is no picture: PNG, JPEG, GIF and WebP are", .path.display())]
    NoPicture { path: PathBuf },
    #[error("{} is no JSON Schema: a JSON object is", .path.display())]
    NoSchema { path: PathBuf },
}

impl Error {
    /// Why a line of stdin could not be read.
    pub(crate) fn of_stdin(source: io::Error) -> Self {
        let what = "stdin".to_owned();
        match source.kind() {
            io::ErrorKind::InvalidData => Self::Binary { what },
            _ => Self::Read { what, source },
        }
    }
}

/// The message and the conditions that `args` ask for.
///
/// # Errors
/// [`Error`], or [`Misused::ModelName`].
pub(crate) fn message(
    args: &QuestionArgs,
    model: ModelName,
    payload: Payload,
) -> anyhow::Result<(Message, AskOptions)> {
    let id = match args.id {
        Some(id) => id,
        None => new_id()?,
    };
    let options = AskOptions {
        no_fallback: args.no_fallback,
        max_cost_usd: args.max_cost,
        deadline: args.deadline,
        ..AskOptions::default()
    };
    Ok((Message::consultation(id, model, payload), options))
}

/// What is asked, from the flags, files and stdin.
///
/// # Errors
/// [`Error`].
pub(crate) fn question(args: &QuestionArgs) -> Result<Payload, Error> {
    payload(args, &mut io::stdin().lock())
}

/// An id nobody has had.
///
/// # Errors
/// When the system has no randomness.
pub(crate) fn new_id() -> anyhow::Result<MessageId> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|err| anyhow::anyhow!("no randomness: {err}"))?;
    let now = WallTime::from_system(std::time::SystemTime::now());
    Ok(MessageId::from_parts(now, u128::from_be_bytes(random)))
}

/// A model as people write it, in the letters a name may have; which model it is, the broker says.
pub(crate) fn model_name(text: &str) -> Result<ModelName, Misused> {
    let letter =
        |c: char| if matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-') { c } else { '-' };
    let written: String = text.trim().to_lowercase().chars().map(letter).collect();
    let has_letters = written.contains(|c: char| c.is_ascii_alphanumeric());
    let name = ModelName::parse(written.trim_start_matches('.'));
    name.ok().filter(|_| has_letters).ok_or_else(|| Misused::ModelName(text.to_owned()))
}

fn payload(args: &QuestionArgs, stdin: &mut impl Read) -> Result<Payload, Error> {
    let question = match &args.question {
        Some(question) if question != "-" => question.clone(),
        Some(_) | None => text("stdin".to_owned(), stdin)?,
    };
    if question.trim().is_empty() {
        return Err(Error::Empty);
    }
    if question.contains('\0') {
        return Err(Error::Binary { what: "the question".to_owned() });
    }
    let mut context = Vec::new();
    if let Some(path) = &args.system {
        let system = text_file(path)?;
        context.push(Entry {
            role: Role::System,
            name: String::new(),
            parts: vec![Part::text(system)],
        });
    }
    if let Some(path) = args.context.as_ref().filter(|_| !args.wants_shared()) {
        context.extend(conversation(path)?);
    }
    // Models read a picture better when the question about it follows.
    let mut request = args.image.iter().map(|path| image(path)).collect::<Result<Vec<_>, _>>()?;
    request.push(Part::Text(question));
    let mut payload = Payload { context, request, ..Payload::default() };
    payload.generation.max_output_tokens = args.max_output_tokens;
    let bytes: u64 = payload.parts().map(Part::size_bytes).sum();
    if bytes > MOST_BYTES {
        let what = "the question with its context".to_owned();
        return Err(Error::TooLarge { what, limit: MOST_BYTES });
    }
    Ok(payload)
}

/// The turns of a transcript.
pub(crate) fn conversation(path: &Path) -> Result<Vec<Entry>, Error> {
    transcript::parse(&text_file(path)?)
        .map_err(|wrong| Error::Transcript { path: path.to_owned(), wrong })
}

/// The text itself, or stdin where it is `-`.
///
/// # Errors
/// When stdin cannot be read, or is no text.
pub(crate) fn from_stdin(typed: String) -> Result<String, Error> {
    match typed.as_str() {
        "-" => text("stdin".to_owned(), &mut io::stdin().lock()),
        _ => Ok(typed),
    }
}

/// A file as one part: a picture where it is one, else text.
pub(crate) fn part_of_file(path: &Path) -> Result<Part, Error> {
    match image(path) {
        Err(Error::NoPicture { .. }) => Ok(Part::Text(text_file(path)?)),
        other => other,
    }
}

pub(crate) fn text_file(path: &Path) -> Result<String, Error> {
    let what = format!("`{}`", path.display());
    let mut file = File::open(path).map_err(|source| Error::Read { what: what.clone(), source })?;
    text(what, &mut file)
}

pub(crate) fn text(what: String, from: &mut impl Read) -> Result<String, Error> {
    let bytes = bounded(&what, from, MOST_BYTES)?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Error::Binary { what }),
    }
}

fn image(path: &Path) -> Result<Part, Error> {
    let what = format!("`{}`", path.display());
    let mut file = File::open(path).map_err(|source| Error::Read { what: what.clone(), source })?;
    let data = bounded(&what, &mut file, MOST_IMAGE_BYTES)?;
    let media_type = media_type(&data).ok_or_else(|| Error::NoPicture { path: path.to_owned() })?;
    Ok(Part::Image { media_type: media_type.to_owned(), data: data.into() })
}

fn bounded(what: &str, from: &mut impl Read, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    from.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Read { what: what.to_owned(), source })?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { what: what.to_owned(), limit });
    }
    Ok(bytes)
}

/// Told from the first bytes: a file's name says nothing.
fn media_type(data: &[u8]) -> Option<&'static str> {
    match data {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn args(stdin: bool) -> QuestionArgs {
        QuestionArgs {
            model: Some("opus".into()),
            session: None,
            question: (!stdin).then(|| "why?".into()),
            stdin: stdin.then(|| "-".into()),
            context: None,
            system: None,
            image: Vec::new(),
            no_fallback: false,
            deadline: None,
            max_cost: None,
            max_output_tokens: None,
            id: None,
        }
    }

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[track_caller]
    fn refused(stdin: &[u8], want: &str) {
        let err = payload(&args(true), &mut &stdin[..]).unwrap_err();
        assert_eq!(err.to_string(), want);
    }

    #[test]
    fn a_question_on_stdin_is_bounded_text() {
        refused(b"", "the question is empty");
        refused(b" \n\t", "the question is empty");
        refused(b"\xff\xfe", "stdin is binary: only UTF-8 text without zero bytes is taken");
        refused(b"a\0b", "stdin is binary: only UTF-8 text without zero bytes is taken");
        let long = vec![b'a'; (MOST_BYTES + 1) as usize];
        refused(&long, "stdin is over the limit of 32 MiB");
        let most = vec![b'a'; MOST_BYTES as usize];
        assert!(payload(&args(true), &mut &most[..]).is_ok());
    }

    #[test]
    fn the_question_comes_after_system_context_and_pictures() {
        let system = file(b"Be brief.");
        let context = file(br#"{"role":"user","content":"hello"}"#);
        let picture = file(b"GIF89a...");
        let args = QuestionArgs {
            system: Some(system.path().into()),
            context: Some(context.path().into()),
            image: vec![picture.path().into()],
            ..args(false)
        };

        let payload = payload(&args, &mut io::empty()).unwrap();

        let roles: Vec<Role> = payload.context.iter().map(|entry| entry.role).collect();
        assert_eq!(roles, [Role::System, Role::User]);
        assert!(
            matches!(&payload.request[..], [Part::Image { media_type, .. }, Part::Text(text)] if media_type == "image/gif" && text == "why?")
        );
    }

    #[test]
    fn a_broken_transcript_is_named_with_its_line() {
        let context = file(b"{\"role\":\"user\",\"content\":\"hello\"}\nnonsense\n");
        let args = QuestionArgs { context: Some(context.path().into()), ..args(false) };

        let err = payload(&args, &mut io::empty()).unwrap_err();

        let want = format!("{}:2: not a JSON object (column 2)", context.path().display());
        assert_eq!(err.to_string(), want);
    }

    #[test]
    fn a_picture_is_known_by_its_first_bytes() {
        let webp = b"RIFF\x10\0\0\0WEBPVP8 ";
        let table: [(&[u8], Option<&str>); 6] = [
            (b"\x89PNG\r\n\x1a\n....", Some("image/png")),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (b"GIF87a", Some("image/gif")),
            (webp, Some("image/webp")),
            (b"RIFF\x10\0\0\0WAVE", None),
            (b"<svg>", None),
        ];
        for (data, want) in table {
            assert_eq!(media_type(data), want);
        }
    }

    #[test]
    fn models_are_written_as_people_like() {
        for (text, want) in [("GPT4o", "gpt4o"), (" Opus ", "opus"), ("GPT 4o", "gpt-4o")] {
            assert_eq!(model_name(text).unwrap().as_str(), want);
        }
        for text in ["", "--", "..", &"a".repeat(65)] {
            assert!(model_name(text).is_err(), "{text:?}");
        }
    }
}
