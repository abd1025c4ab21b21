//! Flows as they are listed, against the packets that made them, and what a flush leaves.

use std::{net::SocketAddr, ops::ControlFlow};

use anyhow::{Context, Result, ensure};
use aya::maps::HashMap;
use lb_common::{
    flow::{NatFlowV4, TupleV4},
    map_names,
    reason::Reason,
    vlan::{Vlan, Vlans},
};
use lb_tests::frames;
use lb_userspace::{
    datapath::{Flow, FlowFilter, FlowState, ReadFlows as _},
    explain::{Question, explain},
    state::{
        guard::Prefix,
        service::{Protocol, ServiceKey, Tracking},
    },
};

use super::{
    ACK, FAMILIES, SYN, TX,
    bench::{Bench, INGRESS, L2DSR},
    build::{Frame, V4},
    explain::view,
    vlan::TAGS,
};

const FIN: u8 = 1;

fn all(bench: &Bench, filter: &FlowFilter) -> Result<Vec<Flow>> {
    let mut found = Vec::new();
    bench.flow_reader().walk(filter, &mut |flows| {
        found.extend_from_slice(flows);
        ControlFlow::Continue(())
    })?;
    found.sort_by_key(|flow| (flow.client, flow.protocol));
    Ok(found)
}

/// Removes flows; returns how many.
fn flush(bench: &Bench, filter: &FlowFilter) -> Result<u64> {
    let mut removed = 0;
    bench.flow_reader().flush(filter, &mut removed)?;
    Ok(removed)
}

/// The one flow of a client.
pub(crate) fn of(bench: &Bench, client: SocketAddr) -> Result<Flow> {
    let mut flows = all(bench, &FlowFilter::default())?;
    flows.retain(|flow| flow.client == client);
    let [flow] = flows[..] else {
        anyhow::bail!("not one flow of {client}: {flows:#?}");
    };
    Ok(flow)
}

/// A SYN-ACK whose number the next packets of [`Frame::tcp`] acknowledge.
fn syn_ack(from: SocketAddr, to: SocketAddr) -> Frame {
    let sequence = if from.is_ipv4() { 14 + 20 + 4 } else { 14 + 40 + 4 };
    Frame::tcp(from, to, SYN | ACK, 64, b"")
        .set16(sequence, 0x0506)
        .set16(sequence + 2, 0x0707)
}

/// The slot that an explanation gives a packet that opens a flow.
pub(crate) fn explained(
    bench: &Bench,
    client: SocketAddr,
    vip: SocketAddr,
    protocol: Protocol,
) -> Result<Option<u32>> {
    let question = Question {
        source: client,
        destination: vip,
        protocol,
        opens: protocol == Protocol::Tcp,
        ifindex: INGRESS,
        ttl: Question::TTL,
        length: 0,
        connection_id: Vec::new(),
        outer: None,
    };
    let view = view(&super::bench::target(|_, _| {}));
    Ok(explain(&question, bench.tables(), &view)?.slot)
}

