//! Frames with VLAN tags: tags are removed before parsing, and the tags of the way out are added.

use anyhow::{Result, ensure};
use lb_common::{
    reason::Reason,
    vlan::{Vlan, Vlans},
};

use super::{
    ACK, FAMILIES, PASS, SYN, TX,
    bench::{Bench, DROP, GUE_V4, GUE_V6, IPIP_V4, IPIP_V6, L2DSR, REJECTS},
    build::{Frame, Side},
};

/// A customer tag, with a priority, VLAN 100.
const CUSTOMER: [u8; 4] = [0x81, 0x00, 0xa0, 100];
/// A service tag, VLAN 2748.
const SERVICE: [u8; 4] = [0x88, 0xa8, 0x0a, 0xbc];

/// Tags one after the other.
pub(crate) type Tags = &'static [[u8; 4]];

/// Tags as they come, and as packets that are sent on have them: of no priority.
pub(crate) const TAGS: [(&str, Tags, Tags); 4] = [
    ("customer", &[CUSTOMER], &[[0x81, 0x00, 0, 100]]),
    ("service", &[SERVICE], &[SERVICE]),
    (
        "service, customer",
        &[SERVICE, CUSTOMER],
        &[SERVICE, [0x81, 0x00, 0, 100]],
    ),
    (
        "customer twice",
        &[CUSTOMER, CUSTOMER],
        &[[0x81, 0x00, 0, 100], [0x81, 0x00, 0, 100]],
    ),
];

/// VLAN 7 of a backend, and the tag of its frames.
const OF_BACKEND: Vlan = Vlan {
    id: 7,
    service: false,
};
const BACKEND_TAG: Tags = &[[0x81, 0x00, 0, 7]];

impl Frame {
    pub(crate) fn tagged(&self, tags: &[[u8; 4]]) -> Self {
        let mut bytes = self.bytes().to_vec();
        bytes.splice(12..12, tags.concat());
        Self::from_bytes(bytes)
    }

    /// Bytes of its tags.
    pub(crate) fn tags_len(&self) -> usize {
        let kinds = self.bytes()[12..].chunks_exact(4).map(|tag| [tag[0], tag[1]]);
        4 * kinds
            .take_while(|kind| [[0x81, 0x00], [0x88, 0xa8]].contains(kind))
            .count()
    }
}

fn of_backends(bench: &Bench, vlan: Option<Vlan>) -> Result<()> {
    let vlans = Vlans::new(vlan, None).unwrap_or_default();
    bench.change_backends(|backend| backend.vlans = vlans)
}

#[test]
fn translated_packets_leave_in_the_vlan_of_their_way() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        bench.ports(3000..=3063)?;
        let mut port = 3000;
        for (vlan, out) in [(None, &[][..]), (Some(OF_BACKEND), BACKEND_TAG)] {
            of_backends(&bench, vlan)?;
            for (name, tags, back) in TAGS {
                bench.one_port(port)?;
                let (client, snat) = (side.client(37_000 + port), side.snat(port));
                let syn = Frame::tcp(client, side.vip(80), SYN, 64, b"").tagged(tags);
                let to_backend = Frame::tcp(snat, side.backend(8080), SYN, 63, b"").lb_to_backend();
                bench.expect(name, &syn, TX, &to_backend.tagged(out), Reason::SentBack)?;

                let reply = Frame::tcp(side.backend(8080), snat, SYN | ACK, 64, b"").backend_to_lb();
                let to_client = Frame::tcp(side.vip(80), client, SYN | ACK, 63, b"").lb_to_client();
                for reply in [reply.clone(), reply.tagged(BACKEND_TAG)] {
                    bench.expect(name, &reply, TX, &to_client.tagged(back), Reason::SentBack)?;
                }
                // The client moves to no VLAN, and its replies with it.
                let data = Frame::tcp(client, side.vip(80), ACK, 64, b"data");
                let on = Frame::tcp(snat, side.backend(8080), ACK, 63, b"data").lb_to_backend();
                bench.expect(name, &data, TX, &on.tagged(out), Reason::SentBack)?;
                bench.expect(name, &reply, TX, &to_client, Reason::SentBack)?;
                port += 1;
            }
        }
    }
    Ok(())
}

