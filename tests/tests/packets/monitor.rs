//! The monitored program: its verdicts are those of the usual one, and its records show each packet as it came and as it left.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use lb_common::{
    backend::Backend,
    limits::LAYOUT_VERSION,
    map_names,
    monitor::{AFTER_LEN, BEFORE_LEN, Direction},
    reason::{Action, Reason},
};
use lb_tests::{lane::Lane, netns::Netns, scratch::Scratch, test_run::Program};
use lb_userspace::{
    datapath::{
        Datapath, Interface, Interfaces, Monitor, MonitorError, MonitorFilter, MonitoredPacket, Places,
        WriterHandle, WriterTask,
    },
    state::{
        effective,
        guard::Prefix,
        service::{Protocol, ServiceKey},
    },
};
use tokio::{runtime::Runtime, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ACK, SYN,
    bench::{DNAT, DNAT_TCP, GUE_V6, IPIP_V4, L2DSR, REJECTS, add_links, options, resolve, target},
    build::{Frame, LB_MAC, Side, V4, V6},
    decap::{Tunnel, within},
};

/// Until a record is there, and no longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Source and destination of tunnels that end at the balancer.
const TUNNEL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
];

/// A data plane with a service of each kind, and its writer.
struct Plane {
    writer: WriterHandle,
    interfaces: Interfaces,
    cancel: CancellationToken,
    /// Behind the writer, for whose end it waits.
    runtime: Runtime,
}

impl Plane {
    /// Has `work` use one, in a namespace of its own.
    fn with(work: impl FnOnce(&Self) -> Result<()> + Send) -> Result<()> {
        let _lane = Lane::shared()?;
        let (ns, scratch) = (Netns::new("monitor")?, Scratch::new()?);
        add_links(&ns)?;
        let options = options(&scratch.join("bpf"));
        ns.enter(move || {
            let datapath = Datapath::open(&options)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()?;
            let cancel = CancellationToken::new();
            let interfaces = datapath.interfaces();
            let writer = runtime.block_on(async { WriterTask::spawn(datapath, cancel.clone()) });
            let mut target = target(|_, _| {});
            let [tier, end] = TUNNEL.map(|address| Prefix::around(address, Prefix::most(address)));
            effective::end_tunnels(&mut target, &[tier], &BTreeSet::from([end.address()]));
            runtime.block_on(writer.program(target))?;
            resolve_all(&options.pin_dir)?;
            let plane = Self {
                writer,
                interfaces,
                cancel,
                runtime,
            };
            let worked = work(&plane);
            plane.cancel.cancel();
            plane.runtime.block_on(plane.writer.keep());
            worked
        })?
    }

    fn program_id(&self) -> Result<u32> {
        let interfaces = self.interfaces.borrow();
        let attached = interfaces[0].attached.as_ref();
        Ok(attached.context("nothing is attached")?.program_id)
    }

    /// Runs the program that is attached now; returns action and frame.
    fn run(&self, frame: &Frame) -> Result<(u32, Vec<u8>)> {
        let program = Program::by_id(self.program_id()?)?;
        let (action, output) = program
            .runner()
            .run(frame.bytes())
            .map(|(action, output)| (action, output.to_vec()))?;
        Ok((action, output))
    }

    /// Waits until this program is attached to all interfaces.
    fn wait_for_program(&self, id: u32) -> Result<()> {
        let mut interfaces = self.interfaces.clone();
        let is_it = |interface: &Interface| {
            let attached = interface.attached.as_ref();
            attached.is_some_and(|attached| attached.program_id == id)
        };
        self.runtime.block_on(async {
            let runs = interfaces.wait_for(|all| all.iter().all(is_it));
            timeout(PATIENCE, runs).await.context("another program runs")??;
            Ok(())
        })
    }

    fn monitor(&self, filter: MonitorFilter) -> Result<Monitor> {
        Ok(self.runtime.block_on(self.writer.monitor(filter))?)
    }

    /// The next records, as many as given.
    fn records(&self, monitor: &mut Monitor, count: usize) -> Result<Vec<MonitoredPacket>> {
        let mut records = Vec::new();
        self.runtime.block_on(async {
            while records.len() < count {
                records.extend(
                    timeout(PATIENCE, monitor.packets())
                        .await
                        .context("no record")??,
                );
            }
            ensure!(records.len() == count, "{} records, not {count}", records.len());
            Ok(records)
        })
    }

    /// Whether no record is there that has not been read; counts what is there. The last packet has ended before this.
    fn has_no_record(&self, monitor: &mut Monitor, count: &mut usize) -> bool {
        let next = async { timeout(Duration::from_millis(1), monitor.packets()).await };
        let Ok(Ok(records)) = self.runtime.block_on(next) else {
            return true;
        };
        *count += records.len();
        false
    }
}

