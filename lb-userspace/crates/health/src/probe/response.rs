//! Reads an HTTP/1.x answer, piece by piece as it arrives (RFC 9112). Pure.

use std::mem;

use crate::number;

/// Longest status line and headers, in bytes; also the limit for all interim answers together, and for chunk
/// extensions and trailers.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Headers at most.
const MAX_HEADERS: usize = 100;

/// An answer that is no HTTP/1.x, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed(pub(super) &'static str);

/// How far the answer has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Status line and headers.
    Head,
    /// Body of known length, with this many bytes to come.
    Length(u64),
    /// Body that ends with the connection.
    UntilClose,
    /// Chunk size so far, if any digit came, and whether the rest of the line does not matter.
    ChunkSize { size: Option<u64>, rest: bool },
    /// This many bytes of the chunk to come.
    ChunkData(u64),
    /// The line end after a chunk's data.
    ChunkEnd,
    /// Trailer section; whether the current line is empty so far.
    Trailer { empty: bool },
    /// No more bytes are needed; whether the connection can take another request.
    Done { reusable: bool },
}

/// An answer as far as it has been read.
#[derive(Debug)]
pub(super) struct ResponseReader {
    state: State,
    /// The answer to HEAD has no body.
    head_request: bool,
    head: Vec<u8>,
    /// Bytes of interim answers before it.
    interim: usize,
    /// Bytes of chunk framing.
    framing: usize,
    keep_alive: bool,
    status: u16,
    body: Vec<u8>,
    max_body: usize,
}

impl ResponseReader {
    /// Reads `max_body` bytes of body at most.
    pub(super) fn new(head_request: bool, max_body: usize) -> Self {
        Self {
            state: State::Head,
            head_request,
            head: Vec::new(),
            interim: 0,
            framing: 0,
            keep_alive: false,
            status: 0,
            body: Vec::new(),
            max_body,
        }
    }

    /// The status, once the head is complete.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// The body, up to its bound.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether any byte has come.
    pub(super) fn begun(&self) -> bool {
        self.status != 0 || !self.head.is_empty()
    }

    /// Whether the head is complete.
    pub(super) fn in_body(&self) -> bool {
        self.state != State::Head
    }

    /// `Some` when no more bytes are needed: whether the connection can take another request.
    pub(super) fn done(&self) -> Option<bool> {
        match self.state {
            State::Done { reusable } => Some(reusable),
            State::Head
            | State::Length(_)
            | State::UntilClose
            | State::ChunkSize { .. }
            | State::ChunkData(_)
            | State::ChunkEnd
            | State::Trailer { .. } => None,
        }
    }

    /// Whether the connection may take another request once the rest has come.
    pub(super) fn may_be_reusable(&self) -> bool {
        match self.state {
            State::Done { reusable } => reusable,
            State::UntilClose => false,
            State::Head
            | State::Length(_)
            | State::ChunkSize { .. }
            | State::ChunkData(_)
            | State::ChunkEnd
            | State::Trailer { .. } => self.keep_alive,
        }
    }

