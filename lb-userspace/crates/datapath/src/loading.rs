//! The calls of bpf(2) that bring type information, maps and a program into the kernel.
//!
//! aya has all of them, but its loader parses the kernel's own type information and probes some twenty features first,
//! which takes as long as a whole start may. The program needs neither: it reads no kernel structures, and Linux 6.1 has
//! all it uses.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya_obj::generated::bpf_insn;

use super::{
    object::Records,
    sys::{ATTACH_TYPE_XDP, Command, address, bpf, owned, raw},
};
use crate::map_shape::MapShape;

/// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
/// `BPF_PROG_TYPE_XDP` and `BPF_F_XDP_HAS_FRAGS`.
const PROG_TYPE_XDP: u32 = 6;
const XDP_HAS_FRAGS: u32 = 1 << 5;
/// Bytes of the verifier's log that are kept: its end has the objection, and the kernel cuts the start of a log that does
/// not fit (since Linux 6.4; before, its end).
const LOG_BYTES: usize = 1 << 20;
/// `BPF_LOG_LEVEL1`: the verifier's objections, not every step.
const LOG_LEVEL: u32 = 1;
/// Bytes of a name, with the zero at its end (`BPF_OBJ_NAME_LEN`).
const NAME_LEN: usize = 16;

#[repr(C)]
#[derive(Default)]
struct MapCreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; NAME_LEN],
    map_ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; NAME_LEN],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct BtfLoadAttr {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapFdAttr {
    map_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct TracepointAttr {
    name: u64,
    prog_fd: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// As much of a name as the kernel keeps.
fn short(name: &str) -> [u8; NAME_LEN] {
    let mut short = [0; NAME_LEN];
    short
        .iter_mut()
        .take(NAME_LEN - 1)
        .zip(name.bytes())
        .for_each(|(to, from)| *to = from);
    short
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).map_err(io::Error::other)
}

/// Types of a map's key and value, so that tools can print them.
#[derive(Clone, Copy)]
pub(super) struct MapTypes<'a> {
    /// Loaded type information.
    pub(super) btf: BorrowedFd<'a>,
    /// Number of the key's type in it.
    pub(super) key: u32,
    /// Number of the value's type.
    pub(super) value: u32,
}

/// Creates a map. `inner` is an example of the maps in a map of maps.
pub(super) fn create_map(
    name: &str,
    shape: &MapShape,
    inner: Option<BorrowedFd<'_>>,
    types: Option<MapTypes<'_>>,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreateAttr {
        map_type: shape.map_type,
        key_size: shape.key_size,
        value_size: shape.value_size,
        max_entries: shape.max_entries,
        map_flags: shape.flags,
        inner_map_fd: inner.map_or(0, raw),
        map_name: short(name),
        btf_fd: types.map_or(0, |types| raw(types.btf)),
        btf_key_type_id: types.map_or(0, |types| types.key),
        btf_value_type_id: types.map_or(0, |types| types.value),
        ..Default::default()
    };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(Command::MapCreate, &mut attr) }.map(owned)
}

/// Makes a map read-only for user space, so that the verifier takes its content for constant.
pub(super) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = MapFdAttr { map_fd: raw(map) };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(Command::MapFreeze, &mut attr) }.map(drop)
}

/// Loads type information, by which the kernel recognizes functions that it verifies on their own.
pub(super) fn load_types(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = BtfLoadAttr {
        btf: address(types.as_ptr()),
        btf_size: length(types.len())?,
        ..Default::default()
    };
    // SAFETY: the bytes are as long as given, and the kernel only reads them.
    unsafe { bpf(Command::BtfLoad, &mut attr) }.map(owned)
}

/// Loads a program that enters the first one of a map of programs, and passes all packets while the map is empty.
pub(super) fn load_gate(map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const XDP_PASS: i32 = 2;
    const TAIL_CALL: i32 = 12;
    let instruction = |code, dst, src, imm| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(dst, src),
        off: 0,
        imm,
    };
    // The context is in register 1. BPF_LD | BPF_IMM | BPF_DW with BPF_PSEUDO_MAP_FD takes two; then BPF_ALU64 | BPF_MOV | BPF_K,
    // BPF_JMP | BPF_CALL and BPF_JMP | BPF_EXIT.
    let instructions = [
        instruction(0x18, 2, 1, map.as_raw_fd()),
        instruction(0, 0, 0, 0),
        instruction(0xb7, 3, 0, 0),
        instruction(0x85, 0, 0, TAIL_CALL),
        instruction(0xb7, 0, 0, XDP_PASS),
        instruction(0x95, 0, 0, 0),
    ];
    let license = c"Dual MIT/GPL";
    let mut attr = ProgLoadAttr {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: length(instructions.len())?,
        insns: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        prog_flags: XDP_HAS_FRAGS,
        prog_name: short("lb_gate"),
        expected_attach_type: ATTACH_TYPE_XDP,
        ..Default::default()
    };
    // SAFETY: instructions and licence live until the call returns, with the lengths given.
    unsafe { bpf(Command::ProgLoad, &mut attr) }.map(owned)
}

