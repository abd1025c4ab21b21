//! The data plane's life in a real kernel: attaching, taking over, refusing, programming, sweeping, going away.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData, of_maps::ArrayOfMaps};
use lb_common::{
    addr::{NetPort, NetV4},
    backend::{ALIVE, Backend, BackendId, Generation, IN_USE, RESOLVED},
    flow::{FORWARD, IdleTimeouts, LastHop, NatFlowV4, REPLY, TupleV4},
    limits::{LAYOUT_VERSION, TCP_OPENING_IDLE_SECS},
    map_names,
    reason::Reason,
    ring_page::{self, RingPage},
    service::{Mode, ServiceId, TCP},
    tunnel::GUE_PORT,
};
use lb_tests::{
    lane::Lane,
    netns::Netns,
    ping::ping,
    scratch::Scratch,
    topology::{Family, Shape, Topology},
    wait,
    xdp_pass::PassProgram,
};
use lb_userspace::{
    datapath::{
        AttachOptions, Attachment, Datapath, DatapathError, Interface, Needs, NextHopState, ProgramError,
        WriterHandle, WriterTask, XdpMode, detach_leftovers,
    },
    plan::{Programmed, Target, TargetBackend, TargetService, groups::Group},
    state::{
        guard::Guard,
        service::{Affinity, Algorithm, OnEmpty, Protocol, ServiceKey, Tracking},
        xdp_mode::XdpModeChoice,
    },
};
use tokio_util::sync::CancellationToken;

/// Longest wait for something that the daemon does by itself.
const LIMIT: Duration = Duration::from_secs(10);

fn options(interfaces: &[&str], pin_dir: &Path) -> AttachOptions {
    AttachOptions {
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
        wait_for_interfaces: false,
        xdp_mode: XdpModeChoice::Auto,
        pin_dir: pin_dir.to_owned(),
        reset: false,
        needs: Needs::NONE,
    }
}

/// How the program runs on an interface that has it.
fn attached(interface: &Interface) -> Result<Attachment> {
    interface
        .attached
        .clone()
        .context("the program does not run there")
}

/// How the program runs on the first interface.
fn first_of(datapath: &Datapath) -> Result<Attachment> {
    attached(&datapath.interfaces().borrow()[0])
}

