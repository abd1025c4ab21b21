//! The program with a service of each kind, and single packets through it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, of_maps::ArrayOfMaps},
};
use lb_common::{
    backend::{Backend, IPV6, RESOLVED},
    counters::Traffic,
    flow::{IdleTimeouts, NatFlowV4, NatFlowV6, TupleV4, TupleV6},
    limits::LAYOUT_VERSION,
    map_names,
    reason::Reason,
    ring_page::{self, RingPage},
    ring_slot::RingSlot,
    service::{Mode, Service, TCP},
    service_place::{Holder, Place},
    settings::Settings,
    track::FlowRecord,
    tunnel::GUE_PORT,
};
use lb_tests::{
    lane::Lane,
    map_contents::MapContents,
    netns::Netns,
    scratch::Scratch,
    test_run::{Program, Runner},
};
use lb_userspace::{
    datapath::{
        AttachOptions, BackendSignals, CheckPaths, Datapath, FlowReader, LiveTables, Needs, Snapshot,
        WriterTask,
    },
    plan::{Target, TargetBackend, TargetService, groups::Group},
    state::{
        effective,
        guard::{Guard, Prefix},
        service::{Affinity, Algorithm, OnEmpty, Protocol, ServiceKey, Tracking},
        xdp_mode::XdpModeChoice,
    },
};
use tokio_util::sync::CancellationToken;

use super::build::{BACKEND_MAC, Frame, LB_MAC, Side, V4, V6};

/// XDP actions (`enum xdp_action` of linux/bpf.h).
pub(crate) const ABORTED: u32 = 0;
pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
pub(crate) const TX: u32 = 3;
pub(crate) const REDIRECT: u32 = 4;

/// Index of the interface that test packets arrive on: the loopback of their namespace.
pub(crate) const INGRESS: u32 = 1;

/// The loaded program and its maps. Backends are marked as resolved, so that no route is needed.
pub(crate) struct Bench {
    datapath: Datapath,
    tables: LiveTables,
    flows: FlowReader,
    program: Program,
    program_id: u32,
    backends: u32,
    pins: PathBuf,
    ns: Netns,
    _scratch: Scratch,
    _lane: Lane,
}

impl Bench {
    pub(crate) fn new() -> Result<Self> {
        Self::with(|_, _| {})
    }

    /// With other settings of some services.
    pub(crate) fn with(change: impl Fn(&ServiceKey, &mut TargetService) + Send) -> Result<Self> {
        Self::of(target(change))
    }

    /// With further services.
    pub(crate) fn beside(services: impl IntoIterator<Item = (ServiceKey, TargetService)>) -> Result<Self> {
        let mut target = target(|_, _| {});
        let services = services.into_iter();
        target
            .services
            .extend(services.map(|(key, service)| (key, service.into())));
        Self::of(target)
    }

    /// With tunnels that end at these addresses, where they come from these balancers.
    pub(crate) fn ending_tunnels(from: &[Prefix], at: impl IntoIterator<Item = IpAddr>) -> Result<Self> {
        let mut target = target(|_, _| {});
        effective::end_tunnels(&mut target, from, &at.into_iter().collect());
        Self::of(target)
    }

    /// With these services alone, programmed one after the other; the last ones count.
    pub(crate) fn of_each(targets: Vec<Target>) -> Result<Self> {
        let last = targets.last().context("no services")?;
        let backends = last.services.values().map(|service| service.backends.len());
        let backends = u32::try_from(backends.sum::<usize>())?;
        Self::programmed(targets, backends)
    }

    fn of(target: Target) -> Result<Self> {
        let bench = Self::of_each(vec![target])?;
        bench.change_backends(resolve)?;
        Ok(bench)
    }

