//! A reply before it goes out, and the moment it is made at.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content_type: &'static str,
    pub(super) payload: Payload,
}

#[derive(Debug, Clone)]
pub(super) enum Payload {
    Whole(Bytes),
    Stream(Vec<Chunk>),
}

/// One event of an SSE stream, or one line of NDJSON.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    /// Output tokens of the answer up to and with this chunk.
    pub(super) tokens: u64,
    /// Belongs to the marker that makes a stream complete.
    pub(super) is_final: bool,
}

pub(super) const JSON: &str = "application/json";
pub(super) const SSE: &str = "text/event-stream; charset=utf-8";
pub(super) const NDJSON: &str = "application/x-ndjson";

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, JSON, body.to_string())
    }

    pub(super) fn whole(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), content_type, payload: Payload::Whole(body.into()) }
    }

    pub(super) fn stream(content_type: &'static str, chunks: Vec<Chunk>) -> Self {
        Self { status: 200, headers: Vec::new(), content_type, payload: Payload::Stream(chunks) }
    }

    /// A gateway's page.
    pub(super) fn html(status: u16) -> Self {
        let title = match status {
            502 => "502 Bad Gateway",
            503 => "503 Service Temporarily Unavailable",
            504 => "504 Gateway Time-out",
            413 => "413 Request Entity Too Large",
            _ => "Error",
        };
        let page = format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
        );
        Self::whole(status, "text/html", page)
    }

    pub(super) fn with_headers(mut self, headers: Vec<(String, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets a header, or takes it away.
    pub(super) fn set_header(&mut self, name: &str, value: Option<&String>) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        if let Some(value) = value {
            self.headers.push((name.to_ascii_lowercase(), value.clone()));
        }
    }
}

impl Chunk {
    pub(super) fn new(bytes: impl Into<Bytes>, tokens: u64) -> Self {
        Self { bytes: bytes.into(), tokens, is_final: false }
    }

    pub(super) fn last(bytes: impl Into<Bytes>, tokens: u64) -> Self {
        Self { bytes: bytes.into(), tokens, is_final: true }
    }
}

/// When a request came, on both clocks, and which number it has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) number: u64,
    /// Since the simulator started.
    pub(super) now: Duration,
    pub(super) wall: OffsetDateTime,
}

impl Moment {
    /// `2026-11-20T09:00:03Z`, `later` from now, rounded up: nobody is let in too early.
    pub(super) fn rfc3339(&self, later: Duration) -> String {
        let at = self.wall + ceil(later);
        at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
    }

    /// With the fraction, as Ollama writes it.
    pub(super) fn rfc3339_exact(&self, later: Duration) -> String {
        (self.wall + later).format(&Rfc3339).unwrap_or_default()
    }

    /// `Fri, 20 Nov 2026 09:00:06 GMT`
    pub(super) fn http_date(&self, later: Duration) -> String {
        let form = format_description!(
            "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
        );
        (self.wall + ceil(later)).format(&form).unwrap_or_default()
    }

    /// `2026-12-01`: when a month's cap is lifted.
    pub(super) fn next_month(&self) -> String {
        let (year, month) = (self.wall.year(), self.wall.month().next());
        let year = if month == time::Month::January { year + 1 } else { year };
        format!("{year:04}-{:02}-01", u8::from(month))
    }
}

/// Whole seconds, rounded up.
pub(super) fn ceil(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs() + u64::from(span.subsec_nanos() > 0))
}

/// A Go-style duration, as `OpenAI` writes resets: `12ms`, `1.5s`, `6m0s`, `1h2m3s`.
pub(super) fn go_duration(span: Duration) -> String {
    let millis = span.as_millis();
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    #[expect(clippy::cast_precision_loss, reason = "less than a minute of milliseconds")]
    let seconds = (millis % 60_000) as f64 / 1_000.0;
    match (hours, minutes, millis) {
        (0, 0, 0..1_000) => format!("{millis}ms"),
        (0, 0, _) => format!("{seconds}s"),
        (0, _, _) => format!("{minutes}m{seconds}s"),
        (_, _, _) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `30,000`, as messages write limits.
pub(super) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn moment() -> Moment {
        Moment { number: 1, now: Duration::ZERO, wall: datetime!(2026-12-20 09:00:00 UTC) }
    }

    #[test]
    fn durations_are_written_as_go_does() {
        let written = [12, 1_000, 59_970, 360_000, 3_723_000]
            .map(|ms| go_duration(Duration::from_millis(ms)));

        assert_eq!(written, ["12ms", "1s", "59.97s", "6m0s", "1h2m3s"]);
    }

    #[test]
    fn dates_are_written_in_each_form() {
        let later = Duration::from_millis(5_500);

        assert_eq!(moment().rfc3339(later), "2026-12-20T09:00:06Z");
        assert_eq!(moment().http_date(later), "Sun, 20 Dec 2026 09:00:06 GMT");
        assert_eq!(moment().next_month(), "2027-01-01");
    }

    #[test]
    fn limits_are_grouped_by_thousands() {
        assert_eq!([30.0, 30_000.0, 1_000_000.0].map(thousands), ["30", "30,000", "1,000,000"]);
    }
}
