//! Answers of HTTP/1.1, read as they come and not kept: RFC 9112, sections 4 and 6 to 7.

use std::mem::{self, MaybeUninit};

use httparse::{ParserConfig, Status};

/// Bytes of a head at most.
const MAX_HEAD: usize = 1 << 16;
/// Headers of a head at most.
const MAX_HEADERS: usize = 100;

/// Reads one answer after the other.
#[derive(Default)]
pub(crate) struct Response {
    state: State,
    /// The part of a head that has come, if it came in parts.
    head: Vec<u8>,
    status: u16,
    closes: bool,
    bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Head,
    /// This much of a body of known length is left.
    Body(u64),
    Chunked(Chunk),
    UntilClose,
    Done,
}

/// Where in a chunked body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the digits of a size; with a value as soon as there is one.
    Size(Option<u64>),
    /// After the digits.
    Extension(u64),
    Data(u64),
    /// In the line's end after the data.
    DataEnd,
    /// In a line of the trailer section; whether it is empty so far.
    Trailer(bool),
}

/// An answer that breaks the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

/// A whole answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Whole {
    /// Its status.
    pub(crate) status: u16,
    /// Its bytes, with its head.
    pub(crate) bytes: u64,
    /// Whether the server closes the connection after it.
    pub(crate) closes: bool,
}

impl Response {
    /// Takes bytes; gives the answer once it is whole. `to_head` tells that the request was a HEAD, whose answer has no body.
    ///
    /// # Errors
    /// When the bytes are not an answer, or more than one.
    pub(crate) fn take(&mut self, mut bytes: &[u8], to_head: bool) -> Result<Option<Whole>, Malformed> {
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Head => self.take_head(bytes, to_head)?,
                State::Body(left) => {
                    let (left, rest) = skip(left, bytes);
                    self.state = if left == 0 { State::Done } else { State::Body(left) };
                    rest
                }
                State::Chunked(chunk) => self.take_chunk(chunk, bytes)?,
                State::UntilClose => &[],
                State::Done => return Err(Malformed),
            };
        }
        Ok(self.whole_if(State::Done))
    }

    /// Takes the end of the connection, which is the end of an answer without a length.
    pub(crate) fn end(&mut self) -> Option<Whole> {
        self.whole_if(State::UntilClose)
    }

    fn whole_if(&mut self, state: State) -> Option<Whole> {
        if self.state != state {
            return None;
        }
        self.state = State::Head;
        Some(Whole {
            status: self.status,
            bytes: mem::take(&mut self.bytes),
            closes: mem::take(&mut self.closes),
        })
    }

    fn take_head<'a>(&mut self, bytes: &'a [u8], to_head: bool) -> Result<&'a [u8], Malformed> {
        let before = self.head.len();
        let mut whole = mem::take(&mut self.head);
        let text = if before == 0 {
            bytes
        } else {
            whole.extend_from_slice(bytes);
            &whole
        };
        match self.parse(text, to_head)? {
            // What came earlier was no whole head, so the head ends in what came now.
            Some(length) => Ok(bytes.get(length.saturating_sub(before)..).unwrap_or_default()),
            None if text.len() > MAX_HEAD => Err(Malformed),
            None => {
                if before == 0 {
                    whole.extend_from_slice(bytes);
                }
                self.head = whole;
                Ok(&[])
            }
        }
    }

    /// The length of the head; `None` while it is not whole.
    fn parse(&mut self, text: &[u8], to_head: bool) -> Result<Option<usize>, Malformed> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, text, &mut headers)
            .map_err(|_| Malformed)?;
        let Status::Complete(length) = parsed else {
            return Ok(None);
        };
        let status = response.code.ok_or(Malformed)?;
        if status == 101 {
            return Err(Malformed);
        }
        let (mut size, mut encoding, mut closes) = (None, None, response.version == Some(0));
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = str::from_utf8(header.value).map_err(|_| Malformed)?;
                let value: u64 = text.trim().parse().map_err(|_| Malformed)?;
                if size.replace(value).is_some_and(|other| other != value) {
                    return Err(Malformed);
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                encoding = Some(has_token(header.value, "chunked"));
            } else if header.name.eq_ignore_ascii_case("connection") {
                closes =
                    has_token(header.value, "close") || (closes && !has_token(header.value, "keep-alive"));
            }
        }
        self.status = status;
        self.closes = closes;
        let has_body = !(to_head || status == 204 || status == 304);
        self.state = match (encoding, size) {
            // Another head follows an interim one.
            _ if status < 200 => State::Head,
            _ if !has_body => State::Done,
            (Some(true), _) => State::Chunked(Chunk::Size(None)),
            (None, Some(0)) => State::Done,
            (None, Some(size)) => State::Body(size),
            (Some(false), _) | (None, None) => {
                self.closes = true;
                State::UntilClose
            }
        };
        Ok(Some(length))
    }

    fn take_chunk<'a>(&mut self, chunk: Chunk, bytes: &'a [u8]) -> Result<&'a [u8], Malformed> {
        if let Chunk::Data(left) = chunk {
            let (left, rest) = skip(left, bytes);
            self.state = State::Chunked(if left == 0 {
                Chunk::DataEnd
            } else {
                Chunk::Data(left)
            });
            return Ok(rest);
        }
        let (first, rest) = bytes.split_first().ok_or(Malformed)?;
        let begin = |size| {
            if size == 0 {
                Chunk::Trailer(true)
            } else {
                Chunk::Data(size)
            }
        };
        let next = match (chunk, *first) {
            (Chunk::Size(Some(size)) | Chunk::Extension(size), b'\n') => begin(size),
            (Chunk::Size(Some(size)), b'\r' | b';' | b' ' | b'\t') => Chunk::Extension(size),
            (Chunk::Size(size), digit) => {
                let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
                let high = size.unwrap_or(0).checked_mul(16).ok_or(Malformed)?;
                Chunk::Size(Some(high + u64::from(digit)))
            }
            (Chunk::Extension(size), _) => Chunk::Extension(size),
            (Chunk::DataEnd, b'\r') => Chunk::DataEnd,
            (Chunk::DataEnd, b'\n') => Chunk::Size(None),
            (Chunk::DataEnd | Chunk::Data(_), _) => return Err(Malformed),
            (Chunk::Trailer(true), b'\n') => {
                self.state = State::Done;
                return Ok(rest);
            }
            (Chunk::Trailer(is_empty), b'\r') => Chunk::Trailer(is_empty),
            (Chunk::Trailer(_), byte) => Chunk::Trailer(byte == b'\n'),
        };
        self.state = State::Chunked(next);
        Ok(rest)
    }
}

