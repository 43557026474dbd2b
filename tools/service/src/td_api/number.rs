//! Numbers of a query: decimal digits, or hexadecimal ones after `0x`, of 64 bits.

/// The number that a text is, if it is one that [`pattern`] describes.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (digits, radix, most) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16, 16),
        None => (text, 10, DECIMAL_MAX),
    };
    // A sign is a digit to the library's parser.
    let is_number = digits.len() <= most && digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
    is_number.then(|| u64::from_str_radix(digits, radix).ok())?
}

/// Digits of the largest number.
const DECIMAL_MAX: usize = 20;

/// A regular expression of all texts that are numbers.
pub(super) fn pattern() -> String {
    let largest = u64::MAX.to_string();
    let mut all = vec!["0x[0-9a-fA-F]{1,16}".to_owned(), format!("[0-9]{{1,{}}}", DECIMAL_MAX - 1)];
    // Those of as many digits as the largest: at the first digit that differs theirs is less.
    for (at, digit) in largest.char_indices().filter(|(_, digit)| *digit != '0') {
        let (same, less, rest) = (&largest[..at], (digit as u8 - 1) as char, DECIMAL_MAX - at - 1);
        all.push(format!("{same}[0-{less}][0-9]{{{rest}}}"));
    }
    all.push(largest);
    format!("^({})$", all.join("|"))
}

#[cfg(test)]
mod tests {
    use regex_lite::Regex;

    use super::*;

    #[test]
    fn the_pattern_of_a_number_is_what_is_read_as_one() {
        let pattern = Regex::new(&pattern()).unwrap();
        let largest = u64::MAX.to_string();
        let mut texts: Vec<String> = [
            "",
            "0",
            "0x",
            "0x0",
            "007",
            "+1",
            "-1",
            "0x+1",
            " 1",
            "1 ",
            "1_0",
            "0X1",
            "x",
            "0xg",
            "1.0",
            "1e3",
            "18446744073709551614",
            "18446744073709551616",
            "99999999999999999999",
            "9999999999999999999",
            "00000000000000000001",
            "000000000000000000001",
            "0xffffffffffffffff",
            "0x10000000000000000",
            "0x00000000000000001",
            "٣",
        ]
        .map(str::to_owned)
        .into();
        // At each digit of the largest number: one less, and one more.
        for (at, digit) in largest.bytes().enumerate() {
            for other in [digit.saturating_sub(1).max(b'0'), (digit + 1).min(b'9')] {
                for rest in ["0", "9"] {
                    let tail = rest.repeat(largest.len() - at - 1);
                    texts.push(format!("{}{}{tail}", &largest[..at], other as char));
                }
            }
        }
        texts.push(largest);
        let (mut read, mut refused) = (0, 0);
        for text in texts {
            assert_eq!(pattern.is_match(&text), parse(&text).is_some(), "{text:?}");
            if parse(&text).is_some() { read += 1 } else { refused += 1 }
        }
        assert!(read > 20 && refused > 20, "{read} read, {refused} refused");
        assert_eq!(
            [parse("08"), parse("0x1F"), parse("18446744073709551615")],
            [Some(8), Some(31), Some(u64::MAX)]
        );
    }
}
