//! Missing stages: the kernel, or an administrator, can empty the map of stages.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, ProgramArray};
use lb_common::{
    map_names,
    reason::Reason,
    stage::{Stage, StageSet},
};
use lb_tests::{lane::Lane, netns::Netns, scratch::Scratch, test_run::Program};
use lb_userspace::{
    datapath::{AttachOptions, Datapath, EarlyStart, Interfaces, Needs, WriterTask},
    plan::{TargetQuic, TargetService},
    state::{
        guard::{Guard, Rate},
        service::{Protocol, ServiceKey},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    ACK, SYN,
    bench::{ABORTED, Bench, DNAT_TCP, L2DSR, add_links, options, target},
    build::{Frame, V4, V6},
    fragments::split,
};

/// Packets of every kind to a service, from its backend, and about both.
fn kinds(key: &ServiceKey) -> Vec<Frame> {
    let side = if key.address.is_ipv6() { V6 } else { V4 };
    let (client, vip) = (side.client(1), side.vip(key.port));
    let whole = match key.protocol {
        Protocol::Tcp => Frame::tcp(client, vip, SYN, 64, &[7; 40]),
        Protocol::Udp => Frame::udp(client, vip, 64, &[7; 40]),
    };
    let mut frames = vec![
        whole.clone(),
        Frame::tcp(side.client(2), vip, ACK, 64, b""),
        Frame::tcp(client, vip, ACK, 64, &[7; 2_000]),
        Frame::echo(client, vip, true, 64, b"ping"),
        Frame::unreachable(side.backend(key.port), client, 64, &whole, 8),
        Frame::tcp(side.backend(DNAT_TCP), client, ACK, 64, b""),
        whole.tagged(&[[0x81, 0, 0, 5]]),
    ];
    frames.extend(split(&whole, 9));
    frames
}

/// Opens the program with no stage but those that any packet may enter, and programs one service after the other. After each of
/// them, the `frames` of all services so far go through the program. Returns how many packets were counted by reason.
fn one_service_after_the_other(
    change: impl Fn(&ServiceKey, &mut TargetService) + Send,
    frames: impl Fn(&ServiceKey) -> Vec<Frame> + Send,
) -> Result<BTreeMap<Reason, u64>> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (Netns::new("stages")?, Scratch::new()?);
    add_links(&ns)?;
    let options = options(&scratch.join("bpf"));
    ns.enter(move || {
        let datapath = Datapath::open(&options)?;
        let attached = datapath.interfaces().borrow()[0].attached.clone();
        let program = Program::by_id(attached.context("nothing is attached")?.program_id)?;
        let mut runner = program.runner();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let cancel = CancellationToken::new();
        let writer = runtime.block_on(async { WriterTask::spawn(datapath, cancel.clone()) });
        let all = target(change);
        for count in 1..=all.services.len() {
            let mut some = all.clone();
            some.services = all
                .services
                .iter()
                .take(count)
                .map(|(key, service)| (*key, service.clone()))
                .collect();
            let keys: Vec<ServiceKey> = some.services.keys().copied().collect();
            runtime.block_on(writer.program(some))?;
            for frame in keys.iter().flat_map(&frames) {
                runner.run(frame.bytes())?;
            }
        }
        let counted = writer.stats().snapshot()?.interfaces[0].by_reason.clone();
        cancel.cancel();
        Ok(counted
            .iter()
            .map(|(reason, count)| (*reason, count.packets))
            .collect())
    })?
}

/// A start loads no stage that no service asks for. One that is programmed later, of any mode and feature, never meets a stage that
/// is missing.
#[test]
fn a_stage_is_there_before_the_first_service_that_needs_it() -> Result<()> {
    let counted = one_service_after_the_other(
        |key, service| {
            // The first one reads connection ids of QUIC as soon as it is there, and so on.
            service.quic = (key.protocol == Protocol::Udp && key.port == 53).then(|| TargetQuic {
                configs: Vec::new(),
                servers: BTreeMap::new(),
            });
            service.shares_address = key.port == 81;
        },
        kinds,
    )?;
    assert_eq!(counted[&Reason::StageMissing], 0, "{counted:?}");
    for reason in [
        Reason::NoFlowReset,
        Reason::RejectedReset,
        Reason::EchoAnswered,
        Reason::NoBackend,
    ] {
        assert_ne!(counted[&reason], 0, "{}: {counted:?}", reason.name());
    }
    Ok(())
}

