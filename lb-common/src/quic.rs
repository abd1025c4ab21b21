//! Connection ids of QUIC that name a server, after draft-ietf-quic-load-balancers-21 ("QUIC-LB").
//!
//! After its first octet such an id has a server id and a nonce: in plaintext, encrypted as one AES block if they are
//! 16 bytes together, or else by a Feistel network of four rounds. That network works on two halves, which share the
//! middle byte if their number of bytes is odd. Here a half is three words in big-endian order, its bytes at the front,
//! and masks prepared by the daemon select its bits; so the packet path needs no shifts, and looks a server up by the
//! bits of its id in both halves.

mod key;

pub use self::key::{ConfigKey, Half, MAX_CONFIG_ID, Server, ServerKey};
use crate::{
    aes::{Block, SCHEDULE_WORDS, Schedule},
    plain_data,
    service::ServiceId,
};

/// Bytes of the longest connection id of QUIC version 1 (RFC 9000 section 17.2).
pub const MAX_CONNECTION_ID: usize = 20;
/// Bytes of server id and nonce together, at most (section 5.2).
pub const MAX_BLOCK: usize = MAX_CONNECTION_ID - 1;
/// Bytes of a nonce, at least (section 5.2).
pub const MIN_NONCE: usize = 4;
/// Maximum bytes of a server id, with the shortest nonce.
pub const MAX_SERVER_ID: usize = MAX_BLOCK - MIN_NONCE;
/// Bytes that are encrypted in a single pass.
pub const SINGLE_PASS_BLOCK: usize = 16;
/// Bytes read from where a half begins.
pub const HALF_READ: usize = 16;

/// Bit of the first byte of a packet with a long header (RFC 8999 section 5.1).
const LONG_HEADER: u8 = 0x80;
/// Where a short header has the connection id (RFC 9000 section 17.3.1).
pub const SHORT_ID_AT: usize = 1;
/// Where a long header has the length of the destination's connection id; the id follows (RFC 8999 section 5.1).
const LONG_LENGTH_AT: usize = 5;

/// The number of the step that decrypts all as one block; the passes of the network are 1 to 4.
const SINGLE_PASS: u32 = 0;

/// The half that begins a block.
const LEFT: usize = 0;
/// The right half. Odd passes change it, even ones the left half.
const RIGHT: usize = 1;

/// A connection id at work: 16 bytes behind its first octet, and 16 from [`Config::right_at`] on. Bytes after the id
/// are ignored.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Halves(pub [Block; 2]);

/// How the connection ids of a service are read.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// The bits of each half.
    bits: [Half; 2],
    /// Masks of the bits of the server id.
    server_bits: [Half; 2],
    /// The end of an expanded half, without the number of the pass.
    ending: u32,
    /// Where the right half begins, in bytes after the first octet.
    right_at: u8,
    /// Bytes of a connection id, at least.
    length: u8,
    /// The configuration id.
    id: u8,
    /// Passes: 0 for plaintext, 1 for one block, else the passes of the Feistel network, from the last.
    passes: u8,
    /// The key: to decrypt for a single pass, else to encrypt.
    key: Schedule,
}

impl Default for Config {
    /// An empty configuration, to be filled.
    fn default() -> Self {
        Self {
            bits: [[0; 3]; 2],
            server_bits: [[0; 3]; 2],
            ending: 0,
            right_at: 0,
            length: 0,
            id: 0,
            passes: 0,
            key: Schedule([0; SCHEDULE_WORDS]),
        }
    }
}

/// Lengths that no configuration may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadLengths;

/// Ones in the first `bits` bits.
const fn ones(bits: usize) -> Half {
    let mut half = [0; 3];
    let mut at = 0;
    while at < bits {
        half[at / 32] |= 1 << (31 - at % 32);
        at += 1;
    }
    half
}

#[inline(always)]
const fn and([a, b, c]: Half, [d, e, f]: Half) -> Half {
    [a & d, b & e, c & f]
}

#[inline(always)]
const fn front(block: Block) -> Half {
    let [a, b, c, _] = block;
    [a, b, c]
}

/// The words of bytes as they stand in a packet.
#[inline(always)]
pub fn words(bytes: [u8; HALF_READ]) -> Block {
    let (words, _) = bytes.as_chunks();
    [words[0], words[1], words[2], words[3]].map(u32::from_be_bytes)
}

/// Offset of the connection id in a UDP payload with these first bytes, and its maximum length: only a long header has
/// the length.
#[inline(always)]
pub const fn id_at(start: [u8; LONG_LENGTH_AT + 1]) -> (usize, usize) {
    if start[0] & LONG_HEADER == 0 {
        return (SHORT_ID_AT, MAX_CONNECTION_ID);
    }
    (LONG_LENGTH_AT + 1, start[LONG_LENGTH_AT] as usize)
}