    fn programmed(targets: Vec<Target>, backends: u32) -> Result<Self> {
        let lane = Lane::shared()?;
        let (ns, scratch) = (Netns::new("packets")?, Scratch::new()?);
        add_links(&ns)?;
        let pins = scratch.join("bpf");
        let options = options(&pins);
        let (datapath, tables, flows) = ns.enter(|| -> Result<_> {
            let first = Datapath::open(&options)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let cancel = CancellationToken::new();
            let (tables, flows) = runtime.block_on(async {
                let writer = WriterTask::spawn(first, cancel.clone());
                for target in targets {
                    writer.program(target).await?;
                }
                Ok::<_, anyhow::Error>((writer.tables(), writer.flows()))
            })?;
            cancel.cancel();
            drop(runtime);
            Ok((Datapath::open(&options)?, tables, flows))
        })??;
        let id = datapath.interfaces().borrow()[0]
            .attached
            .as_ref()
            .map_or(0, |attached| attached.program_id);
        Ok(Self {
            program: Program::by_id(id)?,
            program_id: id,
            backends,
            pins: pins.join(format!("v{LAYOUT_VERSION}")),
            datapath,
            tables,
            flows,
            ns,
            _scratch: scratch,
            _lane: lane,
        })
    }

    /// The tables, as an explanation reads them; without changes that a test makes to rings.
    pub(crate) fn tables(&self) -> &LiveTables {
        &self.tables
    }

    /// Reads and removes flows.
    pub(crate) fn flow_reader(&self) -> &FlowReader {
        &self.flows
    }

    /// As the next daemon finds it.
    pub(crate) fn reopened(self) -> Result<Self> {
        let Self {
            datapath,
            tables,
            flows,
            backends,
            pins,
            ns,
            _scratch,
            _lane,
            ..
        } = self;
        drop(datapath);
        let base = pins.parent().context("no directory of pins")?.to_owned();
        let datapath = ns.enter(move || Datapath::open(&options(&base)))??;
        let id = datapath.interfaces().borrow()[0]
            .attached
            .as_ref()
            .map_or(0, |attached| attached.program_id);
        Ok(Self {
            program: Program::by_id(id)?,
            program_id: id,
            datapath,
            tables,
            flows,
            backends,
            pins,
            ns,
            _scratch,
            _lane,
        })
    }

    /// The pin of a map.
    pub(crate) fn pin(&self, map: &str) -> PathBuf {
        self.pins.join(map)
    }

