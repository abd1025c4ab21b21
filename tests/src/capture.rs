//! Captures the frames on a device, by an AF_PACKET socket. A sender with checksum offload emits frames with a partial
//! checksum; the kernel marks them (`TP_STATUS_CSUMNOTREADY` of packet(7)), and their checksums are not verified.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{frames::Frame, netns::Netns, wait};

/// Receive buffer, bytes: room for tens of thousands of small frames while the reader waits for a CPU.
const BUFFER: libc::c_int = 128 << 20;
/// How often the reader looks whether it should stop.
const STOP_POLL: libc::timeval = libc::timeval {
    tv_sec: 0,
    tv_usec: 20_000,
};
/// Longest frame that is read whole.
const LONGEST: usize = 65_600;

/// `AF_PACKET` and `ETH_P_ALL` in the width that sockaddr_ll gives them.
const PACKET_FAMILY: libc::sa_family_t = 17;
const ALL_PROTOCOLS: u16 = 3;
const _: () = assert!(PACKET_FAMILY as i32 == libc::AF_PACKET && ALL_PROTOCOLS as i32 == libc::ETH_P_ALL);

/// One frame.
#[derive(Clone, Copy, Debug)]
pub struct Captured {
    /// When the kernel saw it.
    pub at: SystemTime,
    /// Whether this namespace sent it.
    pub outgoing: bool,
    /// The parsed frame.
    pub frame: Frame,
}

/// A capture under way.
pub struct Capture {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<Result<Result<Vec<Captured>>>>>,
}

impl Capture {
    /// Begins to record the IP frames of a device that `keep` takes.
    ///
    /// # Errors
    /// When the device is not there.
    pub fn start(ns: &Netns, device: &str, keep: impl Fn(&Frame) -> bool + Send + 'static) -> Result<Self> {
        let ifindex = ns.ifindex(device)?;
        let socket = ns
            .enter(|| open(ifindex))?
            .with_context(|| format!("capture on {device}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = ns.spawn(move || read(&socket, &stopped, keep))?;
        Ok(Self {
            stop,
            reader: Some(reader),
        })
    }

    /// Stops and returns all frames, in order.
    ///
    /// # Errors
    /// When a frame had a wrong checksum, or the kernel lost one because the buffer was full: then the capture is
    /// incomplete.
    pub fn stop(mut self) -> Result<Vec<Captured>> {
        self.stop.store(true, Ordering::Relaxed);
        let reader = self.reader.take().context("capture was stopped before")?;
        reader
            .join()
            .map_err(|_| anyhow!("the capture thread panicked"))??
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn read(socket: &OwnedFd, stop: &AtomicBool, keep: impl Fn(&Frame) -> bool) -> Result<Vec<Captured>> {
    let mut captured = Vec::new();
    let mut bad = Vec::new();
    let mut buffer = vec![0; LONGEST];
    let mut stopped_at = None;
    loop {
        // Read before the socket, so that all frames before the stop are captured.
        if stopped_at.is_none() && stop.load(Ordering::Relaxed) {
            stopped_at = Some(SystemTime::now());
        }
        match wait::uninterrupted(|| receive(socket, &mut buffer)) {
            // A device under load never falls silent: the first later frame ends it as well.
            Ok(Received { at, .. }) if stopped_at.is_some_and(|stop| at > stop) => break,
            Ok(Received {
                length,
                outgoing,
                checksum_pending,
                at,
            }) => {
                let frame = buffer.get(..length).and_then(Frame::parse);
                if let Some(frame) = frame.filter(|frame| keep(frame)) {
                    if !frame.checksums_ok && !checksum_pending {
                        bad.push(frame);
                    }
                    captured.push(Captured { at, outgoing, frame });
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if stopped_at.is_some() {
                    break;
                }
            }
            Err(e) => return Err(e).context("read capture"),
        }
    }
    let lost = lost_frames(socket)?;
    ensure!(lost == 0, "the capture lost {lost} frames");
    ensure!(
        bad.is_empty(),
        "{} frames with a wrong checksum, first: {:?}",
        bad.len(),
        bad[0]
    );
    Ok(captured)
}

fn open(ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: socket takes numbers; a non-negative result is a new descriptor of ours.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &STOP_POLL)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
    // SAFETY: all-zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    (address.sll_family, address.sll_protocol) = (PACKET_FAMILY, ALL_PROTOCOLS.to_be());
    address.sll_ifindex = ifindex.cast_signed();
    let length = socklen::<libc::sockaddr_ll>();
    // SAFETY: the address and its length agree. Binding with a protocol starts the capture, on this device alone.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_option<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = socklen::<T>();
    // SAFETY: the value lives for the call and its length is given.
    match unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            length,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Size of a socket structure as the system calls take it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "socket structures are some ten bytes long"
)]
const fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

struct Received {
    length: usize,
    outgoing: bool,
    checksum_pending: bool,
    at: SystemTime,
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: all-zero bytes are valid for these plain structures.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut control = [0_u64; 16];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = socklen::<libc::sockaddr_ll>();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in `message` leads to a live buffer of the length given beside it.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut received = Received {
        length,
        outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
        checksum_pending: false,
        at: SystemTime::UNIX_EPOCH,
    };
    // SAFETY: the kernel filled `control` with whole messages; the macros stay within `msg_controllen`, and each
    // payload is read unaligned as the type that its level and type stand for.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(&raw const message);
        while !head.is_null() {
            let data = libc::CMSG_DATA(head);
            match ((*head).cmsg_level, (*head).cmsg_type) {
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    let aux = data.cast::<libc::tpacket_auxdata>().read_unaligned();
                    received.checksum_pending = aux.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time = data.cast::<libc::timespec>().read_unaligned();
                    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
                    received.at += Duration::new(time.tv_sec.cast_unsigned(), nanos);
                }
                _ => {}
            }
            head = libc::CMSG_NXTHDR(&raw const message, head);
        }
    }
    Ok(received)
}

/// Frames the kernel dropped because the buffer was full.
fn lost_frames(socket: &OwnedFd) -> io::Result<u32> {
    let mut stats = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = socklen::<libc::tpacket_stats>();
    let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    // SAFETY: the structure is the one this option fills, and its length is given.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut stats).cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(stats.tp_drops),
        _ => Err(io::Error::last_os_error()),
    }
}
