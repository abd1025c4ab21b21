//! Follows the frames of a peer as their bytes arrive (RFC 9113 section 4.1), to report where they stopped. Pure.

/// Bytes of a frame's header.
const HEADER: usize = 9;
/// Place of the type within it.
const TYPE: usize = 3;
/// Place of the flags within it.
const FLAGS: usize = 4;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// The protocol that a peer speaks instead of HTTP/2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Foreign {
    /// HTTP/1.
    Http1,
    /// Something else.
    Other,
}

/// Where in its frames a peer is.
#[derive(Debug, Default)]
pub(super) struct FrameWatch {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the payload to come.
    left: usize,
    /// Whether the first frame's type was read, and is right.
    begun: bool,
    /// Whether header fields have begun and not ended.
    in_head: bool,
}

impl FrameWatch {
    /// Takes the next bytes.
    pub(super) fn feed(&mut self, mut input: &[u8]) -> Result<(), Foreign> {
        while !input.is_empty() {
            if self.left > 0 {
                let (payload, rest) = input.split_at(self.left.min(input.len()));
                self.left -= payload.len();
                input = rest;
                continue;
            }
            if self.have == HEADER {
                self.have = 0;
            }
            let (part, rest) = input.split_at((HEADER - self.have).min(input.len()));
            for (place, byte) in self.header.iter_mut().skip(self.have).zip(part) {
                *place = *byte;
            }
            self.have += part.len();
            input = rest;
            self.check_first()?;
            if self.have == HEADER {
                self.begin_payload();
            }
        }
        Ok(())
    }

    /// Whether a frame has begun and not ended.
    pub(super) fn within_frame(&self) -> bool {
        self.left > 0 || (self.have > 0 && self.have < HEADER)
    }

    /// Whether header fields have begun and not ended.
    pub(super) fn within_head(&self) -> bool {
        self.in_head
    }

    fn check_first(&mut self) -> Result<(), Foreign> {
        if self.begun || self.have <= TYPE {
            return Ok(());
        }
        self.begun = true;
        match self.header {
            [b'H', b'T', b'T', b'P', ..] => Err(Foreign::Http1),
            [_, _, _, SETTINGS, ..] => Ok(()),
            _ => Err(Foreign::Other),
        }
    }

    fn begin_payload(&mut self) {
        let [a, b, c, ..] = self.header;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let (kind, flags) = (self.header[TYPE], self.header[FLAGS]);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_head = flags & END_HEADERS == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a type with flags and `payload` bytes of payload.
    fn frame(kind: u8, flags: u8, payload: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, payload, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![7; payload.into()]);
        frame
    }

    #[test]
    fn the_place_is_the_same_however_the_bytes_are_cut() {
        // Bytes, and whether they end within a frame and within header fields.
        let settings = frame(SETTINGS, 0, 6);
        let and = |more: &[u8]| [&settings, more].concat();
        let cases = [
            (vec![], false, false),
            (vec![0], true, false),
            (settings[..HEADER].to_vec(), true, false),
            (settings.clone(), false, false),
            (and(&frame(0, 0, 0)), false, false),
            (and(&frame(HEADERS, END_HEADERS, 9)), false, false),
            (and(&frame(HEADERS, 0, 9)), false, true),
            (and(&frame(HEADERS, 0, 9)[..12]), true, true),
            (
                and(&[frame(HEADERS, 0, 9), frame(CONTINUATION, END_HEADERS, 1)].concat()),
                false,
                false,
            ),
        ];
        for (bytes, within_frame, within_head) in cases {
            for size in 1..=bytes.len().max(1) {
                let mut watch = FrameWatch::default();
                for piece in bytes.chunks(size) {
                    watch.feed(piece).unwrap();
                }
                assert_eq!(
                    (watch.within_frame(), watch.within_head()),
                    (within_frame, within_head),
                    "{bytes:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn other_protocols_are_seen_at_their_fourth_byte() {
        let cases: [(&[u8], Result<(), Foreign>); 5] = [
            (b"HTTP", Err(Foreign::Http1)),
            (b"HTT", Ok(())),
            (b"220 ", Err(Foreign::Other)),
            // A TLS alert.
            (b"\x15\x03\x01\x00", Err(Foreign::Other)),
            (b"\x00\x00\x00\x04", Ok(())),
        ];
        for (bytes, expected) in cases {
            assert_eq!(FrameWatch::default().feed(bytes), expected, "{bytes:?}");
        }
    }
}