/// A namespace with `va` and `vb`, whose other ends are in it, too.
fn two_interfaces() -> Result<Netns> {
    let ns = Netns::new("datapath")?;
    ns.ip("link add va type veth peer name va-peer\nlink add vb type veth peer name vb-peer\nlink set va up\nlink set va-peer up\nlink set vb up\nlink set vb-peer up")?;
    Ok(ns)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Runs `f` with a writer, and leaves as a kill would.
fn with_writer<T>(datapath: Datapath, f: impl AsyncFnOnce(WriterHandle) -> Result<T>) -> Result<T> {
    let cancel = CancellationToken::new();
    let result = runtime()?.block_on(async {
        let writer = WriterTask::spawn(datapath, cancel.clone());
        f(writer).await
    });
    cancel.cancel();
    result
}

fn service_key(address: &str, port: u16) -> Result<ServiceKey> {
    Ok(ServiceKey::new(address.parse()?, port, Protocol::Tcp))
}

fn target(services: &[(&str, u16, &[&str])]) -> Result<Target> {
    let mut target = Target {
        snat_addresses: vec!["192.0.2.1".parse()?, "2001:db8::1".parse()?],
        snat_ports: 2000..=2999,
        gue_port: GUE_PORT,
        tunnel_ends: std::collections::BTreeSet::new(),
        transition: Duration::from_secs(600),
        services: BTreeMap::new(),
    };
    for (address, port, backends) in services {
        let backends = backends
            .iter()
            .map(|address| {
                let backend = TargetBackend {
                    mode: Mode::Nat,
                    weight: 1,
                    alive: true,
                    held_back: 0,
                    tunnel_source: None,
                    group: Group::GENERAL,
                };
                Ok((address.parse()?, backend))
            })
            .collect::<Result<BTreeMap<SocketAddr, _>>>()?;
        let service = TargetService {
            more_ports: Vec::new(),
            shares_address: false,
            quic: None,
            clients: BTreeMap::new(),
            mode: Mode::Nat,
            on_empty: OnEmpty::Drop,
            algorithm: Algorithm::Maglev,
            affinity: Affinity::None,
            tracking: Tracking::JustEnough,
            idle: IdleTimeouts::of(TCP),
            guard: Guard::default(),
            ring_size: 251,
            backends,
        };
        target
            .services
            .insert(service_key(address, *port)?, service.into());
    }
    Ok(target)
}

fn pin(pin_dir: &Path, name: &str) -> PathBuf {
    pin_dir.join(format!("v{LAYOUT_VERSION}")).join(name)
}

fn backend_record(pin_dir: &Path, index: u32) -> Result<Backend> {
    let map = Map::from_map_data(MapData::from_pin(pin(pin_dir, map_names::BACKENDS))?)?;
    Ok(Array::<_, Backend>::try_from(map)?.get(&index, 0)?)
}

fn xdp_of(ns: &Netns, device: &str) -> Result<Option<u64>> {
    let links: serde_json::Value =
        serde_json::from_str(&ns.run("ip", &["-j", "-d", "link", "show", "dev", device])?)?;
    Ok(links[0]["xdp"]["prog"]["id"].as_u64())
}

#[test]
fn a_restart_finds_everything_as_a_killed_daemon_left_it() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    ns.enter(|| -> Result<()> {
        let options = options(&["va", "vb"], &pins);
        let first = Datapath::open(&options)?;
        let before = first.interfaces().borrow().clone();
        ensure!(first.programmed() == &Programmed::default(), "maps start empty");
        for interface in before.iter() {
            let attached = attached(interface)?;
            ensure!(!attached.took_over && attached.xdp_mode == XdpMode::Native);
        }
        ensure!(before[0].slot != before[1].slot);
        let mut wanted = target(&[
            ("192.0.2.10", 80, &["10.0.0.1:8080", "10.0.0.2:8080"]),
            ("192.0.2.10", 0, &["10.0.0.1:0"]),
            ("2001:db8::10", 443, &["[fd00::1]:8443"]),
        ])?;
        let networks = (0..3_000_u16).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256));
        for (service, prefixes) in wanted
            .services
            .values_mut()
            .zip([networks.collect(), vec!["10.0.0.1".to_owned()]])
        {
            service.guard.allow = prefixes
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?;
        }
        let report = with_writer(first, async |writer| Ok(writer.program(wanted.clone()).await?))?;
        ensure!(report.steps > 0);

        let mut reversed = options.clone();
        reversed.interfaces.reverse();
        let second = Datapath::open(&reversed)?;
        let mut after = second.interfaces().borrow().to_vec();
        after.reverse();
        for (old, new) in before.iter().zip(&after) {
            ensure!((old.slot, &old.name) == (new.slot, &new.name));
            let (old, new) = (attached(old)?, attached(new)?);
            ensure!(new.took_over, "{new:?}");
            ensure!(old.link_id == new.link_id);
            ensure!(
                old.program_id == new.program_id,
                "an equal program is not replaced"
            );
        }
        let programmed = second.programmed().clone();
        ensure!(
            programmed.prefixes.len() == 3_000 + 1 + 2
                && programmed.services.len() == 3
                && programmed.backends.len() == 4
                && programmed.rings.len() == 3
        );
        ensure!(programmed.snat_ports == Some(2000..=2999) && programmed.wildcard);
        ensure!(programmed.snat_addresses == wanted.snat_addresses);
        let again = with_writer(second, async |writer| Ok(writer.program(wanted).await?))?;
        ensure!(
            again.steps == 0,
            "a restart with the same target writes nothing, got {} steps",
            again.steps
        );
        Ok(())
    })?
}

