//! Follows one request to its end, and notices a client that leaves before it.

use std::{sync::Arc, time::Duration};

use super::journal::{Arrival, Journal, Outcome, Tokens, millis};

/// Called once, when a reply ended: the output tokens that were sent.
pub(super) type Settle = Box<dyn FnOnce(u64) + Send + Sync>;

/// Follows one request to its end. Dropped before [`Track::finish`], the client had gone.
pub(super) struct Track {
    journal: Arc<Journal>,
    number: u64,
    began: tokio::time::Instant,
    at: Duration,
    chunks: u64,
    tokens: u64,
    settle: Option<Settle>,
    is_closed: bool,
}

impl Track {
    pub(super) fn open(journal: Arc<Journal>, arrival: Arrival<'_>) -> Self {
        let at = arrival.at;
        let number = journal.open(arrival);
        Self {
            journal,
            number,
            began: tokio::time::Instant::now(),
            at,
            chunks: 0,
            tokens: 0,
            settle: None,
            is_closed: false,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn answered(&mut self, outcome: Outcome, settle: Option<Settle>) {
        self.settle = settle;
        self.journal.change(self.number, |entry| {
            entry.status = Some(outcome.status);
            entry.fault = outcome.fault;
            entry.quota = outcome.quota;
            entry.tokens = outcome.usage.map(Tokens::from);
            entry.images = outcome.images;
        });
    }

    /// One more chunk; `tokens` of output so far.
    pub(super) fn sent(&mut self, tokens: u64) {
        self.chunks += 1;
        self.tokens = tokens;
    }

    pub(super) fn finish(&mut self) {
        self.close(false);
    }

    fn close(&mut self, client_gone: bool) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        if let Some(settle) = self.settle.take() {
            settle(self.tokens);
        }
        let ended = millis(self.at + self.began.elapsed());
        self.journal.change(self.number, |entry| {
            entry.chunks_sent = self.chunks;
            entry.output_tokens_sent = self.tokens;
            entry.ended_ms = Some(ended);
            entry.done = true;
            entry.client_gone = client_gone;
        });
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.close(true);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn arrival<'a>(headers: &'a HeaderMap, body: &str) -> Arrival<'a> {
        Arrival {
            at: Duration::ZERO,
            method: "POST",
            path: "/v1/messages",
            query: Some("beta=true&api_key=canary"),
            headers,
            wire: None,
            model: Some("m"),
            stream: true,
            body: Bytes::from(body.to_owned()),
        }
    }

    #[tokio::test]
    async fn a_track_dropped_early_is_a_client_that_went_away() {
        let journal = Arc::new(Journal::new());
        let open = || Track::open(Arc::clone(&journal), arrival(&HeaderMap::new(), "{}"));
        let mut left = open();
        left.sent(7);
        drop(left);
        open().finish();

        let entries = journal.since(0);

        assert_eq!(
            (entries[0].client_gone, entries[0].chunks_sent, entries[0].output_tokens_sent),
            (true, 1, 7)
        );
        assert!(entries[1].done && !entries[1].client_gone);
    }
}
