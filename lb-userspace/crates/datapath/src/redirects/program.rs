//! The program on the tracepoint `xdp_redirect_err` (include/trace/events/xdp.h), whose arguments stand in its context as words:
//! device, program, target, error, kind of map, number of the map, index.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya_obj::generated::bpf_insn;

use super::kernel_types::Offsets;

/// Offsets of the arguments.
const DEVICE: i16 = 0;
const ERROR: i16 = 24;
const KIND_OF_MAP: i16 = 32;
const INDEX: i16 = 48;
/// Places on the stack: what is read, then a new value of 16 bytes, and the key of 8.
const VALUE: i16 = -16;
const KEY: i16 = -24;
/// Where the time of the last frame stands in a value.
const TIME: i16 = 8;
/// Helpers.
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const KTIME_GET_NS: i32 = 5;
const PROBE_READ_KERNEL: i32 = 113;
/// `BPF_NOEXIST`: another CPU may have been first.
const NO_EXIST: i32 = 1;

/// Counts a frame that a program of the network namespace with this inode number wanted to send by the index of an interface.
pub(super) fn instructions(counts: BorrowedFd<'_>, offsets: Offsets, namespace: u32) -> Vec<bpf_insn> {
    // Operations as in include/uapi/linux/bpf.h: class, size or source, and mode or operation.
    let move_register = |to, from| instruction(0xbf, to, from, 0, 0);
    let move_number = |to, number| instruction(0xb7, to, 0, 0, number);
    let add = |to, number| instruction(0x07, to, 0, 0, number);
    let load_64 = |to, from, offset| instruction(0x79, to, from, offset, 0);
    let load_32 = |to, from, offset| instruction(0x61, to, from, offset, 0);
    let store_32 = |to, offset, from| instruction(0x63, to, from, offset, 0);
    let store_64 = |to, offset, from| instruction(0x7b, to, from, offset, 0);
    let call = |helper| instruction(0x85, 0, 0, 0, helper);
    // Jumps past all that counts. Their distance is set below.
    let exit_unless_zero = |register| instruction(0x55, register, 0, 0, 0);
    let exit_unless = |register, number: u32| instruction(0x56, register, 0, 0, number.cast_signed());
    let exit = || instruction(0x05, 0, 0, 0, 0);
    let map = || {
        [
            instruction(0x18, 1, 1, 0, counts.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
        ]
    };

    let mut all = vec![
        move_register(6, 1),
        // Of a redirection by a map, the index is a key of that map.
        load_64(2, 6, KIND_OF_MAP),
        exit_unless_zero(2),
        // device->nd_net.net
        load_64(3, 6, DEVICE),
        add(3, offsets.device_to_namespace),
        move_number(2, 8),
        move_register(1, 10),
        add(1, VALUE.into()),
        call(PROBE_READ_KERNEL),
        exit_unless_zero(0),
        // net->ns.inum
        load_64(3, 10, VALUE),
        add(3, offsets.namespace_to_number),
        move_number(2, 4),
        move_register(1, 10),
        add(1, VALUE.into()),
        call(PROBE_READ_KERNEL),
        exit_unless_zero(0),
        load_32(1, 10, VALUE),
        exit_unless(1, namespace),
        load_64(1, 6, INDEX),
        store_32(10, KEY, 1),
        load_64(1, 6, ERROR),
        store_32(10, KEY + 4, 1),
    ];
    all.extend(map());
    all.extend([
        move_register(2, 10),
        add(2, KEY.into()),
        call(MAP_LOOKUP),
        move_register(7, 0),
        call(KTIME_GET_NS),
        // To the insertion.
        instruction(0x15, 7, 0, 4, 0),
        store_64(7, TIME, 0),
        move_number(1, 1),
        // lock *(u64 *)(r7 + 0) += r1
        instruction(0xdb, 7, 1, 0, 0),
        exit(),
        store_64(10, VALUE + TIME, 0),
        move_number(1, 1),
        store_64(10, VALUE, 1),
    ]);
    all.extend(map());
    all.extend([
        move_register(2, 10),
        add(2, KEY.into()),
        move_register(3, 10),
        add(3, VALUE.into()),
        move_number(4, NO_EXIST),
        call(MAP_UPDATE),
    ]);
    let end = all.len();
    for (place, instruction) in all.iter_mut().enumerate() {
        if matches!(instruction.code, 0x55 | 0x56 | 0x05) {
            instruction.off = i16::try_from(end - place - 1).unwrap_or(i16::MAX);
        }
    }
    all.extend([move_number(0, 0), instruction(0x95, 0, 0, 0, 0)]);
    all
}

fn instruction(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
    bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(dst, src),
        off,
        imm,
    }
}