/// Has frames to all backends leave where they came in.
fn resolve_all(pins: &Path) -> Result<()> {
    let pin = pins.join(format!("v{LAYOUT_VERSION}")).join(map_names::BACKENDS);
    let mut records: Array<_, Backend> = Array::try_from(Map::from_map_data(MapData::from_pin(pin)?)?)?;
    for id in 1.. {
        let mut record = records.get(&id, 0)?;
        if record.port.get() == 0 {
            break;
        }
        resolve(&mut record);
        records.set(id, record, 0)?;
    }
    Ok(())
}

/// Packets of one service.
fn of_service(key: ServiceKey) -> MonitorFilter {
    MonitorFilter {
        places: Places {
            service: Some(key),
            backends: None,
        },
        ..everything()
    }
}

fn everything() -> MonitorFilter {
    MonitorFilter {
        reasons: Reason::ALL.to_vec(),
        places: Places::default(),
        client: None,
        sample: 1,
        rate: 100_000,
    }
}

/// Waits until the allowance of records is there.
fn warm_up(plane: &Plane, monitor: &mut Monitor) -> Result<()> {
    plane.runtime.block_on(async {
        let _ = timeout(Duration::from_millis(1), monitor.packets()).await;
    });
    Ok(())
}

fn key(side: Side, port: u16) -> ServiceKey {
    let vip = side.vip(port);
    ServiceKey::new(vip.ip(), vip.port(), Protocol::Tcp)
}

/// A packet of each way through the program: the service it counts for, and its direction.
fn frames(side: Side) -> Vec<(&'static str, Frame, Option<u16>, Direction)> {
    let client = side.client(40_000);
    let to = |port| Frame::tcp(client, side.vip(port), SYN, 64, b"some data");
    let request = Direction::Request;
    vec![
        ("nat, new flow", to(80), Some(80), request),
        (
            "nat, known flow",
            Frame::tcp(client, side.vip(80), ACK, 64, b"x"),
            Some(80),
            request,
        ),
        (
            "nat, reply",
            Frame::tcp(side.backend(8080), side.snat(3000), SYN | ACK, 64, b""),
            Some(80),
            Direction::Reply,
        ),
        ("l2dsr", to(L2DSR), Some(L2DSR), request),
        ("ipip", to(IPIP_V4), Some(IPIP_V4), request),
        ("gue", to(GUE_V6), Some(GUE_V6), request),
        ("dnat", to(DNAT), Some(DNAT), request),
        ("no backend", to(81), Some(81), request),
        ("rejected", to(REJECTS), Some(REJECTS), request),
        (
            "long",
            Frame::tcp(client, side.vip(L2DSR), ACK, 64, &[7; 1_200]),
            Some(L2DSR),
            request,
        ),
        (
            "tagged",
            to(L2DSR).tagged(&[[0x81, 0, 0, 5]]),
            Some(L2DSR),
            request,
        ),
        (
            "not ours",
            Frame::tcp(client, side.snat(9), SYN, 64, b""),
            None,
            Direction::Unknown,
        ),
        (
            "not IP",
            Frame::from_bytes([&LB_MAC[..], &[2; 6], &[8, 6], &[0; 46]].concat()),
            None,
            Direction::Unknown,
        ),
    ]
}

/// What a user sees is what happened: each packet before and after, under the reason that it counts for.
#[test]
fn every_packet_is_recorded_as_it_came_and_as_it_left() -> Result<()> {
    recorded_whole(false)
}

/// The same of a filter by service, with which it is kept how a packet came once its service is known.
#[test]
fn every_packet_of_a_service_is_recorded_as_it_came_and_as_it_left() -> Result<()> {
    recorded_whole(true)
}

fn recorded_whole(by_service: bool) -> Result<()> {
    Plane::with(|plane| {
        let mut monitor = plane.monitor(everything())?;
        warm_up(plane, &mut monitor)?;
        for side in [V4, V6] {
            for (name, frame, service, direction) in frames(side) {
                if by_service {
                    let Some(port) = service else { continue };
                    monitor.follow(of_service(key(side, port)).places)?;
                }
                let (action, output) = plane.run(&frame)?;
                let [record] = &plane.records(&mut monitor, 1).context(name)?[..] else {
                    continue;
                };
                let start = |bytes: &[u8], len: usize| bytes[..bytes.len().min(len)].to_vec();
                assert_eq!(record.before, start(frame.bytes(), BEFORE_LEN), "{name}");
                assert_eq!(record.after, start(&output, AFTER_LEN), "{name}");
                assert_eq!(record.received_len as usize, frame.len(), "{name}");
                assert_eq!(record.sent_len as usize, output.len(), "{name}");
                let ends_in = match record.reason.action() {
                    Action::Aborted => 0,
                    Action::Drop => 1,
                    Action::Pass => 2,
                    Action::Tx => 3,
                    Action::Redirect => 4,
                };
                assert_eq!(ends_in, action, "{name}: {}", record.reason.name());
                assert_eq!(record.service, service.map(|port| key(side, port)), "{name}");
                assert_eq!(record.direction, direction, "{name}");
                assert_eq!(record.interface, "va", "{name}");
                let is_forwarded = service.is_some_and(|port| ![81, REJECTS].contains(&port));
                assert_eq!(record.backend.is_some(), is_forwarded, "{name}");
            }
        }
        assert_eq!(monitor.lost()?, 0);
        Ok(())
    })
}

