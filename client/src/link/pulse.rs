//! Whether somebody still works on a delivery: a heartbeat that names a lease proves the work, not only its process.
//!
//! The rule. A delivery that nobody took off [`Agent::next`](super::Agent::next) is named for [`UNTAKEN`] heartbeats. One
//! that was taken is named as long as its [`Job`](super::Job) exists. Work that is [watched](super::Job::watch) must
//! also move: every heartbeat wakes it, and when it was not polled for [`UNPOLLED`] of them it hangs, in a call that
//! blocks or a task that nobody drives, and its lease is left to run out.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

/// Heartbeats that name a delivery nobody has taken.
const UNTAKEN: u32 = 6;
/// Heartbeats that name work which was not polled since the one before.
const UNPOLLED: u32 = 2;

/// The signs of life of one delivery. Beaten by the link's task; the rest is the worker's.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    is_taken: AtomicBool,
    is_watched: AtomicBool,
    /// Heartbeats since the last sign.
    beats: AtomicU32,
    waker: AtomicWaker,
}

impl Pulse {
    /// Counts a heartbeat and asks for a sign; whether this one names the lease.
    pub(super) fn beat(&self) -> bool {
        let most = match (self.is_watched.load(Ordering::Acquire), self.is_taken()) {
            (true, _) => UNPOLLED,
            (false, false) => UNTAKEN,
            (false, true) => return true,
        };
        let beats = self.beats.fetch_add(1, Ordering::AcqRel);
        self.waker.wake();
        beats < most
    }

    pub(super) fn take(&self) {
        self.is_taken.store(true, Ordering::Release);
    }

    fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Acquire)
    }

    pub(super) fn watch<F: Future>(self: &Arc<Self>, work: F) -> Watched<F> {
        self.beats.store(0, Ordering::Release);
        self.is_watched.store(true, Ordering::Release);
        Watched { work: Box::pin(work), pulse: Arc::clone(self) }
    }
}

/// Work on a delivery that shows, each time it is polled, that it has not come to a halt.
#[derive(Debug)]
pub struct Watched<F> {
    work: Pin<Box<F>>,
    pulse: Arc<Pulse>,
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.pulse.waker.register(cx.waker());
        self.pulse.beats.store(0, Ordering::Release);
        self.work.as_mut().poll(cx)
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        self.pulse.is_watched.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn beats(pulse: &Pulse) -> u32 {
        (0..).take_while(|_| pulse.beat()).take(100).count() as u32
    }

    #[test]
    fn what_nobody_takes_is_named_for_a_while_and_what_was_taken_as_long_as_it_is_held() {
        assert_eq!(beats(&Pulse::default()), UNTAKEN);
        let pulse = Pulse::default();
        pulse.take();
        assert_eq!(beats(&pulse), 100);
    }

    #[test]
    fn watched_work_is_named_while_it_is_polled() {
        let pulse = Arc::<Pulse>::default();
        pulse.take();
        let mut work = pulse.watch(std::future::pending::<()>());
        assert_eq!(beats(&pulse), UNPOLLED);
        for _ in 0..10 {
            assert_eq!((&mut work).now_or_never(), None);
            assert!(pulse.beat());
        }
        assert!(pulse.beat());
        assert!(!pulse.beat());
        drop(work);
        assert_eq!(beats(&pulse), 100, "it is held, and no longer watched");
    }
}