#[test]
fn a_ring_of_several_pages_is_found_again_and_leaves_none() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    ns.enter(|| -> Result<()> {
        let options = options(&["va"], &pins);
        let of_size = |ring_size| -> Result<Target> {
            let mut target = target(&[("192.0.2.10", 80, &["10.0.0.1:8080", "10.0.0.2:8080"])])?;
            for service in target.services.values_mut() {
                service.ring_size = ring_size;
            }
            Ok(target)
        };
        with_writer(Datapath::open(&options)?, async |writer| {
            Ok(writer.program(of_size(4_093)?).await?)
        })?;
        let second = Datapath::open(&options)?;
        let rings = second.programmed().rings.clone();
        let (ring, slots) = rings.first_key_value().context("no ring was read back")?;
        ensure!(rings.len() == 1 && slots.len() == 4_093, "{} slots", slots.len());
        let again = with_writer(second, async |writer| {
            let again = writer.program(of_size(4_093)?).await?;
            writer.program(of_size(251)?).await?;
            Ok(again)
        })?;
        ensure!(again.steps == 0, "read back as it was, got {} steps", again.steps);
        let third = Datapath::open(&options)?;
        let sizes: Vec<usize> = third
            .programmed()
            .rings
            .values()
            .map(|slots| slots.len())
            .collect();
        ensure!(sizes == [251], "{sizes:?}");
        let map = Map::from_map_data(MapData::from_pin(pin(&pins, map_names::RINGS))?)?;
        let entries: ArrayOfMaps<_, Array<MapData, RingPage>> = map.try_into()?;
        let first = ring_page::first_entry(*ring);
        for entry in [first, first + 1] {
            let page = entries.get(&entry, 0)?.get(&0, 0)?;
            ensure!(page == RingPage::default(), "page {entry} is there");
        }
        Ok(())
    })?
}

#[test]
fn interfaces_that_are_no_longer_served_are_let_go() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    ns.enter(|| -> Result<()> {
        drop(Datapath::open(&options(&["va", "vb"], &pins))?);
        ensure!(xdp_of(&ns, "va")?.is_some());
        let before = xdp_of(&ns, "vb")?;
        ensure!(before.is_some());
        drop(Datapath::open(&options(&["vb"], &pins))?);
        ensure!(xdp_of(&ns, "va")?.is_none(), "va has no program");
        let after = xdp_of(&ns, "vb")?;
        ensure!(
            after.is_some() && after != before,
            "a program for other interfaces stays"
        );
        Ok(())
    })?
}

#[test]
fn recreated_interface_is_attached_again() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    ns.enter(|| -> Result<()> {
        drop(Datapath::open(&options(&["va"], &pins))?);
        ns.ip("link del va\nlink add va type veth peer name va-peer\nlink set va up")?;
        let datapath = Datapath::open(&options(&["va"], &pins))?;
        ensure!(!first_of(&datapath)?.took_over);
        ensure!(xdp_of(&ns, "va")? == Some(first_of(&datapath)?.program_id.into()));
        Ok(())
    })?
}

#[test]
fn detach_removes_everything() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    ns.enter(|| -> Result<()> {
        // By the daemon itself.
        let datapath = Datapath::open(&options(&["va"], &pins))?;
        with_writer(datapath, async |writer| {
            writer.detach().await?;
            let after = writer.program(target(&[])?).await;
            ensure!(matches!(after, Err(ProgramError::Closed)));
            Ok(())
        })?;
        ensure!(xdp_of(&ns, "va")?.is_none());
        ensure!(!pin(&pins, "").exists());

        // After a daemon that kept it.
        let datapath = Datapath::open(&options(&["va"], &pins))?;
        with_writer(datapath, async |writer| {
            writer.keep().await;
            Ok(())
        })?;
        ensure!(xdp_of(&ns, "va")?.is_some(), "kept");
        let removed = detach_leftovers(&pins)?;
        ensure!(removed.iter().any(|text| text.contains("on va")), "{removed:?}");
        ensure!(xdp_of(&ns, "va")?.is_none());
        ensure!(!pin(&pins, "").exists());
        ensure!(
            detach_leftovers(&pins)?.is_empty(),
            "the second time nothing is found"
        );
        Ok(())
    })?
}

