//! The balancer's interface and the program on it go, come back, are another one, or someone else's.

use lb_common::limits::LAYOUT_VERSION;
use lb_tests::xdp_pass::{PassProgram, detach_pinned, replace_pinned};

use crate::{
    fault::Fault,
    traffic::May,
    world::{DEVICE, World},
};

pub(crate) const ALL: [&Fault; 6] = [&DETACHED, &REPLACED, &FOREIGN, &DOWN, &RENAMED, &RECREATED];

/// Someone takes the program off.
pub(crate) const DETACHED: Fault = Fault {
    name: "program detached",
    may: May::LosePackets,
    act: |world| {
        detach_pinned(&link(world))?;
        world.wait_event("\"detached\"")
    },
};

/// Someone puts another program in its place.
const REPLACED: Fault = Fault {
    name: "program replaced",
    may: May::LosePackets,
    act: |world| {
        replace_pinned(&link(world))?;
        world.wait_event("\"detached\"")
    },
};

/// Someone takes it off and attaches another while the daemon cannot see it.
const FOREIGN: Fault = Fault {
    name: "program of someone else",
    may: May::LosePackets,
    act: |world| {
        world.daemon.signal(libc::SIGSTOP)?;
        detach_pinned(&link(world))?;
        let other = PassProgram::attach(&world.net.lb.ns, DEVICE)?;
        world.daemon.signal(libc::SIGCONT)?;
        world.wait_status("already has an XDP program")?;
        world.wait_event("already has an XDP program")?;
        drop(other);
        Ok(())
    },
};

/// The interface goes down and comes up.
pub(crate) const DOWN: Fault = Fault {
    name: "interface down and up",
    may: May::LosePackets,
    act: |world| {
        let ns = world.net.lb.ns.clone();
        ns.ip(&format!("link set {DEVICE} down"))?;
        world.wait_status("is down")?;
        world.wait_event("is down")?;
        ns.ip(&format!("link set {DEVICE} up"))
    },
};

/// It has another name for a while.
const RENAMED: Fault = Fault {
    name: "interface renamed",
    may: May::LosePackets,
    act: |world| {
        let ns = world.net.lb.ns.clone();
        ns.ip(&format!("link set {DEVICE} name moved"))?;
        world.wait_status("moved was eth0")?;
        world.wait_event("moved")?;
        world.traffic.wait_rounds(1)?;
        ns.ip(&format!("link set moved name {DEVICE}"))
    },
};

/// It is gone, and made anew.
const RECREATED: Fault = Fault {
    name: "interface gone and made anew",
    may: May::LosePackets,
    act: |world| {
        let [a, b, c, d, e, f] = world.net.lb.ns.mac(DEVICE)?;
        world.net.lb.ns.ip(&format!("link del {DEVICE}"))?;
        world.wait_status("is missing")?;
        world.wait_event("is missing")?;
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        world.net.recreate_one_arm(&mac)
    },
};

/// The pin of the link that holds the program.
fn link(world: &World) -> std::path::PathBuf {
    world.daemon.pin_dir().join(format!("v{LAYOUT_VERSION}/links/0"))
}
