//! What daemons have had in the kernel, and whether it is gone with the last of them.

use std::{
    collections::BTreeSet,
    ffi::c_long,
    fmt, fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::{netns::Netns, wait};
use serde_json::Value;

/// Programs, maps and links: where the kernel shows their numbers, and the command of `bpf(2)` that gives the next one. A descriptor by
/// number would do, too, but the last descriptor of a map of programs empties it, and two such ends in one moment leave it in the kernel.
const KINDS: [(&str, c_long); 3] = [("prog_id:", 11), ("map_id:", 12), ("link_id:", 31)];
const OBJ_GET: c_long = 7;
/// The kernel frees objects after a grace period.
const LIMIT: Duration = Duration::from_secs(30);

/// Programs, maps and links, by kind and number.
#[derive(Default)]
pub(crate) struct Objects(BTreeSet<(usize, u32)>);

impl Objects {
    /// Adds those that a process has descriptors of, and those that are pinned below a directory.
    pub(crate) fn note(&mut self, pid: u32, pins: &Path) -> Result<()> {
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
            // Descriptors come and go.
            self.note_one(&fs::read_to_string(entry.path()).unwrap_or_default());
        }
        for pin in files(pins)? {
            if let Ok(object) = open(&pin) {
                self.note_one(&information(object.as_raw_fd())?);
            }
        }
        Ok(())
    }

    fn note_one(&mut self, information: &str) {
        for (kind, (key, _)) in KINDS.iter().enumerate() {
            let numbers = information.lines().filter_map(|line| line.strip_prefix(key));
            let numbers = numbers.filter_map(|number| number.trim().parse().ok());
            self.0.extend(numbers.map(|number| (kind, number)));
        }
    }

    /// Waits until none is left, and no pin.
    pub(crate) fn wait_gone(&self, pins: &Path) -> Result<()> {
        let mut left = Vec::new();
        wait::until_true("all objects leave the kernel", LIMIT, || {
            let pins = files(pins)?.into_iter().map(|pin| pin.display().to_string());
            let there = self.0.iter().filter(|(kind, number)| is_there(*kind, *number));
            let there = there.map(|(kind, number)| format!("{} {number}", KINDS[*kind].0));
            left = pins.chain(there).collect();
            Ok(left.is_empty())
        })
        .with_context(|| format!("left: {left:?}"))
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |kind| self.0.iter().filter(|(other, _)| *other == kind).count();
        write!(
            f,
            "{} programs, {} maps and {} links seen, none left",
            count(0),
            count(1),
            count(2)
        )
    }
}

/// Files below a directory that may not be there.
fn files(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => bail!("{}: {error}", directory.display()),
    };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            files.extend(self::files(&entry.path())?);
        // Of the file system itself.
        } else if entry
            .path()
            .extension()
            .is_none_or(|extension| extension != "debug")
        {
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = std::ffi::CString::new(pin.as_os_str().as_encoded_bytes())?;
    let mut attr = [0; 16];
    attr[0] = path.as_ptr() as u64;
    let fd = i32::try_from(call(OBJ_GET, &mut attr)?).map_err(io::Error::other)?;
    // SAFETY: a descriptor that the kernel has just opened for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel tells of a descriptor.
fn information(descriptor: i32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"))
}

fn is_there(kind: usize, number: u32) -> bool {
    let mut attr = [0; 16];
    // start_id, next_id
    attr[0] = u64::from(number - 1);
    call(KINDS[kind].1, &mut attr).is_ok() && attr[0] >> u32::BITS == u64::from(number)
}

/// Calls bpf(2).
fn call(command: c_long, attr: &mut [u64; 16]) -> io::Result<c_long> {
    // SAFETY: the kernel reads and writes the attributes within the size given; a pointer in them outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The network of a host: addresses, routes, rules and XDP programs.
pub(crate) struct Host(BTreeSet<String>);

impl Host {
    /// As it is now.
    pub(crate) fn of(ns: &Netns) -> Result<Self> {
        let mut lines = BTreeSet::new();
        for what in [
            "-4 route show table all",
            "-6 route show table all",
            "-4 rule",
            "-6 rule",
        ] {
            let words: Vec<&str> = what.split(' ').collect();
            let shown = ns.run("ip", &words)?;
            lines.extend(shown.lines().map(|line| line.trim().to_owned()));
        }
        let links: Value = serde_json::from_str(&ns.run("ip", &["-d", "-j", "addr"])?)?;
        for link in links.as_array().into_iter().flatten() {
            let name = &link["ifname"];
            lines.insert(format!("link {name}, XDP {}", link["xdp"]));
            for address in link["addr_info"].as_array().into_iter().flatten() {
                lines.insert(format!("{name} has {}", address["local"]));
            }
        }
        // Made from the link-layer address, which an interface that is made anew has later than its link.
        lines.retain(|line| !line.contains("fe80::") && !line.contains("ff00::"));
        Ok(Self(lines))
    }

    /// Fails unless this is as it was.
    pub(crate) fn ensure_as(&self, before: &Self) -> Result<()> {
        let difference: Vec<_> = self.0.symmetric_difference(&before.0).collect();
        ensure!(
            difference.is_empty(),
            "the host's network is another one: {difference:#?}"
        );
        Ok(())
    }
}