/// Leaves out as much as is left of a body: what is left of it then, and what follows it.
fn skip(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    let length = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (left - length as u64, bytes.get(length..).unwrap_or_default())
}

/// Whether a list of tokens has this one.
fn has_token(list: &[u8], token: &str) -> bool {
    let mut tokens = list.split(|byte| *byte == b',');
    tokens.any(|found| found.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n";

    /// Takes a text in parts of this size; the answers in it.
    fn answers(text: &str, part: usize, to_head: bool) -> Result<Vec<(u16, bool)>, Malformed> {
        let mut response = Response::default();
        let mut answers = Vec::new();
        for bytes in text.as_bytes().chunks(part) {
            answers.extend(response.take(bytes, to_head)?);
        }
        answers.extend(response.end());
        Ok(answers.iter().map(|whole| (whole.status, whole.closes)).collect())
    }

    #[test]
    fn an_answer_ends_where_its_head_says_however_it_is_cut() {
        for (text, to_head, expected) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
                false,
                (200, false),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                false,
                (200, false),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true, (200, false)),
            ("HTTP/1.1 204 No Content\r\n\r\n", false, (204, false)),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
                false,
                (304, false),
            ),
            (
                "HTTP/1.1 500 No\r\ncontent-length: 1\r\nConnection: Close\r\n\r\nx",
                false,
                (500, true),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
                false,
                (200, true),
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nx",
                false,
                (200, false),
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
                false,
                (200, false),
            ),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", false, (200, true)),
            (CHUNKED, false, (200, false)),
        ] {
            for part in 1..=text.len() {
                assert_eq!(answers(text, part, to_head), Ok(vec![expected]), "{part}: {text}");
            }
        }
    }

    #[test]
    fn answers_follow_each_other_on_a_connection() {
        let mut response = Response::default();
        for _ in 0..2 {
            let whole = response.take(CHUNKED.as_bytes(), false).unwrap().unwrap();
            assert_eq!(whole.bytes, CHUNKED.len() as u64);
        }
        assert_eq!(response.end(), None);
    }

    #[test]
    fn what_is_no_answer_or_too_much_is_malformed() {
        for text in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            assert_eq!(answers(text, text.len(), false), Err(Malformed), "{text}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
        assert_eq!(answers(&endless, 1000, false), Err(Malformed));
    }

    #[test]
    fn a_cut_answer_is_none() {
        let cut = &CHUNKED[..CHUNKED.len() - 1];
        assert_eq!(answers(cut, cut.len(), false), Ok(vec![]));
    }
}
