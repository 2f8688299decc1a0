//! The way back to a broker that went away, for every stream that outlives it.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::Error;

/// How long a broker that went away is waited for: `streams.return_window` as shipped. Later it has cancelled the work.
pub const RETURN_WINDOW: Duration = Duration::from_secs(30);
/// The first and the longest wait between two attempts to come back; each is spread over its second half.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How the attempts to open a stream follow each other.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Since when there is no stream that was open before, and the next wait.
    broken: Option<(Instant, Duration)>,
}

impl Way {
    /// The stream was open, and broke.
    pub(crate) fn broke(&mut self) {
        self.broken = Some((Instant::now(), BACK_OFF.0));
    }

    /// Waits before the next attempt; the very first comes at once.
    pub(crate) async fn rest(&mut self) {
        let Some((_, wait)) = &mut self.broken else { return };
        tokio::time::sleep(spread(*wait)).await;
        *wait = (*wait * 2).min(BACK_OFF.1);
    }

    /// What an attempt led to: the stream, and whether it was open before; `None` when there is to be another attempt.
    pub(crate) fn tried<S>(
        &mut self,
        opened: Result<S, Error>,
    ) -> Result<Option<(S, bool)>, Error> {
        match (opened, self.broken) {
            (Ok(stream), broken) => {
                self.broken = None;
                Ok(Some((stream, broken.is_some())))
            }
            (Err(error), Some((since, _)))
                if is_passing(&error) && since.elapsed() < RETURN_WINDOW =>
            {
                Ok(None)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// Whether the broker may be back in a moment.
pub(crate) fn is_passing(error: &Error) -> bool {
    let is_gone = |code: &Code| *code == Code::Unavailable;
    error.is_connection() || matches!(error, Error::Refused { code, .. } if is_gone(code))
}

/// Askers whose streams broke together do not all come back at once.
fn spread(wait: Duration) -> Duration {
    // Without a source of randomness only the spread is missing.
    let share = getrandom::u32().unwrap_or(u32::MAX);
    wait / 2 + (wait / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
}