    /// The pin of the map of stages.
    pub(crate) fn stages_pin(&self) -> Result<PathBuf> {
        let is_of_stages = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("lb_stages-"))
        };
        let pins = fs::read_dir(self.pins.join("programs"))?.map(|entry| Ok(entry?.path()));
        let pins: Vec<PathBuf> = pins.collect::<Result<_>>()?;
        let [only] = &pins.into_iter().filter(is_of_stages).collect::<Vec<_>>()[..] else {
            bail!("not one map of stages");
        };
        Ok(only.clone())
    }

    /// Where it lives.
    pub(crate) fn ns(&self) -> &Netns {
        &self.ns
    }

    /// Ways of health checks into it, of which none is made yet.
    pub(crate) fn check_paths(&self) -> CheckPaths {
        self.datapath.check_paths()
    }

    pub(crate) fn map(&self, name: &str) -> Result<Map> {
        Ok(Map::from_map_data(MapData::from_pin(self.pins.join(name))?)?)
    }

    /// Overwrites a service's ring, which has one page.
    pub(crate) fn set_slots(&self, service: &Service, slot: impl Fn(u32) -> RingSlot) -> Result<()> {
        let rings: ArrayOfMaps<_, Array<MapData, RingPage>> =
            ArrayOfMaps::try_from(self.map(map_names::RINGS)?)?;
        let mut page = rings.get(&ring_page::first_entry(service.ring), 0)?;
        let slots: Vec<RingSlot> = (0..service.ring_size).map(slot).collect();
        let [only] = RingPage::of_ring(&slots).collect::<Vec<_>>()[..] else {
            bail!("{} slots are more than a page", slots.len());
        };
        Ok(page.set(0, only, 0)?)
    }

    /// Has packets look a service up in the table by its key, as where several share a place, since a test has changed it
    /// there.
    pub(crate) fn ask_table(&self, place: Place) -> Result<()> {
        let mut places: Array<_, u64> = Array::try_from(self.map(map_names::SERVICE_PLACES)?)?;
        let word = places.get(&place.word(), 0)?;
        Ok(places.set(place.word(), place.set(word, Holder::SHARED), 0)?)
    }

    /// Changes the record of every backend that was ever in use.
    pub(crate) fn change_backends(&self, change: impl Fn(&mut Backend)) -> Result<()> {
        let mut records: Array<_, Backend> = Array::try_from(self.map(map_names::BACKENDS)?)?;
        for id in 1..=self.backends {
            let mut record = records.get(&id, 0)?;
            ensure!(record.port.get() != 0, "backend {id} is not there");
            change(&mut record);
            records.set(id, record, 0)?;
        }
        Ok(())
    }

    pub(crate) fn one_port(&self, port: u16) -> Result<()> {
        self.ports(port..=port)
    }

    /// Source ports from now on.
    pub(crate) fn ports(&self, ports: RangeInclusive<u16>) -> Result<()> {
        let mut settings: Array<_, Settings> = Array::try_from(self.map(map_names::SETTINGS)?)?;
        let mut record = settings.get(&0, 0)?;
        record.snat_port_first = *ports.start();
        record.snat_port_count = ports.end() - ports.start() + 1;
        let record = record.with_replies_to(*ports.start(), *ports.end());
        Ok(settings.set(0, record, 0)?)
    }

    /// Packets counted so far, by reason.
    pub(crate) fn counted(&self) -> Result<BTreeMap<Reason, u64>> {
        let snapshot = self.datapath.stats().snapshot()?;
        let reasons = &snapshot.interfaces[0].by_reason;
        Ok(reasons
            .iter()
            .map(|(reason, count)| (*reason, count.packets))
            .collect())
    }

    /// Has `work` run the program as often as it likes, without a look at the counters in between.
    pub(crate) fn many<T: Send>(&self, work: impl FnOnce(&mut Runner<'_>) -> Result<T> + Send) -> Result<T> {
        let mut runner = self.program.runner();
        self.ns.enter(move || work(&mut runner))?
    }

    /// All maps of the program and its stages.
    pub(crate) fn map_contents(&self) -> Result<MapContents> {
        MapContents::of_program(self.program_id)
    }

    /// All counters as they stand.
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.datapath.stats().snapshot()?)
    }

    /// Flows that began, of all services.
    pub(crate) fn new_flows(&self) -> Result<u64> {
        let snapshot = self.datapath.stats().snapshot()?;
        Ok(snapshot.services.values().map(|traffic| traffic.new_flows).sum())
    }

    /// Passive signals of backends so far.
    pub(crate) fn signals(&self) -> Result<BackendSignals> {
        Ok(self.datapath.stats().signals()?)
    }

    /// Packets of a service that were dropped, or answered, for a reason.
    pub(crate) fn of_service(&self, key: ServiceKey, reason: Reason) -> Result<u64> {
        let snapshot = self.datapath.stats().snapshot()?;
        Ok(snapshot
            .service_drops
            .get(&(key, reason))
            .copied()
            .unwrap_or_default())
    }

    /// Traffic of all services on a port.
    pub(crate) fn traffic(&self, port: u16) -> Result<Traffic> {
        let mut sum = Traffic::default();
        for (key, traffic) in self.datapath.stats().snapshot()?.services {
            if key.port == port {
                sum.packets += traffic.packets;
                sum.reply_packets += traffic.reply_packets;
            }
        }
        Ok(sum)
    }

    /// Entries of all tables of flows.
    pub(crate) fn recorded(&self) -> Result<usize> {
        fn entries<K: Pod, V: Pod>(map: Map) -> Result<usize> {
            let map: HashMap<_, K, V> = HashMap::try_from(map)?;
            Ok(map.keys().count())
        }
        Ok(entries::<TupleV4, NatFlowV4>(self.map(map_names::FLOWS_V4)?)?
            + entries::<TupleV6, NatFlowV6>(self.map(map_names::FLOWS_V6)?)?
            + entries::<TupleV4, FlowRecord>(self.map(map_names::TRACKED_V4)?)?
            + entries::<TupleV6, FlowRecord>(self.map(map_names::TRACKED_V6)?)?
            + entries::<TupleV4, FlowRecord>(self.map(map_names::OPENING_V4)?)?
            + entries::<TupleV6, FlowRecord>(self.map(map_names::OPENING_V6)?)?)
    }

    /// Packets that were forwarded to backends, of all services.
    pub(crate) fn forwarded(&self) -> Result<u64> {
        let snapshot = self.datapath.stats().snapshot()?;
        Ok(snapshot.services.values().map(|traffic| traffic.packets).sum())
    }

    /// Runs the program once. Returns the action, the frame that comes out, and the one reason that was counted.
    pub(crate) fn run(&self, frame: &Frame) -> Result<(u32, Frame, Reason)> {
        let before = self.counted()?;
        let (action, output) = self.many(|runner| {
            let (action, output) = runner.run(frame.bytes())?;
            Ok((action, output.to_vec()))
        })?;
        let after = self.counted()?;
        let mut counted = after.iter().filter(|(reason, count)| before[*reason] != **count);
        let (reason, count) = counted.next().context("no packet was counted")?;
        ensure!(counted.next().is_none(), "two reasons were counted");
        ensure!(count - before[reason] == 1, "{} was counted twice", reason.name());
        Ok((action, Frame::from_bytes(output), *reason))
    }

    pub(crate) fn expect(
        &self,
        name: &str,
        sent: &Frame,
        action: u32,
        wanted: &Frame,
        reason: Reason,
    ) -> Result<()> {
        let (got, output, counted) = self.run(sent)?;
        ensure!(
            counted == reason,
            "{name}: counted {}, not {}",
            counted.name(),
            reason.name()
        );
        ensure!(got == action, "{name}: action {got}, not {action}");
        ensure!(
            output.bytes() == wanted.bytes(),
            "{name}: bytes\n sent   {:02x?}\n got    {:02x?}\n wanted {:02x?}",
            sent.bytes(),
            output.bytes(),
            wanted.bytes()
        );
        Ok(())
    }

    /// Dropped, and untouched until then.
    pub(crate) fn dropped(&self, name: &str, sent: &Frame, reason: Reason) -> Result<()> {
        self.expect(name, sent, DROP, sent, reason)
    }
}

