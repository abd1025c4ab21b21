//! The calls of bpf(2) that aya has no API for: batch operations on maps, and what a link is attached to. Layouts follow `union bpf_attr` in include/uapi/linux/bpf.h.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use aya::Pod;

use crate::interface::XdpMode;

/// Commands, `enum bpf_cmd`.
#[repr(i64)]
#[derive(Clone, Copy)]
pub(super) enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    InfoByFd = 15,
    RawTracepointOpen = 17,
    BtfLoad = 18,
    MapFreeze = 22,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// `BPF_LINK_TYPE_XDP`.
const LINK_TYPE_XDP: u32 = 6;
/// `BPF_XDP` of `enum bpf_attach_type`, and the flags that choose the mode (include/uapi/linux/if_link.h).
pub(super) const ATTACH_TYPE_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// ENOTSUPP, the kernel's own, which system calls do leak.
const ENOTSUPP: i32 = 524;

#[repr(C)]
#[derive(Default)]
struct ElemAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct PathAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkDetachAttr {
    link_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Head of `struct bpf_link_info` for an XDP link, with room for what newer kernels add.
#[repr(C)]
#[derive(Default)]
struct LinkInfoRecord {
    link_type: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    ifindex: u32,
    rest: [u32; 27],
}

/// Calls bpf(2).
///
/// # Safety
/// Every pointer and length in `attr` must be good for what `command` does with it.
pub(super) unsafe fn bpf<T>(command: Command, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live, initialised structure of the given size; its pointers are good by the contract.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as i64, ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

pub(super) fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

pub(super) fn address<T>(value: *const T) -> u64 {
    value.expose_provenance() as u64
}

/// Takes the descriptor that a call returned.
pub(super) fn owned(fd: i32) -> OwnedFd {
    // SAFETY: only called with descriptors that bpf(2) has just made for us, which nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Reads the value of `key` into `values`, which holds one value, or one for each CPU. `false`: there is none.
pub(super) fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, values: &mut [V]) -> io::Result<bool> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        key: address(key),
        value: address(values.as_mut_ptr()),
        ..Default::default()
    };
    // SAFETY: `Table` has compared the sizes of key and value with the kernel's, and sizes `values` by CPUs.
    match unsafe { bpf(Command::MapLookup, &mut attr) } {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Writes the value of `key`; `values` as in [`lookup`].
pub(super) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, values: &[V]) -> io::Result<()> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        key: address(key),
        value: address(values.as_ptr()),
        ..Default::default()
    };
    // SAFETY: as in `lookup`; the kernel only reads.
    unsafe { bpf(Command::MapUpdate, &mut attr) }.map(drop)
}

/// Deletes `key`. `false`: it was not there.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr = ElemAttr {
        map_fd: raw(map),
        key: address(key),
        ..Default::default()
    };
    // SAFETY: as in `lookup`; the kernel only reads the key.
    match unsafe { bpf(Command::MapDelete, &mut attr) } {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The key behind `key` in the map's own order, or the first one. `None` at the end.
pub(super) fn next_key<K: Pod + Default>(map: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = K::default();
    let mut attr = ElemAttr {
        map_fd: raw(map),
        key: key.map_or(0, |key| address(ptr::from_ref(key))),
        value: address(&raw mut next),
        ..Default::default()
    };
    // SAFETY: as in `lookup`; the place of the value holds a key.
    match unsafe { bpf(Command::MapNextKey, &mut attr) } {
        Ok(_) => Ok(Some(next)),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where a batch look-up goes on: a bucket number for hash maps, the last key for arrays; both are 32 bits wide.
#[derive(Clone, Copy)]
pub(super) struct Cursor(u32);

impl Cursor {
    /// Of an array: goes on behind `index`.
    pub(super) const fn after(index: u32) -> Self {
        Self(index)
    }
}

/// The result of a batch look-up.
pub(super) struct Batch {
    /// Entries that were filled in.
    pub(super) count: usize,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<Cursor>,
}

/// Reads entries from `from` on, at most as many as there is room for in `keys`; `values` has as many, times the CPUs
/// of a per-CPU map. ENOSPC: a bucket of a hash map holds more than fit.
pub(super) fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    from: Option<Cursor>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<Batch> {
    let mut next = 0u32;
    let mut attr = BatchAttr {
        in_batch: from.as_ref().map_or(0, |cursor| address(&raw const cursor.0)),
        out_batch: address(&raw mut next),
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map_fd: raw(map),
        ..Default::default()
    };
    // SAFETY: the buffers are as long as `count` says (`Table` sizes `values`); cursors of our map types have 32 bits.
    let result = unsafe { bpf(Command::MapLookupBatch, &mut attr) };
    let count = attr.count as usize;
    match result {
        Ok(_) => Ok(Batch {
            count,
            next: Some(Cursor(next)),
        }),
        // The end of the map: the entries found so far count.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(Batch { count, next: None }),
        Err(e) => Err(e),
    }
}

/// Writes all entries; `values` as in [`lookup_batch`].
pub(super) fn update_batch<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    let mut attr = BatchAttr {
        keys: address(keys.as_ptr()),
        values: address(values.as_ptr()),
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map_fd: raw(map),
        ..Default::default()
    };
    // SAFETY: as in `lookup_batch`; the kernel only reads.
    unsafe { bpf(Command::MapUpdateBatch, &mut attr) }.map(drop)
}

/// Whether the kernel has no batch operation for this type of map, so that entries must go one by one.
pub(super) fn lacks_batch(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP)
    )
}