    /// The connection ended. Whether the answer is complete.
    pub(super) fn end(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done { reusable: false };
        }
        self.done().is_some()
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut input: &[u8]) -> Result<(), Malformed> {
        while !input.is_empty() {
            input = match self.state {
                State::Head => self.feed_head(input)?,
                State::Length(left) => {
                    let (rest, left) = self.feed_body(input, left);
                    self.state = if left == 0 {
                        self.complete()
                    } else {
                        State::Length(left)
                    };
                    rest
                }
                State::UntilClose => self.feed_body(input, u64::MAX).0,
                State::ChunkData(left) => {
                    let (rest, left) = self.feed_body(input, left);
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::ChunkData(left)
                    };
                    rest
                }
                State::ChunkSize { .. } | State::ChunkEnd | State::Trailer { .. } => {
                    self.feed_framing(input)?
                }
                // Unsolicited bytes: the connection is out of sync.
                State::Done { .. } => {
                    self.state = State::Done { reusable: false };
                    return Ok(());
                }
            };
            self.stop_at_bound(!input.is_empty());
        }
        Ok(())
    }

    fn complete(&self) -> State {
        State::Done {
            reusable: self.keep_alive,
        }
    }

    /// Ends the reading when the body has reached its bound and there is more of it.
    fn stop_at_bound(&mut self, more_input: bool) {
        let more = match self.state {
            State::Length(_) | State::ChunkData(_) => true,
            State::UntilClose => more_input,
            State::Head
            | State::ChunkSize { .. }
            | State::ChunkEnd
            | State::Trailer { .. }
            | State::Done { .. } => false,
        };
        if more && self.body.len() >= self.max_body {
            self.state = State::Done { reusable: false };
        }
    }

    /// Takes body bytes up to `left` and the bound; returns what remains of both.
    fn feed_body<'a>(&mut self, input: &'a [u8], left: u64) -> (&'a [u8], u64) {
        let wanted = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(self.max_body - self.body.len());
        let (body, rest) = input.split_at(wanted.min(input.len()));
        self.body.extend_from_slice(body);
        (rest, left.saturating_sub(body.len() as u64))
    }

    fn feed_framing<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let Some((&byte, rest)) = input.split_first() else {
            return Ok(input);
        };
        self.framing += 1;
        if self.framing > MAX_HEAD + self.body.len() {
            return Err(Malformed("chunk framing too long"));
        }
        self.state = match self.state {
            State::ChunkSize { size, rest: false } if byte.is_ascii_hexdigit() => {
                let digit = u64::from(char::from(byte).to_digit(16).unwrap_or_default());
                let size = size
                    .unwrap_or(0)
                    .checked_mul(16)
                    .and_then(|size| size.checked_add(digit));
                State::ChunkSize {
                    size: Some(size.ok_or(Malformed("chunk size too large"))?),
                    rest: false,
                }
            }
            State::ChunkSize { size: Some(0), .. } if byte == b'\n' => State::Trailer { empty: true },
            State::ChunkSize { size: Some(size), .. } if byte == b'\n' => State::ChunkData(size),
            State::ChunkSize {
                size: Some(size),
                rest,
            } if rest || matches!(byte, b';' | b' ' | b'\t' | b'\r') => State::ChunkSize {
                size: Some(size),
                rest: true,
            },
            State::ChunkEnd if byte == b'\r' => State::ChunkEnd,
            State::ChunkEnd if byte == b'\n' => State::ChunkSize {
                size: None,
                rest: false,
            },
            State::Trailer { empty: true } if byte == b'\n' => self.complete(),
            State::Trailer { empty } => State::Trailer {
                empty: byte == b'\n' || (empty && byte == b'\r'),
            },
            State::Head
            | State::Length(_)
            | State::UntilClose
            | State::ChunkSize { .. }
            | State::ChunkData(_)
            | State::ChunkEnd
            | State::Done { .. } => return Err(Malformed("bad chunk")),
        };
        Ok(rest)
    }

    fn feed_head<'a>(&mut self, input: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let before = self.head.len();
        self.head.extend_from_slice(input);
        let head = mem::take(&mut self.head);
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let end = match lenient()
            .parse_response(&mut response, &head)
            .map_err(|error| Malformed(parse_error(error)))?
        {
            httparse::Status::Complete(end) if end <= MAX_HEAD => end,
            httparse::Status::Partial if head.len() <= MAX_HEAD => {
                self.head = head;
                return Ok(&[]);
            }
            httparse::Status::Complete(_) | httparse::Status::Partial => {
                return Err(Malformed("header too long"));
            }
        };
        let status = response.code.unwrap_or_default();
        if !(100..=599).contains(&status) {
            return Err(Malformed("status out of range"));
        }
        // An interim answer: the real one follows (RFC 9110 section 15.2).
        if status >= 200 || status == 101 {
            self.begin_body(status, response.version == Some(1), response.headers)?;
        } else {
            self.interim += end;
            if self.interim > MAX_HEAD {
                return Err(Malformed("too many interim answers"));
            }
        }
        Ok(input.get(end - before..).unwrap_or_default())
    }

    /// Decides how long the body is (RFC 9112 section 6.3) and whether the connection lives on (section 9.3).
    fn begin_body(
        &mut self,
        status: u16,
        persistent: bool,
        headers: &[httparse::Header<'_>],
    ) -> Result<(), Malformed> {
        let values = |name: &'static str| {
            let named = headers
                .iter()
                .filter(move |header| header.name.eq_ignore_ascii_case(name));
            named
                .flat_map(|header| header.value.split(|byte| *byte == b','))
                .map(<[u8]>::trim_ascii)
        };
        self.status = status;
        self.keep_alive = persistent
            && status != 101
            && !values("connection").any(|token| token.eq_ignore_ascii_case(b"close"));
        // Identity means none (RFC 2616 section 3.6); old servers still send it.
        let coding = values("transfer-encoding").rfind(|coding| !coding.eq_ignore_ascii_case(b"identity"));
        let mut length = None;
        for value in values("content-length") {
            let value = parse_length(value).ok_or(Malformed("bad Content-Length"))?;
            if length.replace(value).is_some_and(|other| other != value) {
                return Err(Malformed("contradicting Content-Length"));
            }
        }
        self.state = match (coding, length) {
            _ if self.head_request || matches!(status, 101 | 204 | 304) => self.complete(),
            (Some(coding), length) => {
                // Both at once smell of request smuggling: the connection is not used again.
                self.keep_alive &= length.is_none();
                if coding.eq_ignore_ascii_case(b"chunked") {
                    State::ChunkSize {
                        size: None,
                        rest: false,
                    }
                } else {
                    State::UntilClose
                }
            }
            (None, Some(0)) => self.complete(),
            (None, Some(length)) => State::Length(length),
            (None, None) => State::UntilClose,
        };
        self.stop_at_bound(false);
        Ok(())
    }
}

/// Accepts what clients must accept (RFC 9112 sections 5.1 and 5.2): folded lines, and blanks before the colon.
fn lenient() -> httparse::ParserConfig {
    let mut lenient = httparse::ParserConfig::default();
    lenient
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_multiple_spaces_in_response_status_delimiters(true);
    lenient
}

fn parse_length(value: &[u8]) -> Option<u64> {
    number::decimal(std::str::from_utf8(value).ok()?)
}

fn parse_error(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::Version => "it does not begin with HTTP/1.",
        httparse::Error::Status => "bad status line",
        httparse::Error::TooManyHeaders => "too many headers",
        httparse::Error::HeaderName => "bad header name",
        httparse::Error::HeaderValue => "bad header value",
        httparse::Error::NewLine | httparse::Error::Token => "bad character",
    }
}

#[cfg(test)]
mod tests;
