//! `[sessions]`: how conversations are rendered.

use std::time::Duration;

use crate::rule::{YEAR, count, decimal, duration, millis, optional_text, secs};
use crate::section::section;

section! {
    /// `[sessions]`: sessions and their renderings.
    Sessions ["sessions"] {
        /// The model that sums up what a rendering leaves out, where whoever asks for the rendering asks for that too. Unset:
        /// none, and no message is ever sent for it.
        summary_model: Option<String> = None, optional_text("the name of a configured model, or \"\" for none", named);
        /// Tokens of a summary at most; it never takes more than half of what the turns may.
        summary_tokens: u64 = 400, count(64..=100_000);
        /// USD that a summary may cost at most: its output is cut to that, and what does not fit is not asked. Of a model whose
        /// prices are not set, nobody knows; there `summary_tokens` alone bounds it.
        summary_cost: f64 = 0.10, decimal(0.0..=1_000.0);
        /// How long a summary is waited for before the rendering goes without it.
        summary_deadline: Duration = secs(20), duration(millis(1)..=YEAR);
    }
}

fn named(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}
