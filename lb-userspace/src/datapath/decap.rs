//! The end of tunnels on a backend: its program on an interface, for as long as the command runs.

use std::{
    fmt,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
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

use super::{
    DatapathError, XdpMode, XdpModeChoice, attach, capabilities, error, netlink::Client, object, sys,
};

const PROGRAM: &str = "decap";

/// What [`Decap::open`] shall do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecapOptions {
    /// The interface that tunnels arrive on.
    pub interface: String,
    /// Modes that may be used.
    pub xdp_mode: XdpModeChoice,
    /// Where balancers send from.
    pub sources: Vec<IpNet>,
    /// UDP port that balancers send GUE packets to.
    pub gue_port: u16,
}

/// A running program. Dropping it takes it off the interface.
pub struct Decap {
    ebpf: Ebpf,
    _link: OwnedFd,
    mode: XdpMode,
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
    /// Attaches the program. Tunnels end at the addresses that the machine has now.
    ///
    /// # Errors
    /// [`DatapathError`]: the interface is not there or has a program, privileges are missing, the kernel refuses.
    pub fn open(options: &DecapOptions) -> Result<Self, DatapathError> {
        capabilities::check()?;
        let io = |what: &str| {
            let what = what.to_owned();
            move |source| DatapathError::Io { what, source }
        };
        let mut client = Client::new().map_err(io("cannot ask the kernel for interfaces"))?;
        let link = attach::find_one(&mut client, &options.interface)?;
        if let Some(state) = link.xdp {
            return Err(attach::foreign(&link, state.program_id));
        }
        let mut addresses = client.addresses().map_err(io("cannot list addresses"))?;
        addresses.retain(|address| !address.is_loopback());
        addresses.sort_unstable();
        addresses.dedup();
        let bytes = object::decap()?;
        let mut refused = Vec::new();
        for mode in attach::modes(options.xdp_mode) {
            let ebpf = start(bytes, options, &addresses);
            match ebpf.and_then(|ebpf| on_interface(ebpf, link.ifindex, *mode)) {
                Ok((ebpf, link)) => {
                    return Ok(Self {
                        ebpf,
                        _link: link,
                        mode: *mode,
                        addresses,
                    });
                }
                Err(reason) => refused.push(format!("{} mode: {reason}", mode.name())),
            }
        }
        Err(DatapathError::Attach {
            interface: options.interface.clone(),
            reason: refused.join("; "),
        })
    }

    /// The mode it runs in.
    pub const fn mode(&self) -> XdpMode {
        self.mode
    }

    /// Where tunnels end.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Packets so far, by what became of them.
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
    for address in addresses.iter().take(MAX_ENTRIES as usize) {
        own.insert(Plain((*address).into()), ALLOWED, 0)
            .map_err(|e| error::chain(&e))?;
    }
    Ok(ebpf)
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

/// Loads the program and puts it on an interface.
fn on_interface(mut ebpf: Ebpf, ifindex: u32, mode: XdpMode) -> Result<(Ebpf, OwnedFd), String> {
    let program: &mut Xdp = ebpf
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| format!("the object has no program {PROGRAM}"))?;
    program.load().map_err(|e| error::chain(&e))?;
    let fd = program.fd().map_err(|e| error::chain(&e))?;
    let link = sys::create_xdp_link(fd.as_fd(), ifindex, mode).map_err(|e| attach::explain(&e))?;
    Ok((ebpf, link))
}

/// An address as the maps hold it.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain(NetAddr);

// SAFETY: four words, of which every pattern is valid.
unsafe impl Pod for Plain {}
