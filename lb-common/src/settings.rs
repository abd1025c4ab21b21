//! The settings of the whole data plane, in one record.

use crate::plain_data;

/// At least one service has port 0, so a missed look-up is worth a second one.
pub const HAS_WILDCARD: u32 = 1 << 0;
/// At least one backend is of mode `dnat`, so an unmatched packet may be a reply.
pub const HAS_DNAT: u32 = 1 << 1;
/// The address of at least one service is a prefix: packets to no other service are looked up among prefixes.
pub const HAS_PREFIX: u32 = 1 << 2;
/// Tunnels end at this machine: a packet for no service may have come through one.
pub const ENDS_TUNNELS: u32 = 1 << 3;

/// The one entry of the settings map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// First source NAT port.
    pub snat_port_first: u16,
    /// Number of source NAT ports from there on.
    pub snat_port_count: u16,
    /// Source NAT addresses given for IPv4; 0: each backend's own `source`.
    pub snat_v4_count: u16,
    /// Source NAT addresses given for IPv6; 0: each backend's own `source`.
    pub snat_v6_count: u16,
    /// Bits: [`HAS_WILDCARD`], [`HAS_DNAT`], [`HAS_PREFIX`], [`ENDS_TUNNELS`].
    pub flags: u32,
    /// First port that replies may come to, of all ranges since the maps were created, so that flows outlive a change
    /// of the range.
    pub reply_port_first: u16,
    /// Number of ports from there on.
    pub reply_port_count: u16,
    /// UDP port that GUE packets go to.
    pub gue_port: u16,
    /// Zero.
    pub pad: u16,
}

impl Settings {
    /// These settings, with replies to the ports from `first` to `last` as well.
    #[must_use]
    pub const fn with_replies_to(self, first: u16, last: u16) -> Self {
        let (first, last) = match self.reply_port_count.checked_sub(1) {
            None => (first, last),
            Some(more) => {
                let before = self.reply_port_first.saturating_add(more);
                (
                    if first < self.reply_port_first {
                        first
                    } else {
                        self.reply_port_first
                    },
                    if last > before { last } else { before },
                )
            }
        };
        Self {
            reply_port_first: first,
            reply_port_count: last.saturating_sub(first).saturating_add(1),
            ..self
        }
    }
}

const _: () = assert!(size_of::<Settings>() == 20);

plain_data!(Settings);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_to_ports_of_an_earlier_range_still_come() {
        let mut settings = Settings::default();
        for (first, last, replies) in [
            (3_000, 3_999, 3_000..=3_999),
            (3_500, 3_600, 3_000..=3_999),
            (2_000, 5_000, 2_000..=5_000),
            (60_000, 65_535, 2_000..=65_535),
        ] {
            settings = settings.with_replies_to(first, last);
            let until = settings.reply_port_first + (settings.reply_port_count - 1);
            assert_eq!(settings.reply_port_first..=until, replies);
        }
    }
}