#[test]
fn starts_that_would_harm_are_refused_and_change_nothing() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    let _foreign = PassProgram::attach(&ns, "vb")?;
    let foreign_id = xdp_of(&ns, "vb")?;
    ns.enter(|| -> Result<()> {
        match Datapath::open(&options(&["va", "nowhere"], &pins)) {
            Err(DatapathError::InterfaceMissing { name, present }) => {
                ensure!(name == "nowhere" && present.contains(&"va".to_owned()));
            }
            other => bail!("{other:?}"),
        }
        ensure!(matches!(
            Datapath::open(&options(&[], &pins)),
            Err(DatapathError::NoInterface)
        ));

        match Datapath::open(&options(&["va", "vb"], &pins)) {
            Err(DatapathError::ForeignProgram {
                interface,
                program_id,
                name,
                ..
            }) => {
                ensure!(interface == "vb" && Some(u64::from(program_id)) == foreign_id);
                ensure!(name.as_deref() == Some("lbt_pass"));
            }
            other => bail!("{other:?}"),
        }
        ensure!(
            xdp_of(&ns, "vb")? == foreign_id,
            "a foreign program is never touched"
        );
        ensure!(xdp_of(&ns, "va")?.is_none(), "no interface is attached alone");

        let running = Datapath::open(&options(&["va"], &pins))?;
        match Datapath::open(&options(&["va"], &pins)) {
            Err(DatapathError::PinDirBusy { pid, .. }) => ensure!(pid == Some(std::process::id())),
            other => bail!("{other:?}"),
        }
        ensure!(matches!(
            detach_leftovers(&pins),
            Err(DatapathError::PinDirBusy { .. })
        ));
        match Datapath::open(&options(&["va"], &scratch.join("bpf2"))) {
            Err(DatapathError::ForeignProgram { name, .. }) => ensure!(name.as_deref() == Some("lb")),
            other => bail!("{other:?}"),
        }
        ensure!(xdp_of(&ns, "va")? == Some(first_of(&running)?.program_id.into()));
        Ok(())
    })?
}

#[test]
fn pins_of_another_shape_or_version_are_refused_until_reset() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    ns.enter(|| -> Result<()> {
        drop(Datapath::open(&options(&["va"], &pins))?);
        let path = pin(&pins, map_names::BACKENDS);
        std::fs::remove_file(&path)?;
        Array::<_, u64>::create(1, 0)?.pin(&path)?;
        match Datapath::open(&options(&["va"], &pins)) {
            Err(e @ DatapathError::PinMismatch { .. }) => {
                let text = format!("{e}; {}", e.hint().unwrap_or_default());
                ensure!(
                    text.contains("BACKENDS") && text.contains("value size") && text.contains("--reset"),
                    "{text}"
                );
            }
            other => bail!("{other:?}"),
        }
        let mut reset = options(&["va"], &pins);
        reset.reset = true;
        let datapath = Datapath::open(&reset)?;
        ensure!(!first_of(&datapath)?.took_over);
        drop(datapath);

        let other = pins.join(format!("v{}", LAYOUT_VERSION + 1));
        std::fs::create_dir(&other)?;
        match Datapath::open(&options(&["va"], &pins)) {
            Err(DatapathError::OtherLayout { path }) => ensure!(path == other),
            result => bail!("{result:?}"),
        }
        drop(Datapath::open(&reset)?);
        ensure!(!other.exists());
        Ok(())
    })?
}

#[test]
fn device_without_native_mode_runs_generic_with_a_reason() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    ns.enter(|| -> Result<()> {
        let datapath = Datapath::open(&options(&["lo"], &pins))?;
        let interface = first_of(&datapath)?;
        ensure!(interface.xdp_mode == XdpMode::Generic);
        let note = interface.note.as_deref().context("no note")?;
        ensure!(note.contains("native") && note.contains("generic"), "{note}");
        drop(datapath);
        detach_leftovers(&pins)?;

        let mut native = options(&["lo"], &pins);
        native.xdp_mode = XdpModeChoice::Native;
        match Datapath::open(&native) {
            Err(DatapathError::Attach { interface, reason }) => {
                ensure!(
                    interface == "lo" && reason.contains("does not support"),
                    "{reason}"
                );
            }
            other => bail!("{other:?}"),
        }

        let mut generic = options(&["va"], &pins);
        generic.xdp_mode = XdpModeChoice::Generic;
        let datapath = Datapath::open(&generic)?;
        ensure!(first_of(&datapath)?.xdp_mode == XdpMode::Generic);
        ensure!(first_of(&datapath)?.note.is_none());
        drop(datapath);

        // A configured mode takes effect, also if an earlier daemon ran another one.
        native.interfaces = vec!["va".to_owned()];
        let datapath = Datapath::open(&native)?;
        ensure!(first_of(&datapath)?.xdp_mode == XdpMode::Native);
        ensure!(!first_of(&datapath)?.took_over);
        drop(datapath);
        let datapath = Datapath::open(&options(&["va"], &pins))?;
        ensure!(first_of(&datapath)?.took_over && first_of(&datapath)?.xdp_mode == XdpMode::Native);
        Ok(())
    })?
}

