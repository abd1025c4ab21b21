//! The user that the daemon runs as, and which files that user may read.

use std::{
    ffi::CString,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    thread,
};

/// Bits of capability sets with which any file can be read (include/uapi/linux/capability.h).
const READS_ALL: u64 = 1 << 1 | 1 << 2;

/// The user of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DaemonUser {
    /// Its number.
    pub user: u32,
    /// Number of its group.
    pub group: u32,
    /// Further groups.
    groups: Vec<u32>,
}

impl DaemonUser {
    /// The user of a process; `None` if it may read every file, or if it is not known.
    pub fn of_process(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    /// From the text of a status file (proc(5)).
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // Real, effective, saved, and that of file systems.
        let number = |name: &str| field(name)?.split_whitespace().nth(3)?.parse().ok();
        let capabilities = u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?;
        if capabilities & READS_ALL != 0 {
            return None;
        }
        Some(Self {
            user: number("Uid:")?,
            group: number("Gid:")?,
            groups: field("Groups:")?
                .split_whitespace()
                .filter_map(|group| group.parse().ok())
                .collect(),
        })
    }

    /// What keeps the user from reading a file: `Some(None)` is the file, else the topmost directory that it may not enter. `None` if
    /// it may, or if this process cannot find out.
    pub fn denial(&self, file: &Path) -> Option<Option<PathBuf>> {
        let look = || {
            self.become_it().ok()?;
            if may(file, libc::R_OK) {
                return None;
            }
            let mut directories: Vec<&Path> = file.ancestors().skip(1).collect();
            directories.reverse();
            let closed = directories
                .into_iter()
                .find(|directory| !may(directory, libc::X_OK));
            Some(closed.map(Path::to_owned))
        };
        // The user of a thread alone can be changed, by the system calls themselves (nptl(7)).
        thread::scope(|scope| scope.spawn(look).join().ok().flatten())
    }

    /// Gives this thread the user, without its capabilities.
    fn become_it(&self) -> io::Result<()> {
        let done = |result: libc::c_long| match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        // SAFETY: the list lives until the call returns.
        done(unsafe { libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()) })?;
        // SAFETY: a call with numbers alone.
        done(unsafe { libc::syscall(libc::SYS_setresgid, self.group, self.group, self.group) })?;
        // SAFETY: as before.
        done(unsafe { libc::syscall(libc::SYS_setresuid, self.user, self.user, self.user) })
    }
}

/// Whether the user of this thread has the access to a file; true where it does not exist.
fn may(file: &Path, access: libc::c_int) -> bool {
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else {
        return true;
    };
    // SAFETY: the path is a C string that lives until the call returns.
    let result = unsafe { libc::access(path.as_ptr(), access) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EACCES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_files_is_read_unless_it_may_read_all() {
        let status = |capabilities: &str| {
            format!(
                "Name:\tlb\nUid:\t0\t1\t2\t998\nGid:\t0\t0\t0\t997\nGroups:\t10 20 \nCapEff:\t{capabilities}\n"
            )
        };
        let expected = DaemonUser {
            user: 998,
            group: 997,
            groups: vec![10, 20],
        };
        assert_eq!(DaemonUser::parse(&status("0000008000001000")), Some(expected));
        assert_eq!(DaemonUser::parse(&status("000001ffffffffff")), None);
        assert_eq!(DaemonUser::parse(&status("0000000000000004")), None);
        assert_eq!(DaemonUser::parse("Name:\tlb\n"), None);
    }
}