/// Other packets cost no record.
#[test]
fn each_filter_leaves_out_what_was_not_asked_for() -> Result<()> {
    let [client, other] = [V4.client(40_000), SocketAddr::new(V4.strange_client(), 40_000)];
    let to = |from, port| Frame::tcp(from, V4.vip(port), SYN, 64, b"");
    // One that the kernel is to translate, since this machine does not forward, and one of a known flow.
    let reply = || Frame::tcp(V4.backend(DNAT_TCP), client, ACK, 64, b"");
    let translated = || Frame::tcp(V4.backend(8080), V4.snat(3000), SYN | ACK, 64, b"");
    let drops: Vec<Reason> = Reason::ALL
        .iter()
        .filter(|reason| reason.action() == Action::Drop)
        .copied()
        .collect();
    let backend = V4.backend(L2DSR);
    let cases: Vec<(&str, MonitorFilter, Vec<Frame>, Vec<Frame>)> = vec![
        (
            "drops",
            MonitorFilter {
                reasons: drops,
                ..everything()
            },
            vec![
                to(client, 81),
                to(client, 81).tagged(&[[0x81, 0, 0, 5]]),
                within(&to(client, 81), TUNNEL[0], TUNNEL[1], Tunnel::Ipip, 0)
                    .set(5, 2)
                    .set(11, 1),
            ],
            vec![to(client, L2DSR), to(client, 9)],
        ),
        (
            "one reason",
            MonitorFilter {
                reasons: vec![Reason::NotOurs],
                ..everything()
            },
            vec![to(client, 9)],
            vec![to(client, L2DSR), to(client, 81)],
        ),
        (
            "a service",
            of_service(key(V4, 81)),
            vec![to(client, 81)],
            vec![to(client, L2DSR), to(client, 9)],
        ),
        (
            "a backend",
            MonitorFilter {
                places: Places {
                    service: None,
                    backends: Some([(key(V4, L2DSR), backend)].into()),
                },
                ..everything()
            },
            vec![to(client, L2DSR)],
            vec![to(client, DNAT), to(client, 81), to(client, 9)],
        ),
        (
            "a client",
            MonitorFilter {
                client: Some("192.0.2.100".parse()?),
                ..everything()
            },
            vec![
                to(client, L2DSR),
                to(client, IPIP_V4),
                to(client, 9),
                reply(),
                to(client, 80),
                translated(),
            ],
            vec![
                to(other, L2DSR),
                to(other, IPIP_V4),
                to(other, 9),
                Frame::tcp(V6.client(1), V6.vip(L2DSR), SYN, 64, b""),
            ],
        ),
        (
            "a client of IPv6, behind tags",
            MonitorFilter {
                client: Some("2001:db8::/64".parse()?),
                ..everything()
            },
            vec![Frame::tcp(V6.client(1), V6.vip(L2DSR), SYN, 64, b"").tagged(&[[0x81, 0, 0, 5]])],
            vec![to(client, L2DSR)],
        ),
    ];
    Plane::with(|plane| {
        for (name, filter, wanted, others) in cases {
            let mut monitor = plane.monitor(filter)?;
            warm_up(plane, &mut monitor)?;
            for frame in &others {
                plane.run(frame)?;
            }
            assert!(
                plane.has_no_record(&mut monitor, &mut 0),
                "{name}: recorded another"
            );
            for frame in &wanted {
                plane.run(frame)?;
                let records = plane.records(&mut monitor, 1).context(name)?;
                assert_eq!(
                    records[0].before,
                    frame.bytes()[..frame.len().min(BEFORE_LEN)],
                    "{name}"
                );
            }
        }
        Ok(())
    })
}

/// A monitor of everything never makes more records than was asked for, and says what it left out.
#[test]
fn records_beyond_the_rate_are_counted_as_lost() -> Result<()> {
    Plane::with(|plane| {
        let mut monitor = plane.monitor(MonitorFilter {
            rate: 10,
            ..everything()
        })?;
        let frame = Frame::tcp(V4.client(1), V4.vip(81), SYN, 64, b"");
        plane.run(&frame)?;
        assert_eq!(monitor.lost()?, 1, "nothing was allowed yet");
        warm_up(plane, &mut monitor)?;
        // No daemon renews the allowance meanwhile.
        for _ in 0..5 {
            plane.run(&frame)?;
        }
        plane.records(&mut monitor, 1)?;
        assert_eq!(monitor.lost()?, 5);
        Ok(())
    })
}