#[test]
fn packet_with_a_missing_stage_is_counted_and_others_are_forwarded() -> Result<()> {
    let bench = Bench::new()?;
    let nat = Frame::tcp(V4.client(1), V4.vip(80), SYN, 64, b"");
    let as_is = Frame::tcp(V4.client(1), V4.vip(L2DSR), SYN, 64, b"");
    let (_, _, reason) = bench.run(&nat)?;
    assert_eq!(reason, Reason::SentBack);
    let pin = bench.stages_pin()?;
    let mut stages = ProgramArray::try_from(Map::from_map_data(MapData::from_pin(pin)?)?)?;
    stages.clear_index(&Stage::Nat.slot(false))?;
    let (action, frame, reason) = bench.run(&nat)?;
    assert_eq!((action, reason), (ABORTED, Reason::StageMissing));
    assert_eq!(frame.bytes(), nat.bytes());
    let (_, _, reason) = bench.run(&as_is)?;
    assert_eq!(reason, Reason::SentBack);
    // The next daemon finds that the program is not complete, and loads another.
    let bench = bench.reopened()?;
    let (_, _, reason) = bench.run(&nat)?;
    assert_eq!(reason, Reason::SentBack);
    Ok(())
}

/// The program on the first interface.
fn attached(interfaces: &Interfaces) -> Result<u32> {
    let attached = interfaces.borrow()[0].attached.clone();
    Ok(attached.context("nothing is attached")?.program_id)
}

/// Starts where nothing forwards, with a first program for a service that limits its new flows or for one that does not, and programs
/// the service that does. Returns whether the first program still runs then, and whether any of 15 new flows is refused: only a test
/// delayed by many seconds would see all of them admitted.
fn limited_after_a_start(late_maps: bool) -> Result<(bool, bool)> {
    let (ns, scratch) = (Netns::new("first")?, Scratch::new()?);
    add_links(&ns)?;
    let options = AttachOptions {
        needs: Needs {
            stages: StageSet::all(),
            late_maps,
        },
        ..options(&scratch.join("bpf"))
    };
    ns.enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let early = EarlyStart::begin(&options.pin_dir, false)?;
        let (datapath, loaded) = Datapath::begin(&options, early)?;
        let interfaces = datapath.interfaces();
        let cancel = CancellationToken::new();
        let writer = runtime.block_on(async { WriterTask::spawn(datapath, cancel.clone()) });
        runtime.block_on(loaded)??;
        let first = attached(&interfaces)?;
        let limited = target(|_, service| {
            service.guard = Guard {
                new_flows: Rate {
                    per_second: 1,
                    burst: 2,
                },
                ..Guard::default()
            };
        });
        runtime.block_on(writer.program(limited))?;
        let now = attached(&interfaces)?;
        let program = Program::by_id(now)?;
        let mut runner = program.runner();
        for host in 1..=15 {
            let syn = Frame::tcp(V4.client(host), V4.vip(L2DSR), SYN, 64, b"");
            runner.run(syn.bytes())?;
        }
        let snapshot = writer.stats().snapshot()?;
        let mut counted = snapshot.interfaces[0].by_reason.iter();
        let refuses = counted.any(|(reason, count)| *reason == Reason::NewFlowRate && count.packets > 0);
        cancel.cancel();
        Ok((now == first, refuses))
    })?
}

/// The first program has no tables of what seldom is recorded, unless a service needs them: then it uses them as the whole program does,
/// which takes its place before a service needs them that comes later.
#[test]
fn new_flows_are_limited_by_a_first_program_that_was_loaded_for_it_and_else_by_the_whole() -> Result<()> {
    let _lane = Lane::shared()?;
    for late_maps in [true, false] {
        let (is_first, refuses) = limited_after_a_start(late_maps)?;
        assert_eq!((is_first, refuses), (late_maps, true));
    }
    Ok(())
}

/// A new version may have a map that the one before had not: what is programmed can be read only once it is made.
#[test]
fn a_start_that_finds_all_maps_but_one_makes_it_and_forwards_what_is_programmed() -> Result<()> {
    let bench = Bench::new()?;
    let nat = Frame::tcp(V4.client(1), V4.vip(80), SYN, 64, b"");
    let pin = bench.pin(map_names::QUIC_CONFIGS);
    fs::remove_file(&pin)?;
    let bench = bench.reopened()?;
    assert!(pin.exists());
    let (_, _, reason) = bench.run(&nat)?;
    assert_eq!(reason, Reason::SentBack);
    Ok(())
}
