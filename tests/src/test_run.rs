//! Single packets through a loaded program (BPF_PROG_TEST_RUN). aya has these calls for programs that it has loaded
//! itself; a daemon's programs are found by their ids.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

const BPF_PROG_TEST_RUN: c_long = 10;
const BPF_PROG_GET_FD_BY_ID: c_long = 13;
/// The loopback device of every namespace.
const LOOPBACK: u32 = 1;
/// Longest frame that a program may make of another.
const OUTPUT: usize = 4_096;

/// A program in the kernel.
pub struct Program(OwnedFd);

impl Program {
    /// The program of this number.
    ///
    /// # Errors
    /// When there is none.
    pub fn by_id(id: u32) -> Result<Self> {
        let mut attr = [0; 16];
        attr[0] = u64::from(id);
        let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut attr).with_context(|| format!("program {id}"))?;
        // SAFETY: a descriptor that the kernel has just opened for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) }))
    }

    /// Runs it on one packet after the other, which come in on the loopback device of the namespace.
    pub fn runner(&self) -> Runner<'_> {
        self.runner_on(LOOPBACK)
    }

    /// Runs it on one packet after the other that come in on this device of the namespace that it is called in.
    pub fn runner_on(&self, ifindex: u32) -> Runner<'_> {
        Runner {
            program: &self.0,
            ifindex,
            output: vec![0; OUTPUT],
            nanoseconds: 0,
        }
    }
}

/// Runs a program, one packet at a time.
pub struct Runner<'a> {
    program: &'a OwnedFd,
    ifindex: u32,
    output: Vec<u8>,
    nanoseconds: u32,
}

impl Runner<'_> {
    /// How long the last run took, by the kernel's clock, which is read before and after it.
    pub fn nanoseconds(&self) -> u32 {
        self.nanoseconds
    }

    /// Runs it once. Returns the XDP action and the frame that comes out.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn run(&mut self, frame: &[u8]) -> Result<(u32, &[u8])> {
        let low = |value: usize| u64::try_from(value);
        let mut attr = [0_u64; 16];
        // prog_fd, retval | data_size_in, data_size_out | data_in | data_out | repeat, duration | ctx_size_in, ctx_size_out |
        // ctx_in
        attr[0] = u64::try_from(self.program.as_raw_fd())?;
        attr[1] = low(frame.len())? | (low(self.output.len())? << 32);
        attr[2] = frame.as_ptr() as u64;
        attr[3] = self.output.as_mut_ptr() as u64;
        attr[4] = 1;
        // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex (struct xdp_md)
        let context = [0, u32::try_from(frame.len())?, 0, self.ifindex, 0, 0];
        attr[5] = low(size_of_val(&context))?;
        attr[6] = context.as_ptr() as u64;
        bpf(BPF_PROG_TEST_RUN, &mut attr)?;
        self.nanoseconds = u32::try_from(attr[4] >> 32)?;
        let length = usize::try_from(attr[1] >> 32)?;
        let output = self.output.get(..length).context("output longer than its room")?;
        Ok((u32::try_from(attr[0] >> 32)?, output))
    }
}

/// Runs a program with the attributes of the call (`test` of `union bpf_attr`).
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn run(attr: &mut [u64; 16]) -> io::Result<()> {
    bpf(BPF_PROG_TEST_RUN, attr).map(drop)
}

pub(crate) fn bpf(command: c_long, attr: &mut [u64; 16]) -> io::Result<c_long> {
    // SAFETY: the kernel reads and writes the attributes within the size given; pointers in them outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