/// Properties of a pinned link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct XdpLinkInfo {
    /// Kernel's id of the link.
    pub(super) id: u32,
    /// Kernel's id of its program.
    pub(super) program_id: u32,
    /// Interface it is attached to; 0 once that is gone.
    pub(super) ifindex: u32,
}

/// Opens what is pinned under a path.
fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PathAttr {
        pathname: address(path.as_ptr()),
        ..Default::default()
    };
    // SAFETY: the path is a C string that lives until the call returns.
    unsafe { bpf(Command::ObjGet, &mut attr) }.map(owned)
}

/// As [`open_pinned`]; nothing if nothing is there.
pub(super) fn pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    match open_pinned(path) {
        Ok(object) => Ok(Some(object)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens a pinned link and returns its properties; an error if the pin is no XDP link.
pub(super) fn pinned_xdp_link(path: &Path) -> io::Result<(OwnedFd, XdpLinkInfo)> {
    let link = open_pinned(path)?;
    let info = xdp_link(link.as_fd())?;
    Ok((link, info))
}

/// The present properties of a link; an error if it is no XDP link.
pub(super) fn xdp_link(link: BorrowedFd<'_>) -> io::Result<XdpLinkInfo> {
    let mut info = LinkInfoRecord::default();
    let mut attr = InfoAttr {
        bpf_fd: raw(link),
        info_len: u32::try_from(size_of::<LinkInfoRecord>()).map_err(io::Error::other)?,
        info: address(&raw mut info),
    };
    // SAFETY: `info` has the length given; the kernel fills no more than that.
    unsafe { bpf(Command::InfoByFd, &mut attr) }?;
    if info.link_type != LINK_TYPE_XDP {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not an XDP link"));
    }
    Ok(XdpLinkInfo {
        id: info.id,
        program_id: info.prog_id,
        ifindex: info.ifindex,
    })
}

/// The tag of a link's program, as its fdinfo shows it. Unlike the program's own properties it needs no capability.
pub(super) fn program_tag(link: BorrowedFd<'_>) -> Option<String> {
    let fdinfo = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd())).ok()?;
    let tag = fdinfo.lines().find_map(|line| line.strip_prefix("prog_tag:"))?;
    Some(tag.trim().to_owned())
}

/// Attaches a program to an interface by a link.
///
/// aya's own call falls back to an attachment without a link on EINVAL. No daemon could hold such an attachment or replace it
/// atomically, and it might replace a program that is not ours.
pub(super) fn create_xdp_link(program: BorrowedFd<'_>, ifindex: u32, mode: XdpMode) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: raw(program),
        target_ifindex: ifindex,
        attach_type: ATTACH_TYPE_XDP,
        flags: match mode {
            XdpMode::Native => XDP_FLAGS_DRV_MODE,
            XdpMode::Generic => XDP_FLAGS_SKB_MODE,
        },
    };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(Command::LinkCreate, &mut attr) }.map(owned)
}

/// Detaches a link's program at once, also if others hold the link. Closing the last descriptor and removing the last pin
/// detach it later, at a time of the kernel's choice.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetachAttr { link_fd: raw(link) };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(Command::LinkDetach, &mut attr) }.map(drop)
}

/// Gives a BPF object a name in a BPF file system, which holds it from then on.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PathAttr {
        pathname: address(path.as_ptr()),
        bpf_fd: raw(object),
        ..Default::default()
    };
    // SAFETY: the path is a C string that lives until the call returns.
    unsafe { bpf(Command::ObjPin, &mut attr) }.map(drop)
}
