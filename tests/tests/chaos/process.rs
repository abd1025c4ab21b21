//! The daemon in trouble: stopped, starved of memory, descriptors or disk, with another version before or after it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lb_tests::{
    lb_cli::{binary_of_other_version, lb_binary},
    netns::checked,
    wait,
};

use crate::{fault::Fault, traffic::May, world::World};

pub(crate) const ALL: [&Fault; 8] = [
    &UPGRADED,
    &SUSPENDED,
    &MONITORED,
    &DISK_FULL,
    &DISK_READ_ONLY,
    &DESCRIPTORS,
    &MEMORY,
    &EVENTS,
];

/// For what the daemon does by itself.
const LIMIT: Duration = Duration::from_secs(60);
/// How long it is suspended.
const SUSPENSION: Duration = Duration::from_secs(10);

/// Another version takes over, and the first one takes it back.
pub(crate) const UPGRADED: Fault = Fault {
    name: "upgrade and downgrade",
    may: May::LoseNothing,
    act: |world| {
        let other = binary_of_other_version(&world.daemon.dir().join("lb-other"))?;
        let mut programs = vec![world.program()?];
        for binary in [Some(other), None] {
            world.daemon.kill()?;
            world.traffic.wait_rounds(1)?;
            world.daemon.run_binary(binary);
            world.start_again()?;
            world.note_objects()?;
            world.traffic.wait_rounds(2)?;
            programs.push(world.program()?);
        }
        ensure!(
            programs[0] != programs[1] && programs[1] != programs[2],
            "the program was not replaced: {programs:?}"
        );
        Ok(())
    },
};

/// It gets no time for ten seconds.
const SUSPENDED: Fault = Fault {
    name: "daemon suspended for 10 s",
    may: May::LoseNothing,
    act: |world| {
        world.daemon.signal(libc::SIGSTOP)?;
        wait::pace(SUSPENSION);
        world.daemon.signal(libc::SIGCONT)
    },
};

/// `lb monitor` has the program exchanged twice.
const MONITORED: Fault = Fault {
    name: "monitored for a while",
    may: May::LoseNothing,
    act: |world| world.cli().ok("monitor --count 200").map(drop),
};

/// The disk of the state is full: changes are refused, and it forwards as before.
const DISK_FULL: Fault = Fault {
    name: "disk full",
    may: May::LoseNothing,
    act: |world| {
        let file = world.daemon.state_dir().join("ballast");
        // Written until nothing more fits.
        let _ = fs::write(&file, vec![0; STATE_BYTES]);
        let refused = is_refused(world)?;
        fs::remove_file(&file)?;
        ensure!(refused.contains("No space left"), "{refused}");
        is_accepted(world)
    },
};

/// The disk of the state cannot be written.
const DISK_READ_ONLY: Fault = Fault {
    name: "disk read-only",
    may: May::LoseNothing,
    act: |world| {
        let dir = world.daemon.state_dir();
        let dir = dir.display().to_string();
        // Files that it has open stay as they are.
        checked(Command::new("mount").args(["--bind", &dir, &dir]))?;
        checked(Command::new("mount").args(["-o", "remount,ro,bind", &dir]))?;
        let refused = is_refused(world);
        checked(Command::new("umount").arg(&dir))?;
        let refused = refused?;
        ensure!(refused.contains("Read-only file system"), "{refused}");
        is_accepted(world)
    },
};

/// Room for the state.
pub(crate) const STATE_BYTES: usize = 16 << 20;

/// A change must be refused, with an event. Gives the reason.
fn is_refused(world: &World) -> Result<String> {
    let outcome = world
        .cli()
        .run(&["backend", "set", "nat4-tcp", "b1", "--weight", "7"])?;
    ensure!(outcome.code != Some(0), "the change was not refused");
    Ok(outcome.stderr)
}

/// Changes are possible again.
fn is_accepted(world: &World) -> Result<()> {
    let cli = world.cli();
    wait::until_true("changes are taken again", LIMIT, || {
        let outcome = cli.run(&["backend", "set", "nat4-tcp", "b1", "--weight", "1"])?;
        Ok(outcome.code == Some(0) && outcome.stderr.is_empty())
    })
}

