//! What every conversion must keep, and what it must refuse.

mod bad_field;
mod round_trip;
mod sample;
mod stored;
mod usage;
