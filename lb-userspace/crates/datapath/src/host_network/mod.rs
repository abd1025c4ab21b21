//! Links, drivers, addresses and routes of this machine, for a diagnosis. Nothing here changes anything, but that the kernel may ask
//! for a neighbour.

mod conflict;
mod ethtool;
mod link_socket;
mod network;
mod packets;
mod peer;
mod xdp_features;

use std::fs;

pub use self::{
    ethtool::Offloads,
    network::{HostLink, HostNetwork, HostWay},
    packets::{Arrived, PacketSocket},
    peer::{Peer, Place},
    xdp_features::XdpFeatures,
};
pub use super::netlink::TiedTo;

/// CPUs that handle the interrupts of an interface's device, one list an interrupt, such as `0-3`; empty for virtual devices.
pub fn interrupt_cpus(interface: &str) -> Vec<String> {
    let device = format!("/sys/class/net/{interface}/device");
    // A virtio device has no interrupts of its own: the PCI device above it does.
    let dirs = [format!("{device}/msi_irqs"), format!("{device}/../msi_irqs")];
    let entries = dirs.iter().find_map(|dir| fs::read_dir(dir).ok());
    let numbers = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    numbers
        .filter_map(|number| {
            let dir = format!("/proc/irq/{}", number.to_str()?);
            let read = |file: &str| fs::read_to_string(format!("{dir}/{file}")).ok();
            let cpus = read("effective_affinity_list").or_else(|| read("smp_affinity_list"))?;
            Some(cpus.trim().to_owned())
        })
        .filter(|cpus| !cpus.is_empty())
        .collect()
}
