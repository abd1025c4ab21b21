//! Links and their attributes in the kernel.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "as in the module above: messages and attributes are open sets"
)]

use std::io;

use lb_common::vlan::Vlan;
use netlink_packet_core::{DefaultNla, NLM_F_DUMP};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, Prop,
        VlanProtocol, XdpAttached,
    },
};

use crate::{
    netlink::{
        client::{Client, mac},
        stacking::Stacking,
    },
    snapshot::LinkLosses,
};

/// Bytes of a link's name at most (`IFNAMSIZ` less the final zero), and the attribute for longer, alternative ones
/// (include/uapi/linux/if_link.h).
const MAX_NAME: usize = 15;
const IFLA_ALT_IFNAME: u16 = 53;

/// Whether an interface can carry packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LinkOperation {
    /// It can.
    Up,
    /// It is up, and nothing is at the other end.
    NoCarrier,
    /// It is set down.
    Down,
    /// There is no such interface.
    #[default]
    Missing,
}

/// A link, as far as forwarding needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct LinkState {
    /// Its index.
    pub(in super::super) ifindex: u32,
    /// Its name.
    pub(in super::super) name: String,
    /// Whether its frames begin with an Ethernet header.
    pub(in super::super) framed: bool,
    /// Its MAC address; `None` where it is not Ethernet.
    pub(in super::super) mac: Option<[u8; 6]>,
    /// Its MTU in bytes.
    pub(in super::super) mtu: u32,
    /// For the link of a VLAN: the link that carries its frames, with tags.
    pub(in super::super) vlan: Option<VlanLink>,
    /// Which links it stands above or below of.
    pub(in super::super) stacking: Stacking,
    /// The XDP program on it.
    pub(in super::super) xdp: Option<XdpState>,
    /// Its alias: the purpose, as its maker set it.
    pub(in super::super) alias: Option<String>,
    /// Its alternative names (`ip link property add … altname`).
    pub(in super::super) altnames: Vec<String>,
    /// Whether it can carry packets.
    pub(in super::super) operation: LinkOperation,
}

/// Attributes of a VLAN's link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct VlanLink {
    /// Index of the link that carries its frames.
    pub(in super::super) parent: u32,
    /// The tag that they have there.
    pub(in super::super) vlan: Vlan,
}

/// An XDP program on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct XdpState {
    /// Kernel's id of the program.
    pub(in super::super) program_id: u32,
    /// Run by the network stack instead of the driver.
    pub(in super::super) generic: bool,
}

impl Client {
    /// All links.
    pub(in super::super) fn links(&mut self) -> io::Result<Vec<LinkState>> {
        let answer = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answer.into_iter().filter_map(link_state).collect())
    }

    /// The link with this index, if there is one.
    pub(in super::super) fn link(&mut self, ifindex: u32) -> io::Result<Option<LinkState>> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        self.ask_for_link(message)
    }

    /// The link with this name, which may be an alternative one, if there is one.
    pub(in super::super) fn link_named(&mut self, name: &str) -> io::Result<Option<LinkState>> {
        let mut message = LinkMessage::default();
        message.attributes.push(if name.len() <= MAX_NAME {
            LinkAttribute::IfName(name.to_owned())
        } else {
            let bytes = [name.as_bytes(), &[0]].concat();
            LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, bytes))
        });
        self.ask_for_link(message)
    }

    /// What the link with this index lost, if there is one.
    pub(in super::super) fn losses(&mut self, ifindex: u32) -> io::Result<Option<LinkLosses>> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        let answer = self.ask(RouteNetlinkMessage::GetLink(message), 0)?;
        Ok(answer.into_iter().find_map(losses))
    }

    fn ask_for_link(&mut self, message: LinkMessage) -> io::Result<Option<LinkState>> {
        match self.ask(RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answer) => Ok(answer.into_iter().find_map(link_state)),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

pub(super) fn losses(message: RouteNetlinkMessage) -> Option<LinkLosses> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(counts) => Some(LinkLosses {
            rx_dropped: counts.rx_dropped,
            rx_errors: counts.rx_errors,
            rx_missed: counts.rx_missed_errors,
            tx_dropped: counts.tx_dropped,
            tx_errors: counts.tx_errors,
        }),
        _ => None,
    })
}

pub(super) fn link_state(message: RouteNetlinkMessage) -> Option<LinkState> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = LinkState {
        ifindex: message.header.index,
        name: String::new(),
        framed: matches!(
            message.header.link_layer_type,
            LinkLayerType::Ether | LinkLayerType::Loopback
        ),
        mac: None,
        mtu: 0,
        vlan: None,
        stacking: Stacking::of(&message.attributes),
        xdp: None,
        alias: None,
        altnames: Vec::new(),
        operation: operation(message.header.flags),
    };
    let mut parent = None;
    let mut vlan = None;
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(address) if ethernet => link.mac = mac(&address),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Xdp(xdp) => link.xdp = xdp_state(&xdp),
            LinkAttribute::PropList(properties) => link.altnames.extend(altnames(properties)),
            LinkAttribute::Link(index) => parent = Some(index),
            LinkAttribute::LinkInfo(infos) => vlan = vlan_of(&infos),
            _ => {}
        }
    }
    link.vlan = parent.zip(vlan).map(|(parent, vlan)| VlanLink { parent, vlan });
    Some(link)
}

/// The VLAN of this link; `None` for any other kind of link.
fn vlan_of(infos: &[LinkInfo]) -> Option<Vlan> {
    let attributes = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(attributes)) => Some(attributes),
        _ => None,
    })?;
    let id = attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })?;
    let service = attributes.contains(&InfoVlan::Protocol(VlanProtocol::Ieee8021Ad));
    Some(Vlan { id, service })
}

/// The program on a link: the driver's where there are several, as that one runs first.
fn xdp_state(attributes: &[LinkXdp]) -> Option<XdpState> {
    let find = |pick: fn(&LinkXdp) -> Option<u32>| attributes.iter().find_map(pick);
    let driver = find(|attribute| match attribute {
        LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    let any = find(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    });
    let generic = driver.is_none()
        && !attributes.iter().any(|attribute| {
            matches!(
                attribute,
                LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware)
            )
        });
    driver.or(any).map(|program_id| XdpState { program_id, generic })
}

fn altnames(properties: Vec<Prop>) -> impl Iterator<Item = String> {
    properties.into_iter().filter_map(|property| match property {
        Prop::AltIfName(name) => Some(name),
        _ => None,
    })
}

fn operation(flags: LinkFlags) -> LinkOperation {
    if !flags.contains(LinkFlags::Up) {
        LinkOperation::Down
    } else if !flags.contains(LinkFlags::LowerUp) {
        LinkOperation::NoCarrier
    } else {
        LinkOperation::Up
    }
}
