//! The program under test with one service, and the wrapper around it.

use std::{
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, ProgramArray},
    programs::{TestRun, TestRunOptions, Xdp},
    util::nr_cpus,
};
use lb_common::{
    addr::{NetAddr, NetPort, NetV4, NetV6},
    backend::{ALIVE, Backend, BackendId, Generation, IN_USE, IPV6, RESOLVED},
    budget::Buckets,
    flow::{NatFlow, REPLY, Tuple},
    limits::{ICMP_ERROR_V4, ICMP_ERROR_V6, MAX_BACKENDS, MAX_SERVICES},
    map_names,
    own_mac::Mac,
    ring_page::{self, RingPage},
    ring_slot::RingSlot,
    service::{
        AddressServices, FORWARDS, Mode, OnEmpty, RingId, Service, ServiceId, ServiceKeyV4, ServiceKeyV6,
        TCP, TRANSLATES,
    },
    service_place::{Holder, Place, ServiceRecord},
    settings::{HAS_DNAT, Settings},
};

use lb_tests::stages;

use crate::{
    batch,
    packets::{Address, Frame, OWN_MAC, PORT, shuffle},
};

/// Backends of the service: enough that each has ports for its flows.
const BACKENDS: u16 = 256;
/// Slots of the ring.
const RING_SIZE: u32 = 65_537;
/// A frame to write over; longer than the packets are.
const FRAME: [u8; 128] = [0; 128];
/// Length of a frame with a full-size packet, which the program answers.
pub(crate) const LONG_FRAME: usize = 1_514;