#[test]
fn a_flow_is_listed_as_its_packets_show_it() -> Result<()> {
    let bench = Bench::new()?;
    bench.ports(3000..=3999)?;
    for side in FAMILIES {
        let (client, vip) = (side.client(40_000), side.vip(80));
        let slot = explained(&bench, client, vip, Protocol::Tcp)?;
        let (_, tags, _) = TAGS[0];
        let syn = Frame::tcp(client, vip, SYN, 64, b"").tagged(tags);
        let (_, sent, _) = bench.run(&syn)?;
        let sent = frames::Frame::parse(sent.bytes()).context("no packet was sent")?;
        let flow = of(&bench, client)?;
        let vlan = Vlan {
            id: 100,
            service: false,
        };
        ensure!(
            (flow.protocol, flow.destination, flow.to) == (Protocol::Tcp, vip, sent.destination),
            "{flow:#?}"
        );
        ensure!(
            flow.via == Some(sent.source),
            "{flow:#?} came from {}",
            sent.source
        );
        ensure!(slot.is_some() && flow.slot == slot, "{flow:#?} of slot {slot:?}");
        let back = flow.way_back.context("no way back")?;
        ensure!(
            (back.ifindex, Some(back.vlans)) == (INGRESS, Vlans::new(Some(vlan), None)),
            "{back:?}"
        );
        // Made just now, on a machine that may be slow.
        ensure!(
            flow.age.is_some_and(|age| age < 60) && flow.idle < 60,
            "{flow:#?}"
        );

        let snat = sent.source;
        let backend = side.backend(8080);
        let from_client = |flags| Frame::tcp(client, vip, flags, 64, b"");
        let from_backend = |flags| Frame::tcp(backend, snat, flags, 64, b"").backend_to_lb();
        for (name, packet, state) in [
            (
                "the backend's answer",
                syn_ack(backend, snat).backend_to_lb(),
                FlowState::Opening,
            ),
            ("its acknowledgement", from_client(ACK), FlowState::Established),
            ("the client's end", from_client(FIN | ACK), FlowState::Closing),
            ("more from the backend", from_backend(ACK), FlowState::Closing),
            ("the backend's end", from_backend(FIN | ACK), FlowState::Closed),
        ] {
            let (action, ..) = bench.run(&packet)?;
            ensure!(action == TX, "{name}: action {action}");
            let flow = of(&bench, client)?;
            ensure!(flow.state == state, "{name}: {flow:#?}");
        }

        let (asker, names) = (side.client(41_000), side.vip(53));
        let slot = explained(&bench, asker, names, Protocol::Udp)?;
        let (_, sent, _) = bench.run(&Frame::udp(asker, names, 64, b"?"))?;
        let sent = frames::Frame::parse(sent.bytes()).context("no packet was sent")?;
        let flow = of(&bench, asker)?;
        ensure!(
            (flow.protocol, flow.state, flow.slot) == (Protocol::Udp, FlowState::Opening, slot),
            "{flow:#?}"
        );
        ensure!(flow.age.is_some_and(|age| age < 60), "{flow:#?}");
        bench.run(&Frame::udp(sent.destination, sent.source, 64, b"!").backend_to_lb())?;
        ensure!(of(&bench, asker)?.state == FlowState::Established);
    }
    Ok(())
}

#[test]
fn a_flow_that_has_lost_an_entry_is_not_listed() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    let client = V4.client(40_000);
    bench.run(&Frame::tcp(client, V4.vip(80), SYN, 64, b""))?;
    of(&bench, client)?;
    let mut flows: HashMap<_, TupleV4, NatFlowV4> = HashMap::try_from(bench.map(map_names::FLOWS_V4)?)?;
    let is_reply = |tuple: &TupleV4| tuple.dst_port.get() == 3000;
    let reply = flows.keys().filter_map(Result::ok).find(is_reply);
    flows.remove(&reply.context("no reply entry")?)?;
    ensure!(all(&bench, &FlowFilter::default())?.is_empty());
    Ok(())
}

