//! Network namespaces that go away with their guard.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::wait;

/// Prefix of all namespaces and directories of this harness; process id, a number and the role follow.
pub const PREFIX: &str = "lbt";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace of its own, with loopback up and duplicate address detection off. Dropping it removes it with its
/// devices once no process or socket is left in it. Clones are the same namespace, which lives as long as any of them.
#[derive(Clone)]
pub struct Netns(Arc<Inner>);

struct Inner {
    name: String,
    file: File,
}

impl Netns {
    /// A new namespace whose name ends in `role`.
    ///
    /// # Errors
    /// Without root, or when the kernel refuses.
    pub fn new(role: &str) -> Result<Self> {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{n}-{role}", std::process::id());
        checked(Command::new("ip").args(["netns", "add", &name]))?;
        let file = File::open(format!("/run/netns/{name}")).context("open namespace")?;
        let ns = Self(Arc::new(Inner { name, file }));
        // Addresses are usable at once, and the kernel sends no frames of its own.
        for key in ["accept_dad", "dad_transmits", "router_solicitations", "accept_ra"] {
            ns.sysctl(&format!("net/ipv6/conf/all/{key}"), "0")?;
            ns.sysctl(&format!("net/ipv6/conf/default/{key}"), "0")?;
        }
        ns.ip("link set lo up")?;
        Ok(ns)
    }

    /// Its name below `/run/netns`, for use by hand while a test is held.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A command that will run inside. It is killed when the thread that starts it ends, so that it does not outlive
    /// the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = self.0.file.try_clone().map(OwnedFd::from);
        let enter = move || -> io::Result<()> {
            let fd = file.as_ref().map_err(|e| io::Error::from(e.kind()))?;
            set_namespace(fd)?;
            // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory of ours.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        };
        // SAFETY: the closure makes two system calls and neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command inside and returns its output.
    ///
    /// # Errors
    /// When it cannot run or fails, with its output.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        checked(self.command(program).args(args)).with_context(|| format!("in {}", self.0.name))
    }

    /// Runs lines of `ip` commands inside.
    ///
    /// # Errors
    /// When one of them fails; the message names it.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.run_with_input("ip", &["-batch", "-"], lines).map(drop)
    }

    /// Runs a command inside with text on its standard input and returns its output.
    ///
    /// # Errors
    /// As [`Netns::run`].
    pub fn run_with_input(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        let mut command = self.command(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that fails early closes its end; its own message is more useful than the broken pipe.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{program} {args:?} in {}: {}{}",
            self.0.name,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `f` on a thread inside and waits for it. Sockets it opens stay in the namespace wherever they are used.
    ///
    /// # Errors
    /// When the namespace cannot be entered. A panic of `f` continues here.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = || set_namespace(&self.0.file).map(|()| f());
            match scope.spawn(inside).join() {
                Ok(result) => result.with_context(|| format!("enter {}", self.0.name)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Starts a thread inside; threads it starts are inside too.
    ///
    /// # Errors
    /// When the thread cannot start.
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let file = self
            .0
            .file
            .try_clone()
            .context("duplicate namespace descriptor")?;
        let inside = move || -> Result<T> {
            set_namespace(&file).context("enter namespace")?;
            Ok(f())
        };
        thread::Builder::new().spawn(inside).context("start thread")
    }

    /// Waits until all addresses given to devices inside can be used: the kernel completes IPv6 ones a moment later.
    ///
    /// # Errors
    /// When one is not usable after ten seconds.
    pub fn wait_for_addresses(&self) -> Result<()> {
        wait::until_true("IPv6 addresses are usable", Duration::from_secs(10), || {
            Ok(self.run("ip", &["-6", "addr", "show", "tentative"])?.is_empty())
        })
    }

    /// Sets a network sysctl (path below `/proc/sys`) inside.
    ///
    /// # Errors
    /// When it does not exist or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        self.enter(|| fs::write(&path, value))?
            .with_context(|| format!("set {key} in {}", self.0.name))
    }

    /// Index of a device inside.
    ///
    /// # Errors
    /// When it is not there.
    pub fn ifindex(&self, device: &str) -> Result<u32> {
        let name = std::ffi::CString::new(device)?;
        // SAFETY: the name is a valid C string for the length of the call.
        let index = self.enter(|| unsafe { libc::if_nametoindex(name.as_ptr()) })?;
        ensure!(index != 0, "no device {device} in {}", self.0.name);
        Ok(index)
    }

    /// MAC address of a device inside.
    ///
    /// # Errors
    /// When it is not there, or has none.
    pub fn mac(&self, device: &str) -> Result<[u8; 6]> {
        let links: serde_json::Value =
            serde_json::from_str(&self.run("ip", &["-j", "link", "show", "dev", device])?)?;
        let text = links[0]["address"].as_str().context("no MAC address")?;
        let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let bytes: Vec<u8> = bytes.collect::<Result<_, _>>()?;
        bytes
            .try_into()
            .map_err(|_| anyhow::anyhow!("MAC address {text}"))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

fn delete(name: &str) {
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
}

fn set_namespace(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call; a failure is reported by the result.
    match unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs a command and returns its output.
///
/// # Errors
/// When it cannot run or fails, with its output.
pub fn checked(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a name of this harness belongs to an ended process.
pub(crate) fn owner_is_dead(name: &str) -> bool {
    let mut parts = name.split('-');
    parts.next() == Some(PREFIX)
        && parts
            .next()
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Removes namespaces that dead test processes left behind.
pub fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str()
            && owner_is_dead(name)
        {
            delete(name);
        }
    }
}
