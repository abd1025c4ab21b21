//! The pin directory: its place, its lock and its content.
//!
//! Below the pin directory stands one directory for each version of the map layouts, with the maps by name, the links by
//! interface slot, and the program by what it was made from: `v1/BACKENDS`, `v1/links/0`, `v1/programs/…`. The pin
//! directory itself carries the lock.

use std::{
    ffi::CString,
    fs::{self, File, TryLockError},
    io,
    mem::MaybeUninit,
    os::{
        fd::AsFd as _,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
    ptr, thread,
    time::{Duration, Instant},
};

use aya::maps::MapData;
use lb_common::limits::LAYOUT_VERSION;

use super::sys::{self, XdpLinkInfo};
use crate::{capabilities, error::DatapathError, map_shape::MapShape};

/// Where the kernel wants its BPF file system, and the types of file systems (include/uapi/linux/magic.h).
const BPF_MOUNT: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// How long a lock that is held is tried again, and how often: a daemon that was killed a moment ago holds it until the
/// kernel has taken it apart.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Directories of pinned links and programs below that of a version.
const LINKS: &str = "links";
const PROGRAMS: &str = "programs";

/// The pin directory, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Pins {
    base: PathBuf,
    lock: File,
}

/// A link found pinned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PinnedLink {
    /// Its pin.
    pub(super) path: PathBuf,
    /// The interface slot it stands for.
    pub(super) slot: u32,
    /// Its properties.
    pub(super) info: XdpLinkInfo,
}

impl Pins {
    /// Makes the directory, on a BPF file system, and locks it.
    ///
    /// # Errors
    /// [`DatapathError::PinDirBusy`] if another process holds the lock; [`DatapathError::PinDir`] if the directory
    /// cannot be made or holds no pins.
    pub(super) fn create(base: &Path) -> Result<Self, DatapathError> {
        make(base)?;
        Self::lock(base, LOCK_PATIENCE)
    }

    /// Locks the directory if it is there.
    pub(super) fn existing(base: &Path) -> Result<Option<Self>, DatapathError> {
        Self::existing_within(base, LOCK_PATIENCE)
    }

    /// As [`Self::existing`], waiting no longer than `patience` for another process to let go.
    pub(super) fn existing_within(base: &Path, patience: Duration) -> Result<Option<Self>, DatapathError> {
        if base.is_dir() && file_system(base).ok() == Some(BPF_FS_MAGIC) {
            Self::lock(base, patience).map(Some)
        } else {
            Ok(None)
        }
    }

    fn lock(base: &Path, patience: Duration) -> Result<Self, DatapathError> {
        let error = |what: &str, source| DatapathError::Io {
            what: format!("cannot {what} {}", base.display()),
            source,
        };
        let lock = File::open(base).map_err(|e| error("open", e))?;
        let end = Instant::now() + patience;
        let mut result = lock.try_lock();
        while matches!(result, Err(TryLockError::WouldBlock)) && Instant::now() < end {
            thread::sleep(LOCK_RETRY);
            result = lock.try_lock();
        }
        match result {
            Ok(()) => Ok(Self {
                base: base.to_owned(),
                lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DatapathError::PinDirBusy {
                dir: base.display().to_string(),
                pid: lock.metadata().ok().and_then(|metadata| {
                    let locks = fs::read_to_string("/proc/locks").ok()?;
                    lock_holder(&locks, metadata.dev(), metadata.ino())
                }),
            }),
            Err(TryLockError::Error(e)) => Err(error("lock", e)),
        }
    }

    /// The pin directory, of all versions.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// The pins of this version.
    pub(super) fn current(&self) -> PathBuf {
        layout(&self.base)
    }

    /// The pin of the link for an interface slot.
    pub(super) fn link(&self, slot: u32) -> PathBuf {
        self.current().join(LINKS).join(slot.to_string())
    }

    /// The directory of pinned programs of this version.
    pub(super) fn programs(&self) -> PathBuf {
        self.current().join(PROGRAMS)
    }

    /// Makes the directories of this version.
    pub(super) fn make_current(&self) -> Result<(), DatapathError> {
        [self.current().join(LINKS), self.programs()]
            .into_iter()
            .try_for_each(|path| {
                fs::create_dir_all(&path).map_err(|e| DatapathError::PinDir {
                    path,
                    reason: e.to_string(),
                })
            })
    }

    /// Whether the directory is still the locked one. It may have been removed, or its file system unmounted.
    pub(super) fn is_in_place(&self) -> bool {
        let inode =
            |metadata: io::Result<fs::Metadata>| Some((metadata.as_ref().ok()?.dev(), metadata.ok()?.ino()));
        let now = inode(fs::metadata(&self.base));
        now.is_some() && now == inode(self.lock.metadata())
    }

    /// Makes and locks the directories again if they were removed.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub(super) fn make_again(&mut self) -> Result<(), DatapathError> {
        if !self.is_in_place() {
            make(&self.base)?;
            *self = Self::lock(&self.base, Duration::ZERO)?;
        }
        self.make_current()
    }

