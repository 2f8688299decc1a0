//! Rules: what a value must look like, read from a file or from plain text, written back as TOML.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use crate::error::Problem;
use crate::nearest::{nearest, quoted};
use crate::size::{format_size, parse_size};

/// A value as it was given.
pub(crate) enum Given<'a> {
    /// From a variable or a flag.
    Text(&'a str),
    /// From a file.
    Toml(&'a DeValue<'a>),
}

impl<'a> Given<'a> {
    /// The text of a value that is written as a string in files.
    fn text(&self, want: impl Display) -> Result<&'a str, Problem> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Toml(value) => value.as_str().ok_or_else(|| Problem::wrong_type(want, value)),
        }
    }
}

/// How one key is read and written.
pub(crate) trait Rule {
    type Value;

    fn read(&self, given: &Given<'_>) -> Result<Self::Value, Problem>;

    /// As TOML; `None` leaves the key out.
    fn write(&self, value: &Self::Value) -> Option<String>;
}

/// `text` as a TOML string.
pub(crate) fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const fn mins(mins: u64) -> Duration {
    Duration::from_secs(mins * 60)
}

pub(crate) const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

/// A year as `humantime` counts it: 365.25 days.
pub(crate) const YEAR: Duration = hours(8766);

pub(crate) const fn kib(kib: u64) -> u64 {
    kib << 10
}

pub(crate) const fn mib(mib: u64) -> u64 {
    mib << 20
}

/// A duration such as `"30s"` or `"1h 30m"`.
pub(crate) fn duration(range: RangeInclusive<Duration>) -> impl Rule<Value = Duration> {
    DurationRule(range)
}

struct DurationRule(RangeInclusive<Duration>);

impl Rule for DurationRule {
    type Value = Duration;

    fn read(&self, given: &Given<'_>) -> Result<Duration, Problem> {
        let want = "a duration such as \"30s\"";
        let value = humantime::parse_duration(given.text(want)?.trim())
            .map_err(|_| Problem::rejected(want))?;
        if self.0.contains(&value) {
            return Ok(value);
        }
        let (least, most) = (*self.0.start(), *self.0.end());
        Err(Problem::Rejected {
            want: format!(
                "a duration from {} to {}",
                humantime::format_duration(least),
                humantime::format_duration(most)
            ),
        })
    }

    fn write(&self, value: &Duration) -> Option<String> {
        Some(toml_text(&humantime::format_duration(*value).to_string()))
    }
}

/// A size such as `"4 MiB"`.
pub(crate) fn size(range: RangeInclusive<u64>) -> impl Rule<Value = u64> {
    SizeRule(range)
}

struct SizeRule(RangeInclusive<u64>);

impl Rule for SizeRule {
    type Value = u64;

    fn read(&self, given: &Given<'_>) -> Result<u64, Problem> {
        let want = "a size such as \"4 MiB\"";
        let value = parse_size(given.text(want)?).ok_or_else(|| Problem::rejected(want))?;
        if self.0.contains(&value) {
            return Ok(value);
        }
        let (least, most) = (format_size(*self.0.start()), format_size(*self.0.end()));
        Err(Problem::Rejected { want: format!("a size from {least} to {most}") })
    }

    fn write(&self, value: &u64) -> Option<String> {
        Some(toml_text(&format_size(*value)))
    }
}

/// A whole number.
pub(crate) fn count<T>(range: RangeInclusive<T>) -> impl Rule<Value = T>
where
    T: TryFrom<i64> + PartialOrd + Display + Copy,
{
    CountRule(range)
}

/// A share of a hundred.
pub(crate) fn percent() -> impl Rule<Value = u8> {
    CountRule(0..=100)
}

struct CountRule<T>(RangeInclusive<T>);

impl<T: TryFrom<i64> + PartialOrd + Display + Copy> Rule for CountRule<T> {
    type Value = T;

    fn read(&self, given: &Given<'_>) -> Result<T, Problem> {
        let want = format!("a whole number from {} to {}", self.0.start(), self.0.end());
        let number = match given {
            Given::Text(text) => text.trim().parse::<i64>().ok(),
            Given::Toml(value) => {
                let number = value.as_integer().ok_or_else(|| Problem::wrong_type(&want, value))?;
                i64::from_str_radix(number.as_str(), number.radix()).ok()
            }
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| self.0.contains(number))
            .ok_or(Problem::Rejected { want })
    }

    fn write(&self, value: &T) -> Option<String> {
        Some(value.to_string())
    }
}

/// A number that may have a fraction.
pub(crate) fn decimal(range: RangeInclusive<f64>) -> impl Rule<Value = f64> {
    DecimalRule(range)
}

struct DecimalRule(RangeInclusive<f64>);

impl Rule for DecimalRule {
    type Value = f64;

    fn read(&self, given: &Given<'_>) -> Result<f64, Problem> {
        let want = format!("a number from {} to {}", self.0.start(), self.0.end());
        let number = match given {
            Given::Text(text) => text.trim().parse::<f64>().ok(),
            Given::Toml(DeValue::Integer(number)) => {
                // Up to 2^53 the conversion is exact, far above every range here.
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(|whole| whole as f64)
            }
            Given::Toml(DeValue::Float(number)) => number.as_str().parse::<f64>().ok(),
            Given::Toml(value) => return Err(Problem::wrong_type(want, value)),
        };
        number.filter(|number| self.0.contains(number)).ok_or(Problem::Rejected { want })
    }