/// Loads a program for a raw tracepoint.
pub(super) fn load_tracing(name: &str, instructions: &[bpf_insn]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let mut attr = ProgLoadAttr {
        prog_type: PROG_TYPE_RAW_TRACEPOINT,
        insn_cnt: length(instructions.len())?,
        insns: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        prog_name: short(name),
        ..Default::default()
    };
    // SAFETY: instructions and licence live until the call returns, with the lengths given.
    unsafe { bpf(Command::ProgLoad, &mut attr) }.map(owned)
}

/// Has a program run at each hit of a tracepoint, until the result is closed.
pub(super) fn attach_to_tracepoint(name: &CStr, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = TracepointAttr {
        name: address(name.as_ptr()),
        prog_fd: raw(program),
        ..Default::default()
    };
    // SAFETY: the name is a C string that lives until the call returns.
    unsafe { bpf(Command::RawTracepointOpen, &mut attr) }.map(owned)
}

/// An XDP program to load.
pub(super) struct NewProgram<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its licence.
    pub(super) license: &'a CStr,
    /// Its instructions, with the descriptors of maps.
    pub(super) instructions: &'a [u8],
    /// Loaded type information.
    pub(super) btf: BorrowedFd<'a>,
    /// Functions and their types.
    pub(super) functions: &'a Records,
    /// Source lines, for the log of a refusal. They are left out of the first attempt: the kernel would move all of them each
    /// time it replaces an instruction.
    pub(super) lines: &'a Records,
    /// Whether it takes packets of several buffers.
    pub(super) frags: bool,
}

/// Why a program was refused.
pub(super) struct Refusal {
    /// The system call's error.
    pub(super) error: io::Error,
    /// The verifier's log; empty if it was not requested.
    pub(super) log: String,
}

/// Loads a program. Only a refused one is loaded again with a log, since writing the log takes longest.
pub(super) fn load_program(program: &NewProgram<'_>) -> Result<OwnedFd, Refusal> {
    let plain = |error| Refusal {
        error,
        log: String::new(),
    };
    let mut attr = attributes(program).map_err(plain)?;
    // SAFETY: instructions, licence and records live until the call returns, with the lengths given.
    let first = match unsafe { bpf(Command::ProgLoad, &mut attr) } {
        Ok(fd) => return Ok(owned(fd)),
        Err(error) => error,
    };
    let mut log = vec![0u8; LOG_BYTES];
    attr.log_level = LOG_LEVEL;
    attr.log_buf = address(log.as_mut_ptr());
    attr.log_size = length(log.len()).map_err(plain)?;
    attr.line_info_rec_size = length(program.lines.size).map_err(plain)?;
    attr.line_info = address(program.lines.bytes.as_ptr());
    attr.line_info_cnt = length(program.lines.count).map_err(plain)?;
    // SAFETY: as in the first call; the log has the length given.
    match unsafe { bpf(Command::ProgLoad, &mut attr) } {
        Ok(fd) => Ok(owned(fd)),
        Err(_) => Err(Refusal {
            error: first,
            log: CStr::from_bytes_until_nul(&log)
                .map(|log| log.to_string_lossy().into_owned())
                .unwrap_or_default(),
        }),
    }
}

fn attributes(program: &NewProgram<'_>) -> io::Result<ProgLoadAttr> {
    Ok(ProgLoadAttr {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: length(program.instructions.len() / size_of::<bpf_insn>())?,
        insns: address(program.instructions.as_ptr()),
        license: address(program.license.as_ptr()),
        prog_flags: if program.frags { XDP_HAS_FRAGS } else { 0 },
        prog_name: short(program.name),
        expected_attach_type: ATTACH_TYPE_XDP,
        prog_btf_fd: raw(program.btf),
        func_info_rec_size: length(program.functions.size)?,
        func_info: address(program.functions.bytes.as_ptr()),
        func_info_cnt: length(program.functions.count)?,
        ..Default::default()
    })
}

/// Puts a program in the place of the one that a link holds, in one step: each packet sees one or the other.
pub(super) fn update_link(link: &OwnedFd, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: raw(program),
        ..Default::default()
    };
    // SAFETY: the attributes hold no pointers.
    unsafe { bpf(Command::LinkUpdate, &mut attr) }.map(drop)
}