    /// The directory of another version, if there is one.
    pub(super) fn other_layout(&self) -> Result<Option<PathBuf>, DatapathError> {
        let current = self.current();
        Ok(self.layouts()?.into_iter().find(|path| *path != current))
    }

    /// The links pinned by this version. A pin that is no XDP link is an error.
    pub(super) fn links(&self) -> Result<Vec<PinnedLink>, DatapathError> {
        links_below(&self.current())
    }

    /// Compares the pinned maps with the shapes of the object; returns whether any is pinned. The loader creates the rest.
    ///
    /// # Errors
    /// [`DatapathError::PinMismatch`] for the first map that differs.
    pub(super) fn verify(&self, shapes: &[(&'static str, MapShape)]) -> Result<bool, DatapathError> {
        let mut any = false;
        for (name, expected) in shapes {
            let path = self.current().join(name);
            if !path.exists() {
                continue;
            }
            any = true;
            let difference = match pinned_shape(&path) {
                Ok(found) => expected.difference(&found),
                Err(reason) => Some(reason),
            };
            if let Some(difference) = difference {
                return Err(DatapathError::PinMismatch { path, difference });
            }
        }
        Ok(any)
    }

    /// Removes everything of every version: links first, which detaches their programs, then maps, then directories.
    /// Returns in words what went.
    pub(super) fn remove_all(&self) -> Result<Vec<String>, DatapathError> {
        let mut removed = Vec::new();
        for layout in self.layouts()? {
            for link in links_below(&layout).unwrap_or_default() {
                removed.push(format!(
                    "program {} on {}",
                    link.info.program_id,
                    interface_name(link.info.ifindex)
                ));
                remove_link(&link.path)?;
            }
            remove_files(&layout.join(LINKS))?;
            remove_files(&layout.join(PROGRAMS))?;
            let maps = remove_files(&layout)?;
            removed.push(format!("{maps} maps in {}", layout.display()));
            fs::remove_dir(&layout).map_err(|source| DatapathError::Io {
                what: format!("cannot remove {}", layout.display()),
                source,
            })?;
        }
        Ok(removed)
    }

    /// Removes the pin directory itself if nothing is left in it; a mount point stays.
    pub(super) fn remove_base(self) {
        // A directory that cannot be removed is in use elsewhere or a mount point: it stays.
        let _ = fs::remove_dir(&self.base);
    }

    fn layouts(&self) -> Result<Vec<PathBuf>, DatapathError> {
        layouts(&self.base)
    }
}

/// The directories of all versions below the pin directory.
fn layouts(base: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let mut layouts: Vec<PathBuf> = entries(base)?
        .into_iter()
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.strip_prefix('v'))
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
        })
        .collect();
    layouts.sort_unstable();
    Ok(layouts)
}

/// The directory of another version below the pin directory, with which a start fails; `None` also where it cannot be read.
pub fn other_layout(base: &Path) -> Option<PathBuf> {
    let current = layout(base);
    layouts(base).ok()?.into_iter().find(|path| *path != current)
}

/// Where pins of this version stand below the pin directory.
pub(super) fn layout(base: &Path) -> PathBuf {
    base.join(format!("v{LAYOUT_VERSION}"))
}

/// Makes a directory on a BPF file system, which is mounted where there is none.
///
/// # Errors
/// [`DatapathError::PinDir`]
pub(super) fn make(base: &Path) -> Result<(), DatapathError> {
    make_on_bpffs(base).map_err(|reason| DatapathError::PinDir {
        path: base.to_owned(),
        reason,
    })
}

/// Detaches the program of a pinned link and removes the pin.
pub(super) fn remove_link(path: &Path) -> Result<(), DatapathError> {
    if let Ok((link, _)) = sys::pinned_xdp_link(path) {
        // It fails where the interface is gone, and then there is nothing to detach.
        let _ = sys::detach_link(link.as_fd());
    }
    fs::remove_file(path).map_err(|source| DatapathError::Io {
        what: format!("cannot remove {}", path.display()),
        source,
    })
}

/// Name of an interface of this network namespace for messages.
pub fn interface_name(ifindex: u32) -> String {
    super::netlink::Client::new()
        .and_then(|mut client| client.link(ifindex))
        .ok()
        .flatten()
        .map_or_else(|| format!("interface {ifindex}"), |link| link.name)
}

