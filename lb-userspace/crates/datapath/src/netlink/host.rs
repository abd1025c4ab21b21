//! Questions that only a look at the whole machine asks.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "as in the module above: messages and attributes are open sets"
)]

use std::{collections::BTreeMap, fs::File, io, net::IpAddr, os::fd::AsRawFd as _};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{LinkAttribute, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};

use crate::netlink::client::Client;

/// An address of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostAddress {
    /// Index of its link.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Length in bits of the prefix that the link reaches directly.
    pub length: u8,
    /// Whether duplicate address detection found it on another machine (RFC 4862 section 5.4).
    pub duplicate: bool,
}

/// The link that another one is tied to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TiedTo {
    /// Its index.
    pub ifindex: u32,
    /// The id of its network namespace, as this one numbers others; `None` if it is in this one.
    pub namespace: Option<i32>,
}

impl Client {
    /// The id by which this namespace knows another one; `None` if it knows it by none.
    pub(in super::super) fn namespace_id(&mut self, namespace: &File) -> io::Result<Option<i32>> {
        let mut message = NsidMessage::default();
        let fd = namespace.as_raw_fd().cast_unsigned();
        message.attributes.push(NsidAttribute::Fd(fd));
        let answer = self.ask(RouteNetlinkMessage::GetNsId(message), 0)?;
        let id = answer.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewNsId(message) => {
                message.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) => Some(*id),
                    _ => None,
                })
            }
            _ => None,
        });
        Ok(id.filter(|id| *id >= 0))
    }

    /// The addresses of this machine with their prefixes.
    pub(in super::super) fn host_addresses(&mut self) -> io::Result<Vec<HostAddress>> {
        let answer = self.ask(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
        )?;
        Ok(answer.into_iter().filter_map(host_address).collect())
    }

    /// Links that are tied to another one, such as a veth to its peer, by their index.
    pub(in super::super) fn tied_links(&mut self) -> io::Result<BTreeMap<u32, TiedTo>> {
        let answer = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answer.into_iter().filter_map(tied).collect())
    }
}

pub(super) fn tied(message: RouteNetlinkMessage) -> Option<(u32, TiedTo)> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let (mut ifindex, mut namespace) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => ifindex = Some(*index),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            _ => {}
        }
    }
    let ifindex = ifindex?;
    Some((message.header.index, TiedTo { ifindex, namespace }))
}

pub(super) fn host_address(message: RouteNetlinkMessage) -> Option<HostAddress> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let (mut local, mut end, mut duplicate) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => end = Some(*address),
            AddressAttribute::Flags(flags) => duplicate = flags.contains(AddressFlags::Dadfailed),
            _ => {}
        }
    }
    Some(HostAddress {
        ifindex: message.header.index,
        address: local.or(end)?,
        length: message.header.prefix_len,
        duplicate,
    })
}
