//! Kills a process at the nth of certain system calls, before the kernel has carried it out: between two map writes of the daemon, or
//! between two steps of its store. The kernel asks a supervisor about each such call (seccomp_unotify(2)), which lets it go on, or kills.

use std::{
    fs,
    io::{self, IoSliceMut},
    mem,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixDatagram, process::CommandExt},
    },
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, ensure};

/// Commands of `bpf(2)` that write a map: update and delete, of one entry and of many.
const MAP_WRITES: [u32; 4] = [2, 3, 26, 27];
/// Calls that change what is in a directory, or in a file of it.
const FILE_WRITES: [libc::c_long; 8] = [
    libc::SYS_write,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_rename,
    libc::SYS_renameat2,
    libc::SYS_unlink,
    libc::SYS_link,
];
/// Longest wait for a call, after which the supervisor looks whether the process has ended.
const POLL_MS: libc::c_int = 100;
/// Not armed.
const NEVER: i64 = i64::MAX;

/// Which calls are counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Calls {
    /// Writes to BPF maps.
    MapWrites,
    /// Writes to files in a directory, and changes of the directory.
    WritesIn(PathBuf),
}

/// A trap, set for one process after the other.
pub struct Trap {
    calls: Calls,
    /// Calls that may still pass before the kill.
    left: AtomicI64,
    seen: AtomicU64,
    killed: AtomicU64,
}

impl Trap {
    /// A trap for these calls, not armed.
    pub fn new(calls: Calls) -> Arc<Self> {
        Arc::new(Self {
            calls,
            left: AtomicI64::new(NEVER),
            seen: AtomicU64::new(0),
            killed: AtomicU64::new(0),
        })
    }

    /// Kills at the `nth` call from now, from 1 on.
    pub fn arm(&self, nth: u32) {
        self.left.store(i64::from(nth), Ordering::SeqCst);
    }

    /// Kills no more.
    pub fn disarm(&self) {
        self.left.store(NEVER, Ordering::SeqCst);
    }

    /// Calls so far, of all processes.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }

    /// Processes that it has killed.
    pub fn killed(&self) -> u64 {
        self.killed.load(Ordering::SeqCst)
    }

    /// Has the process that `command` starts ask about its calls.
    ///
    /// # Errors
    /// When there are no sockets.
    pub(crate) fn set(&self, command: &mut Command) -> Result<Set> {
        let (here, there) = UnixDatagram::pair().context("socket pair of the trap")?;
        let filter = self.calls.filter();
        let socket = there.as_raw_fd();
        // Both closed in the child by its exec.
        let before_exec = move || {
            let listener = listen(&filter)?;
            send(socket, listener)
        };
        // SAFETY: the closure makes two system calls and neither allocates nor takes a lock.
        unsafe { command.pre_exec(before_exec) };
        Ok(Set { here, _there: there })
    }

    fn watch(&self, listener: &OwnedFd, pid: u32) {
        loop {
            let mut poll = libc::pollfd {
                fd: listener.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one pollfd, which lives for the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, POLL_MS) };
            if poll.revents & (libc::POLLHUP | libc::POLLERR) != 0 {
                return;
            }
            if ready <= 0 || poll.revents & libc::POLLIN == 0 {
                continue;
            }
            // SAFETY: all-zero bytes are a valid notification, and the kernel demands them.
            let mut call: libc::seccomp_notif = unsafe { mem::zeroed() };
            // SAFETY: the kernel writes a notification of this size.
            if unsafe {
                libc::ioctl(
                    listener.as_raw_fd(),
                    libc::SECCOMP_IOCTL_NOTIF_RECV,
                    &raw mut call,
                )
            } != 0
            {
                continue;
            }
            if self.calls.includes(pid, &call.data) && self.is_last() {
                // SAFETY: kill takes numbers; while its call is held the process is there.
                unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
                self.killed.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            let mut answer = libc::seccomp_notif_resp {
                id: call.id,
                val: 0,
                error: 0,
                flags: CONTINUE,
            };
            // SAFETY: the kernel reads an answer of this size. It fails if the process has ended meanwhile.
            unsafe {
                libc::ioctl(
                    listener.as_raw_fd(),
                    libc::SECCOMP_IOCTL_NOTIF_SEND,
                    &raw mut answer,
                )
            };
        }
    }

