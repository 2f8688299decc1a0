//! How a reply goes out: pace, damage, and the notice of a client that went away.
//!
//! [`steps`] is a pure plan; [`body`] plays it. "After N chunks" counts events or lines, before any splitting.

use std::{collections::VecDeque, io, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{reply::Chunk, track::Track};

/// What faults do to the bytes of one reply.
#[derive(Debug, Clone, Default)]
pub(super) struct Damage {
    pub(super) cut: Option<usize>,
    /// The chunks that are sent before a clean, early end; `None` inside: all but the final ones.
    pub(super) end: Option<Option<usize>>,
    pub(super) error: Option<(usize, Bytes)>,
    pub(super) garbage: Option<(usize, Bytes)>,
    /// The inner `None` is for ever.
    pub(super) stall: Option<(usize, Option<Duration>)>,
    pub(super) split: Option<usize>,
    pub(super) noise: Option<(usize, Vec<Bytes>)>,
}

impl Damage {
    pub(super) fn is_none(&self) -> bool {
        self.cut.is_none()
            && self.end.is_none()
            && self.error.is_none()
            && self.garbage.is_none()
            && self.stall.is_none()
            && self.split.is_none()
            && self.noise.is_none()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// `due` counts from the start of the stream; `tokens` is set where a chunk is complete.
    Send {
        bytes: Bytes,
        due: Duration,
        tokens: Option<u64>,
    },
    /// Lets the socket take what was sent so far as a piece of its own.
    Flush,
    Stall(Option<Duration>),
    Cut,
}

/// The plan for `chunks` at `pace` tokens per second (0: no waiting).
pub(super) fn steps(chunks: Vec<Chunk>, damage: &Damage, pace: f64) -> VecDeque<Step> {
    let mut steps = VecDeque::with_capacity(chunks.len());
    // A break always comes before the end, however short the answer.
    let before_end = chunks.iter().take_while(|chunk| !chunk.is_final).count();
    let reaches = |after: Option<usize>, index: usize| {
        after.is_some_and(|after| index >= after.min(before_end))
    };
    let mut due = Duration::ZERO;
    for (index, chunk) in chunks.into_iter().enumerate() {
        if reaches(damage.stall.as_ref().map(|stall| stall.0), index)
            && let Some((_, lasts)) = damage.stall
            && !steps.iter().any(|step| matches!(step, Step::Stall(_)))
        {
            steps.extend([Step::Flush, Step::Stall(lasts)]);
        }
        if let Some((_, event)) =
            damage.error.as_ref().filter(|(after, _)| reaches(Some(*after), index))
        {
            send(&mut steps, event, due, Some(chunk.tokens), damage.split);
            return steps;
        }
        if reaches(damage.cut, index) {
            // Unflushed, not even the head of the reply gets out.
            if index > 0 {
                steps.push_back(Step::Flush);
            }
            steps.push_back(Step::Cut);
            return steps;
        }
        if damage.end.is_some_and(|after| reaches(Some(after.unwrap_or(usize::MAX)), index)) {
            return steps;
        }
        if let Some((_, noise)) =
            damage.noise.as_ref().filter(|(every, _)| index.is_multiple_of((*every).max(1)))
        {
            for event in noise {
                send(&mut steps, event, due, None, damage.split);
            }
        }
        let garbage =
            damage.garbage.as_ref().filter(|(after, _)| index == (*after).min(before_end));
        let bytes = garbage.map_or(&chunk.bytes, |(_, garbage)| garbage);
        send(&mut steps, bytes, due, Some(chunk.tokens), damage.split);
        if pace > 0.0 {
            #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^52")]
            let seconds = chunk.tokens as f64 / pace;
            due = due.max(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        }
    }
    steps
}

fn send(
    steps: &mut VecDeque<Step>,
    bytes: &Bytes,
    due: Duration,
    tokens: Option<u64>,
    split: Option<usize>,
) {
    let Some(size) = split.filter(|size| *size > 0) else {
        steps.push_back(Step::Send { bytes: bytes.clone(), due, tokens });
        return;
    };
    let mut rest = bytes.clone();
    while rest.len() > size {
        steps.extend([Step::Send { bytes: rest.split_to(size), due, tokens: None }, Step::Flush]);
    }
    steps.extend([Step::Send { bytes: rest, due, tokens }, Step::Flush]);
}

/// Plays the plan. The track learns of every chunk, and of a client that dropped the body before its end.
pub(super) fn body(steps: VecDeque<Step>, track: Track, stopping: CancellationToken) -> Body {
    let player = Player { steps, track, stopping, began: Instant::now() };
    Body::from_stream(futures::stream::unfold(player, |mut player| async move {
        let item = player.next().await?;
        Some((item, player))
    }))
}

struct Player {
    steps: VecDeque<Step>,
    track: Track,
    stopping: CancellationToken,
    /// Stalls move it: what comes later comes later by as much.
    began: Instant,
}

impl Player {
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        loop {
            let Some(step) = self.steps.pop_front() else {
                self.track.finish();
                return None;
            };
            match step {
                Step::Send { bytes, due, tokens } => {
                    let due = self.began + due;
                    if due > Instant::now() && self.is_stopped_before(Some(due)).await {
                        return self.cut();
                    }
                    if let Some(tokens) = tokens {
                        self.track.sent(tokens);
                    }
                    // The last bytes are out: a client that leaves now has everything.
                    if self.steps.iter().all(|step| matches!(step, Step::Flush)) {
                        self.track.finish();
                    }
                    return Some(Ok(bytes));
                }
                Step::Flush => tokio::task::yield_now().await,
                Step::Stall(lasts) => {
                    let until = lasts.map(|lasts| Instant::now() + lasts);
                    if self.is_stopped_before(until).await {
                        return self.cut();
                    }
                    self.began += lasts.unwrap_or_default();
                }
                Step::Cut => return self.cut(),
            }
        }
    }

    async fn is_stopped_before(&self, until: Option<Instant>) -> bool {
        is_stopped_before(&self.stopping, until).await
    }

    fn cut(&mut self) -> Option<Result<Bytes, io::Error>> {
        self.steps.clear();
        self.track.finish();
        Some(Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

/// Waits until `until` (`None`: for ever); true when the simulator stopped first.
pub(super) async fn is_stopped_before(
    stopping: &CancellationToken,
    until: Option<Instant>,
) -> bool {
    let wait = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait => false,
        () = stopping.cancelled() => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt;

    use super::*;
    use crate::sim::journal::{Arrival, Journal};

    fn chunks() -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> =
            (0..4_u64).map(|n| Chunk::new(format!("event{n};"), n * 10)).collect();
        chunks.push(Chunk::last("end;", 40));
        chunks
    }

    fn sent(damage: &Damage) -> String {
        let texts = steps(chunks(), damage, 0.0).into_iter().filter_map(|step| match step {
            Step::Send { bytes, .. } => Some(String::from_utf8(bytes.to_vec()).unwrap()),
            Step::Cut => Some("CUT".to_owned()),
            Step::Stall(_) => Some("STALL".to_owned()),
            Step::Flush => None,
        });
        texts.collect()
    }

    #[test]
    fn an_undamaged_reply_is_all_of_it() {
        assert_eq!(sent(&Damage::default()), "event0;event1;event2;event3;end;");
    }

    #[test]
    fn a_cut_comes_after_so_many_chunks_and_always_before_the_end() {
        assert_eq!(sent(&Damage { cut: Some(2), ..Damage::default() }), "event0;event1;CUT");
        assert_eq!(
            sent(&Damage { cut: Some(80), ..Damage::default() }),
            "event0;event1;event2;event3;CUT"
        );
    }

    #[test]
    fn an_early_end_leaves_the_final_event_out() {
        assert_eq!(
            sent(&Damage { end: Some(None), ..Damage::default() }),
            "event0;event1;event2;event3;"
        );
        assert_eq!(sent(&Damage { end: Some(Some(1)), ..Damage::default() }), "event0;");
    }

    #[test]
    fn an_error_event_is_the_last_thing_sent() {
        let damage = Damage { error: Some((1, Bytes::from("error;"))), ..Damage::default() };

        assert_eq!(sent(&damage), "event0;error;");
    }

    #[test]
    fn stalls_garbage_and_noise_come_where_they_are_asked_for() {
        let damage = Damage {
            stall: Some((2, None)),
            garbage: Some((1, Bytes::from("junk;"))),
            noise: Some((3, vec![Bytes::from("ping;")])),
            ..Damage::default()
        };

        assert_eq!(sent(&damage), "ping;event0;junk;STALLevent2;ping;event3;end;");
    }

    #[test]
    fn split_bytes_join_to_the_same_reply() {
        let damage = Damage { split: Some(1), ..Damage::default() };

        assert_eq!(sent(&damage), sent(&Damage::default()));
        assert!(steps(chunks(), &damage, 0.0).len() > 60);
    }

    #[test]
    fn chunks_are_due_at_the_pace_of_their_tokens() {
        let due: Vec<Duration> = steps(chunks(), &Damage::default(), 10.0)
            .into_iter()
            .filter_map(|step| if let Step::Send { due, .. } = step { Some(due) } else { None })
            .collect();

        assert_eq!(due, [0, 0, 1, 2, 3].map(Duration::from_secs));
    }

    #[tokio::test]
    async fn a_client_that_leaves_with_everything_has_not_gone_away() {
        let journal = Arc::new(Journal::new());
        let track = Track::open(
            Arc::clone(&journal),
            Arrival {
                at: Duration::ZERO,
                method: "POST",
                path: "/",
                query: None,
                headers: &http::HeaderMap::new(),
                wire: None,
                model: None,
                stream: true,
                body: Bytes::new(),
            },
        );
        let plan = steps(chunks(), &Damage::default(), 0.0);
        let mut sent = body(plan, track, CancellationToken::new()).into_data_stream();
        for _ in chunks() {
            sent.next().await.unwrap().unwrap();
        }

        drop(sent);

        let entry = &journal.since(0)[0];
        assert_eq!((entry.done, entry.client_gone, entry.output_tokens_sent), (true, false, 40));
    }
}
