//! Packets in the file format pcapng (draft-ietf-opsawg-pcapng), which Wireshark and tcpdump read, also from a pipe.
//!
//! A file is a list of blocks: section header, a description of each interface before its first packet, packets. The interfaces that
//! are known come with the header, since libpcap takes no file without one. Each block has its
//! type, its length, its content, and its length once more.

use std::time::{Duration, SystemTime};

use lb_common::reason::Action;

/// Types of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// By which a reader knows the byte order, and the version of the format.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const VERSION: [u16; 2] = [1, 0];
/// A section whose length is not known.
const NO_LENGTH: u64 = u64::MAX;
/// Frames are of Ethernet (`LINKTYPE_ETHERNET`).
const ETHERNET: u16 = 1;
/// Options: end of them, comment, name of the program that wrote the file, name of an interface, direction of a packet, verdict.
const END: u16 = 0;
const COMMENT: u16 = 1;
const PROGRAM: u16 = 4;
const NAME: u16 = 2;
const FLAGS: u16 = 2;
const VERDICT: u16 = 7;
/// Directions in the option of flags.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// The kind of a verdict that is an XDP action.
const OF_XDP: u8 = 2;

/// Which packet of a pair it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// As it came.
    Before,
    /// As it left.
    After,
}

/// A packet for a file.
pub(super) struct Packet<'a> {
    pub(super) at: SystemTime,
    pub(super) interface: &'a str,
    pub(super) side: Side,
    pub(super) action: Action,
    pub(super) comment: &'a str,
    /// Bytes of the whole frame.
    pub(super) len: u32,
    /// The first of them.
    pub(super) bytes: &'a [u8],
}

/// Makes the blocks of one file, one after the other.
#[derive(Default)]
pub(super) struct Pcapng {
    begun: bool,
    interfaces: Vec<String>,
}

impl Pcapng {
    /// A file that begins with these interfaces. Packets may add others.
    pub(super) fn new(interfaces: Vec<String>) -> Self {
        Self {
            begun: false,
            interfaces,
        }
    }

    /// The blocks of a packet, and what has to stand before it.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> Vec<u8> {
        let mut blocks = self.begin();
        let known = self.interfaces.iter().position(|name| name == packet.interface);
        let number = known.unwrap_or_else(|| {
            self.interfaces.push(packet.interface.to_owned());
            interface(&mut blocks, packet.interface);
            self.interfaces.len() - 1
        });
        let since = packet
            .at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX).to_le_bytes();
        let mut content = u32::try_from(number).unwrap_or(0).to_le_bytes().to_vec();
        // The upper half of the time comes first.
        content.extend_from_slice(&micros[4..]);
        content.extend_from_slice(&micros[..4]);
        content.extend(length(packet.bytes).to_le_bytes());
        content.extend(packet.len.to_le_bytes());
        content.extend_from_slice(packet.bytes);
        pad(&mut content);
        option(&mut content, COMMENT, packet.comment.as_bytes());
        let flags = match packet.side {
            Side::Before => INBOUND,
            Side::After => OUTBOUND,
        };
        option(&mut content, FLAGS, &flags.to_le_bytes());
        let verdict: u64 = match packet.action {
            Action::Aborted => 0,
            Action::Drop => 1,
            Action::Pass => 2,
            Action::Tx => 3,
            Action::Redirect => 4,
        };
        option(
            &mut content,
            VERDICT,
            &[&[OF_XDP][..], &verdict.to_le_bytes()].concat(),
        );
        end(&mut content);
        block(&mut blocks, PACKET, &content);
        blocks
    }

    /// The begin of the file, if it is not written yet.
    pub(super) fn begin(&mut self) -> Vec<u8> {
        let mut blocks = Vec::new();
        if !self.begun {
            self.begun = true;
            let mut content = BYTE_ORDER.to_le_bytes().to_vec();
            content.extend(VERSION.iter().flat_map(|number| number.to_le_bytes()));
            content.extend(NO_LENGTH.to_le_bytes());
            option(
                &mut content,
                PROGRAM,
                concat!("lb ", env!("CARGO_PKG_VERSION")).as_bytes(),
            );
            end(&mut content);
            block(&mut blocks, SECTION, &content);
            for name in &self.interfaces {
                interface(&mut blocks, name);
            }
        }
        blocks
    }
}

/// The description of an interface.
fn interface(blocks: &mut Vec<u8>, name: &str) {
    let mut content = [ETHERNET.to_le_bytes(), [0; 2]].concat();
    // Frames of any length.
    content.extend([0; 4]);
    option(&mut content, NAME, name.as_bytes());
    end(&mut content);
    block(blocks, INTERFACE, &content);
}

/// Bytes of a part, none of which is as long as 4 GiB.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn block(blocks: &mut Vec<u8>, kind: u32, content: &[u8]) {
    const AROUND: u32 = 12;
    let total = (length(content) + AROUND).to_le_bytes();
    blocks.extend(kind.to_le_bytes());
    blocks.extend(total);
    blocks.extend_from_slice(content);
    blocks.extend(total);
}

fn option(content: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // A comment is a sentence.
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    content.extend(kind.to_le_bytes());
    content.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    content.extend_from_slice(value);
    pad(content);
}

fn end(content: &mut Vec<u8>) {
    option(content, END, &[]);
}

/// Fills up to a multiple of 4 bytes.
fn pad(content: &mut Vec<u8>) {
    content.resize(content.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_begins_once_and_names_each_interface_before_its_packets() {
        let mut file = Pcapng::new(vec!["eth0".to_owned(), "eth1".to_owned()]);
        let begin = file.begin();
        let packet = |interface, side, bytes| Packet {
            at: SystemTime::UNIX_EPOCH + Duration::new(1, 2_000),
            interface,
            side,
            action: Action::Drop,
            comment: "drop",
            len: 60,
            bytes,
        };
        let mut bytes = begin;
        bytes.extend(file.packet(&packet("eth0", Side::Before, &[1, 2, 3, 4, 5])));
        bytes.extend(file.packet(&packet("eth0", Side::After, &[6])));
        bytes.extend(file.packet(&packet("eth1", Side::Before, &[7])));
        bytes.extend(file.packet(&packet("eth2", Side::Before, &[8])));
        let mut kinds = Vec::new();
        let mut packets = Vec::new();
        let mut rest = &bytes[..];
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        while !rest.is_empty() {
            let (kind, len) = (word(rest, 0), word(rest, 4) as usize);
            assert_eq!(len % 4, 0);
            assert_eq!(word(rest, len - 4) as usize, len);
            kinds.push(kind);
            if kind == PACKET {
                packets.push(&rest[8..len - 4]);
            }
            rest = &rest[len..];
        }
        let begin = [SECTION, INTERFACE, INTERFACE];
        assert_eq!(kinds[..3], begin, "also without a packet");
        assert_eq!(kinds[3..], [PACKET, PACKET, PACKET, INTERFACE, PACKET]);
        // Interface, time (upper and lower half of microseconds), bytes there, bytes in all.
        let head: Vec<u32> = (0..5).map(|at| word(packets[0], 4 * at)).collect();
        assert_eq!(head, [0, 0, 1_000_002, 5, 60]);
        assert_eq!(packets[0][20..28], [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!((word(packets[2], 0), word(packets[3], 0)), (1, 2));
        let options = &packets[0][28..];
        assert_eq!(options[..8], [1, 0, 4, 0, b'd', b'r', b'o', b'p']);
        assert_eq!(options[8..16], [2, 0, 4, 0, 1, 0, 0, 0]);
        assert_eq!(options[16..32], [7, 0, 9, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(options[32..], [0; 4]);
    }
}