#[test]
fn a_flush_removes_the_flows_that_it_means_and_no_other() -> Result<()> {
    let bench = Bench::new()?;
    bench.ports(3000..=3999)?;
    let mut left = 0;
    for side in FAMILIES {
        let vip = side.vip(80);
        let (gone, stays) = (
            side.client(40_000),
            SocketAddr::new(side.strange_client(), 40_000),
        );
        for client in [gone, stays] {
            bench.run(&Frame::tcp(client, vip, SYN, 64, b""))?;
        }
        bench.run(&Frame::udp(gone, side.vip(53), 64, b"?"))?;
        let before = bench.recorded()?;
        let tcp = FlowFilter {
            service: Some(ServiceKey::new(vip.ip(), 80, Protocol::Tcp)),
            client: Some(Prefix::around(gone.ip(), Prefix::most(gone.ip()))),
            ..FlowFilter::default()
        };
        for (what, filter) in [
            (
                "another state",
                FlowFilter {
                    state: Some(FlowState::Closed),
                    ..tcp.clone()
                },
            ),
            (
                "another backend",
                FlowFilter {
                    backends: Some([(tcp.service.context("no service")?, side.backend(1))].into()),
                    ..tcp.clone()
                },
            ),
        ] {
            ensure!(flush(&bench, &filter)? == 0, "{what}");
        }
        ensure!(flush(&bench, &tcp)? == 1);
        ensure!(bench.recorded()? == before - 2, "both entries, and no others");

        // What was flushed is unknown: a connection is reset, and another can begin.
        let (_, _, reason) = bench.run(&Frame::tcp(gone, vip, ACK, 64, b"x"))?;
        ensure!(reason == Reason::NoFlowReset, "{reason:?}");
        let (_, _, reason) = bench.run(&Frame::tcp(stays, vip, ACK, 64, b"x"))?;
        ensure!(reason == Reason::SentBack, "{reason:?}");
        bench.run(&Frame::tcp(gone, vip, SYN, 64, b""))?;
        of(&bench, stays)?;
        left += 3;
        ensure!(all(&bench, &FlowFilter::default())?.len() == left);
    }
    ensure!(flush(&bench, &FlowFilter::default())? == 6 && bench.recorded()? == 0);
    Ok(())
}

fn recording() -> Result<Bench> {
    Bench::with(|key, service| {
        if key.port == L2DSR {
            service.tracking = Tracking::Full;
        }
    })
}

#[test]
fn recorded_flows_of_other_modes_are_listed_and_flushed() -> Result<()> {
    let bench = recording()?;
    for side in FAMILIES {
        let (client, vip) = (side.client(40_000), side.vip(L2DSR));
        let slot = explained(&bench, client, vip, Protocol::Tcp)?;
        for (flags, state) in [(SYN, FlowState::Opening), (ACK, FlowState::Established)] {
            bench.run(&Frame::tcp(client, vip, flags, 64, b""))?;
            let flow = of(&bench, client)?;
            ensure!(
                (flow.state, flow.backend, flow.destination) == (state, side.backend(L2DSR), vip),
                "{flow:#?}"
            );
            ensure!(
                (flow.via, flow.age, flow.way_back) == (None, None, None),
                "{flow:#?}"
            );
            ensure!(slot.is_some() && flow.slot == slot && flow.idle < 60, "{flow:#?}");
        }
        // A datagram shows no beginning.
        let asker = side.client(41_000);
        bench.run(&Frame::udp(asker, vip, 64, b"?"))?;
        ensure!(of(&bench, asker)?.state == FlowState::Established);

        let filter = FlowFilter {
            state: Some(FlowState::Established),
            client: Some(Prefix::around(client.ip(), Prefix::most(client.ip()))),
            ..FlowFilter::default()
        };
        ensure!(flush(&bench, &filter)? == 2);
        ensure!(all(&bench, &FlowFilter::default())?.is_empty());
    }
    Ok(())
}

/// A walk whose reader has stopped, or is slow, must not hold up another one.
#[test]
fn a_walk_goes_on_while_another_one_waits_for_its_reader() -> Result<()> {
    let bench = Bench::new()?;
    bench.ports(3000..=3999)?;
    for n in 0..8 {
        bench.run(&Frame::tcp(V4.client(40_000 + n), V4.vip(80), SYN, 64, b""))?;
    }
    let mut flushed = None;
    let mut seen = 0;
    bench.flow_reader().walk(&FlowFilter::default(), &mut |flows| {
        seen += flows.len();
        // In the middle of the outer one.
        flushed = flush(&bench, &FlowFilter::default()).ok();
        ControlFlow::Break(())
    })?;
    ensure!(
        (seen, flushed) == (8, Some(8)),
        "{seen} seen, {flushed:?} flushed"
    );
    Ok(())
}