/// Every new descriptor is refused for a while: checks cannot be made, and commands find no way in.
const DESCRIPTORS: Fault = Fault {
    name: "descriptors used up",
    may: May::LoseNothing,
    act: |world| {
        let pid = world.daemon.pid()?;
        // Below the numbers that are in use.
        let before = limit_descriptors(pid, FEW)?;
        let log = world.daemon.log().len();
        let said = wait::until_true("the log says so", LIMIT, || {
            let new = world.daemon.log().split_off(log);
            Ok(new.contains("too many open files") || new.contains("Too many open files"))
        });
        let rounds = world.traffic.wait_rounds(5);
        limit_descriptors(pid, before)?;
        said.and(rounds)
    },
};

/// Fewer descriptors than the daemon has.
const FEW: libc::rlim_t = 8;

/// Sets the soft limit of a process's descriptors, and gives the former one.
fn limit_descriptors(pid: u32, soft: libc::rlim_t) -> Result<libc::rlim_t> {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let call = |new: *const libc::rlimit, old: *mut libc::rlimit| {
        // SAFETY: both are null or live for the call.
        let result = unsafe { libc::prlimit(pid.cast_signed(), libc::RLIMIT_NOFILE, new, old) };
        ensure!(result == 0, "prlimit: {}", std::io::Error::last_os_error());
        Ok(())
    };
    call(std::ptr::null(), &raw mut old)?;
    let new = libc::rlimit {
        rlim_cur: soft,
        rlim_max: old.rlim_max,
    };
    call(&raw const new, std::ptr::null_mut())?;
    Ok(old.rlim_cur)
}

/// The kernel ends the daemon, which wants more memory than its group has.
const MEMORY: Fault = Fault {
    name: "memory limit",
    may: May::LoseNothing,
    act: |world| {
        let group = Group::new()?;
        group.take(world.daemon.pid()?)?;
        group.limit(0)?;
        // A state that needs more.
        let path = world.daemon.dir().write("large.toml", large(world))?;
        let line = format!("apply {}", path.display());
        let outcome = world.cli().run(&line.split(' ').collect::<Vec<_>>())?;
        ensure!(outcome.code != Some(0), "it had enough memory");
        world.daemon.wait_exit()?;
        world.traffic.wait_rounds(2)?;
        world.start_again().map(drop)
    },
};

/// The file of the world with a service of many backends.
fn large(world: &World) -> String {
    let mut text = crate::world::configuration(&world.net);
    text.push_str(&many("large"));
    text
}

/// A service of a thousand backends.
fn many(name: &str) -> String {
    let mut text =
        format!("[[service]]\nname = \"{name}\"\naddress = \"192.0.2.200\"\nport = 1\nmode = \"l2dsr\"\n");
    for number in 0..1_000 {
        let [.., high, low] = u32::to_be_bytes(number);
        text += &format!(
            "[[service.backend]]\nname = \"x{number}\"\naddress = \"10.1.{}.{low}:1\"\n",
            100 + high
        );
    }
    text
}

/// A reader of events that never reads, while thousands of them come.
const EVENTS: Fault = Fault {
    name: "events faster than anyone reads",
    may: May::LoseNothing,
    act: |world| {
        let mut reader = world.net.lb.ns.command(lb_binary()?);
        reader
            .env("LB_SOCKET", world.daemon.socket())
            .args(["-o", "json", "events", "--follow"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut reader = reader.spawn().context("start lb events")?;
        let file = |name: &str, text: &str| world.daemon.dir().write(name, text);
        let small = file("small.toml", &crate::world::configuration(&world.net))?;
        let large = file("large.toml", &large(world))?;
        let apply = |path: &Path| world.cli().ok(&format!("apply {} --yes", path.display()));
        let turns = (0..TURNS).try_for_each(|_| {
            apply(&large)?;
            apply(&small).map(drop)
        });
        reader.kill()?;
        reader.wait()?;
        turns
    },
};

/// Each makes two thousand events.
const TURNS: u32 = 4;

/// A memory cgroup (version 1), which goes with its guard.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Self> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/lbt-{}", std::process::id()));
        fs::create_dir(&path)
            .with_context(|| format!("make {}: this needs the memory controller", path.display()))?;
        Ok(Self(path))
    }

    fn take(&self, pid: u32) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).context("enter the group")
    }

    /// Limits it to `more` bytes beyond what its processes have charged to it.
    fn limit(&self, more: u64) -> Result<()> {
        let used = fs::read_to_string(self.0.join("memory.usage_in_bytes"))?;
        let limit = used.trim().parse::<u64>()? + more;
        fs::write(self.0.join("memory.limit_in_bytes"), limit.to_string()).context("limit memory")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
