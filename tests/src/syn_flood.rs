//! Forged SYNs as fast as one core makes them: an XDP program that writes a SYN over each frame and redirects it, run on live
//! frames (BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18).
//!
//! As in [`crate::xdp_pass`], the program is written here. Sources are those of [`crate::flood`] with any odd port, at random.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};

use crate::{
    flood::{Places, headers},
    netns::Netns,
    test_run, xdp_pass,
};

/// Frames of one call, after which a flood can end, and of one batch in it.
const REPEAT: u32 = 1 << 14;
const BATCH: u64 = 64;

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
    pub fn start(ns: &Netns, device: &str, next_hop: [u8; 6], target: SocketAddr) -> Result<Self> {
        let frame = SynFrame::new(next_hop, target)?;
        let length = frame.bytes.len();
        let program = program(ns.ifindex(device)?, &frame);
        let program = xdp_pass::load_program(&program).context("load the generator of SYNs")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = ns.spawn(move || {
            pin_to_first_core()?;
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                send(&program, length)?;
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

/// Sends [`REPEAT`] frames of this length.
fn send(program: &OwnedFd, length: usize) -> io::Result<()> {
    const LIVE_FRAMES: u64 = 1 << 1;
    let frame = vec![0_u8; length];
    let mut attr = [0_u64; 16];
    // prog_fd | data_size_in | data_in | repeat | flags | batch_size
    attr[0] = u64::from(program.as_raw_fd().cast_unsigned());
    attr[1] = length as u64;
    attr[2] = frame.as_ptr() as u64;
    attr[4] = u64::from(REPEAT);
    attr[8] = LIVE_FRAMES;
    attr[9] = BATCH;
    test_run::run(&mut attr)
}

/// A SYN without options, unlike those of Linux, in whole words. Effects on checksums of what differs between SYNs cancel out: the
/// identification of IPv4 and the low half of the sequence number mirror the source address, the high half mirrors the port.
struct SynFrame {
    bytes: Vec<u8>,
    places: Places,
}

impl SynFrame {
    fn new(next_hop: [u8; 6], target: SocketAddr) -> Result<Self> {
        let (packet, places) = headers(next_hop, target.ip());
        let mut bytes = Vec::new();
        let segment = packet.tcp(0, target.port(), u32::MAX, u16::MAX).syn();
        segment.write(&mut bytes, &[])?;
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Ok(Self { bytes, places })
    }

    /// Places of the two halves of the sequence number.
    fn sequence(&self) -> [usize; 2] {
        [self.places.port + 4, self.places.port + 6]
    }

    /// What the program does to each frame.
    #[cfg(test)]
    fn set_source(&mut self, address: u16, port: u16) {
        let [high, low] = self.sequence();
        let mut set = |at: usize, value: u16| self.bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        set(self.places.address, address);
        set(low, !address);
        if let Some(at) = self.places.identification {
            set(at, !address);
        }
        set(self.places.port, port);
        set(high, !port);
    }
}

/// One instruction: operation, destination and source register, offset, immediate (RFC 9669 section 3).
fn instruction(code: u8, to: u8, from: u8, offset: usize, immediate: u32) -> u64 {
    u64::from(code)
        | u64::from(from << 4 | to) << 8
        | (offset as u64 & 0xffff) << 16
        | u64::from(immediate) << 32
}

/// Writes the frame and a random source, and redirects to a device.
fn program(ifindex: u32, frame: &SynFrame) -> Vec<u64> {
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
    let [high, low] = frame.sequence();
    let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
    let mut program = vec![
        // r6: begin of the frame, r2: its end. XDP_ABORTED where it is too short.
        instruction(LOAD_WORD, 6, 1, 0, 0),
        instruction(LOAD_WORD, 2, 1, 4, 0),
        op(MOVE, 3, 6),
        number(ADD_NUMBER, 3, length),
        number(MOVE_NUMBER, 0, 0),
        // Not beyond the end: over the exit.
        instruction(JUMP_UNLESS_MORE, 3, 2, 1, 0),
        op(EXIT, 0, 0),
    ];
    for (index, word) in frame.bytes.chunks(8).enumerate() {
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
        half(7, frame.places.address),
        half(8, low),
    ]);
    program.extend(frame.places.identification.map(|at| half(8, at)));
    program.extend([
        number(SHIFT_RIGHT, 7, 16),
        // Never port 0.
        number(OR_NUMBER, 7, 1),
        op(MOVE, 8, 7),
        invert(8),
        half(7, frame.places.port),
        half(8, high),
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
        for (target, length) in [("192.0.2.10:80", 54), ("[2001:db8::1]:80", 74)] {
            let target: SocketAddr = target.parse().unwrap();
            let mut frame = SynFrame::new([2; 6], target).unwrap();
            for (address, port) in [(0, 1), (0x1234, 0x8001), (u16::MAX, u16::MAX), (1, 0x0100)] {
                frame.set_source(address, port);
                let parsed = Frame::parse(&frame.bytes[..length]).unwrap();
                assert!(parsed.checksums_ok && parsed.is_syn() && parsed.destination == target);
            }
        }
    }
}