#[test]
fn a_restart_forwards_to_neighbours_that_the_kernel_has_forgotten() -> Result<()> {
    let _lane = Lane::shared()?;
    let (net, scratch) = (Topology::new(Shape::OneArmed, 1)?, Scratch::new()?);
    let pins = scratch.join("bpf");
    let lb = &net.lb.ns;
    let backend = &net.backends[0];
    let address = backend.socket(Family::V4, 8080).to_string();
    lb.enter(|| -> Result<()> {
        let wanted = target(&[("192.0.2.1", 80, &[&address])])?;
        let datapath = Datapath::open(&options(&["eth0"], &pins))?;
        with_writer(datapath, async |writer| {
            Ok(writer.program(wanted.clone()).await?)
        })?;
        let before = backend_record(&pins, 1)?;
        ensure!(before.has(RESOLVED));

        backend.ns.ip("link set eth0 down")?;
        lb.ip("neigh flush dev eth0")?;
        let datapath = Datapath::open(&options(&["eth0"], &pins))?;
        with_writer(datapath, async |writer| {
            writer.program(wanted).await?;
            let ip = backend.ip(Family::V4);
            let mut states = writer.next_hops();
            let silent =
                states.wait_for(|states| states.get(&ip).is_some_and(|state| state.error().is_some()));
            let error = silent.await?[&ip].error().unwrap_or_default();
            ensure!(error.contains("does not answer"), "{error}");
            ensure!(
                backend_record(&pins, 1)? == before,
                "the last known next hop stays until there is a better one"
            );
            Ok(())
        })
    })?
}

#[test]
fn a_write_that_fails_leaves_services_as_they_were() -> Result<()> {
    let _lane = Lane::shared()?;
    let ns = two_interfaces()?;
    for map in [
        map_names::SETTINGS,
        map_names::SNAT_ADDRESSES,
        map_names::BACKENDS,
        map_names::BACKEND_TRAFFIC,
        map_names::RINGS,
        map_names::SERVICES_V4,
        map_names::SERVICE_TRAFFIC,
    ] {
        let scratch = Scratch::new()?;
        let pins = scratch.join("bpf");
        ns.enter(|| -> Result<()> {
            let old = target(&[("192.0.2.10", 80, &["10.0.0.1:8080"])])?;
            let datapath = Datapath::open(&options(&["va"], &pins))?;
            let before = with_writer(datapath, async |writer| {
                writer.program(old.clone()).await?;
                Ok(())
            })
            .and_then(|()| read_services(&pins))?;
            freeze(&pin(&pins, map))?;

            let mut new = target(&[
                ("192.0.2.10", 80, &["10.0.0.1:8080", "10.0.0.2:8080"]),
                ("192.0.2.11", 80, &["10.0.0.3:8080"]),
            ])?;
            new.snat_addresses.insert(0, "192.0.2.2".parse()?);
            let datapath = Datapath::open(&options(&["va"], &pins))?;
            with_writer(datapath, async |writer| {
                let result = writer.program(new).await;
                ensure!(
                    matches!(result, Err(ProgramError::Step { .. })),
                    "{map}: {result:?}"
                );
                Ok(())
            })?;
            ensure!(read_services(&pins)? == before, "{map}: services changed");
            let record = backend_record(&pins, 1)?;
            ensure!(
                record.has(IN_USE | ALIVE) && record.port.get() == 8080,
                "{map}: {record:?}"
            );
            detach_leftovers(&pins)?;
            Ok(())
        })??;
    }
    Ok(())
}

