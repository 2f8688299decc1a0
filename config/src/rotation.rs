//! `[rotation]`: rings of agents of one role, of which one works at a time.

use std::time::Duration;

use crate::rule::{duration, hours, millis, mins, secs};
use crate::section::section;

section! {
    /// `[rotation]`: rings of agents of one role.
    Rotation ["rotation"] {
        /// How long whoever handed on is not asked again, where a ring says nothing else. At least `accept_deadline`.
        pause: Duration = mins(5), duration(Duration::ZERO..=hours(24));
        /// How long an incoming member may take to be there and to take everything over.
        accept_deadline: Duration = secs(60), duration(millis(1)..=hours(24));
        /// How long nothing may be heard of an owner before the next one takes over.
        silence: Duration = secs(60), duration(millis(1)..=hours(24));
        /// How long a wake hook may run before it is killed and its member passed over. At most `accept_deadline`.
        wake_deadline: Duration = secs(30), duration(millis(1)..=hours(24));
    }
}
