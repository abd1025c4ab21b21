//! The data plane: opened and attached, or removed.

use std::{
    fmt, io, mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use super::{
    attach::{self, AttachTask, Keeper},
    directory::Directory,
    execute::Executor,
    faults::PartReporter,
    load::{First, Loader},
    maps::Maps,
    netlink::Client,
    own_macs::{OwnMacs, Served},
    pin::Pins,
    stages::Stages,
    sweeper::FlowCounts,
};
use crate::{
    attach::{AttachPlan, AttachResult, Reserved},
    capabilities, checks,
    checks::CheckPaths,
    decap,
    early::EarlyStart,
    error::DatapathError,
    faults::PartChange,
    interface::{AttachOptions, Interface, InterfaceChange, Interfaces},
    netlink, object,
    plan::Programmed,
    programmed::ReadBack,
    services,
    stats::StatsReader,
};

/// Default of `--pin-dir`.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/lb";

/// The data plane, attached and forwarding what is programmed. Dropping it leaves everything in the kernel, as a kill
/// would.
pub struct Datapath {
    /// The keeper, once all is attached.
    pub(super) keeper: oneshot::Receiver<Keeper>,
    pub(super) interfaces: Interfaces,
    /// The pin directory, with the directory of this version, and in it the directory of programs.
    pub(super) paths: [PathBuf; 3],
    pub(super) maps: Arc<Maps>,
    pub(super) programmed: Programmed,
    pub(super) executor: Executor,
    pub(super) stages: Stages,
    pub(super) directory: watch::Sender<Arc<Directory>>,
    pub(super) flow_counts: watch::Sender<Arc<FlowCounts>>,
    pub(super) netlink: Client,
    pub(super) watch: io::Result<netlink::Watch>,
    pub(super) stats: StatsReader,
    pub(super) reports: mpsc::Sender<InterfaceChange>,
    pub(super) changes: mpsc::Receiver<InterfaceChange>,
    pub(super) reporter: PartReporter,
    pub(super) parts: mpsc::Receiver<PartChange>,
}

/// Changes of interfaces that may wait for their reader.
const CHANGES: usize = 256;

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath")
            .field("interfaces", &*self.interfaces().borrow())
            .finish_non_exhaustive()
    }
}

impl Datapath {
    /// Attaches to the interfaces of this thread's network namespace, taking over what an earlier daemon left in the
    /// pin directory: packets are forwarded without a gap, and the programmed state stays until a target replaces it.
    ///
    /// # Errors
    /// [`DatapathError`], with everything that forwarded before still forwarding.
    pub fn open(options: &AttachOptions) -> Result<Self, DatapathError> {
        Self::start(options, None).map(|(datapath, _)| datapath)
    }

