//! Sizes as people write them: `"4 MiB"`.

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The bytes in `text`: digits, then B, KiB, MiB or GiB; a space between is allowed, a fraction is not.
///
/// A number alone is refused: bytes and mebibytes are too far apart to guess.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// `bytes` in the largest unit that divides it, so that [`parse_size`] gives it back exactly.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let (name, unit) = UNITS
        .iter()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit))
        .unwrap_or(&("B", 1));
    format!("{} {name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<u64>) {
        assert_eq!(parse_size(text), want, "{text:?}");
    }

    #[test]
    fn sizes_are_digits_and_a_binary_unit() {
        check("4 MiB", Some(4 << 20));
        check("64KiB", Some(64 << 10));
        check(" 1 gib ", Some(1 << 30));
        check("0 B", Some(0));
        check("4096", None);
        check("4 MB", None);
        check("1.5 MiB", None);
        check("-1 B", None);
        check("MiB", None);
        check("", None);
        check("18446744073709551615 GiB", None);
        check("4 м", None);
    }

    #[test]
    fn a_written_size_reads_back_exactly() {
        for bytes in [0, 1, 1023, 1024, 1536, 64 << 10, 256 << 20, 3 << 30, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
    }
}
