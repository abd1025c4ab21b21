//! Numbers in texts from outside: from files, command lines, requests and answers. The standard library's parsers also take a plus
//! sign, which no format here has: `+80` would be a port, and `+a` a byte.

use std::str::FromStr;

/// A whole number from 0 in decimal ASCII digits alone. Leading zeros change nothing: no number here is octal.
///
/// ```
/// # use lb_health_core::number;
/// assert_eq!(number::decimal::<u16>("80"), Some(80));
/// assert_eq!(number::decimal::<u16>("+80"), None);
/// ```
pub fn decimal<N: FromStr>(text: &str) -> Option<N> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// A whole number in hexadecimal ASCII digits alone, of either case.
pub fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits)
}

/// A byte in two hexadecimal digits.
pub fn hexadecimal_byte(digits: &[u8]) -> Option<u8> {
    let text = str::from_utf8(digits).ok().filter(|text| text.len() == 2)?;
    hexadecimal(text).and_then(|number| u8::try_from(number).ok())
}

/// A finite number with decimals and no sign, such as a share or a time in seconds.
pub fn fraction(text: &str) -> Option<f64> {
    let unsigned = text.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let number: f64 = text.parse().ok().filter(|_| unsigned)?;
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No number in any of the formats here: signs, blanks, digits of other scripts, separators.
    const NONE: [&str; 12] = [
        "", "+", "+1", "-1", " 1", "1 ", "1\n", "١", "１", "1_0", "0x1", "1,0",
    ];

    #[test]
    fn only_ascii_digits_make_a_number() {
        for text in NONE {
            assert_eq!(decimal::<u64>(text), None, "{text:?}");
            assert_eq!(hexadecimal(text), None, "{text:?}");
            assert_eq!(fraction(text), None, "{text:?}");
        }
        for (text, number) in [("0", 0), ("7", 7), ("007", 7), ("65535", 65535)] {
            assert_eq!(decimal(text), Some(number), "{text}");
        }
        assert_eq!(decimal::<u16>("65536"), None);
        assert_eq!(decimal::<u16>("1.0"), None);
    }

    #[test]
    fn hexadecimal_bytes_have_two_digits() {
        assert_eq!(hexadecimal("fFfF"), Some(0xffff));
        assert_eq!(hexadecimal_byte(b"fF"), Some(0xff));
        for digits in [&b"+a"[..], b"a", b"0aa", b"", b"0g", "é".as_bytes()] {
            assert_eq!(hexadecimal_byte(digits), None, "{digits:?}");
        }
    }

    #[test]
    fn a_fraction_is_finite_and_has_no_sign() {
        assert_eq!(fraction("0.25"), Some(0.25));
        assert_eq!(fraction(".5"), Some(0.5));
        for text in ["+0.1", "-0.1", "inf", "nan", "1e999", "0,1"] {
            assert_eq!(fraction(text), None, "{text}");
        }
    }
}