    /// As [`Self::open`]; but where nothing forwards yet, programs are loaded and attached on a thread meanwhile, and the maps can
    /// be programmed. Packets are forwarded once the second value says so; where that is an error, all that was made is gone.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn begin(options: &AttachOptions, early: EarlyStart) -> Result<(Self, AttachResult), DatapathError> {
        Self::start(options, Some(early))
    }

    fn start(
        options: &AttachOptions,
        early: Option<EarlyStart>,
    ) -> Result<(Self, AttachResult), DatapathError> {
        object::Variant::Usual.parts()?;
        capabilities::check()?;
        let beside = early.is_some();
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| DatapathError::Io { what, source }
        };
        let socket = "cannot open a netlink socket";
        let mut client = Client::new().map_err(io(socket))?;
        // Before anything is read, so that no change is missed between reading and listening.
        let watch = netlink::Watch::new();
        // A wrong name is an error before anything changes.
        attach::find(&mut client, options)?;

        let pins = Pins::create(&options.pin_dir)?;
        if options.reset {
            pins.remove_all()?;
        } else if let Some(path) = pins.other_layout()? {
            return Err(DatapathError::OtherLayout { path });
        }
        pins.make_current()?;
        checks::remove_leftovers(&mut client, pins.base()).map_err(io(
            "cannot remove interfaces of an earlier daemon's health checks",
        ))?;
        let paths = [pins.base().to_owned(), pins.current(), pins.programs()];

        // The programs on the interfaces are read under the lock, and after a reset.
        let wanted = attach::find(&mut client, options)?;
        let plan = AttachPlan::new(&wanted, &pins, options.xdp_mode)?;
        let indices = plan.slots.iter().map(|(ifindex, _)| *ifindex).collect();
        let reserved = (beside && !plan.takes_over())
            .then(|| Reserved::begin(indices, options.xdp_mode))
            .flatten();
        let inherits = pins.verify(&object::map_shapes()?)?;
        let takes_over = inherits || plan.takes_over();
        let served: Served = plan.slots.iter().copied().collect();
        let stages = Stages::default();
        // A program that forwards already may send packets to any stage.
        let first = (beside && !takes_over).then(|| {
            let gate = reserved.as_ref().map(|reserved| reserved.gate.try_clone());
            let gate = gate.transpose().map_err(io("cannot hold the gate"))?;
            let needs = options.needs;
            Ok(First { needs, gate })
        });
        let first = first.transpose()?;
        let mut loader = Loader::new(early.unwrap_or_default(), &pins, first, stages.clone());
        loader.serve(&plan.slots)?;
        if !takes_over {
            loader.prepare()?;
        } else if beside {
            loader.take_first();
        }
        let (reporter, parts) = PartReporter::new();
        let missing = wanted.iter().map(|wanted| Interface::missing(&wanted.configured));
        let shown = watch::Sender::new(missing.collect());
        let interfaces = shown.subscribe();
        let attaching = AttachTask {
            client: Client::new().map_err(io(socket))?,
            loader,
            pins,
            choice: options.xdp_mode,
            wanted,
            plan,
            reserved,
            shown,
            reporter: reporter.clone(),
        };
        // Exchanging the programs of links waits for grace periods, and only a daemon writes what is read.
        let read = inherits.then(|| ReadBack::begin(&paths[1]));
        let (keeper, attached) = if takes_over || !beside {
            attaching.run_here()?
        } else {
            attaching.run_beside().map_err(io("cannot start a thread"))?
        };
        let (maps, programmed) = match read {
            Some(read) => {
                let (maps, programmed) = read.finish()?;
                services::reconcile(&maps, &programmed.services).map_err(|e| DatapathError::Map {
                    map: maps.addresses.name(),
                    reason: e.to_string(),
                })?;
                (maps, programmed)
            }
            None => (Maps::open(&paths[1])?, Programmed::default()),
        };
        let maps = Arc::new(maps);
        let links = client.links().map_err(io("cannot list interfaces"))?;
        OwnMacs::of(&served, &links)
            .write(&maps)
            .map_err(|e| DatapathError::Map {
                map: maps.own_macs.name(),
                reason: e.to_string(),
            })?;
        let executor = Executor::new(maps.clone(), stages.clone(), &programmed)?;

        let (reports, changes) = mpsc::channel(CHANGES);
        let directory = watch::Sender::new(Arc::new(Directory::of(&programmed)));
        let flow_counts = if inherits {
            FlowCounts::default()
        } else {
            FlowCounts::of_new_tables()
        };
        let flow_counts = watch::Sender::new(Arc::new(flow_counts));
        let stats = StatsReader {
            maps: maps.clone(),
            interfaces: interfaces.clone(),
            directory: directory.subscribe(),
            counts: flow_counts.subscribe(),
            redirects: Arc::default(),
        };
        let datapath = Self {
            keeper,
            interfaces,
            paths,
            maps,
            programmed,
            executor,
            stages,
            directory,
            flow_counts,
            netlink: client,
            watch,
            stats,
            reports,
            changes,
            reporter,
            parts,
        };
        Ok((datapath, attached))
    }

    /// The interfaces, in the order they were asked for, kept current once the writer runs.
    pub fn interfaces(&self) -> Interfaces {
        self.interfaces.clone()
    }

    /// Changes of the interfaces; to be taken once, before the writer runs.
    pub fn changes(&mut self) -> mpsc::Receiver<InterfaceChange> {
        mem::replace(&mut self.changes, mpsc::channel(1).1)
    }

    /// Parts that fail and recover; to be taken once, before the writer runs.
    pub fn parts(&mut self) -> mpsc::Receiver<PartChange> {
        mem::replace(&mut self.parts, mpsc::channel(1).1)
    }

    /// The programmed state when this was opened.
    pub const fn programmed(&self) -> &Programmed {
        &self.programmed
    }

    /// Ways of health checks into the forwarding path.
    pub fn check_paths(&self) -> CheckPaths {
        CheckPaths {
            pins: self.paths.clone(),
            maps: Arc::clone(&self.maps),
            interfaces: self.interfaces(),
            directory: self.directory.subscribe(),
            state: Mutex::default(),
        }
    }

    /// The counters.
    pub fn stats(&self) -> StatsReader {
        self.stats.clone()
    }
}

/// Removes programs, links and maps that a kept or killed daemon left, or `lb decap`; returns in words what was removed.
///
/// # Errors
/// [`DatapathError::PinDirBusy`] if a daemon or `lb decap` is running with these pins.
pub fn detach_leftovers(pin_dir: &Path) -> Result<Vec<String>, DatapathError> {
    let Some(pins) = Pins::existing(pin_dir)? else {
        return Ok(Vec::new());
    };
    let mut removed = pins.remove_all()?;
    removed.extend(decap::remove_leftovers(pin_dir)?);
    let left = Client::new().and_then(|mut client| checks::remove_leftovers(&mut client, pins.base()));
    removed.extend(left.map_err(|source| DatapathError::Io {
        what: "cannot remove interfaces of health checks".to_owned(),
        source,
    })?);
    pins.remove_base();
    Ok(removed)
}
