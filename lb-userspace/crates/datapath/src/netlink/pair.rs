//! Making and removing a pair of interfaces (veth(4)).

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
};

use crate::netlink::client::{Client, family};

impl Client {
    /// Makes a pair of interfaces, both down, with one queue each and this MTU.
    pub(in super::super) fn make_pair(&mut self, names: [&str; 2], mtu: u32) -> io::Result<()> {
        let [mut one, other] = names.map(|name| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Mtu(mtu),
                LinkAttribute::NumTxQueues(1),
                LinkAttribute::NumRxQueues(1),
            ];
            message
        });
        one.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]));
        self.act(RouteNetlinkMessage::NewLink(one), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives an interface an alias with its purpose.
    pub(in super::super) fn describe(&mut self, ifindex: u32, alias: &str) -> io::Result<()> {
        let mut message = link(ifindex);
        message.attributes = vec![LinkAttribute::IfAlias(alias.to_owned())];
        self.act(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Has the kernel give an interface no IPv6 address of its own accord when it comes up.
    pub(in super::super) fn keep_bare(&mut self, ifindex: u32) -> io::Result<()> {
        let mut message = link(ifindex);
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        message.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])])];
        self.act(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets an interface up; `resolves`: it asks for its neighbours' addresses.
    pub(in super::super) fn set_up(&mut self, ifindex: u32, resolves: bool) -> io::Result<()> {
        let mut message = link(ifindex);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up | LinkFlags::Noarp;
        if !resolves {
            message.header.flags |= LinkFlags::Noarp;
        }
        self.act(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives an interface an address that is of meaning on its link only.
    pub(in super::super) fn add_link_address(
        &mut self,
        ifindex: u32,
        address: IpAddr,
        prefix: u8,
    ) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address).0;
        message.header.prefix_len = prefix;
        message.header.scope = AddressScope::Link;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.header.index = ifindex;
        message.attributes = vec![
            AddressAttribute::Local(address),
            AddressAttribute::Address(address),
        ];
        self.act(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Removes an interface, and with it the other end of its pair; `false` if it is not there.
    pub(in super::super) fn remove_link(&mut self, ifindex: u32) -> io::Result<bool> {
        match self.act(RouteNetlinkMessage::DelLink(link(ifindex)), 0) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn act(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }
}

fn link(ifindex: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message
}
