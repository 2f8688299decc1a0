//! The scenarios of a session's context: what a turn costs to keep, a rendering to make, and a package to hand over.

use std::time::Instant;

use anyhow::{Context, ensure};
use broker::context::{
    Receiver, Tokenizer,
    choose::{Index, Turn},
    package::{self, Guard, Making, Signer, build, open},
    render::{Ask, Missing, View, render},
};
use broker_client::{Client, NewSession};
use broker_config::{Model, Provider};
use broker_proto::{
    Entry, EntryKind, ModelName, NewPackage, NewSessionEntry, PackageContents, PackageId,
    PackedConversation, Part, Preservation, Role, SessionId, SessionTask, WallTime,
};
use sha2::{Digest as _, Sha256};

use crate::{
    Settings,
    brokerd::Brokerd,
    report::{Figure, Goal},
    sample::Times,
};

/// Tokens of the conversation that is rendered and packed, at four bytes each.
const TOKENS: usize = 200_000;
const BYTES_PER_TOKEN: usize = 4;
/// Bytes of one turn: some hundred words.
pub(crate) const TURN: usize = 600;
/// Turns that are appended one by one at each length of a session.
const APPENDED: u64 = 200;
/// How often what takes milliseconds is done again.
const TIMES: usize = 40;
/// Tokens of the longest session per second of rendering it.
const RENDERED: f64 = 5e6;

/// Distinct words of a conversation of this length: about as many as people use in one.
const LEXICON: u64 = 8_192;

/// Words without a pattern, few of them often and many seldom: the same for the same seed.
pub(crate) struct Prose {
    state: u64,
    lexicon: Vec<String>,
}

impl Prose {
    pub(crate) fn new(seed: u64) -> Self {
        let mut prose = Self { state: seed | 1, lexicon: Vec::new() };
        prose.lexicon = (0..LEXICON).map(|_| prose.coined()).collect();
        prose
    }

    fn next(&mut self) -> u64 {
        // xorshift64, from Marsaglia's "Xorshift RNGs" (2003): any sequence without a short period will do.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn coined(&mut self) -> String {
        const ONSETS: [&str; 16] =
            ["b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w"];
        const RIMES: [&str; 16] = [
            "an", "ed", "ing", "or", "ut", "ail", "ent", "ock", "ush", "are", "ine", "ost", "elt",
            "ank", "irm", "ode",
        ];
        let mut word = String::new();
        for _ in 0..=self.next() % 3 {
            word.push_str(ONSETS[(self.next() % 16) as usize]);
            word.push_str(RIMES[(self.next() % 16) as usize]);
        }
        word
    }

    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 16);
        while text.len() < bytes {
            // The rank of a word is about the inverse of how often it stands there, as in any language (Zipf).
            let share = (self.next() % (1 << 20)) as f64 / f64::from(1 << 20);
            let rank = ((LEXICON as f64).powf(share) - 1.0) as usize;
            text.push_str(&self.lexicon[rank]);
            text.push_str(if self.next().is_multiple_of(12) { ". " } else { " " });
        }
        text
    }
}

fn turns(bytes: usize) -> Vec<Turn> {
    let mut prose = Prose::new(4);
    (0..bytes / TURN)
        .map(|number| Turn {
            role: if number % 2 == 0 { "user" } else { "assistant" }.to_owned(),
            text: prose.text(TURN),
            ..Turn::default()
        })
        .collect()
}

/// One turn of a session.
pub(crate) fn entry(prose: &mut Prose) -> NewSessionEntry {
    let parts = vec![Part::text(prose.text(TURN))];
    let entry = Entry { role: Role::User, name: String::new(), parts };
    NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None }
}

/// Bytes that the broker writes for one turn, in a short session and in a long one.
pub(crate) async fn turn(settings: &Settings) -> anyhow::Result<Vec<Figure>> {
    let folder = settings.folder()?;
    let broker = Brokerd::unbounded(folder.path(), settings.layout()).await?;
    let client = broker.client().await?;
    let session = client.start_session(NewSession::default()).await?.id;
    let mut prose = Prose::new(1);
    let short = appended(&broker, &client, &session, &mut prose, 10).await?;
    let middle = appended(&broker, &client, &session, &mut prose, 1_000).await?;
    let long = appended(&broker, &client, &session, &mut prose, 2_000).await?;
    let size = Figure::new("turn_bytes", TURN as f64, "B");
    let at_10 = Figure::new("turn_written_10", short.0, "B").beside("turn", TURN as f64);
    let at_1000 = Figure::new("turn_written_1000", middle.0, "B").beside("at 10 turns", short.0);
    // In a short session all rows lie in the same few pages; from then on a turn costs the same.
    let at_2000 = Figure::new("turn_written_2000", long.0, "B");
    let at_2000 = at_2000.beside("at 1,000 turns", middle.0).with(Goal::AtMost(1.1));
    let time = Figure::new("turn_p50_2000", long.1, "ms").beside("at 10 turns", short.1);
    broker.stop().await;
    Ok(vec![size, at_10, at_1000, at_2000, time])
}

