//! DNS messages (RFC 1035 section 4): a question, and the parts of an answer that a check needs. Pure.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::settings::RecordType;

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
/// Labels and compression pointers followed in one name; a name has at most 127 labels.
const MAX_STEPS: usize = 256;

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reply {
    /// The reply is truncated: ask again over TCP.
    pub(super) truncated: bool,
    /// Response code.
    pub(super) code: u8,
    /// Data of the answer's records of the wanted type, as text.
    pub(super) records: Vec<String>,
}

/// A reply that cannot be understood, or is to another question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed(pub(super) &'static str);

const SHORT: Malformed = Malformed("it is cut off");

/// The wire form of a name; `None` if it is invalid (RFC 1035 section 3.1).
pub(super) fn encode_name(name: &str) -> Option<Vec<u8>> {
    if name.is_empty() {
        return None;
    }
    let mut wire = Vec::with_capacity(name.len() + 2);
    let name = name.strip_suffix('.').unwrap_or(name);
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=63).contains(length))?;
        if !label.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        wire.push(length);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    (wire.len() <= 255).then_some(wire)
}

/// A question, with recursion desired.
pub(super) fn query(id: u16, name: &[u8], record: RecordType) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 4);
    for word in [id, 0x0100, 1, 0, 0, 0] {
        message.extend_from_slice(&word.to_be_bytes());
    }
    message.extend_from_slice(name);
    message.extend_from_slice(&record.number().to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    message
}

/// The id of a message.
pub(super) fn id(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*message.first_chunk()?))
}

/// Reads the reply to `query`.
pub(super) fn parse(message: &[u8], query: &[u8], record: RecordType) -> Result<Reply, Malformed> {
    let flags = word(message, 2)?;
    if flags & 0x8000 == 0 || id(message) != id(query) {
        return Err(Malformed("it is no reply to the question"));
    }
    let (questions, answers) = (word(message, 4)?, word(message, 6)?);
    let mut at = HEADER;
    for _ in 0..questions {
        at = name(message, at)?.1 + 4;
    }
    let mut records = Vec::new();
    let truncated = flags & 0x0200 != 0;
    // Records of a truncated reply do not count.
    for _ in 0..if truncated { 0 } else { answers } {
        let (_, end) = name(message, at)?;
        let (kind, class) = (word(message, end)?, word(message, end + 2)?);
        let length = usize::from(word(message, end + 8)?);
        let data = end + 10;
        let bytes = message.get(data..data + length).ok_or(SHORT)?;
        if kind == record.number() && class == CLASS_IN {
            records.push(text(message, data, bytes, record)?);
        }
        at = data + length;
    }
    Ok(Reply {
        truncated,
        code: message.get(3).copied().unwrap_or_default() & 0xf,
        records,
    })
}

/// The word of a response code (RFC 1035 section 4.1.1).
pub(super) fn code(code: u8) -> String {
    let words = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
    words
        .get(usize::from(code))
        .map_or_else(|| format!("response code {code}"), |word| (*word).to_owned())
}

/// A name as it is compared: lower case, without the dot at its end.
pub(super) fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn text(message: &[u8], at: usize, data: &[u8], record: RecordType) -> Result<String, Malformed> {
    match record {
        RecordType::A => {
            let octets: [u8; 4] = data.try_into().map_err(|_| SHORT)?;
            Ok(Ipv4Addr::from(octets).to_string())
        }
        RecordType::Aaaa => {
            let octets: [u8; 16] = data.try_into().map_err(|_| SHORT)?;
            Ok(Ipv6Addr::from(octets).to_string())
        }
        RecordType::Cname | RecordType::Ns | RecordType::Ptr | RecordType::Soa => Ok(name(message, at)?.0),
        RecordType::Mx => Ok(name(message, at + 2)?.0),
        RecordType::Srv => Ok(name(message, at + 6)?.0),
        RecordType::Txt => {
            let mut text = String::new();
            let mut rest = data;
            while let Some((&length, left)) = rest.split_first() {
                let (part, left) = left.split_at_checked(length.into()).ok_or(SHORT)?;
                text.push_str(&String::from_utf8_lossy(part));
                rest = left;
            }
            Ok(text)
        }
    }
}

fn word(message: &[u8], at: usize) -> Result<u16, Malformed> {
    let bytes = message.get(at..).and_then(<[u8]>::first_chunk).ok_or(SHORT)?;
    Ok(u16::from_be_bytes(*bytes))
}

/// A name and where it ends (RFC 1035 section 4.1.4).
fn name(message: &[u8], start: usize) -> Result<(String, usize), Malformed> {
    let mut text = String::new();
    let mut at = start;
    let mut end = None;
    for _ in 0..MAX_STEPS {
        let length = *message.get(at).ok_or(SHORT)?;
        match length {
            0 => return Ok((text, end.unwrap_or(at + 1))),
            0xc0.. => {
                end = end.or(Some(at + 2));
                at = usize::from(word(message, at)? & 0x3fff);
            }
            1..=63 => {
                let label = message.get(at + 1..at + 1 + usize::from(length)).ok_or(SHORT)?;
                if !text.is_empty() {
                    text.push('.');
                }
                for byte in label {
                    // Writing to a string does not fail.
                    let _ = match byte {
                        0x21..=0x7e => write!(text, "{}", char::from(byte.to_ascii_lowercase())),
                        byte => write!(text, "\\{byte:03}"),
                    };
                }
                at += 1 + usize::from(length);
            }
            _ => return Err(Malformed("a name in it has a bad label")),
        }
    }
    Err(Malformed("a name in it has no end"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reply with one A record whose name points back to the question.
    fn reply(query: &[u8]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2] |= 0x80;
        message[7] = 1;
        message.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x07");
        message
    }

    #[test]
    fn a_reply_is_read() {
        let query = query(7, &encode_name("A.example.").unwrap(), RecordType::A);
        let read = parse(&reply(&query), &query, RecordType::A).unwrap();
        assert_eq!((read.code, read.records), (0, vec!["10.0.0.7".to_owned()]));
    }

    #[test]
    fn invalid_reply_is_refused() {
        let query = query(7, &encode_name("a.example").unwrap(), RecordType::A);
        let good = reply(&query);
        for end in 0..good.len() {
            assert!(parse(&good[..end], &query, RecordType::A).is_err(), "{end}");
        }
        assert!(
            parse(&query, &query, RecordType::A).is_err(),
            "the question itself"
        );
        let mut another = good.clone();
        another[1] ^= 1;
        assert!(parse(&another, &query, RecordType::A).is_err(), "another id");
        let mut endless = good.clone();
        // The answer's name points to itself.
        endless[query.len() + 1] = u8::try_from(query.len()).unwrap();
        assert_eq!(
            parse(&endless, &query, RecordType::A),
            Err(Malformed("a name in it has no end"))
        );
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for name in ["", "a..b", ".a", "a b", &"a".repeat(64), &"a.".repeat(128)] {
            assert_eq!(encode_name(name), None, "{name}");
        }
        assert_eq!(encode_name("."), Some(vec![0]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let query = query(7, &[0], RecordType::Txt);
            let mut message = query.clone();
            message[2] |= 0x80;
            message.extend(bytes);
            message[7] = 3;
            let _ = parse(&message, &query, RecordType::Txt);
            let _ = parse(&message, &query, RecordType::Srv);
        }
    }
}
