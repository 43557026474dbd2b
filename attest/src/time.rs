//! Time as an argument: seconds since 1970, and the three textual forms that collateral uses.
//!
//! Verification never reads a clock. RFC 3339 (`2025-06-19T10:16:03Z`) is what JSON collateral carries,
//! UTCTime and GeneralizedTime are what certificates carry.

use core::fmt;

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixSeconds(pub u64);

/// A UTC date and time of day, as text carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: u64,
    pub(crate) month: u64,
    pub(crate) day: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
}

const DAY: u64 = 86_400;

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of January of `year`; `year` is 1970 or later.
const fn days_to_year(year: u64) -> u64 {
    let past = year - 1;
    (year - 1970) * 365 + (past / 4 - 1969 / 4) - (past / 100 - 1969 / 100) + (past / 400 - 1969 / 400)
}

impl Civil {
    fn to_unix(self) -> Option<UnixSeconds> {
        let Self { year, month, day, hour, minute, second } = self;
        if !(1970..=9999).contains(&year)
            || !(1..=12).contains(&month)
            || day < 1
            || day > days_in_month(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let months: u64 = (1..month).map(|month| days_in_month(year, month)).sum();
        let days = days_to_year(year) + months + day - 1;
        Some(UnixSeconds(days * DAY + hour * 3600 + minute * 60 + second))
    }
}

/// A run of decimal digits.
fn number(digits: &[u8]) -> Option<u64> {
    digits
        .iter()
        .try_fold(0u64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}

impl UnixSeconds {
    /// Reads `YYYY-MM-DDThh:mm:ssZ`, the only form Intel's services write and its library takes.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1, b'Z'] =
            *text.as_bytes().first_chunk::<20>().filter(|_| text.len() == 20)?
        else {
            return None;
        };
        Civil {
            year: number(&[y0, y1, y2, y3])?,
            month: number(&[m0, m1])?,
            day: number(&[d0, d1])?,
            hour: number(&[h0, h1])?,
            minute: number(&[n0, n1])?,
            second: number(&[s0, s1])?,
        }
        .to_unix()
    }

    /// Reads an ASN.1 UTCTime (`YYMMDDhhmmssZ`, years 1950 to 2049 by RFC 5280).
    #[must_use]
    pub fn from_utc_time(text: &[u8]) -> Option<Self> {
        let (year, rest) = text.split_at_checked(2)?;
        let year = number(year)?;
        // Certificates of this field begin in 2016; an earlier year than 1970 has no Unix time.
        Self::from_date_and_clock(if year < 50 { 2000 + year } else { 1900 + year }, rest)
    }

    /// Reads an ASN.1 GeneralizedTime (`YYYYMMDDhhmmssZ`).
    #[must_use]
    pub fn from_generalized_time(text: &[u8]) -> Option<Self> {
        let (year, rest) = text.split_at_checked(4)?;
        Self::from_date_and_clock(number(year)?, rest)
    }

    fn from_date_and_clock(year: u64, rest: &[u8]) -> Option<Self> {
        let [m0, m1, d0, d1, h0, h1, n0, n1, s0, s1, b'Z'] = *rest.first_chunk::<11>()? else {
            return None;
        };
        if rest.len() != 11 {
            return None;
        }
        Civil {
            year,
            month: number(&[m0, m1])?,
            day: number(&[d0, d1])?,
            hour: number(&[h0, h1])?,
            minute: number(&[n0, n1])?,
            second: number(&[s0, s1])?,
        }
        .to_unix()
    }

    pub(crate) fn civil(self) -> Civil {
        let (mut days, clock) = (self.0 / DAY, self.0 % DAY);
        // Four centuries always have the same number of days.
        const ERA: u64 = 146_097;
        let mut year = 1970 + days / ERA * 400;
        days %= ERA;
        while days >= if is_leap(year) { 366 } else { 365 } {
            days -= if is_leap(year) { 366 } else { 365 };
            year += 1;
        }
        let mut month = 1;
        while days >= days_in_month(year, month) {
            days -= days_in_month(year, month);
            month += 1;
        }
        Civil { year, month, day: days + 1, hour: clock / 3600, minute: clock / 60 % 60, second: clock % 60 }
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second } = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// A closed interval of time: both ends are inside, as in Intel's library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second of validity.
    pub from: UnixSeconds,
    /// Last second of validity.
    pub until: UnixSeconds,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_textual_form_names_the_same_second() {
        let second = UnixSeconds(1_750_328_163);
        assert_eq!(UnixSeconds::from_rfc3339("2025-06-19T10:16:03Z"), Some(second));
        assert_eq!(UnixSeconds::from_utc_time(b"250619101603Z"), Some(second));
        assert_eq!(UnixSeconds::from_generalized_time(b"20250619101603Z"), Some(second));
    }

    #[test]
    fn text_survives_the_way_there_and_back() {
        for seconds in (0..253_402_300_799).step_by(86_400 * 13 + 40_961) {
            let text = heapless_text(UnixSeconds(seconds));
            let parsed = UnixSeconds::from_rfc3339(text.as_str());
            assert_eq!(parsed, Some(UnixSeconds(seconds)), "{}", text.as_str());
        }
    }

    struct Text {
        bytes: [u8; 32],
        len: usize,
    }
    impl Text {
        fn as_str(&self) -> &str {
            core::str::from_utf8(&self.bytes[..self.len]).unwrap()
        }
    }
    impl fmt::Write for Text {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.bytes[self.len..self.len + text.len()].copy_from_slice(text.as_bytes());
            self.len += text.len();
            Ok(())
        }
    }
    fn heapless_text(time: UnixSeconds) -> Text {
        use fmt::Write;
        let mut text = Text { bytes: [0; 32], len: 0 };
        write!(text, "{time}").unwrap();
        text
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in [
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:00:60Z",
            "2025-01-01T00:00:00",
            "2025-01-01T00:00:00+00:00",
            "1969-12-31T23:59:59Z",
        ] {
            assert_eq!(UnixSeconds::from_rfc3339(text), None, "{text}");
        }
    }
}
