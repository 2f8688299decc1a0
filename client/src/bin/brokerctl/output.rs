//! Results on stdout, everything else on stderr: tables and times for people, JSON for programs.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use broker_proto::types::WallTime;
use comfy_table::{ColumnConstraint, Table, Width};
use serde::Serialize;
use time::{OffsetDateTime, macros::format_description};

/// A longer cell is broken into lines.
const WIDEST_COLUMN: u16 = 64;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Whoever read has read enough.
    #[error("stdout is closed")]
    Closed,
    #[error("cannot write to stdout")]
    Write { source: io::Error },
    #[error("cannot write the result as JSON")]
    Encode { source: serde_json::Error },
}

/// Writes to stdout as it stands, at once.
pub(crate) fn text(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = if stdout.is_terminal() {
        stdout.write_all(printable(text).as_bytes())
    } else {
        stdout.write_all(text.as_bytes())
    };
    written.and_then(|()| stdout.flush()).map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe => Error::Closed,
        _ => Error::Write { source },
    })
}

/// Writes bytes to stdout as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe => Error::Closed,
        _ => Error::Write { source },
    })
}

/// Writes a line to stdout.
pub(crate) fn line(line: &str) -> Result<(), Error> {
    text(&format!("{line}\n"))
}

/// Empties the screen, where stdout is one.
pub(crate) fn clear_screen() -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    if !stdout.is_terminal() {
        return Ok(());
    }
    let written = stdout.write_all(b"\x1b[H\x1b[2J");
    written.map_err(|source| Error::Write { source })
}

/// Writes one JSON object to stdout, on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Error> {
    line(&serde_json::to_string(value).map_err(|source| Error::Encode { source })?)
}

/// Writes a line to stderr; a closed stderr is nobody's failure.
pub(crate) fn note(line: &str) {
    note_raw(&printable(line));
}

/// Writes a line to stderr that holds colours of our own; what came from outside is clean already.
pub(crate) fn note_raw(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes to stderr as it stands.
pub(crate) fn mutter(text: &str) {
    let mut stderr = io::stderr();
    let _ = stderr.write_all(printable(text).as_bytes()).and_then(|()| stderr.flush());
}

/// What came from outside must not steer the terminal: control characters go, but for tab and line ends.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t' | '\r')).collect()
}

/// An error and its causes on one line, each said once.
pub(crate) fn sentence(err: &anyhow::Error) -> String {
    let mut said: Vec<String> = Vec::new();
    for cause in err.chain() {
        let cause = cause.to_string();
        if !said.iter().any(|earlier| earlier.contains(&cause)) {
            said.push(cause);
        }
    }
    said.join(": ").replace('\n', " ")
}

/// A table for people.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell)));
    }
    table.set_constraints([ColumnConstraint::UpperBoundary(Width::Fixed(WIDEST_COLUMN)); N]);
    table.trim_fmt()
}

/// A point in time, as programs read it.
pub(crate) fn rfc3339(at: WallTime) -> Option<String> {
    at.rfc3339()
}

/// A point in time, as people read it: with its date once it is a day away.
pub(crate) fn clock(at: WallTime, now: WallTime) -> String {
    let moment = OffsetDateTime::from(at.system());
    let is_near = at.since(now) + now.since(at) < Duration::from_secs(20 * 60 * 60);
    let written = if is_near {
        moment.format(format_description!("[hour]:[minute]:[second] UTC"))
    } else {
        moment.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC"))
    };
    written.unwrap_or_default()
}

/// A length of time in its two largest units: `40ms`, `1.2s`, `6s`, `2m 5s`, `3h 20m`.
pub(crate) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..=9 if span.subsec_millis() >= 50 => format!("{:.1}s", span.as_secs_f64()),
        1..=59 => format!("{}s", span.as_secs_f64().round()),
        60..=3_599 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Whole milliseconds, for programs.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// USD, with as many digits as small sums need.
pub(crate) fn money(usd: Option<f64>) -> String {
    match usd {
        None => "cost unknown".to_owned(),
        Some(usd) if usd > 0.0 && usd < 0.01 => format!("${usd:.5}"),
        Some(usd) => format!("${usd:.2}"),
    }
}

/// A count, or a dash where it is not known.
pub(crate) fn count(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let check = |millis, want: &str| assert_eq!(span(Duration::from_millis(millis)), want);
        check(40, "40ms");
        check(1_200, "1.2s");
        check(6_000, "6s");
        check(59_400, "59s");
        check(125_000, "2m 5s");
        check(12_000_000, "3h 20m");
        check(180_000_000, "2d 2h");
    }

    #[test]
    fn a_far_time_carries_its_date() {
        let now = WallTime(1_795_255_200_000);
        assert_eq!(clock(now.after(Duration::from_secs(6)), now), "10:00:06 UTC");
        assert_eq!(clock(now.after(Duration::from_secs(86_400)), now), "2026-11-22 10:00:00 UTC");
        assert_eq!(rfc3339(now).as_deref(), Some("2026-11-21T10:00:00Z"));
    }

    #[test]
    fn outside_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\tc\n\u{9b}d"), "a[31mb\tc\nd");
    }

    #[test]
    fn causes_are_said_once() {
        let err = anyhow::anyhow!("no such file").context("cannot read `a`: no such file");
        assert_eq!(sentence(&err), "cannot read `a`: no such file");
        let err = anyhow::anyhow!("no such file").context("cannot read `a`");
        assert_eq!(sentence(&err), "cannot read `a`: no such file");
    }
}
