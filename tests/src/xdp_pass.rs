//! A program that passes everything, for the far ends of veth pairs: a frame that XDP sends into a veth arrives only if
//! the other end has a program too. Two instructions need no object file, so this calls bpf(2) itself. The layout of
//! `union bpf_attr` is from `include/uapi/linux/bpf.h`.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result};

use crate::netns::Netns;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
/// Large frames stay whole, and the other end keeps its segmentation offload.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `r0 = XDP_PASS; exit`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// Head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Head of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Head of `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Head of `union bpf_attr` for `BPF_LINK_UPDATE`; its first field is all of that for `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces the program of a pinned link by one that passes everything.
///
/// # Errors
/// When there is no such pin, or the kernel refuses.
pub fn replace_pinned(link: &Path) -> Result<()> {
    let program = load().context("load pass program")?;
    act(BPF_LINK_UPDATE, link, program.as_raw_fd().cast_unsigned())
}

/// Detaches the program of a pinned link from its interface.
///
/// # Errors
/// When there is no such pin, or the kernel refuses.
pub fn detach_pinned(link: &Path) -> Result<()> {
    act(BPF_LINK_DETACH, link, 0)
}

fn act(command: libc::c_long, link: &Path, new_prog_fd: u32) -> Result<()> {
    let path = CString::new(link.as_os_str().as_bytes())?;
    let get = ObjGet {
        pathname: path.as_ptr() as u64,
        bpf_fd: 0,
        file_flags: 0,
    };
    let fd = bpf(BPF_OBJ_GET, &get).with_context(|| format!("open {}", link.display()))?;
    let update = LinkUpdate {
        link_fd: fd.as_raw_fd().cast_unsigned(),
        new_prog_fd,
        flags: 0,
        old_prog_fd: 0,
    };
    call(command, &update).with_context(|| format!("change {}", link.display()))?;
    Ok(())
}

/// The attachment; dropping it detaches.
pub struct PassProgram {
    _link: OwnedFd,
}

impl PassProgram {
    /// Attaches to a device in native mode.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(ns: &Netns, device: &str) -> Result<Self> {
        let ifindex = ns.ifindex(device)?;
        let link = ns
            .enter(|| create(ifindex))?
            .with_context(|| format!("attach pass program to {device} in {}", ns.name()))?;
        Ok(Self { _link: link })
    }
}

fn create(ifindex: u32) -> io::Result<OwnedFd> {
    let program = load()?;
    bpf(
        BPF_LINK_CREATE,
        &LinkCreate {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_ifindex: ifindex,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        },
    )
}

fn load() -> io::Result<OwnedFd> {
    load_program(&PASS)
}

/// Loads an XDP program of these instructions.
///
/// # Errors
/// When the kernel refuses it.
pub(crate) fn load_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    let license = CString::from(c"GPL");
    bpf(
        BPF_PROG_LOAD,
        &ProgLoad {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
            insns: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: BPF_F_XDP_HAS_FRAGS,
            prog_name: *b"lbt_pass\0\0\0\0\0\0\0\0",
            prog_ifindex: 0,
            expected_attach_type: BPF_XDP,
        },
    )
}

/// Calls bpf(2) for one of the commands that give a descriptor.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: a non-negative result of these commands is a new descriptor without another owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is the head of `union bpf_attr` for this command and its size is given; its pointers are valid
    // until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr as *const T, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
