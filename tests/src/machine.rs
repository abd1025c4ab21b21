//! A machine in namespaces of its own, with a real systemd: a root file system of Debian's packages, with a layer in memory over it that
//! goes with the machine. It shares the network namespace that it is started in.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    netns::{Netns, checked, owner_is_dead},
    scratch::Scratch,
    wait,
};

/// Longest wait for systemd to be up, and for the end of all processes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Variables by which `cargo xtask test` says where the root file system and the packages are.
const ROOT: &str = "LB_MACHINE_ROOT";
const PACKAGES: &str = "LB_PACKAGES";
const BOOT: &str = include_str!("machine/boot.sh");

/// A running machine. Dropping it ends all of its processes, and its files are gone.
pub struct Machine {
    child: Child,
    /// Its first process, as this machine numbers it.
    init: u32,
    cgroup: PathBuf,
    scratch: Scratch,
}

impl Machine {
    /// Starts a machine in a network namespace, and waits until systemd has started everything.
    ///
    /// # Errors
    /// Without root, or when it does not start; with what it printed.
    pub fn boot(ns: &Netns) -> Result<Self> {
        let scratch = Scratch::new()?;
        let script = scratch.write("boot.sh", BOOT)?;
        let layer = scratch.join("layer");
        fs::create_dir(&layer)?;
        let name = scratch.path().file_name().context("a directory without a name")?;
        let cgroup = cgroup_mount()?.join(name);
        fs::create_dir(&cgroup).with_context(|| format!("create {}", cgroup.display()))?;
        let log = File::create(scratch.join("boot.log"))?;
        let mut command = ns.command("sh");
        command
            .args([
                "-c",
                "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"",
                "sh",
            ])
            .arg(&cgroup)
            .args([
                "unshare",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--cgroup",
                "--fork",
                "--kill-child",
            ])
            .arg("sh")
            .args([&script, &variable(ROOT)?, &layer])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().context("start unshare")?;
        let mut machine = Self {
            child,
            init: 0,
            cgroup,
            scratch,
        };
        machine.wait_until_up().with_context(|| {
            let log = fs::read_to_string(machine.scratch.join("boot.log"));
            format!("the machine printed: {}", log.unwrap_or_default())
        })?;
        Ok(machine)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let child = self.child.id();
        wait::until_true("systemd is up", PATIENCE, || {
            ensure!(self.child.try_wait()?.is_none(), "it ended");
            let children =
                fs::read_to_string(format!("/proc/{child}/task/{child}/children")).unwrap_or_default();
            let Some(init) = children.split_whitespace().next() else {
                return Ok(false);
            };
            self.init = init.parse()?;
            // Before it has its own root, this machine's systemctl answers, if there is one.
            let is_own =
                fs::read_to_string(format!("/proc/{init}/comm")).is_ok_and(|name| name.trim() == "systemd");
            let state = self
                .output("systemctl is-system-running")
                .map(|output| output.stdout);
            Ok(is_own
                && state.is_ok_and(|state| state.starts_with(b"running") || state.starts_with(b"degraded")))
        })
    }

    /// The directory of packages that the lane has made.
    ///
    /// # Errors
    /// When the lane is not run by `cargo xtask test`.
    pub fn packages() -> Result<PathBuf> {
        variable(PACKAGES)
    }

    /// The path here of a file of the machine.
    pub fn path(&self, file: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.init));
        root.join(file.trim_start_matches('/'))
    }

    /// Copies a file into the machine.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn put(&self, from: &Path, file: &str) -> Result<()> {
        let to = self.path(file);
        fs::copy(from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// A command of its shell, as root.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string(), "--all", "--"])
            .args([
                "env",
                "-i",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL=C.UTF-8",
                "HOME=/root",
            ])
            .args(["sh", "-c", line])
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of its shell as root, and returns what it prints.
    ///
    /// # Errors
    /// When it fails; with its error output, and the end of the journal.
    pub fn run(&self, line: &str) -> Result<String> {
        checked(&mut self.command(line)).with_context(|| {
            let journal = self.output("journalctl --no-pager --output cat | tail -40");
            let journal = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            format!(
                "in the machine, whose journal ends with:\n{}",
                journal.unwrap_or_default()
            )
        })
    }

    /// Runs a command that may fail.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, line: &str) -> Result<Output> {
        self.command(line).output().context("start nsenter")
    }

    /// Process id here of the main process of a unit.
    ///
    /// # Errors
    /// When the unit has none.
    pub fn main_pid(&self, unit: &str) -> Result<u32> {
        let inside = self.run(&format!("systemctl show --value --property MainPID {unit}"))?;
        let inside = inside.trim();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // In its own namespace of process ids, and in that of the machine, whose first process is not ours to confuse.
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let ids: Vec<&str> = ids
                .map(|ids| ids.split_whitespace().collect())
                .unwrap_or_default();
            if ids.len() > 1 && ids.last() == Some(&inside) && is_below(pid, self.init) {
                return Ok(pid);
            }
        }
        anyhow::bail!("{unit} has no process: {inside}")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Ends unshare, with it the first process, and with that all others.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = wait::until_true("the machine's processes have ended", PATIENCE, || {
            Ok(remove_cgroup(&self.cgroup))
        });
    }
}

/// Whether a process is in the same namespace of process ids as the first process of a machine.
fn is_below(pid: u32, init: u32) -> bool {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    namespace(pid).is_some() && namespace(pid) == namespace(init)
}

/// Removes a control group with all below it; `false` if processes are left.
fn remove_cgroup(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() && !remove_cgroup(&entry.path()) {
            return false;
        }
    }
    fs::remove_dir(dir).is_ok() || !dir.exists()
}

/// Removes control groups that dead test processes left behind.
pub(crate) fn sweep() {
    let Ok(entries) = cgroup_mount().and_then(|mount| Ok(fs::read_dir(mount)?)) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(owner_is_dead) {
            remove_cgroup(&entry.path());
        }
    }
}

/// Where control groups of version 2 are mounted.
fn cgroup_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|words| words.get(2) == Some(&"cgroup2"));
    let place = mount.as_ref().and_then(|words| words.get(1));
    Ok(PathBuf::from(
        place.context("control groups of version 2 are not mounted")?,
    ))
}

fn variable(name: &str) -> Result<PathBuf> {
    let value = env::var_os(name);
    value
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set: run this by `cargo xtask test --lane packages`"))
}
