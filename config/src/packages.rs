//! `[packages]`: what work is packed into to go on elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use crate::rule::{YEAR, duration, hours, millis, path};
use crate::section::section;

section! {
    /// `[packages]`: context packages.
    Packages ["packages"] {
        /// How long a package may be taken after it was made, unless its maker says otherwise.
        ttl: Duration = hours(24 * 7), duration(millis(1)..=YEAR);
        /// A template for reports in Markdown. Unset, unreadable, or with an unknown placeholder: the plain report.
        report_template: Option<PathBuf> = None, path();
    }
}
