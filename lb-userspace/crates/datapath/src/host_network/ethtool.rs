//! Drivers and their settings, by the ioctl of ethtool (include/uapi/linux/ethtool.h).

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use socket2::{Domain, Socket, Type};

/// The request of all of ethtool's commands.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Commands.
const GET_DRIVER: u32 = 0x03;
const GET_TX_CHECKSUMS: u32 = 0x16;
const GET_GRO: u32 = 0x2b;
const GET_FLAGS: u32 = 0x25;
const GET_INDIRECTION: u32 = 0x38;
const GET_CHANNELS: u32 = 0x3c;
/// Bits of [`GET_FLAGS`].
const TX_VLAN: u32 = 1 << 7;
const RX_VLAN: u32 = 1 << 8;
const LRO: u32 = 1 << 15;

/// What a driver does to frames before the XDP program sees them, and after; `None` where it does not say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads {
    /// Large receive offload: several packets become one, which cannot be forwarded.
    pub lro: Option<bool>,
    /// Generic receive offload; a veth with it takes frames that are sent to it without a program of its own.
    pub gro: Option<bool>,
    /// VLAN tags are taken off received frames, so that the program does not see them.
    pub rx_vlan: Option<bool>,
    /// VLAN tags of sent frames are left to the driver; over a veth they stay beside the frame, so that a program at the other end does
    /// not see them.
    pub tx_vlan: Option<bool>,
    /// Checksums are left to the driver; over a veth they never get computed.
    pub tx_checksums: Option<bool>,
}

/// `struct ethtool_value`.
#[repr(C)]
#[derive(Default)]
struct Value {
    command: u32,
    value: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    most: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Entries of an indirection table that there is room for: the largest known ones have 4,096.
const INDIRECTION_LEN: u32 = 4096;

/// `struct ethtool_rxfh_indir`.
#[repr(C)]
struct Indirection {
    command: u32,
    size: u32,
    queues: [u32; INDIRECTION_LEN as usize],
}

impl Indirection {
    /// The queues that the table names.
    fn named(&self) -> Option<BTreeSet<u32>> {
        let queues = self.queues.get(..self.size as usize)?;
        (!queues.is_empty()).then(|| queues.iter().copied().collect())
    }
}

/// A socket for such questions, in the network namespace that it was opened in.
pub(super) struct Ethtool(Socket);

impl Ethtool {
    pub(super) fn new() -> io::Result<Self> {
        Socket::new(Domain::IPV4, Type::DGRAM, None).map(Self)
    }

    /// Name of the driver: `virtio_net`, `veth`, `bridge`, …
    pub(super) fn driver(&self, interface: &str) -> Option<String> {
        let mut info = DriverInfo {
            command: GET_DRIVER,
            driver: [0; 32],
            rest: [0; 160],
        };
        self.ask(interface, &mut info).ok()?;
        let name = info.driver.split(|byte| *byte == 0).next()?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// Settings of its driver.
    pub(super) fn offloads(&self, interface: &str) -> Offloads {
        let flags = self.value(interface, GET_FLAGS);
        let flag = |bit| flags.map(|flags| flags & bit != 0);
        let is_on = |command| self.value(interface, command).map(|value| value != 0);
        Offloads {
            lro: flag(LRO),
            gro: is_on(GET_GRO),
            rx_vlan: flag(RX_VLAN),
            tx_vlan: flag(TX_VLAN),
            tx_checksums: is_on(GET_TX_CHECKSUMS),
        }
    }

    /// Number of receive queues in use.
    pub(super) fn receive_queues(&self, interface: &str) -> Option<u32> {
        let mut channels = Channels {
            command: GET_CHANNELS,
            ..Channels::default()
        };
        self.ask(interface, &mut channels).ok()?;
        Some(channels.rx + channels.combined).filter(|queues| *queues > 0)
    }

    /// The receive queues among which the device spreads packets by their hash (RSS); `None` if it does not say, or does not spread them.
    pub(super) fn spread_over(&self, interface: &str) -> Option<BTreeSet<u32>> {
        let mut table = Indirection {
            command: GET_INDIRECTION,
            size: INDIRECTION_LEN,
            queues: [0; INDIRECTION_LEN as usize],
        };
        self.ask(interface, &mut table).ok()?;
        table.named()
    }

    fn value(&self, interface: &str, command: u32) -> Option<u32> {
        let mut value = Value { command, value: 0 };
        self.ask(interface, &mut value).ok()?;
        Some(value.value)
    }

    /// Has the kernel answer into `request`, whose first field is the command.
    fn ask<T>(&self, interface: &str, request: &mut T) -> io::Result<()> {
        let mut name = [0; libc::IFNAMSIZ];
        // The last byte stays 0.
        for (to, from) in name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let mut ifreq = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: std::ptr::from_mut(request).cast(),
            },
        };
        // SAFETY: the kernel writes at most the structure of the command, which `request` is; both live until the call returns.
        match unsafe { libc::ioctl(self.0.as_fd().as_raw_fd(), SIOCETHTOOL, &raw mut ifreq) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_of_the_table_name_queues() {
        let of = |size, first: &[u32]| {
            let mut queues = [9; INDIRECTION_LEN as usize];
            queues[..first.len()].copy_from_slice(first);
            let table = Indirection {
                command: GET_INDIRECTION,
                size,
                queues,
            };
            table.named().map(Vec::from_iter)
        };
        assert_eq!(of(4, &[1, 0, 1, 0]), Some(vec![0, 1]));
        assert_eq!(of(0, &[]), None, "a device without a table");
        assert_eq!(of(INDIRECTION_LEN + 1, &[]), None);
    }
}