/// Services as they stand in the map, as raw bytes.
fn read_services(pins: &Path) -> Result<Vec<([u8; 8], [u8; 16])>> {
    let map = Map::from_map_data(MapData::from_pin(pin(pins, map_names::SERVICES_V4))?)?;
    let map = HashMap::<_, [u8; 8], [u8; 16]>::try_from(map)?;
    let mut entries = map.iter().collect::<Result<Vec<_>, _>>()?;
    entries.sort_unstable();
    Ok(entries)
}

/// Makes the kernel refuse all writes to a map from user space.
fn freeze(path: &Path) -> Result<()> {
    const BPF_MAP_FREEZE: libc::c_long = 22;
    let map = MapData::from_pin(path)?;
    let attr: [u32; 2] = [map.fd().as_fd().as_raw_fd().cast_unsigned(), 0];
    // SAFETY: the attribute is the descriptor of an open map; nothing is written.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_FREEZE, attr.as_ptr(), size_of_val(&attr)) };
    ensure!(
        result == 0,
        "freeze {}: {}",
        path.display(),
        std::io::Error::last_os_error()
    );
    Ok(())
}

#[test]
fn backends_follow_their_neighbours_mac_address() -> Result<()> {
    let _lane = Lane::shared()?;
    let (net, scratch) = (Topology::new(Shape::OneArmed, 2)?, Scratch::new()?);
    let pins = scratch.join("bpf");
    let lb = &net.lb.ns;
    let mac_of = |ns: &Netns| -> Result<[u8; 6]> {
        let links: serde_json::Value =
            serde_json::from_str(&ns.run("ip", &["-j", "link", "show", "dev", "eth0"])?)?;
        let text = links[0]["address"].as_str().context("no address")?;
        let bytes = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(bytes.as_slice().try_into()?)
    };
    // Unknown to the kernel at first, so that it must be resolved.
    lb.ip("neigh flush dev eth0")?;
    let address = net.backends[0].socket(Family::V4, 8080).to_string();
    let address_v6 = net.backends[1].socket(Family::V6, 8080).to_string();
    lb.enter(|| -> Result<()> {
        let datapath = Datapath::open(&options(&["eth0"], &pins))?;
        with_writer(datapath, async |writer| {
            let wanted = target(&[
                ("192.0.2.1", 80, &[&address]),
                ("2001:db8:9::1", 80, &[&address_v6]),
            ])?;
            writer.program(wanted).await?;
            for (index, host) in [(1, &net.backends[0]), (2, &net.backends[1])] {
                let record = backend_record(&pins, index)?;
                ensure!(
                    record.has(RESOLVED),
                    "resolved before the first packet: {record:?}"
                );
                ensure!(record.next_hop_mac == mac_of(&host.ns)?);
                ensure!(
                    record.source_mac == mac_of(lb)?
                        && record.ifindex == lb.ifindex("eth0")?
                        && record.mtu == 1500
                );
            }
            ensure!(backend_record(&pins, 1)?.source.to_ip() == net.lb.ip(Family::V4));
            ensure!(backend_record(&pins, 2)?.source.to_ip() == net.lb.ip(Family::V6));

            let new = [2, 0, 0, 0, 0, 0x77];
            net.backends[0]
                .ns
                .ip("link set dev eth0 address 02:00:00:00:00:77")?;
            lb.ip(&format!(
                "neigh replace {} lladdr 02:00:00:00:00:77 dev eth0",
                net.backends[0].v4
            ))?;
            wait::until_true_async("the new MAC address is programmed", LIMIT, || {
                let record = backend_record(&pins, 1)?;
                Ok(record.has(RESOLVED) && record.next_hop_mac == new)
            })
            .await?;

            // Without a route there is no next hop, and the status shows it.
            let mut states = writer.next_hops();
            lb.ip(&format!("route add unreachable {}", net.backends[0].v4))?;
            let ip = net.backends[0].ip(Family::V4);
            states
                .wait_for(|states| states.get(&ip) == Some(&NextHopState::Unreachable))
                .await?;
            wait::until_true_async("the record is unresolved", LIMIT, || {
                Ok(!backend_record(&pins, 1)?.has(RESOLVED))
            })
            .await?;
            lb.ip(&format!("route del unreachable {}", net.backends[0].v4))?;
            wait::until_true_async("the way is found again", LIMIT, || {
                Ok(backend_record(&pins, 1)?.has(RESOLVED))
            })
            .await?;
            Ok(())
        })
    })?
}

