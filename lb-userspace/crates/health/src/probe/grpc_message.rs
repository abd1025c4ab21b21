//! The messages of `grpc.health.v1.Health/Check`, and their frame. Pure.
//!
//! `HealthCheckRequest` is `{ string service = 1; }`, `HealthCheckResponse` is `{ ServingStatus status = 1; }` with 0
//! `UNKNOWN`, 1 `SERVING`, 2 `NOT_SERVING`, 3 `SERVICE_UNKNOWN`.

use bytes::Bytes;

use crate::error::GrpcProblem;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Longest name of a service that fits the tag, the length in one byte, and ours.
pub(super) const MAX_SERVICE: usize = 127;

/// Field 1 as a string, and as a number.
const SERVICE: u8 = 1 << 3 | 2;
const STATUS: u64 = 1 << 3;

/// A request about `service`, of [`MAX_SERVICE`] bytes at most, framed.
pub(super) fn request(service: &str) -> Bytes {
    let mut message = Vec::new();
    let length = u8::try_from(service.len()).unwrap_or(u8::MAX);
    if length > 0 {
        message.extend([SERVICE, length]);
        message.extend(service.as_bytes());
    }
    let length = u8::try_from(message.len()).unwrap_or(u8::MAX);
    let mut framed = vec![0, 0, 0, 0, length];
    framed.extend(message);
    framed.into()
}

/// The health status in the framed answer `body`.
pub(super) fn verdict(body: &[u8]) -> Result<(), GrpcProblem> {
    let wrong = GrpcProblem::Message;
    let (prefix, message) = body
        .split_first_chunk::<PREFIX>()
        .ok_or(wrong("the answer has no message"))?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(wrong("the answer is compressed, which was not requested"));
    }
    if u32::from_be_bytes(length) as usize != message.len() {
        return Err(wrong("the answer is not one message"));
    }
    let status = status(message).ok_or(wrong("the answer's message is no HealthCheckResponse"))?;
    match status {
        0 => Err(GrpcProblem::Unknown),
        1 => Ok(()),
        2 => Err(GrpcProblem::NotServing),
        3 => Err(GrpcProblem::ServiceUnknown),
        other => Err(GrpcProblem::Undefined(other)),
    }
}

/// The number in field 1; 0 where it is left out. Other fields are skipped.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if key == STATUS {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = varint(&mut message)?;
                message = message.get(usize::try_from(length).ok()?..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_protobuf_writes_them() {
        assert_eq!(*request(""), [0, 0, 0, 0, 0]);
        assert_eq!(*request("a.B"), *b"\0\0\0\0\x05\x0a\x03a.B");
        let longest = request(&"x".repeat(MAX_SERVICE));
        assert_eq!(longest[..7], [0, 0, 0, 0, 129, 0x0a, 127]);
        assert_eq!(longest.len(), PREFIX + 2 + MAX_SERVICE);
    }

    #[test]
    fn every_answer_has_its_own_word() {
        let wrong = |text| Err(GrpcProblem::Message(text));
        let no_message = "the answer's message is no HealthCheckResponse";
        let cases: [(&[u8], Result<(), GrpcProblem>); 15] = [
            (b"\0\0\0\0\x02\x08\x01", Ok(())),
            (b"\0\0\0\0\0", Err(GrpcProblem::Unknown)),
            (b"\0\0\0\0\x02\x08\0", Err(GrpcProblem::Unknown)),
            (b"\0\0\0\0\x02\x08\x02", Err(GrpcProblem::NotServing)),
            (b"\0\0\0\0\x02\x08\x03", Err(GrpcProblem::ServiceUnknown)),
            (b"\0\0\0\0\x03\x08\xac\x02", Err(GrpcProblem::Undefined(300))),
            // Fields of a later version: a string, a fixed64, a fixed32.
            (
                b"\0\0\0\0\x14\x12\x02hi\x08\x01\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0",
                Ok(()),
            ),
            (b"", wrong("the answer has no message")),
            (b"\0\0\0\0", wrong("the answer has no message")),
            (
                b"\x01\0\0\0\0",
                wrong("the answer is compressed, which was not requested"),
            ),
            (b"\0\0\0\0\x02\x08", wrong("the answer is not one message")),
            (b"\0\0\0\0\x01\x08", wrong(no_message)),
            (b"\0\0\0\0\x02\x12\x05", wrong(no_message)),
            (b"\0\0\0\0\x02\x0b\x05", wrong(no_message)),
            (
                b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                wrong(no_message),
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(verdict(body), expected, "{body:?}");
        }
    }
}