impl Config {
    /// The configuration `id` for server ids and nonces of these lengths in bytes, encrypted if there is a key. #
    /// Errors If the draft does not allow the lengths or the id.
    pub fn new(id: u8, server_id: usize, nonce: usize, key: Option<[u8; 16]>) -> Result<Self, BadLengths> {
        let length = server_id.saturating_add(nonce);
        if id > MAX_CONFIG_ID || server_id == 0 || nonce < MIN_NONCE || length > MAX_BLOCK {
            return Err(BadLengths);
        }
        let passes = match key {
            None => 0,
            Some(_) if length == SINGLE_PASS_BLOCK => 1,
            Some(_) if server_id <= length / 2 => 3,
            Some(_) => 4,
        };
        let key = match key {
            None => Schedule([0; SCHEDULE_WORDS]),
            Some(key) if passes == 1 => Schedule::to_decrypt(key),
            Some(key) => Schedule::to_encrypt(key),
        };
        let right_at = length / 2;
        let (server_bits, half_bits) = (8 * server_id, 4 * length);
        let mut right = ones(8 * length - 8 * right_at);
        let mut server_right = ones(server_bits.saturating_sub(8 * right_at));
        let (mut left, mut server_left) = (ones(half_bits), ones(server_bits.min(half_bits)));
        if length % 2 == 1 {
            // The first four bits of the right half are the last four of the left.
            right[0] &= u32::MAX >> 4;
            server_right[0] &= u32::MAX >> 4;
        }
        if passes == 1 {
            // The whole block is the left half, of which a server id never fills more than is looked at.
            (left, server_left) = (ones(96), ones(server_bits));
            (right, server_right) = ([0; 3], [0; 3]);
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 20, as checked above")]
        let (right_at, length) = (right_at as u8, length as u8);
        Ok(Self {
            bits: [left, right],
            server_bits: [server_left, server_right],
            ending: u32::from(length) << 8,
            right_at,
            length: 1 + length,
            id,
            passes,
            key,
        })
    }

    /// Where the right half begins, in bytes after the first octet of the id.
    #[inline(always)]
    pub const fn right_at(&self) -> usize {
        self.right_at as usize
    }

    /// Bytes of a connection id with its first octet, at least.
    #[inline(always)]
    pub const fn id_length(&self) -> usize {
        self.length as usize
    }

    /// The steps that uncover the server id, in order, for [`Self::step`].
    #[inline(always)]
    pub const fn steps(&self) -> &'static [u32] {
        match self.passes {
            0 => &[],
            1 => &[SINGLE_PASS],
            3 => &[4, 3, 2],
            _ => &[4, 3, 2, 1],
        }
    }

    /// Takes one step: decrypts the block, or undoes the pass of this number.
    #[inline(always)]
    pub fn step(&self, halves: &mut Halves, number: u32) {
        if number == SINGLE_PASS {
            halves.0[LEFT] = self.key.decrypt(halves.0[LEFT]);
            return;
        }
        // Chosen by index and not by branches, so that the verifier walks the rounds once.
        let changed = (number & 1) as usize;
        let other = changed ^ 1;
        let [a, b, c] = and(front(halves.0[other]), self.bits[other]);
        let made = self.key.encrypt([a, b, c, self.ending | number]);
        let [d, e, f] = and(front(made), self.bits[changed]);
        let [x, y, z, _] = halves.0[changed];
        halves.0[changed] = [x ^ d, y ^ e, z ^ f, 0];
    }

    /// The key of the server with the decrypted id.
    #[inline(always)]
    pub const fn server(&self, service: ServiceId, halves: &Halves) -> ServerKey {
        ServerKey {
            service,
            config: self.id,
            pad: 0,
            left: and(front(halves.0[LEFT]), self.server_bits[LEFT]),
            right: and(front(halves.0[RIGHT]), self.server_bits[RIGHT]),
        }
    }

    /// The configuration id.
    pub const fn id(&self) -> u8 {
        self.id
    }

    /// The key of the server with this id. `None` if the length of the id differs from the configuration's.
    pub fn key_of(&self, service: ServiceId, id: &[u8]) -> Option<ServerKey> {
        let bits: u32 = self
            .server_bits
            .iter()
            .flatten()
            .map(|word| word.count_ones())
            .sum();
        if id.len() * 8 != bits as usize {
            return None;
        }
        let mut bytes = [0; MAX_BLOCK + HALF_READ];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        let read = |at: usize| bytes.get(at..at + HALF_READ)?.try_into().ok().map(words);
        let (left, right) = (read(0)?, read(self.right_at())?);
        Some(self.server(service, &Halves([left, right])))
    }
}

const _: () = assert!(size_of::<Config>() == 56 + 4 * SCHEDULE_WORDS);

plain_data!(Config);

#[cfg(test)]
mod tests;