/// Bytes written and milliseconds for each turn, once the session has `length` of them.
async fn appended(
    broker: &Brokerd,
    client: &Client,
    session: &SessionId,
    prose: &mut Prose,
    length: u64,
) -> anyhow::Result<(f64, f64)> {
    let has = client.append_entries(session, vec![entry(prose)], None).await?.1 + 1;
    let missing = (has..length).map(|_| entry(prose)).collect::<Vec<_>>();
    for some in missing.chunks(100) {
        client.append_entries(session, some.to_vec(), None).await?;
    }
    let mut times = Times::new()?;
    settled(client).await?;
    let before = broker.written_bytes();
    for _ in 0..APPENDED {
        let new = vec![entry(prose)];
        let began = Instant::now();
        client.append_entries(session, new, None).await?;
        times.add(began.elapsed())?;
    }
    settled(client).await?;
    Ok(((broker.written_bytes() - before) / APPENDED as f64, times.p50()?))
}

/// Reads what needs the rows to be as new as the journal.
async fn settled(client: &Client) -> anyhow::Result<()> {
    client.sessions(broker_client::SessionFilter::default()).await?;
    Ok(())
}

/// A long conversation, indexed from nothing and rendered for the next step; and rendered once more.
pub(crate) fn rendering() -> anyhow::Result<Vec<Figure>> {
    let turns = turns(TOKENS * BYTES_PER_TOKEN);
    let mut prose = Prose::new(2);
    let model = Model::new("reader", Provider::Anthropic, "reader");
    let tokenizer = Tokenizer::Estimated { bytes_per_token: BYTES_PER_TOKEN as f64 };
    let receiver = Receiver { tokenizer, ..Receiver::of(&model) };
    let task = SessionTask::default();
    let (mut indexed, mut rendered, mut whole) = (Times::new()?, Times::new()?, Times::new()?);
    for _ in 0..TIMES {
        let next = prose.text(80);
        let ask = Ask {
            receiver: &receiver,
            level: Preservation::Full,
            budget: None,
            next: Some(&next),
            missing: Missing::Refused,
        };
        let turns = turns.clone();
        let began = Instant::now();
        let mut index = Index::new();
        turns.into_iter().for_each(|turn| index.push(turn));
        indexed.add(began.elapsed())?;
        let view = View { task: &task, shared: &[], turns: &index };
        let first = render(&view, &ask)?;
        whole.add(began.elapsed())?;
        let began = Instant::now();
        let again = render(&view, &ask)?;
        rendered.add(began.elapsed())?;
        ensure!(first.text == again.text && first.tokens > 1_500, "a rendering is not whole");
    }
    let rate = |ms: f64| TOKENS as f64 / (ms / 1e3);
    let cold = Figure::new("render_rate", rate(whole.p50()?), "/s");
    let warm = Figure::new("render_rate_indexed", rate(rendered.p50()?), "/s");
    Ok(vec![
        Figure::new("index_p50", indexed.p50()?, "ms"),
        Figure::new("render_p50", rendered.p50()?, "ms")
            .beside("goal", 1.0)
            .with(Goal::AtMost(1.0)),
        cold.beside("goal, tokens", RENDERED).with(Goal::AtLeast(1.0)),
        warm.beside("goal, tokens", RENDERED).with(Goal::AtLeast(1.0)),
    ])
}

/// A package with a whole conversation, built and verified, beside SHA-256 of the same bytes.
pub(crate) fn package() -> anyhow::Result<Vec<Figure>> {
    let text = Prose::new(3).text(TOKENS * BYTES_PER_TOKEN);
    let signer = Signer::new(&[7; 32]);
    let (mut hashed, mut built, mut verified) = (Times::new()?, Times::new()?, Times::new()?);
    let mut size = 0;
    for number in 0..TIMES {
        let began = Instant::now();
        std::hint::black_box(Sha256::digest(text.as_bytes()));
        hashed.add(began.elapsed())?;
        let now = WallTime(1_767_225_600_000 + number as u64);
        let new = NewPackage { contents: contents(&text), ..NewPackage::default() };
        let making = Making {
            id: PackageId::from_parts(now, number as u128),
            nonce: [number as u8; 16],
            now,
            ttl: std::time::Duration::from_secs(7 * 24 * 3600),
            sender: "bench".to_owned(),
            level: Preservation::Complete,
            hops: 0,
            tokenizer: Tokenizer::estimated(BYTES_PER_TOKEN as f64),
            signer: &signer,
        };
        let began = Instant::now();
        let package = build(new, making).context("no package was built")?;
        built.add(began.elapsed())?;
        let guard = Guard {
            now,
            is_trusted: &|key| key == signer.public(),
            is_here: &|_: &ModelName| true,
            is_replayed: &|_| false,
            takes_expired: false,
        };
        let began = Instant::now();
        let opened = open(&package.file, &guard).context("it is refused")?;
        let read = package::contents(&opened).context("it cannot be read")?;
        verified.add(began.elapsed())?;
        ensure!(read.conversation.text == text, "a package lost something");
        size = package.file.len();
    }
    let (hash, build, verify) = (hashed.p50()?, built.p50()?, verified.p50()?);
    let whole = Figure::new("package_build_verify_p50", build + verify, "ms");
    Ok(vec![
        Figure::new("package_bytes", size as f64, "B").beside("text", text.len() as f64),
        Figure::new("sha256_p50", hash, "ms"),
        Figure::new("package_build_p50", build, "ms"),
        Figure::new("package_verify_p50", verify, "ms"),
        whole.beside("SHA-256 of the text", hash).with(Goal::AtMost(3.0)),
    ])
}

fn contents(text: &str) -> PackageContents {
    let conversation =
        PackedConversation { text: text.to_owned(), ..PackedConversation::default() };
    let task = SessionTask { goal: "go on".to_owned(), ..SessionTask::default() };
    PackageContents { task, conversation, ..PackageContents::default() }
}
