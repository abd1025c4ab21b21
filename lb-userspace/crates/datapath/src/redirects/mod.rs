//! Frames that the kernel could not redirect, counted by interface and error.
//!
//! The program decides to send a frame by another interface before the kernel looks at that interface. The kernel reports a refusal by
//! the tracepoint `xdp_redirect_err` alone: no counter of a driver or of `ip -s link` shows it. A small program on that tracepoint counts;
//! it runs for refused frames only. Frames that a driver takes and cannot send are counted by the driver (`tx_dropped`): the
//! tracepoint of those, `xdp_devmap_xmit`, runs for every burst, at 2 to 40 ns a frame.

mod kernel_types;
mod program;

use std::{
    ffi::CStr,
    fmt, fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    time::Duration,
};

use self::kernel_types::Offsets;
use crate::{kernel_clock, loading, map_shape::MapShape, snapshot::RedirectErrors, sys};

/// Interfaces and errors that are counted, at most.
const MAX_COUNTS: u32 = 1024;
/// `BPF_MAP_TYPE_HASH`.
const HASH: u32 = 1;

/// Time for which a refused frame is news.
const LATELY: Duration = Duration::from_secs(60);

/// Frames, and when the last of them was refused, by the machine's monotonic clock in nanoseconds.
type Value = [u64; 2];

/// Interface and error of a count: the index of the one that a frame was to leave by, and the negative number of errno(3).
type Key = [u32; 2];

/// Their bytes.
const KEY_LEN: u32 = 8;
const VALUE_LEN: u32 = 16;
const _: () = assert!(size_of::<Key>() == KEY_LEN as usize && size_of::<Value>() == VALUE_LEN as usize);

/// Counts refused frames of this network namespace for as long as it lives.
pub(super) struct RedirectCounts {
    counts: OwnedFd,
    _attached: OwnedFd,
}

impl fmt::Debug for RedirectCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedirectCounts").finish_non_exhaustive()
    }
}

impl RedirectCounts {
    /// Begins to count. Blocks for the time of reading the kernel's types.
    ///
    /// # Errors
    /// The kernel does not describe its types, or refuses the program.
    pub(super) fn begin() -> io::Result<Self> {
        let offsets = Offsets::read()?;
        let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let namespace = u32::try_from(namespace).map_err(io::Error::other)?;
        let shape = MapShape {
            map_type: HASH,
            key_size: KEY_LEN,
            value_size: VALUE_LEN,
            max_entries: MAX_COUNTS,
            flags: 0,
        };
        let counts = loading::create_map("REDIRECT_ERRORS", &shape, None, None)?;
        let instructions = program::instructions(counts.as_fd(), offsets, namespace);
        let program = loading::load_tracing("lb_redirects", &instructions)?;
        let attached = loading::attach_to_tracepoint(c"xdp_redirect_err", program.as_fd())?;
        Ok(Self {
            counts,
            _attached: attached,
        })
    }

    /// What was counted so far, in the order of interfaces and errors.
    pub(super) fn read(&self) -> io::Result<Vec<RedirectErrors>> {
        let map = self.counts.as_fd();
        let now = kernel_clock::exact();
        let mut before: Option<Key> = None;
        let mut counts = Vec::new();
        while let Some(key) = sys::next_key(map, before.as_ref())? {
            let mut value = [Value::default()];
            if sys::lookup(map, &key, &mut value)? {
                let ([ifindex, error], [[frames, last]]) = (key, value);
                counts.push(RedirectErrors {
                    interface: name_of(ifindex),
                    error: error.cast_signed().wrapping_neg(),
                    frames,
                    lately: now.saturating_sub(Duration::from_nanos(last)) < LATELY,
                });
            }
            before = Some(key);
        }
        counts
            .sort_unstable_by(|one, other| (&one.interface, one.error).cmp(&(&other.interface, other.error)));
        Ok(counts)
    }
}

/// The name of an interface; its index once it is gone.
fn name_of(ifindex: u32) -> String {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the kernel's names fit the buffer with the zero at their end, which the call writes.
    let found = unsafe { !libc::if_indextoname(ifindex, name.as_mut_ptr().cast()).is_null() };
    let name = CStr::from_bytes_until_nul(&name).ok().filter(|_| found);
    name.map_or_else(|| ifindex.to_string(), |name| name.to_string_lossy().into_owned())
}