/// Has frames to a backend leave where they came in.
pub(crate) fn resolve(backend: &mut Backend) {
    backend.flags |= RESOLVED;
    backend.next_hop_mac = BACKEND_MAC;
    backend.source_mac = LB_MAC;
    backend.ifindex = INGRESS;
    backend.mtu = 1500;
    let side = if backend.has(IPV6) { V6 } else { V4 };
    backend.source = side.snat(0).ip().into();
}

/// Adds the interfaces of [`options`]. They stay down, so that only our packets are counted. Packets of a test come in on a device
/// without the program, and count for the first one with it: its address is the balancer's.
pub(crate) fn add_links(ns: &Netns) -> Result<()> {
    let mac = LB_MAC.map(|byte| format!("{byte:02x}")).join(":");
    ns.ip(&format!(
        "link add va address {mac} type veth peer name vb\nlink add ra type veth peer name rb"
    ))?;
    Ok(())
}

pub(crate) fn options(pins: &Path) -> AttachOptions {
    AttachOptions {
        interfaces: ["va", "ra"].map(str::to_owned).into(),
        wait_for_interfaces: false,
        xdp_mode: XdpModeChoice::Auto,
        pin_dir: pins.to_owned(),
        reset: false,
        needs: Needs::NONE,
    }
}

/// A service: its port and protocol, and mode and address of its backend, if it has one.
type Row = (u16, Protocol, Option<(Mode, SocketAddr)>);

