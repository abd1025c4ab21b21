//! The end of tunnels on a backend: its program on an interface, pinned, so that it goes on when the command is killed.

mod instance;

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{HashMap, LpmTrie, Map, PerCpuArray, lpm_trie::Key},
    programs::Xdp,
};
use ipnet::IpNet;
use lb_common::{
    addr::NetAddr,
    decap::{ADDRESSES, ALLOWED, MAX_ENTRIES, OUTCOMES, Outcome, PORT, SOURCES, V4, V6},
};

use self::instance::Instance;
pub(super) use self::instance::remove_leftovers;
use super::{
    attach, capabilities, error, loading,
    netlink::{Client, LinkState},
    object, pin, sys,
};
use crate::{error::DatapathError, interface::XdpMode, state::xdp_mode::XdpModeChoice};

const PROGRAM: &str = "decap";

/// Options of [`Decap::open`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecapOptions {
    /// The interface that tunnels arrive on, by its name or an alternative one.
    pub interface: String,
    /// Modes that may be used.
    pub xdp_mode: XdpModeChoice,
    /// Where balancers send from.
    pub sources: Vec<IpNet>,
    /// UDP port that balancers send GUE packets to.
    pub gue_port: u16,
    /// Where the program is pinned; a BPF file system is mounted where there is none.
    pub pin_dir: PathBuf,
}

/// A running program. Dropping it leaves it on the interface, as a kill would.
pub struct Decap {
    client: Client,
    instance: Instance,
    interface: String,
    ebpf: Ebpf,
    link: OwnedFd,
    mode: XdpMode,
    took_over: bool,
    addresses: Vec<IpAddr>,
}

impl fmt::Debug for Decap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decap")
            .field("mode", &self.mode)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Decap {
    /// Attaches the program, or replaces the one that an earlier command left, with no gap. Tunnels end at the addresses
    /// of the machine.
    ///
    /// # Errors
    /// [`DatapathError`]: the interface is not there or has a program that is not ours, another command serves it,
    /// privileges are missing, the kernel refuses.
    pub fn open(options: &DecapOptions) -> Result<Self, DatapathError> {
        capabilities::check()?;
        let mut client = Client::new().map_err(|source| DatapathError::Io {
            what: "cannot ask the kernel for interfaces".to_owned(),
            source,
        })?;
        let link = attach::find_one(&mut client, &options.interface)?;
        let addresses = own_addresses(&mut client)?;
        let instance = Instance::create(&options.pin_dir, &link)?;
        match bring(options, &instance, &link, &addresses) {
            Ok(Brought {
                ebpf,
                link,
                mode,
                took_over,
            }) => Ok(Self {
                client,
                instance,
                interface: options.interface.clone(),
                ebpf,
                link,
                mode,
                took_over,
                addresses,
            }),
            Err(error) => {
                if instance.pinned().is_none() {
                    // The first error matters more than one of cleaning up.
                    let _ = instance.remove();
                }
                Err(error)
            }
        }
    }

    /// The mode it runs in.
    pub const fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Whether it replaced the program that an earlier command left.
    pub const fn took_over(&self) -> bool {
        self.took_over
    }

    /// Where tunnels end.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Takes up addresses that the machine got or lost; returns whether the program still runs on the interface. The interface
    /// may be gone, or the program detached.
    ///
    /// # Errors
    /// The kernel cannot be read, or refuses an address.
    pub fn look(&mut self) -> Result<bool, DatapathError> {
        let io = |source| DatapathError::Io {
            what: format!("cannot inspect interface \"{}\"", self.interface),
            source,
        };
        let link = self.client.link_named(&self.interface).map_err(io)?;
        let held = sys::xdp_link(self.link.as_fd()).map_err(io)?;
        let ours = program_id(&self.ebpf);
        let runs = |link: &LinkState| {
            let there = link.xdp.map(|state| state.program_id);
            held.ifindex == link.ifindex && there == Some(held.program_id) && there == ours
        };
        if !link.as_ref().is_some_and(runs) {
            return Ok(false);
        }
        let now = own_addresses(&mut self.client)?;
        if now != self.addresses {
            let wrong = |reason| DatapathError::Map {
                map: ADDRESSES,
                reason,
            };
            let (old, new): (BTreeSet<_>, BTreeSet<_>) =
                (self.addresses.iter().collect(), now.iter().collect());
            let mut own: HashMap<_, Plain, u8> = map(&mut self.ebpf, ADDRESSES).map_err(wrong)?;
            for address in old.difference(&new) {
                // One beyond those that fit is not in it.
                let _ = own.remove(&Plain((**address).into()));
            }
            allow(&mut own, new.difference(&old).copied()).map_err(wrong)?;
            self.addresses = now;
        }
        Ok(true)
    }

    /// Takes the program off the interface.
    ///
    /// # Errors
    /// Its pin cannot be removed.
    pub fn detach(self) -> Result<(), DatapathError> {
        self.instance.remove()
    }

    /// Packets so far, by verdict.
    ///
    /// # Errors
    /// The kernel does not give the counters.
    pub fn outcomes(&self) -> Result<Vec<(Outcome, u64)>, DatapathError> {
        let error = |reason: String| DatapathError::Map {
            map: OUTCOMES,
            reason,
        };
        let map = self
            .ebpf
            .map(OUTCOMES)
            .ok_or_else(|| error("it is missing".to_owned()))?;
        let counts: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(|e| error(error::chain(&e)))?;
        let read = |outcome: Outcome| {
            let values = counts
                .get(&(outcome as u32), 0)
                .map_err(|e| error(error::chain(&e)))?;
            Ok((outcome, values.iter().sum()))
        };
        Outcome::ALL.into_iter().map(read).collect()
    }
}