    fn write(&self, value: &f64) -> Option<String> {
        // `{:?}` keeps the `.0` that makes it a float in TOML.
        Some(format!("{value:?}"))
    }
}

/// `true` or `false`.
pub(crate) fn flag() -> impl Rule<Value = bool> {
    FlagRule
}

struct FlagRule;

impl Rule for FlagRule {
    type Value = bool;

    fn read(&self, given: &Given<'_>) -> Result<bool, Problem> {
        let want = "true or false";
        match given {
            Given::Text(text) => text.trim().parse().map_err(|_| Problem::rejected(want)),
            Given::Toml(value) => value.as_bool().ok_or_else(|| Problem::wrong_type(want, value)),
        }
    }

    fn write(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

/// A path, or nothing.
pub(crate) fn path() -> impl Rule<Value = Option<PathBuf>> {
    PathRule
}

struct PathRule;

impl Rule for PathRule {
    type Value = Option<PathBuf>;

    fn read(&self, given: &Given<'_>) -> Result<Option<PathBuf>, Problem> {
        let want = "a path";
        let text = given.text(want)?;
        if text.is_empty() || text.contains('\0') {
            return Err(Problem::rejected(want));
        }
        Ok(Some(PathBuf::from(text)))
    }

    fn write(&self, value: &Option<PathBuf>) -> Option<String> {
        value.as_ref().map(|path| toml_text(&path.to_string_lossy()))
    }
}

/// One word of a fixed list.
pub(crate) trait Choice: Copy + PartialEq + 'static {
    /// What the list is of: "provider".
    const NOUN: &'static str;
    const ALL: &'static [(&'static str, Self)];
}

/// One word of a fixed list.
pub(crate) fn choice<T: Choice>() -> impl Rule<Value = T> {
    ChoiceRule(PhantomData)
}

struct ChoiceRule<T>(PhantomData<T>);

impl<T: Choice> Rule for ChoiceRule<T> {
    type Value = T;

    fn read(&self, given: &Given<'_>) -> Result<T, Problem> {
        let words = || T::ALL.iter().map(|(word, _)| *word);
        let list = || words().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let text = given.text(format_args!("one of {}", list()))?;
        T::ALL.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| {
            Problem::UnknownName {
                noun: T::NOUN,
                given: quoted(text),
                nearest: nearest(text, words()).into_iter().take(1).collect(),
            }
        })
    }

    fn write(&self, value: &T) -> Option<String> {
        T::ALL.iter().find(|(_, choice)| choice == value).map(|(word, _)| toml_text(word))
    }
}

/// A text with a shape of its own: `parse` takes it as given and returns it as kept.
pub(crate) fn text(
    want: &'static str,
    parse: fn(&str) -> Option<String>,
) -> impl Rule<Value = String> {
    TextRule { want, parse }
}

struct TextRule {
    want: &'static str,
    parse: fn(&str) -> Option<String>,
}

impl Rule for TextRule {
    type Value = String;

    fn read(&self, given: &Given<'_>) -> Result<String, Problem> {
        let text = given.text(self.want)?;
        (self.parse)(text).ok_or_else(|| Problem::rejected(self.want))
    }

    fn write(&self, value: &String) -> Option<String> {
        Some(toml_text(value))
    }
}

/// A text with a shape of its own, or `""` for none.
pub(crate) fn optional_text(
    want: &'static str,
    parse: fn(&str) -> Option<String>,
) -> impl Rule<Value = Option<String>> {
    OptionalTextRule(TextRule { want, parse })
}

struct OptionalTextRule(TextRule);

impl Rule for OptionalTextRule {
    type Value = Option<String>;

    fn read(&self, given: &Given<'_>) -> Result<Option<String>, Problem> {
        match given.text(self.0.want)? {
            "" => Ok(None),
            _ => self.0.read(given).map(Some),
        }
    }

    fn write(&self, value: &Option<String>) -> Option<String> {
        Some(toml_text(value.as_deref().unwrap_or_default()))
    }
}

/// A list of names, in order.
pub(crate) fn names(want: &'static str) -> impl Rule<Value = Vec<String>> {
    NamesRule(want)
}

struct NamesRule(&'static str);

impl Rule for NamesRule {
    type Value = Vec<String>;

    fn read(&self, given: &Given<'_>) -> Result<Vec<String>, Problem> {
        match given {
            Given::Text(text) => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|n| !n.is_empty())
                .map(str::to_owned)
                .collect()),
            Given::Toml(value) => {
                let items = value.as_array().ok_or_else(|| Problem::wrong_type(self.0, value))?;
                items
                    .iter()
                    .map(|item| {
                        let item = item.get_ref();
                        item.as_str()
                            .map(str::to_owned)
                            .ok_or_else(|| Problem::wrong_type(self.0, item))
                    })
                    .collect()
            }
        }
    }

    fn write(&self, value: &Vec<String>) -> Option<String> {
        let items: Vec<String> = value.iter().map(|name| toml_text(name)).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// A size that is kept as `u32`.
pub(crate) fn narrow_size(range: RangeInclusive<u32>) -> impl Rule<Value = u32> {
    NarrowSizeRule(range)
}

struct NarrowSizeRule(RangeInclusive<u32>);

impl Rule for NarrowSizeRule {
    type Value = u32;

    fn read(&self, given: &Given<'_>) -> Result<u32, Problem> {
        let (least, most) = (u64::from(*self.0.start()), u64::from(*self.0.end()));
        let bytes = SizeRule(least..=most).read(given)?;
        u32::try_from(bytes).map_err(|_| Problem::rejected("a smaller size"))
    }

    fn write(&self, value: &u32) -> Option<String> {
        Some(toml_text(&format_size(u64::from(*value))))
    }
}
