//! Where members of the kernel's structures stand, by its description of its types (Documentation/bpf/btf.rst).

use std::{fs, io};

const FILE: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u32 = 0xeb9f;
/// Kinds of types.
const ARRAY: u32 = 3;
const INTEGER: u32 = 1;
const STRUCTURE: u32 = 4;
const UNION: u32 = 5;
const ENUMERATION: u32 = 6;
const FUNCTION: u32 = 13;
const VARIABLE: u32 = 14;
const SECTION: u32 = 15;
const TAG: u32 = 17;
const ENUMERATION_64: u32 = 19;
/// Words of a type's head, and of a member of a structure.
const HEAD: usize = 3;
const MEMBER: usize = 3;

/// Offsets in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Offsets {
    /// From `struct net_device` to the address of its namespace.
    pub(super) device_to_namespace: i32,
    /// From `struct net` to its inode number.
    pub(super) namespace_to_number: i32,
}

impl Offsets {
    /// Those of the running kernel.
    ///
    /// # Errors
    /// It does not describe its types, or they are other ones.
    pub(super) fn read() -> io::Result<Self> {
        let types =
            fs::read(FILE).map_err(|error| io::Error::new(error.kind(), format!("{FILE}: {error}")))?;
        Self::of(&types)
            .ok_or_else(|| io::Error::other(format!("{FILE} describes no namespace of a network device")))
    }

    fn of(types: &[u8]) -> Option<Self> {
        let [device, net, common] = members(
            types,
            [("net_device", "nd_net"), ("net", "ns"), ("ns_common", "inum")],
        )?;
        Some(Self {
            device_to_namespace: device,
            namespace_to_number: net.checked_add(common)?,
        })
    }
}

/// Offsets of members of structures.
fn members<const N: usize>(types: &[u8], wanted: [(&str, &str); N]) -> Option<[i32; N]> {
    let word = |at: usize| Some(u32::from_ne_bytes(types.get(at..at + 4)?.try_into().ok()?));
    if word(0)? & 0xffff != MAGIC {
        return None;
    }
    let [begin, type_begin, type_len, text_begin] = [4, 8, 12, 16].map(word);
    let begin = begin? as usize;
    let (mut at, texts) = (begin + type_begin? as usize, begin + text_begin? as usize);
    let end = at + type_len? as usize;
    let is_named = |name: u32, expected: &str| {
        let text = types.get(texts + name as usize..).unwrap_or_default();
        text.strip_prefix(expected.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    };
    let mut found = [None; N];
    while at < end {
        let (name, info) = (word(at)?, word(at + 4)?);
        let (kind, count, has_bitfields) = ((info >> 24) & 0x1f, info as usize & 0xffff, info >> 31 != 0);
        at += 4 * HEAD;
        if kind == STRUCTURE {
            let of_this = wanted
                .iter()
                .zip(&mut found)
                .filter(|((structure, _), _)| is_named(name, structure));
            for ((_, member), found) in of_this {
                let mut places = (0..count).map(|member| at + 4 * MEMBER * member);
                let place = places.find(|place| word(*place).is_some_and(|name| is_named(name, member)));
                let bits = place.and_then(|place| word(place + 8));
                let bits = bits.map(|bits| if has_bitfields { bits & 0xff_ffff } else { bits });
                *found = found.or(bits.map(|bits| (bits / 8).cast_signed()));
            }
        }
        at += 4 * match kind {
            INTEGER | VARIABLE | TAG => 1,
            ARRAY => 3,
            STRUCTURE | UNION | SECTION | ENUMERATION_64 => 3 * count,
            ENUMERATION | FUNCTION => 2 * count,
            _ => 0,
        };
    }
    found
        .iter()
        .all(Option::is_some)
        .then(|| found.map(Option::unwrap_or_default))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct net_device { int; possible_net_t nd_net at 64 }` and so on, as the kernel would describe them.
    fn described() -> Vec<u8> {
        let texts = b"\0net_device\0nd_net\0net\0ns\0ns_common\0inum\0";
        let text = |name: &str| {
            let sought = format!("\0{name}\0");
            let place = texts
                .windows(sought.len())
                .position(|text| text == sought.as_bytes());
            u32::try_from(place.unwrap() + 1).unwrap()
        };
        let structure = |name: &str, bitfields: u32, member: &str, bits: u32| {
            let info = (bitfields << 31) | (STRUCTURE << 24) | 1;
            [text(name), info, 200, text(member), 1, bits]
        };
        let integer = [0, INTEGER << 24, 4, 32];
        let function = [0, (FUNCTION << 24) | 1, 1, 0, 1];
        let words: Vec<u32> = [
            &integer[..],
            &structure("ns_common", 0, "inum", 16 * 8),
            &function,
            // Another one of the same name, without the member.
            &structure("net", 0, "inum", 8),
            &structure("net_device", 1, "nd_net", (3 << 24) | (264 * 8)),
            &structure("net", 0, "ns", 144 * 8),
        ]
        .concat();
        let length = u32::try_from(words.len() * 4).unwrap();
        let head = [
            MAGIC | (1 << 16),
            24,
            0,
            length,
            length,
            u32::try_from(texts.len()).unwrap(),
        ];
        let words = head.iter().chain(&words).flat_map(|word| word.to_ne_bytes());
        words.chain(texts.iter().copied()).collect()
    }

    #[test]
    fn members_are_found_whatever_stands_between_the_structures() {
        let types = described();
        let expected = Offsets {
            device_to_namespace: 264,
            namespace_to_number: 160,
        };
        assert_eq!(Offsets::of(&types), Some(expected));
        for cut in [0, 8, 30, types.len() / 2] {
            assert_eq!(Offsets::of(&types[..cut]), None, "cut after {cut} bytes");
        }
        assert_eq!(members(&types, [("net", "nothing")]), None);
    }
}