/// The services of a family.
fn services(side: Side) -> Vec<Row> {
    let mut services = vec![
        (80, Protocol::Tcp, Some((Mode::Nat, side.backend(8080)))),
        (53, Protocol::Udp, Some((Mode::Nat, side.backend(5353)))),
        (81, Protocol::Tcp, None),
        (REJECTS, Protocol::Tcp, None),
        (REJECTS, Protocol::Udp, None),
        (L2DSR, Protocol::Tcp, Some((Mode::L2dsr, side.backend(L2DSR)))),
        (L2DSR, Protocol::Udp, Some((Mode::L2dsr, side.backend(L2DSR)))),
        (DNAT, Protocol::Tcp, Some((Mode::Dnat, side.backend(DNAT_TCP)))),
        (DNAT, Protocol::Udp, Some((Mode::Dnat, side.backend(DNAT_UDP)))),
    ];
    for (mode, to_v4, to_v6) in [(Mode::Ipip, IPIP_V4, IPIP_V6), (Mode::Gue, GUE_V4, GUE_V6)] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            services.push((to_v4, protocol, Some((mode, V4.backend(to_v4)))));
            services.push((to_v6, protocol, Some((mode, V6.backend(to_v6)))));
        }
    }
    services
}

/// Port of services without a backend that reject.
pub(crate) const REJECTS: u16 = 82;
/// Ports of services in the modes without translation; the backend's family is in the name.
pub(crate) const L2DSR: u16 = 200;
pub(crate) const IPIP_V4: u16 = 204;
pub(crate) const IPIP_V6: u16 = 206;
pub(crate) const GUE_V4: u16 = 214;
pub(crate) const GUE_V6: u16 = 216;
/// Port of services of mode `dnat`, and of their backends.
pub(crate) const DNAT: u16 = 220;
pub(crate) const DNAT_TCP: u16 = 9220;
pub(crate) const DNAT_UDP: u16 = 9221;

/// A service without backends.
fn empty(mode: Mode) -> TargetService {
    TargetService {
        more_ports: Vec::new(),
        shares_address: false,
        quic: None,
        clients: BTreeMap::new(),
        mode,
        on_empty: OnEmpty::Drop,
        algorithm: Algorithm::Maglev,
        affinity: Affinity::None,
        tracking: Tracking::JustEnough,
        idle: IdleTimeouts::of(TCP),
        guard: Guard::default(),
        ring_size: 251,
        backends: BTreeMap::new(),
    }
}

/// A service with one backend.
pub(crate) fn with_backend(mode: Mode, address: SocketAddr) -> TargetService {
    let backend = TargetBackend {
        mode,
        weight: 1,
        alive: true,
        held_back: 0,
        tunnel_source: None,
        group: Group::GENERAL,
    };
    TargetService {
        backends: BTreeMap::from([(address, backend)]),
        ..empty(mode)
    }
}

pub(crate) fn target(change: impl Fn(&ServiceKey, &mut TargetService)) -> Target {
    let mut target = BTreeMap::new();
    for side in [V4, V6] {
        for (port, protocol, backend) in services(side) {
            let vip = side.vip(port);
            let key = ServiceKey::new(vip.ip(), vip.port(), protocol);
            let mode = backend.map_or(Mode::Nat, |(mode, _)| mode);
            let mut service = TargetService {
                on_empty: if port == REJECTS {
                    OnEmpty::Reject
                } else {
                    OnEmpty::Drop
                },
                ..backend.map_or_else(|| empty(mode), |(mode, address)| with_backend(mode, address))
            };
            change(&key, &mut service);
            target.insert(key, service.into());
        }
    }
    for side in [V4, V6] {
        let datagrams = ServiceKey::new(side.datagrams(), 53, Protocol::Udp);
        let mut service = empty(Mode::Nat);
        change(&datagrams, &mut service);
        target.insert(datagrams, service.into());
    }
    Target {
        snat_addresses: vec![V4.snat(0).ip(), V6.snat(0).ip()],
        snat_ports: 3000..=3000,
        gue_port: GUE_PORT,
        tunnel_ends: BTreeSet::new(),
        transition: Duration::from_secs(600),
        services: target,
    }
}
