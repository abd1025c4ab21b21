//! Forged SYNs as fast as one core makes them: an XDP program that writes a SYN over each frame and redirects it, run on live
//! frames (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18).
//!
//! As in [`crate::xdp_pass`], the program is written here. Sources are 10.77.0.0/16 with any odd port, at random.

use std::{
    io,
    net::SocketAddrV4,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};

use crate::{netns::Netns, test_run, xdp_pass};

/// Frames of one call, after which a flood can end, and of one batch in it.
const REPEAT: u32 = 1 << 14;
const BATCH: u64 = 64;
/// Bytes of the frame, which are two more than its packet, and words.
const LENGTH: u32 = 56;
const WORDS: usize = LENGTH as usize / 8;

/// A flood that runs until it is stopped or dropped.
pub struct SynFlood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<io::Result<u64>>>>,
}

impl SynFlood {
    /// Sends SYNs for `target` out of a device, to the MAC address of the next hop, from the first core.
    ///
    /// # Errors
    /// When the device is not there or the kernel refuses the program.
    pub fn start(ns: &Netns, device: &str, next_hop: [u8; 6], target: SocketAddrV4) -> Result<Self> {
        let program = program(ns.ifindex(device)?, &frame(next_hop, target));
        let program = xdp_pass::load_program(&program).context("load the generator of SYNs")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = ns.spawn(move || {
            pin_to_first_core()?;
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                send(&program)?;
                sent += u64::from(REPEAT);
            }
            Ok(sent)
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it, and gives the number of SYNs.
    ///
    /// # Errors
    /// When it could not send.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("stopped twice")?;
        let sent = thread.join().map_err(|_| anyhow!("the flood panicked"))??;
        sent.context("send SYNs")
    }
}

impl Drop for SynFlood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Lets the calling thread run on the first core alone.
///
/// # Errors
/// When the kernel refuses.
pub fn pin_to_first_core() -> io::Result<()> {
    // SAFETY: all-zero bytes are an empty set.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: 0 is below the size of the set.
    unsafe { libc::CPU_SET(0, &mut cores) };
    // SAFETY: the set lives for the call, and its size is given.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&cores), &raw const cores) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends [`REPEAT`] frames.
fn send(program: &OwnedFd) -> io::Result<()> {
    const LIVE_FRAMES: u64 = 1 << 1;
    let frame = [0_u64; WORDS];
    let mut attr = [0_u64; 16];
    // prog_fd | data_size_in | data_in | repeat | flags | batch_size
    attr[0] = u64::from(program.as_raw_fd().cast_unsigned());
    attr[1] = size_of_val(&frame) as u64;
    attr[2] = frame.as_ptr() as u64;
    attr[4] = u64::from(REPEAT);
    attr[8] = LIVE_FRAMES;
    attr[9] = BATCH;
    test_run::run(&mut attr)
}

/// Offsets of the fields that differ between packets. Their effects on checksums cancel out: the identification and the
/// low half of the sequence number mirror the source address, the high half mirrors the port.
const ID: usize = 18;
const SOURCE: usize = 28;
const PORT: usize = 34;
const SEQUENCE: usize = 38;

/// The common frame, without options, unlike the SYNs of Linux.
fn frame(next_hop: [u8; 6], target: SocketAddrV4) -> [u8; 8 * WORDS] {
    let mut frame = [0; 8 * WORDS];
    frame[..6].copy_from_slice(&next_hop);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    // EtherType, version and length; total length; TTL and protocol; addresses.
    frame[12..18].copy_from_slice(&[8, 0, 0x45, 0, 0, 40]);
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[26..28].copy_from_slice(&[10, 77]);
    frame[30..34].copy_from_slice(&target.ip().octets());
    frame[36..38].copy_from_slice(&target.port().to_be_bytes());
    // Header length and SYN; window.
    frame[46..50].copy_from_slice(&[0x50, 2, 0xff, 0xff]);
    set_source(&mut frame, 0, 0);
    let header = checksum(0, &frame[14..34]);
    frame[24..26].copy_from_slice(&header);
    // The pseudo header's protocol and length.
    let segment = checksum(6 + 20, &frame[26..54]);
    frame[50..52].copy_from_slice(&segment);
    frame
}

/// The program's change of each frame.
fn set_source(frame: &mut [u8], address: u16, port: u16) {
    let mut set = |at: usize, value: u16| frame[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    set(SOURCE, address);
    set(ID, !address);
    set(SEQUENCE + 2, !address);
    set(PORT, port);
    set(SEQUENCE, !port);
}

fn checksum(more: u32, bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = more + words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = (!((folded & 0xffff) + (folded >> 16))).to_be_bytes();
    [high, low]
}

/// One instruction: operation, destination and source register, offset, immediate (RFC 9669 section 3).
fn instruction(code: u8, to: u8, from: u8, offset: usize, immediate: u32) -> u64 {
    u64::from(code)
        | u64::from(from << 4 | to) << 8
        | (offset as u64 & 0xffff) << 16
        | u64::from(immediate) << 32
}

/// Writes the frame and a random source, and redirects to a device.
fn program(ifindex: u32, frame: &[u8; 8 * WORDS]) -> Vec<u64> {
    const LOAD_WORD: u8 = 0x61;
    const MOVE: u8 = 0xbf;
    const MOVE_NUMBER: u8 = 0xb7;
    const ADD_NUMBER: u8 = 0x07;
    const OR_NUMBER: u8 = 0x47;
    const XOR_NUMBER: u8 = 0xa7;
    const SHIFT_RIGHT: u8 = 0x77;
    const LOAD_NUMBER: u8 = 0x18;
    const STORE: u8 = 0x7b;
    const STORE_HALF: u8 = 0x6b;
    const JUMP_UNLESS_MORE: u8 = 0xbd;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const RANDOM: u32 = 7;
    const REDIRECT: u32 = 23;
    let op = |code, to, from| instruction(code, to, from, 0, 0);
    let number = |code, to, immediate| instruction(code, to, 0, 0, immediate);
    let half = |from, at| instruction(STORE_HALF, 6, from, at, 0);
    let invert = |to| number(XOR_NUMBER, to, u32::MAX);
    let mut program = vec![
        // r6: begin of the frame, r2: its end. XDP_ABORTED where it is too short.
        instruction(LOAD_WORD, 6, 1, 0, 0),
        instruction(LOAD_WORD, 2, 1, 4, 0),
        op(MOVE, 3, 6),
        number(ADD_NUMBER, 3, LENGTH),
        number(MOVE_NUMBER, 0, 0),
        // Not beyond the end: over the exit.
        instruction(JUMP_UNLESS_MORE, 3, 2, 1, 0),
        op(EXIT, 0, 0),
    ];
    for (index, word) in frame.chunks(8).enumerate() {
        let half = |at: usize| u32::from_ne_bytes([word[at], word[at + 1], word[at + 2], word[at + 3]]);
        program.extend([
            number(LOAD_NUMBER, 4, half(0)),
            number(0, 0, half(4)),
            instruction(STORE, 6, 4, 8 * index, 0),
        ]);
    }
    program.extend([
        number(CALL, 0, RANDOM),
        op(MOVE, 7, 0),
        op(MOVE, 8, 7),
        invert(8),
        half(7, SOURCE),
        half(8, ID),
        half(8, SEQUENCE + 2),
        number(SHIFT_RIGHT, 7, 16),
        // Never port 0.
        number(OR_NUMBER, 7, 1),
        op(MOVE, 8, 7),
        invert(8),
        half(7, PORT),
        half(8, SEQUENCE),
        number(MOVE_NUMBER, 1, ifindex),
        number(MOVE_NUMBER, 2, 0),
        number(CALL, 0, REDIRECT),
        op(EXIT, 0, 0),
    ]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Frame;

    #[test]
    fn checksums_are_right_for_any_source() {
        let target: SocketAddrV4 = "192.0.2.10:80".parse().unwrap();
        let mut frame = frame([2; 6], target);
        for (address, port) in [(0, 1), (0x1234, 0x8001), (u16::MAX, u16::MAX), (1, 0x0100)] {
            set_source(&mut frame, address, port);
            let parsed = Frame::parse(&frame[..54]).unwrap();
            assert!(parsed.checksums_ok && parsed.destination == target.into());
        }
    }
}
