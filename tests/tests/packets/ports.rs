//! Allocation of source ports, and the states of a flow.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap};
use lb_common::{
    flow::{FIN, FORWARD, LastHop, NatFlowV4, REPLY, TupleV4},
    map_names,
    reason::Reason,
};
use lb_tests::test_run::Runner;

use super::{
    ACK, FAMILIES, SYN, TX,
    bench::Bench,
    build::{Frame, V4},
    forged,
};

const FIN_FLAG: u8 = 1;
/// Where the source port of an IPv4 packet without options stands.
const SOURCE_PORT: usize = 34;

/// Opens a flow from a client's port; returns the balancer's port, or `None` if the packet was dropped.
fn open(runner: &mut Runner<'_>, client_port: u16) -> Result<Option<u16>> {
    let syn = Frame::tcp(V4.client(client_port), V4.vip(80), SYN, 64, b"");
    let (action, output) = runner.run(syn.bytes())?;
    let port = output.get(SOURCE_PORT..).and_then(<[u8]>::first_chunk);
    let port = u16::from_be_bytes(*port.context("a short frame")?);
    Ok((action == TX).then_some(port))
}

impl Bench {
    pub(super) fn flows(&self) -> Result<HashMap<aya::maps::MapData, TupleV4, NatFlowV4>> {
        Ok(HashMap::try_from(self.map(map_names::FLOWS_V4)?)?)
    }

    /// Removes the flow from a client's port, as the sweeper does.
    fn forget(&self, client_port: u16) -> Result<()> {
        let mut flows = self.flows()?;
        let (tuple, flow) = self.entry(client_port)?;
        flows.remove(&tuple)?;
        Ok(flows.remove(&flow.peer(tuple.protocol))?)
    }

    /// The client's entry of the IPv4 flow from a client's port.
    pub(super) fn entry(&self, client_port: u16) -> Result<(TupleV4, NatFlowV4)> {
        let entries = self.flows()?.iter().collect::<Result<Vec<_>, _>>()?;
        let mut entries = entries.into_iter();
        entries
            .find(|(tuple, flow)| flow.direction == FORWARD && tuple.src_port.get() == client_port)
            .with_context(|| format!("no flow from port {client_port}"))
    }
}

#[test]
fn a_port_just_freed_is_the_last_to_be_taken_again() -> Result<()> {
    const PORTS: u16 = 8;
    let bench = Bench::new()?;
    bench.ports(3000..=2999 + PORTS)?;
    let mut taken = BTreeSet::new();
    for client_port in 40_000..40_000 + PORTS {
        let port = bench.many(|runner| open(runner, client_port))?;
        ensure!(
            taken.insert(port.context("dropped")?),
            "port {port:?} again, while others were never used"
        );
        bench.forget(client_port)?;
    }
    Ok(())
}

/// A SYN comes again when it is not answered: packets within which a flow must have found a free port.
const PACKETS: usize = 3;

/// Fills a range of 400 ports, ends the flows of `ended`, and lets their clients open one each again.
fn open_again(ended: &dyn Fn(usize) -> bool) -> Result<()> {
    const PORTS: u16 = 400;
    let bench = Bench::new()?;
    bench.ports(3000..=2999 + PORTS)?;
    let clients = 40_000..40_000 + PORTS;
    bench.many(|runner| {
        for client in clients.clone() {
            ensure!(open(runner, client)?.is_some(), "flow {client} found no port");
        }
        Ok(())
    })?;
    let ended = clients.enumerate().filter(|(i, _)| ended(*i));
    let ended: Vec<u16> = ended.map(|(_, client)| client).collect();
    for client in &ended {
        bench.forget(*client)?;
    }
    bench.many(|runner| {
        for client in &ended {
            let mut opened = None;
            for _ in 0..PACKETS {
                opened = opened.or(open(runner, *client)?);
            }
            ensure!(opened.is_some(), "flow {client} found no port");
        }
        Ok(())
    })
}

#[test]
fn a_nearly_full_range_gives_its_last_ports_within_a_few_packets() -> Result<()> {
    open_again(&|i| i % 20 == 0)
}

/// The sequential probe wraps to the first port, and to the adjacent ones that were opened with it and are still in
/// use.
#[test]
fn ports_in_use_side_by_side_are_passed_over() -> Result<()> {
    open_again(&|i| i >= 200 && i % 2 == 0)
}

/// The turn comes to ports that were taken just now when the range changes.
#[test]
fn a_flow_that_has_just_begun_keeps_its_port_while_others_are_free() -> Result<()> {
    const FLOWS: u16 = 100;
    /// However long this test waits for a processor.
    const YOUNG_FOR_SECS: u32 = 1_000;
    let bench = Bench::new()?;
    bench.ports(3000..=32_767)?;
    let open_all = |first: u16| {
        bench.many(|runner| {
            for client in first..first + FLOWS {
                ensure!(open(runner, client)?.is_some(), "flow {client} found no port");
            }
            Ok(())
        })
    };
    open_all(40_000)?;
    let mut flows = bench.flows()?;
    let mut cursors: Array<_, u64> = Array::try_from(bench.map(map_names::PORT_CURSORS)?)?;
    for entry in flows.iter().collect::<Result<Vec<_>, _>>()? {
        let (tuple, mut flow) = entry;
        flow.last_seen += YOUNG_FOR_SECS;
        flows.insert(tuple, flow, 0)?;
        if flow.direction == FORWARD {
            let backend = u32::from(flow.backend.0);
            let turn = cursors.get(&backend, 0)?;
            cursors.set(backend, turn - 1, 0)?;
        }
    }
    open_all(50_000)?;
    let entries = bench.recorded()?;
    ensure!(
        entries == 4 * usize::from(FLOWS),
        "{entries} entries for {} flows",
        2 * FLOWS
    );
    Ok(())
}