fn monotonic_seconds() -> u32 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is live and of the type that the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    u32::try_from(time.tv_sec).unwrap_or_default()
}

/// The two entries of a flow from client port `port` to the first backend.
fn flow(port: u16, generation: u16, idle: u32) -> [(TupleV4, NatFlowV4); 2] {
    let address = |last: u8| NetV4::from(std::net::Ipv4Addr::new(10, 0, 0, last));
    let (client, vip, lb, backend) = (address(100), address(10), address(1), address(2));
    let tuple = TupleV4::new(client, vip, NetPort::new(port), NetPort::new(80), TCP);
    let forward = NatFlowV4 {
        check: tuple.check(),
        src: lb,
        dst: backend,
        src_port: NetPort::new(port),
        dst_port: NetPort::new(8080),
        ip_delta: 0,
        l4_delta: 0,
        backend: BackendId(1),
        generation: Generation(generation),
        service: ServiceId(0),
        direction: FORWARD,
        state: 0,
        last_seen: monotonic_seconds() - idle,
        last_hop: LastHop::default(),
        handshake: 0,
    };
    let reply = NatFlowV4 {
        check: 0,
        src: vip,
        dst: client,
        src_port: NetPort::new(80),
        dst_port: NetPort::new(port),
        direction: REPLY,
        ..forward
    };
    [(tuple, forward), (forward.peer(TCP), reply)]
}

#[test]
fn ended_flows_are_swept_and_living_ones_counted() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    ns.enter(|| -> Result<()> {
        let datapath = Datapath::open(&options(&["va"], &pins))?;
        let wanted = target(&[("10.0.0.10", 80, &["10.0.0.2:8080"])])?;
        with_writer(datapath, async |writer| {
            writer.program(wanted).await?;
            let generation = backend_record(&pins, 1)?.generation.0;
            let map = Map::from_map_data(MapData::from_pin(pin(&pins, map_names::FLOWS_V4))?)?;
            let mut flows = HashMap::<_, TupleV4, NatFlowV4>::try_from(map)?;
            let living = [
                flow(1000, generation, 0),
                flow(1001, generation, TCP_OPENING_IDLE_SECS / 2),
            ];
            let ended = [
                flow(2000, generation, TCP_OPENING_IDLE_SECS),
                // Of an owner before.
                flow(2001, generation.wrapping_sub(1), 0),
            ];
            let lone_reply = flow(2002, generation, TCP_OPENING_IDLE_SECS / 2)[1];
            let lone_forward = flow(2003, generation, 0)[0];
            for (tuple, value) in living
                .iter()
                .chain(&ended)
                .flatten()
                .chain([&lone_reply, &lone_forward])
            {
                flows.insert(tuple, value, 0)?;
            }
            wait::until_true_async("ended flows are gone", LIMIT, || {
                let gone = ended.iter().flatten().chain([&lone_reply, &lone_forward]);
                Ok(gone
                    .map(|(tuple, _)| flows.get(tuple, 0))
                    .all(|entry| entry.is_err()))
            })
            .await?;
            for (tuple, value) in living.iter().flatten() {
                ensure!(flows.get(tuple, 0)? == *value, "a living flow is untouched");
            }
            let stats = writer.stats();
            let key = (service_key("10.0.0.10", 80)?, "10.0.0.2:8080".parse()?);
            wait::until_true_async("two flows are counted", LIMIT, || {
                let snapshot = stats.snapshot()?;
                let flows = snapshot.maps.iter().find(|map| map.name == map_names::FLOWS_V4);
                Ok(snapshot.backends[&key].active_flows == 2 && flows.is_some_and(|map| map.entries == 4))
            })
            .await
        })
    })?
}