#[test]
fn errors_about_flows_cross_vlans_as_their_packets_do() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        bench.one_port(3000)?;
        of_backends(&bench, Some(OF_BACKEND))?;
        let (client, snat) = (side.client(40_000), side.snat(3000));
        for (name, tags, back) in TAGS {
            let opening = Frame::udp(client, side.vip(53), 64, b"hello").tagged(tags);
            let forwarded = Frame::udp(snat, side.backend(5353), 63, b"hello").lb_to_backend();
            bench.expect(
                name,
                &opening,
                TX,
                &forwarded.tagged(BACKEND_TAG),
                Reason::SentBack,
            )?;
            let error = Frame::unreachable(side.backend(0), snat, 64, &forwarded, 8).backend_to_lb();
            let quoted = Frame::udp(client, side.vip(53), 63, b"hello");
            let message = Frame::unreachable(side.vip(0), client, 63, &quoted, 8).lb_to_client();
            bench.expect(
                name,
                &error.tagged(BACKEND_TAG),
                TX,
                &message.tagged(back),
                Reason::SentBack,
            )?;
        }
    }
    Ok(())
}

#[test]
fn packets_that_stay_as_they_are_leave_in_the_vlan_of_their_backend() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for port in [L2DSR, IPIP_V4, IPIP_V6, GUE_V4, GUE_V6] {
            let (client, vip) = (side.client(40_000), side.vip(port));
            for sent in [
                Frame::tcp(client, vip, ACK, 64, b"data"),
                Frame::udp(client, vip, 64, b"data"),
            ] {
                of_backends(&bench, None)?;
                let (action, plain, _) = bench.run(&sent)?;
                ensure!(action == TX, "port {port}: action {action}");
                for (vlan, out) in [(None, &[][..]), (Some(OF_BACKEND), BACKEND_TAG)] {
                    of_backends(&bench, vlan)?;
                    let wanted = plain.tagged(out);
                    bench.expect("without tags", &sent, TX, &wanted, Reason::SentBack)?;
                    for (name, tags, _) in TAGS {
                        bench.expect(name, &sent.tagged(tags), TX, &wanted, Reason::SentBack)?;
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn own_answers_have_the_vlan_tags_of_the_packet() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        let (client, rejects) = (side.client(40_000), side.vip(REJECTS));
        let large = Frame::udp(client, side.vip(L2DSR), 64, &[7; 400]);
        let mtu = u16::try_from(large.len() - 14)? - 1;
        bench.change_backends(|backend| backend.mtu = mtu)?;
        for (name, tags, _) in TAGS {
            let syn = Frame::tcp(client, rejects, SYN, 64, b"");
            let reset = Frame::reset(rejects, client, 0, Some(0x0102_0305)).lb_to_client();
            bench.expect(
                name,
                &syn.tagged(tags),
                TX,
                &reset.tagged(tags),
                Reason::RejectedReset,
            )?;
            let message = Frame::too_big(side.vip(L2DSR), client, &large, mtu);
            bench.expect(
                name,
                &large.tagged(tags),
                TX,
                &message.tagged(tags),
                Reason::TooBigAnswered,
            )?;
        }
    }
    Ok(())
}

fn not_ours(side: Side) -> Vec<(&'static str, Frame, u32, Reason)> {
    let tcp = |port| Frame::tcp(side.client(40_000), side.vip(port), SYN, 64, b"payload");
    let ip = if side.vip(0).is_ipv4() { 22 } else { 21 };
    vec![
        ("another port", tcp(22), PASS, Reason::NotOurs),
        ("no backend", tcp(81), DROP, Reason::NoBackend),
        ("last hop", tcp(80).set(ip, 1), DROP, Reason::TtlExpired),
        ("arp", tcp(80).set16(12, 0x0806), PASS, Reason::Vlan),
        ("cut within the header", tcp(80).cut(30), PASS, Reason::Truncated),
    ]
}

#[test]
fn packets_that_are_not_sent_keep_their_vlan_tags() -> Result<()> {
    let bench = Bench::new()?;
    for side in FAMILIES {
        for (name, frame, action, reason) in not_ours(side) {
            for (tags_name, tags, _) in TAGS {
                let frame = frame.tagged(tags);
                bench.expect(&format!("{name}, {tags_name}"), &frame, action, &frame, reason)?;
            }
        }
        let syn = Frame::tcp(side.client(40_000), side.vip(80), SYN, 64, b"");
        let three = syn.tagged(&[SERVICE, CUSTOMER, CUSTOMER]);
        bench.expect("three tags", &three, PASS, &three, Reason::Vlan)?;
        let old = syn.tagged(&[[0x91, 0, 0, 100]]);
        bench.expect(
            "a kind of tag from before 802.1ad",
            &old,
            PASS,
            &old,
            Reason::NotIp,
        )?;
        // A frame may end anywhere; the kernel takes none shorter than an Ethernet header.
        let whole = syn.tagged(&[SERVICE, CUSTOMER]);
        for len in 14..whole.len() {
            let cut = whole.cut(len);
            let reason = if len < 24 { Reason::Vlan } else { Reason::Truncated };
            bench.expect(&format!("cut to {len}"), &cut, PASS, &cut, reason)?;
        }
    }
    ensure!(bench.new_flows()? == 0, "none of them opens a flow");
    Ok(())
}