/// A program that was brought onto an interface.
struct Brought {
    ebpf: Ebpf,
    link: OwnedFd,
    mode: XdpMode,
    took_over: bool,
}

/// Replaces the program that an earlier command left, or attaches a new one and pins it.
fn bring(
    options: &DecapOptions,
    instance: &Instance,
    link: &LinkState,
    addresses: &[IpAddr],
) -> Result<Brought, DatapathError> {
    let attach_error = |reason| DatapathError::Attach {
        interface: options.interface.clone(),
        reason,
    };
    let bytes = object::decap()?;
    let modes = attach::modes(options.xdp_mode);
    if let Some((held, info)) = instance.pinned() {
        let is_there = info.ifindex == link.ifindex;
        match link
            .xdp
            .filter(|state| is_there && state.program_id == info.program_id)
        {
            Some(state) if modes.contains(&attach::mode(state)) => {
                let ebpf = start(bytes, options, addresses).map_err(attach_error)?;
                let ebpf = load(ebpf).map_err(attach_error)?;
                let program = program_fd(&ebpf).map_err(attach_error)?;
                loading::update_link(&held, program).map_err(|e| attach_error(attach::explain(&e)))?;
                return Ok(Brought {
                    ebpf,
                    link: held,
                    mode: attach::mode(state),
                    took_over: true,
                });
            }
            // A link of a missing interface, or in another mode than asked for.
            Some(_) | None => pin::remove_link(&instance.link())?,
        }
        if let Some(state) = link.xdp.filter(|state| state.program_id != info.program_id) {
            return Err(attach::foreign(link, state.program_id));
        }
    } else if let Some(state) = link.xdp {
        return Err(attach::foreign(link, state.program_id));
    }
    let mut refused = Vec::new();
    for mode in modes {
        let ebpf = start(bytes, options, addresses).and_then(load);
        match ebpf.and_then(|ebpf| on_interface(ebpf, link.ifindex, *mode)) {
            Ok((ebpf, fd)) => {
                sys::pin(fd.as_fd(), &instance.link())
                    .map_err(|e| attach_error(format!("cannot pin the link: {e}")))?;
                return Ok(Brought {
                    ebpf,
                    link: fd,
                    mode: *mode,
                    took_over: false,
                });
            }
            Err(reason) => refused.push(format!("{} mode: {reason}", mode.name())),
        }
    }
    Err(attach_error(refused.join("; ")))
}

