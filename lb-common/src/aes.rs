//! AES with 128-bit keys (FIPS 197), for QUIC connection ids only: one block at a time, without a mode of operation.
//! The rounds are table look-ups, so that the XDP program processes a block in a few hundred instructions. The time
//! depends on the cached parts of the tables; an attacker who can measure it precisely enough to learn the key is on
//! this machine already.

/// A block: its 16 bytes as words in big-endian order.
pub type Block = [u32; 4];

/// Rounds for a key of 128 bits.
const ROUNDS: usize = 10;

/// Words of a schedule: one block for each round, and one before the first.
pub const SCHEDULE_WORDS: usize = 4 * (ROUNDS + 1);

/// The words that a key becomes, of one direction.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Schedule(pub [u32; SCHEDULE_WORDS]);

impl core::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Schedule(secret)")
    }
}

/// Twice a value in the field of AES (FIPS 197 section 4.2.1).
const fn double(value: u8) -> u8 {
    let doubled = value << 1;
    if value & 0x80 == 0 {
        doubled
    } else {
        doubled ^ 0x1b
    }
}

/// The product in the field of AES.
const fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        if b & 1 != 0 {
            sum ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    sum
}

/// The substitution of a byte whose inverse in the field is known (FIPS 197 section 5.1.1).
const fn substituted(inverse: u8) -> u8 {
    inverse
        ^ inverse.rotate_left(1)
        ^ inverse.rotate_left(2)
        ^ inverse.rotate_left(3)
        ^ inverse.rotate_left(4)
        ^ 0x63
}

/// Every value but 0 is a power of 3, so each value and its inverse are found side by side. Each build evaluates this, and to
/// compute every inverse by itself would take it seconds.
const fn sbox() -> [u8; 256] {
    // 0xf6 is the inverse of 3.
    let (mut value, mut inverse) = (1, 1);
    // 0 has no inverse; its own stands in for it.
    let mut table = [substituted(0); 256];
    let mut power = 0;
    while power < 255 {
        table[value as usize] = substituted(inverse);
        value = product(value, 3);
        inverse = product(inverse, 0xf6);
        power += 1;
    }
    table
}

#[expect(clippy::cast_possible_truncation, reason = "below 256")]
const fn inverse_sbox() -> [u8; 256] {
    let sbox = sbox();
    let mut table = [0; 256];
    let mut value = 0;
    while value < table.len() {
        table[sbox[value] as usize] = value as u8;
        value += 1;
    }
    table
}

/// Substitution and a column of MixColumns in one.
const fn mixed(sbox: [u8; 256], column: [u8; 4]) -> [u32; 256] {
    let [a, b, c, d] = column;
    let mut table = [0; 256];
    let mut value = 0;
    while value < table.len() {
        let byte = sbox[value];
        table[value] = u32::from_be_bytes([
            product(byte, a),
            product(byte, b),
            product(byte, c),
            product(byte, d),
        ]);
        value += 1;
    }
    table
}

static SBOX: [u8; 256] = sbox();
static INVERSE_SBOX: [u8; 256] = inverse_sbox();
/// Four tables instead of a rotated one, since a rotation takes three BPF instructions for each look-up. All of a
/// direction are 4 KiB, an eighth of a first cache.
static FORTH: Mixed = columns(sbox(), [2, 1, 1, 3]);
static BACK: Mixed = columns(inverse_sbox(), [14, 9, 13, 11]);

/// [`mixed`] for each column.
type Mixed = [[u32; 256]; 4];

const fn columns(sbox: [u8; 256], [a, b, c, d]: [u8; 4]) -> Mixed {
    [
        mixed(sbox, [a, b, c, d]),
        mixed(sbox, [d, a, b, c]),
        mixed(sbox, [c, d, a, b]),
        mixed(sbox, [b, c, d, a]),
    ]
}

/// Byte `index` of a word, from the most significant on.
#[inline(always)]
const fn byte(word: u32, index: u32) -> usize {
    ((word >> (24 - 8 * index)) & 0xff) as usize
}

#[inline(always)]
fn column([first, second, third, fourth]: &Mixed, a: u32, b: u32, c: u32, d: u32, key: u32) -> u32 {
    first[byte(a, 0)] ^ second[byte(b, 1)] ^ third[byte(c, 2)] ^ fourth[byte(d, 3)] ^ key
}

#[inline(always)]
fn last(table: &[u8; 256], a: u32, b: u32, c: u32, d: u32, key: u32) -> u32 {
    (((table[byte(a, 0)] as u32) << 24)
        | ((table[byte(b, 1)] as u32) << 16)
        | ((table[byte(c, 2)] as u32) << 8)
        | table[byte(d, 3)] as u32)
        ^ key
}

impl Schedule {
    /// For [`Self::encrypt`] (FIPS 197 section 5.2).
    pub fn to_encrypt(key: [u8; 16]) -> Self {
        let mut words = [0; SCHEDULE_WORDS];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        let mut constant = 1;
        for at in 4..SCHEDULE_WORDS {
            let mut word = words[at - 1];
            if at % 4 == 0 {
                word = word.rotate_left(8);
                word = last(&SBOX, word, word, word, word, u32::from(constant) << 24);
                constant = double(constant);
            }
            words[at] = words[at - 4] ^ word;
        }
        Self(words)
    }

