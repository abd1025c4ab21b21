//! Virtual machines with Debian's kernels. Their root file system is in memory and has test programs with the programs that they call, each
//! file at its path here. The processor is emulated in software, so that they run inside of other virtual machines too; tests that depend
//! on speed cannot run there.

mod image;
mod kernel;

use std::path::Path;

use anyhow::{Result, ensure};

pub(crate) use self::{image::TestProgram, kernel::Kernel};
use crate::{packages, summary::Count, test_program, workspace::Workspace};

/// Puts a machine's two network cards on a bridge, in a network namespace that ends with the machine.
const BRIDGE: &str = include_str!("vm/bridge.sh");
/// The last line of a machine whose test programs have all ended.
const ENDED: &str = "all test programs have ended";

/// Processors of a machine.
const PROCESSORS: u32 = 2;
/// Queues of a network card: four that receive, and one for each processor that XDP programs send on.
const QUEUES: u32 = 4 + PROCESSORS;

/// Runs test programs one after the other in a virtual machine, with this `lb` where tests look for one.
///
/// # Errors
/// When the kernel, or a program for the machine, is missing, a test program does not build, or the machine ends before they do.
pub(crate) fn run(
    workspace: &Workspace,
    kernel: Kernel,
    programs: &[TestProgram],
    lb: &Path,
    count: &mut Count,
) -> Result<()> {
    ensure()?;
    let image = image::pack(workspace, kernel, programs, lb)?;
    let mut command = packages::root_command("unshare")?;
    command
        .args(["--net", "sh", "-euc", BRIDGE, "sh"])
        // The machine computes all the time, and no test in it depends on speed: whatever runs beside it goes first.
        .args(["nice", "-n", "5", "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-smp", &PROCESSORS.to_string(), "-m", "2048"])
        .args(["-display", "none", "-serial", "stdio", "-no-reboot"]);
    for card in ["tap0", "tap1"] {
        let tap = format!("tap,id={card},ifname={card},script=no,downscript=no,queues={QUEUES}");
        // Large frames that the host has put together would not fit into a buffer of an XDP program.
        let device = format!(
            "virtio-net-pci,netdev={card},mq=on,vectors={},guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,romfile=",
            2 * QUEUES + 2
        );
        command.args(["-netdev", &tap, "-device", &device]);
    }
    command
        .arg("-kernel")
        .arg(kernel.file()?)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 quiet panic=-1"]);
    let mut ended = false;
    test_program::run_and_see(&mut command, |line| {
        count.add_line(line);
        ended |= line.trim_end() == ENDED;
    })?;
    ensure!(ended, "the machine ended before its test programs");
    Ok(())
}

/// Sees to it that machines can run.
///
/// # Errors
/// When what they need cannot be fetched.
pub(crate) fn ensure() -> Result<()> {
    packages::ensure_vm()?;
    Kernel::ALL.into_iter().try_for_each(Kernel::ensure)
}