/// Addresses of the machine at which tunnels may end, sorted.
fn own_addresses(client: &mut Client) -> Result<Vec<IpAddr>, DatapathError> {
    let mut addresses = client.addresses().map_err(|source| DatapathError::Io {
        what: "cannot list addresses".to_owned(),
        source,
    })?;
    addresses.retain(|address| !address.is_loopback());
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Loads the object and fills its maps.
fn start(object: &[u8], options: &DecapOptions, addresses: &[IpAddr]) -> Result<Ebpf, String> {
    let mut ebpf = EbpfLoader::new()
        .btf(None)
        .override_global(PORT, &options.gue_port, true)
        .load(object)
        .map_err(|e| error::chain(&e))?;
    let mut sources: LpmTrie<_, Plain, u8> = map(&mut ebpf, SOURCES)?;
    for prefix in options.sources.iter().take(MAX_ENTRIES as usize) {
        let (mapped, family) = if prefix.addr().is_ipv4() {
            (96, V4)
        } else {
            (0, V6)
        };
        let key = Key::new(
            mapped + u32::from(prefix.prefix_len()),
            Plain(prefix.addr().into()),
        );
        sources.insert(&key, family, 0).map_err(|e| error::chain(&e))?;
    }
    let mut own: HashMap<_, Plain, u8> = map(&mut ebpf, ADDRESSES)?;
    allow(&mut own, addresses.iter().take(MAX_ENTRIES as usize))?;
    Ok(ebpf)
}

/// Lets tunnels end at addresses.
fn allow<'a>(
    own: &mut HashMap<&mut aya::maps::MapData, Plain, u8>,
    addresses: impl Iterator<Item = &'a IpAddr>,
) -> Result<(), String> {
    for address in addresses {
        own.insert(Plain((*address).into()), ALLOWED, 0)
            .map_err(|e| error::chain(&e))?;
    }
    Ok(())
}

fn map<'a, M>(ebpf: &'a mut Ebpf, name: &str) -> Result<M, String>
where
    M: TryFrom<&'a mut Map>,
    M::Error: std::error::Error,
{
    let map = ebpf
        .map_mut(name)
        .ok_or_else(|| format!("the object has no map {name}"))?;
    M::try_from(map).map_err(|e| e.to_string())
}

/// Loads the program.
fn load(mut ebpf: Ebpf) -> Result<Ebpf, String> {
    let program: &mut Xdp = ebpf
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| format!("the object has no program {PROGRAM}"))?;
    program.load().map_err(|e| error::chain(&e))?;
    Ok(ebpf)
}

fn program_fd(ebpf: &Ebpf) -> Result<BorrowedFd<'_>, String> {
    let program = ebpf
        .program(PROGRAM)
        .ok_or_else(|| format!("the object has no program {PROGRAM}"))?;
    Ok(program.fd().map_err(|e| error::chain(&e))?.as_fd())
}

/// Kernel's id of the loaded program.
fn program_id(ebpf: &Ebpf) -> Option<u32> {
    Some(ebpf.program(PROGRAM)?.info().ok()?.id())
}

/// Puts the loaded program on an interface.
fn on_interface(ebpf: Ebpf, ifindex: u32, mode: XdpMode) -> Result<(Ebpf, OwnedFd), String> {
    let fd = program_fd(&ebpf)?;
    let link = sys::create_xdp_link(fd, ifindex, mode).map_err(|e| attach::explain(&e))?;
    Ok((ebpf, link))
}

/// An address as the maps hold it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain(NetAddr);

// SAFETY: four words, of which every pattern is valid.
unsafe impl Pod for Plain {}
