//! Link-layer addresses whose frames are for this machine. Frames for another machine are not the balancer's, although
//! a flooding switch or a promiscuous interface delivers them. An array has one address for each interface slot, which
//! matches most frames; a hash table has every address, including addresses of devices above an interface (VLAN,
//! macvlan, the bridge or bond that it is part of).

use crate::plain_data;

/// An Ethernet address as a number: its bytes as they stand in a frame, first byte lowest.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mac(pub u64);

impl Mac {
    /// Bits of an address.
    pub const BITS: u32 = 48;
    /// No address: where it stands in the array, every unicast frame on the interface is for this machine.
    pub const ANY: Self = Self(0);

    /// The number of an address.
    pub const fn new(bytes: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = bytes;
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// The address in the low bits of a word, as it is loaded from a frame.
    #[inline(always)]
    pub const fn of_word(word: u64) -> Self {
        Self(word & ((1 << Self::BITS) - 1))
    }

    /// Whether it stands for several stations: broadcast or multicast.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0 & 1 != 0
    }
}

/// An address whose frames on an interface are for this machine.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct OwnMac {
    /// The address.
    pub mac: Mac,
    /// Index of the interface.
    pub ifindex: u32,
    /// Zero.
    pub pad: u32,
}

impl OwnMac {
    /// An address on an interface.
    #[inline(always)]
    pub const fn new(mac: Mac, ifindex: u32) -> Self {
        Self { mac, ifindex, pad: 0 }
    }
}

const _: () = assert!(size_of::<OwnMac>() == 16);
const _: () = assert!(cfg!(target_endian = "little"), "frames are loaded in words");

plain_data!(Mac, OwnMac);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_number_from_its_bytes_and_from_a_frame() {
        let bytes = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
        let frame = u64::from_le_bytes([0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 0xaa, 0xbb]);
        assert_eq!(Mac::new(bytes), Mac::of_word(frame));
        assert!(!Mac::new(bytes).is_group());
        assert!(Mac::new([0xff; 6]).is_group() && Mac::new([0x33, 0x33, 0, 0, 0, 1]).is_group());
    }
}