fn links_below(layout: &Path) -> Result<Vec<PinnedLink>, DatapathError> {
    let directory = layout.join(LINKS);
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut links = Vec::new();
    for path in entries(&directory)? {
        let slot = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let (slot, info) = match (slot, sys::pinned_xdp_link(&path)) {
            (Some(slot), Ok((_, info))) => (slot, info),
            (_, Err(e)) => return Err(mismatch(path, format!("it cannot be opened as a link ({e})"))),
            (None, Ok(_)) => return Err(mismatch(path, "its name is no slot".to_owned())),
        };
        links.push(PinnedLink { path, slot, info });
    }
    links.sort_unstable_by_key(|link| link.slot);
    Ok(links)
}

fn mismatch(path: PathBuf, difference: String) -> DatapathError {
    DatapathError::PinMismatch { path, difference }
}

fn pinned_shape(path: &Path) -> Result<MapShape, String> {
    let map =
        MapData::from_pin(path).map_err(|e| format!("it cannot be opened ({})", super::error::chain(&e)))?;
    let info = map.info().map_err(|e| super::error::chain(&e))?;
    Ok(MapShape {
        map_type: info.map_type().map_err(|e| super::error::chain(&e))? as u32,
        key_size: info.key_size(),
        value_size: info.value_size(),
        max_entries: info.max_entries(),
        flags: info.map_flags(),
    })
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(|source| DatapathError::Io {
            what: format!("cannot list {}", directory.display()),
            source,
        })
}

/// Removes all files of a directory and then its directories, one level deep; returns how many files went.
fn remove_files(directory: &Path) -> Result<usize, DatapathError> {
    if !directory.is_dir() {
        return Ok(0);
    }
    let mut count = 0;
    for path in entries(directory)? {
        let result = if path.is_dir() {
            fs::remove_dir(&path)
        } else {
            count += 1;
            fs::remove_file(&path)
        };
        result.map_err(|source| DatapathError::Io {
            what: format!("cannot remove {}", path.display()),
            source,
        })?;
    }
    Ok(count)
}

/// Makes `base` on a BPF file system, mounting one where none is: at the kernel's own place if `base` lies there, else
/// at `base`.
fn make_on_bpffs(base: &Path) -> Result<(), String> {
    let words = |what: &str, path: &Path| {
        let path = path.display().to_string();
        let what = what.to_owned();
        move |e: io::Error| format!("cannot {what} {path}: {e}")
    };
    let nearest = base
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    match file_system(nearest).map_err(words("inspect", nearest))? {
        BPF_FS_MAGIC => {}
        SYSFS_MAGIC if base.starts_with(BPF_MOUNT) => {
            mount_bpffs(Path::new(BPF_MOUNT))
                .map_err(words("mount a BPF file system at", Path::new(BPF_MOUNT)))?;
        }
        _ => {
            fs::create_dir_all(base).map_err(words("make", base))?;
            mount_bpffs(base).map_err(words("mount a BPF file system at", base))?;
        }
    }
    fs::create_dir_all(base).map_err(words("make", base))
}

/// Why nothing can be pinned below a directory: this process cannot mount a BPF file system there. `None` also if unknown.
pub fn pin_obstacle(base: &Path) -> Option<String> {
    let nearest = base.ancestors().find(|path| path.exists())?;
    let kind = file_system(nearest).ok()?;
    if kind == BPF_FS_MAGIC {
        return None;
    }
    if !capabilities::may_mount() {
        return Some("one cannot be mounted without CAP_SYS_ADMIN".to_owned());
    }
    let has_mount_point = nearest == base || kind == SYSFS_MAGIC && base.starts_with(BPF_MOUNT);
    let is_read_only = !has_mount_point && is_read_only(nearest);
    is_read_only.then(|| format!("{} is read-only", nearest.display()))
}

/// Whether a file system is mounted so that nothing can be written.
fn is_read_only(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: the path is a C string that lives until the call returns.
    let result = unsafe { libc::access(path.as_ptr(), libc::W_OK) };
    result != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EROFS)
}

/// The type of the file system `path` lies on.
fn file_system(path: &Path) -> io::Result<i64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a C string, and the buffer is as large as the call wants.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled the buffer.
    Ok(unsafe { stat.assume_init() }.f_type)
}

fn mount_bpffs(target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: all strings are C strings that live until the call returns.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            target.as_ptr(),
            c"bpf".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            ptr::from_ref(c"mode=0700").cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The process that holds a lock on the file with this device and inode, by the text of /proc/locks (proc_locks(5)).
fn lock_holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let place = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == place => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::lock_holder;

    #[test]
    fn a_refused_start_names_the_daemon_that_runs() {
        let locks = "1: FLOCK  ADVISORY  WRITE 31337 00:1f:5 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 42 00:20:7 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:20:7 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 4711 00:20:7 0 EOF\n";
        for (minor, inode, pid) in [(0x20, 7, Some(4711)), (0x1f, 5, Some(31337)), (0x20, 8, None)] {
            let device = libc::makedev(0, minor);
            assert_eq!(lock_holder(locks, device, inode), pid);
        }
    }
}
