//! Frames that are not for this machine's link-layer address alone: a switch floods them, or an interface is promiscuous.

use anyhow::{Result, ensure};
use aya::maps::{Array, HashMap};
use lb_common::{
    limits::MAX_INTERFACES,
    map_names,
    own_mac::{Mac, OwnMac},
    reason::Reason,
};

use super::{
    ACK, FAMILIES, PASS, SYN, TX,
    bench::{Bench, DNAT, GUE_V4, INGRESS, IPIP_V6, L2DSR, REJECTS},
    build::{Frame, Side},
    vlan::TAGS,
};

/// Frames that would otherwise match a service, a flow or a ring.
fn frames(side: Side) -> Vec<(String, Frame)> {
    let client = side.client(40_000);
    let mut frames = Vec::new();
    for port in [80, REJECTS, L2DSR, IPIP_V6, GUE_V4, DNAT] {
        for flags in [SYN, ACK] {
            let frame = Frame::tcp(client, side.vip(port), flags, 64, b"x");
            frames.push((format!("tcp to port {port}, flags {flags}"), frame));
        }
    }
    frames.push(("udp".to_owned(), Frame::udp(client, side.vip(53), 64, b"x")));
    let reply = Frame::tcp(side.backend(8080), side.snat(3000), ACK, 64, b"x").backend_to_lb();
    frames.push(("an answer of a flow".to_owned(), reply));
    let forwarded = Frame::tcp(side.snat(3000), side.backend(8080), ACK, 63, b"x");
    let error = Frame::unreachable(side.backend(0), side.snat(0), 64, &forwarded, 8).backend_to_lb();
    frames.push(("an error about a flow".to_owned(), error));
    frames.push((
        "hop limit 1".to_owned(),
        Frame::udp(client, side.vip(53), 1, b"x"),
    ));
    frames
}

#[test]
fn frames_for_another_machine_pass_untouched_with_any_content() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    for side in FAMILIES {
        // A flow that answers and errors belong to.
        let opening = Frame::tcp(side.client(40_000), side.vip(80), SYN, 64, b"");
        ensure!(bench.run(&opening)?.0 == TX, "a flow is opened");
        let (flows, forwarded) = (bench.recorded()?, bench.forwarded()?);
        for (name, frame) in frames(side) {
            let sent = frame.clone().for_another_host();
            bench.expect(&name, &sent, PASS, &sent, Reason::OtherHost)?;
            for (tags, tagged, _) in TAGS {
                let sent = sent.tagged(tagged);
                bench.expect(&format!("{name}, {tags}"), &sent, PASS, &sent, Reason::OtherHost)?;
            }
            let sent = frame.multicast();
            bench.expect(&format!("{name}, broadcast"), &sent, PASS, &sent, Reason::NotOurs)?;
        }
        ensure!(
            (bench.recorded()?, bench.forwarded()?) == (flows, forwarded),
            "no record, and no count for a service"
        );
    }
    Ok(())
}

/// The daemon fills these tables from the kernel's links; here, for the device that test packets come in on.
#[test]
fn addresses_of_upper_devices_are_accepted_and_all_if_none_is_known() -> Result<()> {
    let bench = Bench::new()?;
    let side = FAMILIES[0];
    let sent = Frame::tcp(side.client(40_000), side.vip(L2DSR), ACK, 64, b"").for_another_host();
    let taken = || -> Result<bool> { Ok(bench.run(&sent)?.2 == Reason::SentBack) };
    ensure!(!taken()?, "the address of another machine");

    let mut other = [0; 6];
    other.copy_from_slice(&sent.bytes()[..6]);
    let mut own: HashMap<_, OwnMac, u32> = HashMap::try_from(bench.map(map_names::OWN_MACS)?)?;
    own.insert(OwnMac::new(Mac::new(other), INGRESS + 1), 1, 0)?;
    ensure!(!taken()?, "the address of a device above another interface");
    own.insert(OwnMac::new(Mac::new(other), INGRESS), 1, 0)?;
    ensure!(taken()?, "the address of a device above this one");
    own.remove(&OwnMac::new(Mac::new(other), INGRESS))?;
    ensure!(!taken()?, "the device is removed");

    let mut first: Array<_, Mac> = Array::try_from(bench.map(map_names::INTERFACE_MACS)?)?;
    for slot in 0..MAX_INTERFACES {
        first.set(slot, Mac::ANY, 0)?;
    }
    ensure!(taken()?, "no address is known");
    let broadcast = sent.multicast();
    bench.expect("broadcast", &broadcast, PASS, &broadcast, Reason::NotOurs)
}