#[test]
fn idle_flows_end_by_their_services_timeout_once_it_is_known() -> Result<()> {
    let _lane = Lane::shared()?;
    let (ns, scratch) = (two_interfaces()?, Scratch::new()?);
    let pins = scratch.join("bpf");
    let wanted = |half_open| -> Result<Target> {
        let mut target = target(&[("10.0.0.10", 80, &["10.0.0.2:8080"])])?;
        for service in target.services.values_mut() {
            let idle = IdleTimeouts {
                half_open,
                ..IdleTimeouts::of(TCP)
            };
            *service = TargetService {
                idle,
                ..service.clone().into_inner()
            }
            .into();
        }
        Ok(target)
    };
    const LONG: u32 = 2 * TCP_OPENING_IDLE_SECS;
    ns.enter(|| -> Result<()> {
        let open = || Datapath::open(&options(&["va"], &pins));
        let flows = || -> Result<HashMap<_, TupleV4, NatFlowV4>> {
            let map = Map::from_map_data(MapData::from_pin(pin(&pins, map_names::FLOWS_V4))?)?;
            Ok(HashMap::try_from(map)?)
        };
        let gone = async |name, [(tuple, _), _]: &[(TupleV4, NatFlowV4); 2]| {
            let flows = flows()?;
            wait::until_true_async(name, LIMIT, || Ok(flows.get(tuple, 0).is_err())).await
        };
        let flow_of = |port, idle| -> Result<_> {
            let flow = flow(port, backend_record(&pins, 1)?.generation.0, idle);
            let mut flows = flows()?;
            for (tuple, value) in &flow {
                flows.insert(tuple, value, 0)?;
            }
            Ok(flow)
        };
        with_writer(open()?, async |writer| {
            writer.program(wanted(LONG)?).await?;
            // By default both would go.
            let stays = flow_of(1000, TCP_OPENING_IDLE_SECS + 1)?;
            let goes = flow_of(1001, LONG)?;
            gone("the older flow goes", &goes).await?;
            ensure!(flows()?.get(&stays[0].0, 0).is_ok());
            writer.program(wanted(TCP_OPENING_IDLE_SECS)?).await?;
            gone("the younger flow goes after a change of nothing else", &stays).await?;
            writer.keep().await;
            Ok(())
        })?;
        with_writer(open()?, async |writer| {
            let waits = flow_of(1002, LONG)?;
            let stats = writer.stats();
            wait::until_true_async("a new daemon sweeps", LIMIT, || {
                Ok(stats.snapshot()?.flows_counted_at.is_some())
            })
            .await?;
            ensure!(
                flows()?.get(&waits[0].0, 0).is_ok(),
                "the service may want to keep it"
            );
            writer.program(wanted(LONG)?).await?;
            gone("the flow goes when it is known that it may", &waits).await
        })
    })?
}

#[test]
fn counters_survive_a_restart_and_reset_with_a_new_interface() -> Result<()> {
    let _lane = Lane::shared()?;
    let (net, scratch) = (Topology::new(Shape::TwoArmed, 1)?, Scratch::new()?);
    let pins = scratch.join("bpf");
    let lb = &net.lb.ns;
    let passed = |datapath: &Datapath, interface: &str| -> Result<u64> {
        let snapshot = datapath.stats().snapshot()?;
        let stats = snapshot
            .interfaces
            .iter()
            .find(|stats| stats.name == interface)
            .context("not there")?;
        Ok(stats
            .by_reason
            .iter()
            .find(|(reason, _)| *reason == Reason::OtherProtocol)
            .context("no reason")?
            .1
            .packets)
    };
    let open_in = |interfaces: &[&str]| lb.enter(|| Datapath::open(&options(interfaces, &pins)));
    let first = open_in(&["front"])??;
    for _ in 0..3 {
        ping(&net.client.ns, net.vip(Family::V4, 1))?;
    }
    let counted = passed(&first, "front")?;
    ensure!(counted >= 3, "{counted}");
    drop(first);
    let second = open_in(&["front", "back"])??;
    ensure!(passed(&second, "front")? >= counted, "counters survive");
    drop(second);
    // `back` alone: a slot that `front` had before must not show `front`'s counts.
    drop(open_in(&["back"])??);
    let fourth = open_in(&["back", "front"])??;
    ensure!(
        passed(&fourth, "front")? < counted,
        "counters reset with a new attachment"
    );
    Ok(())
}