    /// For [`Self::decrypt`], by the equivalent inverse cipher (FIPS 197 section 5.3.5).
    pub fn to_decrypt(key: [u8; 16]) -> Self {
        let forth = Self::to_encrypt(key).0;
        let mut words = [0; SCHEDULE_WORDS];
        for round in 0..=ROUNDS {
            for at in 0..4 {
                let word = forth[4 * (ROUNDS - round) + at];
                words[4 * round + at] = if round == 0 || round == ROUNDS {
                    word
                } else {
                    // The table undoes the substitution first, so that goes before.
                    let word = last(&SBOX, word, word, word, word, 0);
                    column(&BACK, word, word, word, word, 0)
                };
            }
        }
        Self(words)
    }

    /// Encrypts a block. The schedule comes from [`Self::to_encrypt`].
    #[inline(always)]
    pub fn encrypt(&self, block: Block) -> Block {
        let key = &self.0;
        let [mut a, mut b, mut c, mut d] = block;
        (a, b, c, d) = (a ^ key[0], b ^ key[1], c ^ key[2], d ^ key[3]);
        for at in (4..SCHEDULE_WORDS - 4).step_by(4) {
            (a, b, c, d) = (
                column(&FORTH, a, b, c, d, key[at]),
                column(&FORTH, b, c, d, a, key[at + 1]),
                column(&FORTH, c, d, a, b, key[at + 2]),
                column(&FORTH, d, a, b, c, key[at + 3]),
            );
        }
        [
            last(&SBOX, a, b, c, d, key[40]),
            last(&SBOX, b, c, d, a, key[41]),
            last(&SBOX, c, d, a, b, key[42]),
            last(&SBOX, d, a, b, c, key[43]),
        ]
    }

    /// Decrypts a block. The schedule comes from [`Self::to_decrypt`].
    #[inline(always)]
    pub fn decrypt(&self, block: Block) -> Block {
        let key = &self.0;
        let [mut a, mut b, mut c, mut d] = block;
        (a, b, c, d) = (a ^ key[0], b ^ key[1], c ^ key[2], d ^ key[3]);
        for at in (4..SCHEDULE_WORDS - 4).step_by(4) {
            (a, b, c, d) = (
                column(&BACK, a, d, c, b, key[at]),
                column(&BACK, b, a, d, c, key[at + 1]),
                column(&BACK, c, b, a, d, key[at + 2]),
                column(&BACK, d, c, b, a, key[at + 3]),
            );
        }
        [
            last(&INVERSE_SBOX, a, d, c, b, key[40]),
            last(&INVERSE_SBOX, b, a, d, c, key[41]),
            last(&INVERSE_SBOX, c, b, a, d, key[42]),
            last(&INVERSE_SBOX, d, c, b, a, key[43]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(hex: u128) -> Block {
        let bytes = hex.to_be_bytes();
        let (words, _) = bytes.as_chunks();
        [0, 1, 2, 3].map(|at| u32::from_be_bytes(words[at]))
    }

    /// The inverse of a byte is its 254th power (FIPS 197 section 5.1.1); of 0 it is 0.
    #[test]
    fn every_byte_is_substituted_by_the_definition() {
        for value in 0..=u8::MAX {
            let inverse = (0..254).fold(1, |power, _| product(power, value));
            assert_eq!(SBOX[usize::from(value)], substituted(inverse), "{value}");
            assert_eq!(INVERSE_SBOX[usize::from(SBOX[usize::from(value)])], value);
        }
    }

    /// FIPS 197 appendices B and C.1; NIST SP 800-38A appendix F.1.1, two blocks; QUIC-LB's example of section 5.4.2.
    #[test]
    fn published_blocks_come_out_both_ways() {
        const CASES: [(u128, u128, u128); 5] = [
            (
                0x2b7e151628aed2a6abf7158809cf4f3c,
                0x3243f6a8885a308d313198a2e0370734,
                0x3925841d02dc09fbdc118597196a0b32,
            ),
            (
                0x000102030405060708090a0b0c0d0e0f,
                0x00112233445566778899aabbccddeeff,
                0x69c4e0d86a7b0430d8cdb78070b4c55a,
            ),
            (
                0x2b7e151628aed2a6abf7158809cf4f3c,
                0x6bc1bee22e409f96e93d7e117393172a,
                0x3ad77bb40d7a3660a89ecaf32466ef97,
            ),
            (
                0x2b7e151628aed2a6abf7158809cf4f3c,
                0xae2d8a571e03ac9c9eb76fac45af8e51,
                0xf5d3d58503b9699de785895a96fdbaaf,
            ),
            (
                0xfdf726a9893ec05c0632d3956680baf0,
                0x31441a90000000000000000000000701,
                0xa255dd8cdacf01948d3a848c3c7fee23,
            ),
        ];
        for (key, plain, secret) in CASES {
            let key = key.to_be_bytes();
            assert_eq!(
                Schedule::to_encrypt(key).encrypt(words(plain)),
                words(secret),
                "{plain:032x}"
            );
            assert_eq!(
                Schedule::to_decrypt(key).decrypt(words(secret)),
                words(plain),
                "{secret:032x}"
            );
        }
    }
}
