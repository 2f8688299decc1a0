//! What the owner of a session took over from the one before: its package's text, and every entry since.

use broker_proto::{
    Entry, HandedOver, Part, Rendering, Role, SessionDetail, SessionHistory, SessionId,
};
use tracing::warn;

use super::{Error, Sessions};
use crate::context::{
    Receiver,
    bound::{apart_for, for_receiver},
    package::{Guard, contents, open},
};

/// Of the reader's room, what the text and the entries may take together; the rest is for what the wire adds.
const MOST: u64 = 9;
const OF: u64 = 10;
/// Above what was taken over.
const OPENING: &str = "This conversation was handed over to you. What was said before:\n\n";

/// Below it, once somebody has said so: the package itself never changes.
const VERIFIED: &str = "\n\nWhat is marked as unverified above has been checked since.\n";

/// A package's text.
struct Taken {
    text: String,
    /// It marks turns as unverified.
    has_unverified: bool,
}

impl Sessions {
    /// The session as its owner knows it: what was taken over, then what came since. `None` where the reader is another,
    /// where nothing was taken over, and where it does not fit any more: then it is rendered anew.
    pub(super) async fn taken_over(
        &self,
        detail: &SessionDetail,
        receiver: &Receiver,
        next: &str,
    ) -> Result<Option<SessionHistory>, Error> {
        let info = &detail.info;
        let Some(over) = info.handed_over.filter(|over| over.entries <= info.head.entries) else {
            return Ok(None);
        };
        if receiver.model != info.owner.model.as_str() {
            return Ok(None);
        }
        let asked = receiver.tokenizer.count(next);
        if info.window_tokens() + asked > receiver.room / OF * MOST {
            return Ok(None);
        }
        let Some((mut text, rendering)) = self.package_text(over).await? else { return Ok(None) };
        // A package that somebody prepared before it came home marks nothing.
        let unverified = receiver.unverified.as_ref();
        if !text.has_unverified && unverified.is_some_and(|of| of.from < over.entries) {
            return Ok(None);
        }
        if text.has_unverified && unverified.is_none() {
            text.text.push_str(VERIFIED);
        }
        let light = self.entries_from(info.head, over.entries).await?;
        let whole = self.whole_entries_from(info.head, over.entries).await?;
        let mut entries = for_receiver(&apart_for(&light, &whole, receiver), receiver);
        let parts = vec![Part::Text(text.text)];
        entries.insert(0, Entry { role: Role::User, name: String::new(), parts });
        Ok(Some(SessionHistory { entries, rendering: Some(rendering), is_taken_over: true }))
    }

    /// The conversation as a package has it, and what became of the entries.
    async fn package_text(&self, over: HandedOver) -> Result<Option<(Taken, Rendering)>, Error> {
        let head = self.intake.engine.head();
        let Some(saved) = self.intake.projection.package(over.package, head).await? else {
            // Somebody deleted it.
            return Ok(None);
        };
        let (file, now) = (self.intake.bodies.load(&saved.body).await?, saved.at);
        let opened = tokio::task::spawn_blocking(move || {
            // It was verified when it was kept, and its bytes are those of their hash.
            let guard = Guard {
                now,
                is_trusted: &|_| true,
                is_here: &|_| true,
                is_replayed: &|_| false,
                takes_expired: true,
            };
            contents(&open(&file, &guard)?)
        });
        let contents = match opened.await.map_err(|_| Error::Stopped)? {
            Ok(contents) => contents,
            Err(refused) => {
                warn!(package = %over.package, %refused, "a session's package cannot be read");
                return Ok(None);
            }
        };
        let talk = contents.conversation;
        let text = format!("{OPENING}{}\n\n{}", talk.text, contents.resumption_instructions);
        let text = Taken { text, has_unverified: !talk.unverified.is_empty() };
        let rendering = Rendering {
            text: String::new(),
            kept: talk.kept,
            partly: talk.partly,
            dropped: talk.dropped,
            must_keep_missing: talk.must_keep_missing,
            tokens: talk.tokens,
            tokenizer: talk.tokenizer,
            score: talk.score.unwrap_or_default(),
            summary: String::new(),
        };
        Ok(Some((text, rendering)))
    }

    /// Estimated tokens of the first so many entries.
    ///
    /// # Errors
    /// [`Error`] when they cannot be read.
    pub async fn tokens_of(&self, id: &SessionId, entries: u64) -> Result<u64, Error> {
        let head = self.get(id).await?.info.head;
        let all = self.entries(head).await?;
        Ok(all.iter().take_while(|entry| entry.number < entries).map(|entry| entry.tokens).sum())
    }
}
