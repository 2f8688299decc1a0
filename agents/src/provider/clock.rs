//! The time, passed in, so that what is computed from it can be tested.

use std::{fmt, sync::Arc, time::SystemTime};

use broker_proto::WallTime;

/// Says what time it is.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> WallTime + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|| WallTime::from_system(SystemTime::now())))
    }

    /// A clock that stands still.
    #[must_use]
    pub fn fixed(at: WallTime) -> Self {
        Self(Arc::new(move || at))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> WallTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