/// The program that the wrapper calls.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program {
    /// The data plane.
    Lb,
    /// An empty program.
    Pass,
    /// Swap of MAC addresses and XDP_TX.
    Swap,
    /// Room for an outer IPv4 header before the frame, and XDP_TX.
    Push,
    /// Only a look-up of the flow in a table of this family.
    Lookup(&'static str),
    /// A SYN cookie of this family is made from the packet, and nothing else.
    CookieMade(&'static str),
    /// The packet's acknowledgement is checked as a SYN cookie, and nothing else.
    CookieChecked(&'static str),
    /// Room for the headers of an answer before the frame, cutting it to the answer's length, and XDP_TX.
    Answer,
    /// Swap of MAC addresses and redirection to another device.
    Forward,
    /// Counts and drops.
    Sink,
}

/// How packets reach the backends.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// The mode.
    pub(crate) mode: Mode,
    /// Whether the backends' addresses are IPv6.
    pub(crate) v6: bool,
}

impl Way {
    /// Whether headers are put before the frame.
    pub(crate) const fn grows(self) -> bool {
        matches!(self.mode, Mode::Ipip | Mode::Gue)
    }
}

/// The usual program, and the one that runs while `lb monitor` does.
pub(crate) const USUAL: &str = "lb-ebpf.o";
pub(crate) const MONITORED: &str = "lb-ebpf-monitor.o";
/// Bytes of its ring buffer, which is not read during a round.
const RECORDS: u32 = 1 << 24;

/// Both objects, loaded.
pub(crate) struct Bench {
    pub(crate) lb: Ebpf,
    pub(crate) wrapper: Ebpf,
    way: Way,
    /// Whether the program answers packets, perhaps by quoting them.
    pub(crate) quotes: bool,
}

impl Bench {
    /// Loads the objects with space for `flows` flows, and programs a service.
    pub(crate) fn new<A: Address>(flows: u32, way: Way) -> Result<Self> {
        Self::of::<A>(USUAL, flows, way)
    }

    /// As [`Self::new`], with the usual program or the monitored one.
    pub(crate) fn of<A: Address>(program: &str, flows: u32, way: Way) -> Result<Self> {
        let entries = (2 * flows).max(16);
        let cpus = u32::try_from(nr_cpus().map_err(|(_, e)| e)?)?;
        let mut loader = EbpfLoader::new();
        if program == MONITORED {
            loader.map_max_entries(map_names::MONITOR_RECORDS, RECORDS);
        }
        let mut lb = loader
            .map_max_entries(map_names::FLOWS_V4, entries)
            .map_max_entries(map_names::FLOWS_V6, entries)
            .map_max_entries(map_names::SERVICE_TRAFFIC, cpus * MAX_SERVICES)
            .map_max_entries(map_names::SERVICE_DROPS, cpus * MAX_SERVICES)
            .map_max_entries(map_names::BACKEND_TRAFFIC, cpus * MAX_BACKENDS)
            .load_file(object(program)?)
            .with_context(|| format!("load {program}: build it with `cargo xtask build`"))?;
        let mask = flows - 1;
        // IP and ICMP headers of a "too big" message.
        let (quoted_after, longest) = if A::VIP.is_ipv6() {
            (48, ICMP_ERROR_V6)
        } else {
            (28, ICMP_ERROR_V4)
        };
        let (quoted_after, answer): (u32, u32) = (quoted_after, 14 + longest as u32);
        let long_frame = LONG_FRAME as u32;
        let mut wrapper = EbpfLoader::new()
            .map_max_entries("LOOKUP_V4", entries)
            .map_max_entries("LOOKUP_V6", entries)
            .map_max_entries("PACKETS", flows)
            .override_global("MASK", &mask, true)
            .override_global("QUOTED_AFTER", &quoted_after, true)
            .override_global("ANSWER", &answer, true)
            .override_global("LONG_FRAME", &long_frame, true)
            .load_file(object("lb-ebpf-bench.o")?)
            .context("load lb-ebpf-bench.o: build it with `cargo xtask bench dataplane`")?;
        stages::load(&mut lb)?;
        for (_, program) in wrapper.programs_mut() {
            let program: &mut Xdp = program.try_into()?;
            program.load()?;
        }
        let mut bench = Self {
            lb,
            wrapper,
            way,
            quotes: false,
        };
        bench.program::<A>()?;
        bench.lend_buckets()?;
        Ok(bench)
    }

    /// Writes the maps as the daemon would.
    fn program<A: Address>(&mut self) -> Result<()> {
        let settings = Settings {
            snat_port_first: 1_024,
            snat_port_count: 64_512,
            ..Settings::default().with_replies_to(1_024, u16::MAX)
        };
        let mut map: Array<_, Settings> = map_mut(&mut self.lb, map_names::SETTINGS)?.try_into()?;
        map.set(0, settings, 0)?;

        let mut map: Array<_, Mac> = map_mut(&mut self.lb, map_names::INTERFACE_MACS)?.try_into()?;
        map.set(0, Mac::new(OWN_MAC), 0)?;

        let Way { mode, v6 } = self.way;
        let (numbered, source): (fn(u8, u32) -> IpAddr, IpAddr) = if v6 {
            (NetV6::numbered, NetV6::SOURCE)
        } else {
            (NetV4::numbered, NetV4::SOURCE)
        };
        let family = if v6 { IPV6 } else { 0 };
        let mut map: Array<_, Backend> = map_mut(&mut self.lb, map_names::BACKENDS)?.try_into()?;
        for id in 1..=BACKENDS {
            let backend = Backend {
                address: numbered(11, id.into()).into(),
                source: source.into(),
                next_hop_mac: [2, 0, 0, 0, 1, 1],
                source_mac: [2, 0, 0, 0, 1, 2],
                // A test run's packets come in on the loopback device, so they go back out of it.
                ifindex: 1,
                port: NetPort::new(8_080),
                flags: IN_USE | ALIVE | RESOLVED | family,
                generation: Generation(1),
                service: ServiceId(1),
                mtu: 1_500,
                mode: mode as u8,
                protocol: TCP,
                ..Backend::default()
            };
            map.set(id.into(), backend, 0)?;
        }

        let slots: Vec<RingSlot> = (0..RING_SIZE)
            .map(|slot| RingSlot::stable(BackendId(1 + (slot % u32::from(BACKENDS)) as u16)))
            .collect();
        let mut rings: ArrayOfMaps<_, Array<MapData, RingPage>> =
            map_mut(&mut self.lb, map_names::RINGS)?.try_into()?;
        for (entry, of_page) in (ring_page::first_entry(RingId(1))..).zip(RingPage::of_ring(&slots)) {
            let mut page = Array::create(1, 0)?;
            page.set(0, of_page, 0)?;
            rings.set(entry, &page, 0)?;
        }

        self.add_service::<A>(TCP, if mode == Mode::Nat { TRANSLATES } else { FORWARDS })
    }

    /// Adds a service of a protocol, of the one mode, ring and number that there is.
    pub(crate) fn add_service<A: Address>(&mut self, protocol: u8, flags: u16) -> Result<()> {
        let service = Service {
            ring_size: RING_SIZE,
            ring: RingId(1),
            id: ServiceId(1),
            mode: self.way.mode as u8,
            on_empty: OnEmpty::Drop as u8,
            flags,
            ..Service::default()
        };
        let services = map_mut(&mut self.lb, &format!("SERVICES_{}", A::NAME.to_uppercase()))?;
        if A::VIP.is_ipv6() {
            let key = ServiceKeyV6 {
                address: NetAddr::from(A::VIP).v6(),
                port: NetPort::new(PORT),
                protocol,
                pad: 0,
            };
            HashMap::<_, ServiceKeyV6, Service>::try_from(services)?.insert(key, service, 0)?;
            self.place(key.place(), ServiceRecord::v6(&key, service))?;
        } else {
            let key = ServiceKeyV4 {
                address: NetAddr::from(A::VIP).v4(),
                port: NetPort::new(PORT),
                protocol,
                pad: 0,
            };
            HashMap::<_, ServiceKeyV4, Service>::try_from(services)?.insert(key, service, 0)?;
            self.place(key.place(), ServiceRecord::v4(&key, service))?;
        }
        Ok(())
    }

    /// Enters the service's address, for packets without ports.
    pub(crate) fn announce<A: Address>(&mut self) -> Result<()> {
        let mut map: HashMap<_, NetAddr, AddressServices> =
            map_mut(&mut self.lb, map_names::ADDRESSES)?.try_into()?;
        let services = AddressServices::NONE.with(TCP, Some(ServiceId(1)));
        Ok(map.insert(NetAddr::from(A::VIP), services, 0)?)
    }

    /// Has any packet that is not ours be a reply of mode `dnat`, perhaps: enters the endpoints of as many backends as the service has.
    pub(crate) fn have_dnat<A: Address>(&mut self) -> Result<()> {
        let mut map: Array<_, Settings> = map_mut(&mut self.lb, map_names::SETTINGS)?.try_into()?;
        let mut settings = map.get(&0, 0)?;
        settings.flags |= HAS_DNAT;
        map.set(0, settings, 0)?;

        let mut filter: Array<_, u64> = map_mut(&mut self.lb, map_names::REPLY_FILTER)?.try_into()?;
        for id in 1..=BACKENDS {
            let address = NetAddr::from(A::numbered(12, id.into()));
            let port = NetPort::new(8_080);
            let bit = if A::VIP.is_ipv6() {
                let (address, protocol, pad) = (address.v6(), TCP, 0);
                ServiceKeyV6 {
                    address,
                    port,
                    protocol,
                    pad,
                }
                .filter_bit()
            } else {
                let (address, protocol, pad) = (address.v4(), TCP, 0);
                ServiceKeyV4 {
                    address,
                    port,
                    protocol,
                    pad,
                }
                .filter_bit()
            };
            let word = filter.get(&bit.word(), 0)?;
            filter.set(bit.word(), word | bit.mask(), 0)?;
        }
        Ok(())
    }

    /// Lets the wrapper give the service its budgets of messages again, before each packet.
    fn lend_buckets(&mut self) -> Result<()> {
        let mut lent: ArrayOfMaps<_, Array<MapData, Buckets>> =
            map_mut(&mut self.wrapper, "REFILLED")?.try_into()?;
        let buckets: Array<MapData, Buckets> = self
            .lb
            .take_map(map_names::BUCKETS)
            .context("no buckets")?
            .try_into()?;
        Ok(lent.set(0, &buckets, 0)?)
    }

    /// Has the service's place name its record.
    fn place(&mut self, place: Place, record: ServiceRecord) -> Result<()> {
        let mut records: Array<_, ServiceRecord> =
            map_mut(&mut self.lb, map_names::SERVICE_RECORDS)?.try_into()?;
        records.set(1, record, 0)?;
        let mut places: Array<_, u64> = map_mut(&mut self.lb, map_names::SERVICE_PLACES)?.try_into()?;
        Ok(places.set(place.word(), place.set(0, Holder::of_record(1)), 0)?)
    }

    /// Gives the wrapper its packets, from the first on.
    pub(crate) fn fill(&mut self, frames: &[Frame]) -> Result<()> {
        let Map::Array(packets) = map_mut(&mut self.wrapper, "PACKETS")? else {
            bail!("PACKETS is no array");
        };
        let numbers: Vec<u32> = (0..).take(frames.len()).collect();
        batch::update(packets.fd().as_fd(), &numbers, frames)
    }

    /// A program of the two objects.
    pub(crate) fn program_mut(&mut self, program: Program) -> Result<&mut Xdp> {
        let (ebpf, name) = match program {
            Program::Lb => (&mut self.lb, "lb".to_owned()),
            Program::Pass => (&mut self.wrapper, "pass".to_owned()),
            Program::Swap => (&mut self.wrapper, "swap".to_owned()),
            Program::Push => (&mut self.wrapper, "push".to_owned()),
            Program::Lookup(family) => (&mut self.wrapper, format!("lookup_{family}")),
            Program::CookieMade(family) => (&mut self.wrapper, format!("cookie_made_{family}")),
            Program::CookieChecked(family) => (&mut self.wrapper, format!("cookie_checked_{family}")),
            Program::Answer => (&mut self.wrapper, "answer".to_owned()),
            Program::Forward => (&mut self.wrapper, "forward".to_owned()),
            Program::Sink => (&mut self.wrapper, "sink".to_owned()),
        };
        let program = ebpf.program_mut(&name).context("a program is missing")?;
        Ok(program.try_into()?)
    }

    /// Limits mode `nat` to this number of source ports for each backend.
    pub(crate) fn limit_ports(&mut self, count: u16) -> Result<()> {
        let mut map: Array<_, Settings> = map_mut(&mut self.lb, map_names::SETTINGS)?.try_into()?;
        let mut settings = map.get(&0, 0)?;
        settings.snat_port_count = count;
        Ok(map.set(0, settings, 0)?)
    }

    /// Changes all backends.
    pub(crate) fn change_backends(&mut self, change: impl Fn(&mut Backend)) -> Result<()> {
        let mut map: Array<_, Backend> = map_mut(&mut self.lb, map_names::BACKENDS)?.try_into()?;
        for id in 1..=u32::from(BACKENDS) {
            let mut backend = map.get(&id, 0)?;
            change(&mut backend);
            map.set(id, backend, 0)?;
        }
        Ok(())
    }

    /// Nanoseconds per packet of `repeat` packets, and the XDP action of the last.
    pub(crate) fn run(&mut self, program: Program, repeat: u32) -> Result<(f64, u32)> {
        let target = self.program_mut(program)?.fd()?.try_clone()?;
        let mut calls: ProgramArray<_> = map_mut(&mut self.wrapper, "TARGET")?.try_into()?;
        calls.set(0, &target, 0)?;
        let wrapper: &Xdp = self
            .wrapper
            .program(if self.quotes {
                "wrapper_quoted"
            } else if self.way.grows() {
                "wrapper_whole"
            } else {
                "wrapper"
            })
            .context("no wrapper")?
            .try_into()?;
        let long = [0; LONG_FRAME];
        let mut options = TestRunOptions::new();
        let data = if self.quotes { &long[..] } else { &FRAME[..] };
        options.data_in = Some(data);
        options.repeat = repeat;
        let result = wrapper.test_run(options)?;
        // The kernel returns the average duration of a run, in whole nanoseconds.
        Ok((result.duration.as_secs_f64() * 1e9, result.return_value))
    }

    /// Copies the flow table to the table of the bare look-up and returns the tuples of the backends' packets in random
    /// order.
    pub(crate) fn record_flows<A: Address>(&mut self) -> Result<Vec<Tuple<A>>> {
        let family = A::NAME.to_uppercase();
        let descriptor = |ebpf: &mut Ebpf, name: String| -> Result<OwnedFd> {
            let Map::HashMap(map) = map_mut(ebpf, &name)? else {
                bail!("{name} is no hash map");
            };
            Ok(map.fd().as_fd().try_clone_to_owned()?)
        };
        let table = descriptor(&mut self.lb, format!("FLOWS_{family}"))?;
        let copy = descriptor(&mut self.wrapper, format!("LOOKUP_{family}"))?;
        let (tuples, flows) = batch::entries::<Tuple<A>, NatFlow<A>>(table.as_fd())?;
        batch::update(copy.as_fd(), &tuples, &flows)?;
        let mut replies: Vec<Tuple<A>> = tuples
            .into_iter()
            .zip(flows)
            .filter(|(_, flow)| flow.direction == REPLY)
            .map(|(tuple, _)| tuple)
            .collect();
        shuffle(&mut replies);
        Ok(replies)
    }
}

pub(crate) fn map_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map> {
    ebpf.map_mut(name).with_context(|| format!("no map {name}"))
}

/// An object beside the build directory's profiles.
fn object(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    // <target>/release/deps/<this>
    let target = exe.ancestors().nth(3).context("not run from a build directory")?;
    Ok(target.join("bpf").join(name))
}

/// Keeps this process on the last of its CPUs: the first takes most interrupts.
pub(crate) fn pin_to_one_core() -> Result<()> {
    let cpu = std::thread::available_parallelism()?.get() - 1;
    // SAFETY: a set of bits, for which zero is a value; the calls get a set of its own size.
    let failed = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    if failed != 0 {
        return Err(std::io::Error::last_os_error()).context("stay on one core");
    }
    Ok(())
}