#[test]
fn answers_to_a_port_outside_a_narrowed_range_still_come() -> Result<()> {
    let bench = Bench::new()?;
    bench.one_port(3009)?;
    bench.run(&Frame::tcp(V4.client(40_000), V4.vip(80), SYN, 64, b""))?;
    bench.one_port(3000)?;
    let answer = Frame::tcp(V4.backend(8080), V4.snat(3009), SYN | ACK, 64, b"").backend_to_lb();
    let (_, _, reason) = bench.run(&answer)?;
    ensure!(reason == Reason::SentBack, "counted {}", reason.name());
    Ok(())
}

#[test]
fn flow_that_closes_on_another_path_is_closing_and_answered_there() -> Result<()> {
    const OTHER_ROUTER: u8 = 0x77;
    let bench = Bench::new()?;
    bench.one_port(3000)?;
    let (client, vip) = (V4.client(40_000), V4.vip(80));
    bench.run(&Frame::tcp(client, vip, SYN, 64, b""))?;
    // The last byte of the frame's source address.
    let fin = Frame::tcp(client, vip, FIN_FLAG | ACK, 64, b"").set(11, OTHER_ROUTER);
    let (_, _, reason) = bench.run(&fin)?;
    ensure!(reason == Reason::SentBack, "counted {}", reason.name());
    let (tuple, forward) = bench.entry(40_000)?;
    let reply = bench.flows()?.get(&forward.peer(tuple.protocol), 0)?;
    ensure!(
        forward.state & FIN != 0,
        "the FIN is forgotten: {:03b}",
        forward.state
    );
    ensure!(reply.direction == REPLY, "the other entry is no reply");
    for LastHop { peer_mac, .. } in [forward.last_hop, reply.last_hop] {
        ensure!(
            peer_mac[5] == OTHER_ROUTER,
            "answers go to {peer_mac:02x?}, where the client is no more"
        );
    }
    Ok(())
}

/// A SYN flood takes the ports of half-open flows only, oldest first.
#[test]
fn half_open_flows_give_way_and_established_ones_never_do() -> Result<()> {
    const PORTS: u16 = 8;
    for side in FAMILIES {
        let bench = Bench::new()?;
        for n in 0..2 {
            bench.one_port(3000 + n)?;
            forged::establish(&bench, side, 40_000 + n, 3000 + n)?;
        }
        bench.ports(3000..=2999 + PORTS)?;
        let before = bench.recorded()?;
        for n in 0..200 {
            let syn = Frame::tcp(side.client(50_000 + n), side.vip(80), SYN, 64, b"");
            let (_, _, reason) = bench.run(&syn)?;
            ensure!(reason == Reason::SentBack, "SYN {n}: {}", reason.name());
        }
        let more = bench.recorded()? - before;
        ensure!(
            more == 2 * usize::from(PORTS - 2),
            "{more} entries for {} ports",
            PORTS - 2
        );
        for n in 0..2 {
            let data = Frame::tcp(side.backend(8080), side.snat(3000 + n), ACK, 64, b"data").backend_to_lb();
            let wanted = Frame::tcp(side.vip(80), side.client(40_000 + n), ACK, 63, b"data").lb_to_client();
            bench.expect("an established flow", &data, TX, &wanted, Reason::SentBack)?;
        }
        let gave_way: u64 = bench
            .snapshot()?
            .gave_way
            .values()
            .map(|gave_way| gave_way.total)
            .sum();
        ensure!(gave_way == 200 - u64::from(PORTS - 2), "{gave_way} are counted");
    }
    Ok(())
}

#[test]
fn a_service_over_its_share_of_the_table_opens_flows_in_place_of_its_own() -> Result<()> {
    const SHARE: u16 = 20;
    let bench = Bench::new()?;
    bench.ports(3000..=3999)?;
    let mut shares: Array<_, u64> = Array::try_from(bench.map(map_names::FLOW_SHARES)?)?;
    for service in 0..shares.len() {
        shares.set(service, u64::from(SHARE), 0)?;
    }
    for n in 0..2_000 {
        let syn = Frame::tcp(V4.client(20_000 + n), V4.vip(80), SYN, 64, b"");
        let (_, _, reason) = bench.run(&syn)?;
        ensure!(reason == Reason::SentBack, "SYN {n}: {}", reason.name());
    }
    let flows = bench.recorded()? / 2;
    // The search is short, so that some find none that could give way.
    ensure!(flows < 400, "{flows} flows");
    Ok(())
}