    /// Counts a call; whether it is the one to kill at.
    fn is_last(&self) -> bool {
        self.seen.fetch_add(1, Ordering::SeqCst);
        let next = |left: i64| (left != NEVER).then(|| left - 1);
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        let is_last = before == Ok(1);
        if is_last {
            self.disarm();
        }
        is_last
    }
}

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE` in the width of the answer.
const CONTINUE: u32 = 1;

/// A trap for a process that is about to start.
pub(crate) struct Set {
    here: UnixDatagram,
    _there: UnixDatagram,
}

impl Set {
    /// Watches the process, which has started.
    ///
    /// # Errors
    /// When it has not handed over its listener.
    pub(crate) fn watch(self, trap: &Arc<Trap>, pid: u32) -> Result<()> {
        let listener = receive(self.here.as_raw_fd()).context("receive the listener of a trap")?;
        let trap = Arc::clone(trap);
        thread::Builder::new()
            .name("trap".to_owned())
            .spawn(move || trap.watch(&listener, pid))?;
        Ok(())
    }
}

impl Calls {
    /// Notifies for the calls, allows all others.
    fn filter(&self) -> Vec<libc::sock_filter> {
        const LOAD_WORD: u16 = 0x20;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        /// Offsets in `struct seccomp_data`.
        const NUMBER: u32 = 0;
        const FIRST_ARGUMENT: u32 = 16;
        let statement = |code, k| libc::sock_filter {
            code,
            jt: 0,
            jf: 0,
            k,
        };
        let to_notify = |values: &[u32], filter: &mut Vec<libc::sock_filter>| {
            for (index, value) in values.iter().enumerate() {
                // Over the rest, and the return that allows.
                let jt = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
                filter.push(libc::sock_filter {
                    code: JUMP_IF_EQUAL,
                    jt,
                    jf: 0,
                    k: *value,
                });
            }
        };
        let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
        let mut filter = vec![statement(LOAD_WORD, NUMBER)];
        match self {
            Self::MapWrites => {
                filter.push(libc::sock_filter {
                    code: JUMP_IF_EQUAL,
                    jt: 1,
                    jf: 0,
                    k: number(libc::SYS_bpf),
                });
                filter.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
                filter.push(statement(LOAD_WORD, FIRST_ARGUMENT));
                to_notify(&MAP_WRITES, &mut filter);
            }
            Self::WritesIn(_) => to_notify(&FILE_WRITES.map(number), &mut filter),
        }
        filter.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
        filter.push(statement(RETURN, libc::SECCOMP_RET_USER_NOTIF));
        filter
    }

    /// Whether a call that the filter has picked counts.
    fn includes(&self, pid: u32, call: &libc::seccomp_data) -> bool {
        let Self::WritesIn(directory) = self else {
            return true;
        };
        let by_descriptor = [
            libc::SYS_write,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_ftruncate,
        ];
        if !by_descriptor.contains(&libc::c_long::from(call.nr)) {
            return true;
        }
        let file = fs::read_link(format!("/proc/{pid}/fd/{}", call.args[0]));
        file.is_ok_and(|file| file.starts_with(directory))
    }
}

/// Puts a filter on the calling process, and gives the descriptor of its supervisor.
fn listen(filter: &[libc::sock_filter]) -> io::Result<RawFd> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads the program, which lives for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    match RawFd::try_from(result) {
        Ok(listener) if listener >= 0 => Ok(listener),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Room for the header of a control message and one descriptor.
const CONTROL: usize = 64;

/// Sends a descriptor over a socket.
fn send(socket: RawFd, descriptor: RawFd) -> io::Result<()> {
    with_message(|message| {
        // SAFETY: the control buffer has room for a header and a descriptor.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(header)
                .cast::<RawFd>()
                .write_unaligned(descriptor);
            message.msg_controllen = libc::CMSG_SPACE(4) as _;
            libc::sendmsg(socket, message, 0)
        }
    })
    .map(drop)
}

/// Receives a descriptor.
fn receive(socket: RawFd) -> Result<OwnedFd> {
    let mut descriptor = -1;
    with_message(|message| {
        // SAFETY: the buffers of the message live for the calls; the header is looked at only if there is one.
        unsafe {
            let result = libc::recvmsg(socket, message, libc::MSG_CMSG_CLOEXEC);
            let header = libc::CMSG_FIRSTHDR(message);
            if result >= 0 && !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
                descriptor = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
            }
            result
        }
    })?;
    ensure!(descriptor >= 0, "a message without a descriptor");
    // SAFETY: a descriptor that the kernel has just opened for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Calls with a message of one byte and room for a descriptor. It allocates nothing.
fn with_message(call: impl FnOnce(&mut libc::msghdr) -> isize) -> io::Result<isize> {
    #[repr(align(8))]
    struct Control([u8; CONTROL]);
    let (mut byte, mut control) = ([0_u8], Control([0; CONTROL]));
    let mut part = IoSliceMut::new(&mut byte);
    // SAFETY: all-zero bytes are a valid message header.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // IoSliceMut has the layout of iovec.
    message.msg_iov = (&raw mut part).cast();
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL;
    match call(&mut message) {
        result if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
