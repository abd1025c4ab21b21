//! The pair of interfaces by which checks enter the forwarding path, with the program at its far end.
//!
//! Sockets of checks are bound to the near end and connect to an address on its link; it asks for no neighbour, so frames
//! go straight to the far end. They come back by the near end as answers from that address. Neither a route, a rule nor a
//! setting of the machine is touched, and it does not matter whether the machine holds the service's address.

use std::{
    fmt, io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};

use lb_common::{
    addr::{NetV4, NetV6},
    check::{Ends as _, PREFIX_V4, PREFIX_V6, PathCheck},
};
use socket2::{Domain, Socket, Type};

use super::super::{
    attach, load,
    netlink::{Client, LinkState},
    sys,
};
use crate::{error::DatapathError, interface::XdpMode, netlink::LinkOperation};

/// MTU of both ends, in bytes: with any mode's outer headers, a packet of that size fits a way that takes 1500, and IPv6
/// asks for no less. Checks announce no larger segments either.
const MTU: u32 = 1280;

/// Numbers tried for names of the pair; other daemons on this machine have others.
const NUMBERS: u32 = 256;

/// Most bytes of the text that names a pair's owner; the kernel keeps 255.
const ALIAS_BYTES: usize = 200;

/// The pair and its program. Dropping this removes them from the kernel.
pub(super) struct Device {
    client: Client,
    /// Name of the near end.
    pub(super) name: Arc<str>,
    /// Index of the near end.
    pub(super) ifindex: u32,
    program: Option<Program>,
}

/// The program on the far end.
struct Program {
    checks: OwnedFd,
    /// Index of the far end.
    far: u32,
    /// Kernel's id of the program.
    id: u32,
    link: OwnedFd,
    _program: OwnedFd,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The text in the kernel that names a pair's owner.
fn alias(pins: &Path) -> String {
    let pins = pins.to_string_lossy();
    let mut from = pins.len().saturating_sub(ALIAS_BYTES);
    while !pins.is_char_boundary(from) {
        from += 1;
    }
    format!("lb health checks {}", &pins[from..])
}

/// Removes what an earlier daemon with these pins left in this network namespace; returns in words what went.
pub(in super::super) fn remove_leftovers(client: &mut Client, pins: &Path) -> io::Result<Vec<String>> {
    let alias = alias(pins);
    let mut removed = Vec::new();
    for link in client.links()? {
        // The first end takes the other with it.
        if link.alias.as_ref() == Some(&alias) && client.remove_link(link.ifindex)? {
            removed.push(format!("interface {} of health checks", link.name));
        }
    }
    Ok(removed)
}

impl Device {
    /// Makes the pair in the network namespace of this thread and puts the program on it, which shares the maps below
    /// `pins` with the balancer's. `current` are the pins of this version, `programs` the pins of its programs.
    pub(super) fn new(pins: &Path, current: &Path, programs: &Path) -> Result<Self, String> {
        let mut client = Client::new().map_err(|e| format!("cannot ask the kernel for interfaces: {e}"))?;
        remove_leftovers(&mut client, pins).map_err(|e| format!("cannot remove old interfaces: {e}"))?;
        let [near, far] = make(&mut client).map_err(|e| format!("cannot make a pair of interfaces: {e}"))?;
        let mut device = Self {
            client,
            name: near.name.as_str().into(),
            ifindex: near.ifindex,
            program: None,
        };
        device
            .configure(&alias(pins), near.ifindex, far.ifindex)
            .map_err(|e| format!("cannot configure interface {}: {e}", near.name))?;
        device.program = Some(start(current, programs, far.ifindex).map_err(|e| e.to_string())?);
        Ok(device)
    }

    fn configure(&mut self, alias: &str, near: u32, far: u32) -> io::Result<()> {
        for end in [near, far] {
            self.client.describe(end, alias)?;
            without_v6(self.client.keep_bare(end))?;
        }
        offload(&self.name)?;
        self.client.set_up(far, true)?;
        self.client.set_up(near, false)?;
        let v4 = IpAddr::V4(NetV4::NEAR.to_std());
        self.client.add_link_address(near, v4, PREFIX_V4)?;
        let v6 = IpAddr::V6(NetV6::NEAR.to_std());
        without_v6(self.client.add_link_address(near, v6, PREFIX_V6))
    }

    /// Whether the kernel still has it, up, with the program at its far end.
    pub(super) fn is_there(&mut self) -> bool {
        let Some(program) = &self.program else {
            return false;
        };
        let Ok(held) = sys::xdp_link(program.link.as_fd()) else {
            return false;
        };
        let mut find = |ifindex| self.client.link(ifindex).ok().flatten();
        let near = find(self.ifindex)
            .is_some_and(|link| *link.name == *self.name && link.operation == LinkOperation::Up);
        let far = find(program.far)
            .and_then(|link| link.xdp)
            .map(|state| state.program_id);
        near && held.ifindex == program.far && held.program_id == program.id && far == Some(program.id)
    }

    /// Has the program take packets to this number for that check.
    pub(super) fn put(&self, number: u16, check: PathCheck) -> io::Result<()> {
        let Some(program) = &self.program else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        sys::update(program.checks.as_fd(), &u32::from(number), &[check])
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = self.client.remove_link(self.ifindex) {
            tracing::warn!(%error, interface = %self.name, "cannot remove an interface");
        }
    }
}

/// Ignores the error of a machine without IPv6, which has no services of IPv6 either.
fn without_v6(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EACCES | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Makes the pair under names that are free.
fn make(client: &mut Client) -> io::Result<[LinkState; 2]> {
    for number in 0..NUMBERS {
        let names = [format!("lb-check{number}"), format!("lb-path{number}")];
        match client.make_pair([&names[0], &names[1]], MTU) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => continue,
            Err(e) => return Err(e),
        }
        let links = client.links()?;
        let find = |name: &String| links.iter().find(|link| link.name == *name).cloned();
        return match [find(&names[0]), find(&names[1])] {
            [Some(near), Some(far)] => Ok([near, far]),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Has the near end write whole checksums, since a program cannot complete partial ones, and take frames that a program
/// redirects to it, which it does as long as it collects segments.
fn offload(name: &str) -> io::Result<()> {
    const ETHTOOL_STXCSUM: u32 = 0x17;
    const ETHTOOL_SGRO: u32 = 0x2c;
    for (command, on) in [(ETHTOOL_STXCSUM, 0), (ETHTOOL_SGRO, 1)] {
        ethtool(name, command, on)?;
    }
    Ok(())
}

/// `struct ethtool_value` of include/uapi/linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn ethtool(name: &str, command: u32, data: u32) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut value = EthtoolValue { command, data };
    // SAFETY: integers, a union of them and a pointer, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names an interface and leads to a value that outlives the call; the kernel reads no more of it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Loads the program and puts it on an interface in generic mode, so that its packets can leave by an interface of any
/// driver.
fn start(pins: &Path, programs: &Path, ifindex: u32) -> Result<Program, DatapathError> {
    let [program, checks] = load::checks(pins, programs)?;
    let link = sys::create_xdp_link(program.as_fd(), ifindex, XdpMode::Generic).map_err(|e| {
        DatapathError::Attach {
            interface: format!("{ifindex}"),
            reason: attach::explain(&e),
        }
    })?;
    let id = sys::xdp_link(link.as_fd())
        .map_err(|source| DatapathError::Io {
            what: "cannot inspect the program of health checks".to_owned(),
            source,
        })?
        .program_id;
    Ok(Program {
        checks,
        far: ifindex,
        id,
        link,
        _program: program,
    })
}