#[test]
fn a_sample_is_one_of_so_many_packets() -> Result<()> {
    Plane::with(|plane| {
        let mut monitor = plane.monitor(MonitorFilter {
            sample: 10,
            ..everything()
        })?;
        warm_up(plane, &mut monitor)?;
        let program = Program::by_id(plane.program_id()?)?;
        let frame = Frame::tcp(V4.client(1), V4.vip(81), SYN, 64, b"");
        let mut runner = program.runner();
        for _ in 0..1_000 {
            runner.run(frame.bytes())?;
        }
        // Each CPU counts for itself, and may keep a rest.
        let mut records = 0;
        while !plane.has_no_record(&mut monitor, &mut records) {}
        assert!((90..=100).contains(&records), "{records}");
        Ok(())
    })
}

/// A monitor leaves no trace: the same program runs again, without being loaded.
#[test]
fn the_usual_program_runs_again_after_a_monitor() -> Result<()> {
    Plane::with(|plane| {
        let usual = plane.program_id()?;
        for _ in 0..2 {
            let monitor = plane.monitor(everything())?;
            assert_ne!(plane.program_id()?, usual);
            let second = plane.runtime.block_on(plane.writer.monitor(everything()));
            assert!(matches!(second, Err(MonitorError::Busy)), "{second:?}");
            drop(monitor);
            plane.wait_for_program(usual)?;
        }
        Ok(())
    })
}

/// Nothing would end the monitor once the daemon is gone, however long a reader holds it.
#[test]
fn a_daemon_that_leaves_puts_the_usual_program_back_under_a_reader() -> Result<()> {
    Plane::with(|plane| {
        let usual = plane.program_id()?;
        let monitor = plane.monitor(everything())?;
        ensure!(plane.program_id()? != usual);
        plane.runtime.block_on(plane.writer.keep());
        assert_eq!(plane.program_id()?, usual);
        drop(monitor);
        Ok(())
    })
}

/// The number of a service that was removed goes to the next one that is added.
#[test]
fn a_monitor_follows_its_service_to_another_number() -> Result<()> {
    Plane::with(|plane| {
        let (watched, other) = (key(V4, 81), key(V4, 83));
        let to = |port| Frame::tcp(V4.client(40_000), V4.vip(port), SYN, 64, b"");
        let mut target = target(|_, _| {});
        let service = target.services[&watched].clone();
        let mut monitor = plane.monitor(of_service(watched))?;
        warm_up(plane, &mut monitor)?;
        plane.run(&to(81))?;
        plane.records(&mut monitor, 1)?;

        target.services.remove(&watched);
        plane.runtime.block_on(plane.writer.program(target.clone()))?;
        target.services.insert(other, service.clone());
        plane.runtime.block_on(plane.writer.program(target.clone()))?;
        warm_up(plane, &mut monitor)?;
        plane.run(&to(81))?;
        plane.run(&to(83))?;
        ensure!(
            plane.has_no_record(&mut monitor, &mut 0),
            "a packet of another service"
        );

        target.services.insert(watched, service);
        plane.runtime.block_on(plane.writer.program(target))?;
        warm_up(plane, &mut monitor)?;
        plane.run(&to(83))?;
        plane.run(&to(81))?;
        let records = plane.records(&mut monitor, 1)?;
        assert_eq!(records[0].service, Some(watched));
        Ok(())
    })
}

/// A service that moves to another address.
#[test]
fn a_monitor_follows_to_other_places() -> Result<()> {
    Plane::with(|plane| {
        let to = |port| Frame::tcp(V4.client(40_000), V4.vip(port), SYN, 64, b"");
        let mut monitor = plane.monitor(of_service(key(V4, 81)))?;
        warm_up(plane, &mut monitor)?;
        monitor.follow(of_service(key(V4, L2DSR)).places)?;
        plane.run(&to(81))?;
        plane.run(&to(L2DSR))?;
        let records = plane.records(&mut monitor, 1)?;
        assert_eq!(records[0].service, Some(key(V4, L2DSR)));
        Ok(())
    })
}

#[test]
fn what_is_not_programmed_cannot_be_watched() -> Result<()> {
    Plane::with(|plane| {
        let filter = of_service(key(V4, 9));
        let refused = plane.runtime.block_on(plane.writer.monitor(filter));
        assert!(
            matches!(refused, Err(MonitorError::NotProgrammed(_))),
            "{refused:?}"
        );
        Ok(())
    })
}
