//! Wake-ups at exact times. tokio's timers have steps of a millisecond, which would count as latency; the kernel's timers do not.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Those who wait, the first due first.
type Queue = VecDeque<(Instant, Waker)>;

/// The timer of a thread. Those that wait have to ask in the order in which their times are due.
pub(crate) struct Timer {
    file: AsyncFd<OwnedFd>,
    queue: Mutex<Queue>,
}

impl Timer {
    /// A timer, which works while [`Timer::run`] does.
    ///
    /// # Errors
    /// When the kernel has no descriptor left.
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        // SAFETY: the call takes two numbers and touches no memory of ours.
        let file =
            unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and open, and nothing else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        // SAFETY: an OwnedFd keeps the same descriptor open for as long as it lives.
        let file = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?;
        Ok(Arc::new(Self {
            file,
            queue: Mutex::default(),
        }))
    }

    /// Wakes those whose time has come, without an end.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) async fn run(&self) -> io::Result<()> {
        loop {
            self.file.readable().await?.clear_ready();
            let mut queue = self.queue();
            let now = Instant::now();
            while let Some((_, waker)) = queue.pop_front_if(|(due, _)| *due <= now) {
                waker.wake();
            }
            if let Some((due, _)) = queue.front() {
                self.arm(*due)?;
            }
        }
    }

    /// Waits until this time, which is not before that of anyone who waits already.
    pub(crate) async fn wait_until(&self, due: Instant) -> io::Result<()> {
        Wait {
            timer: self,
            due,
            queued: false,
        }
        .await
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the time of the next wake-up, which takes the place of an earlier setting.
    fn arm(&self, due: Instant) -> io::Result<()> {
        // Zero would turn the timer off.
        let left = due
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let setting = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        let file = self.file.get_ref().as_raw_fd();
        // SAFETY: the kernel reads one itimerspec, which lives until the call returns, and writes none.
        match unsafe { libc::timerfd_settime(file, 0, &raw const setting, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

struct Wait<'a> {
    timer: &'a Timer,
    due: Instant,
    queued: bool,
}

impl Future for Wait<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if Instant::now() >= self.due {
            return Poll::Ready(Ok(()));
        }
        if !self.queued {
            self.queued = true;
            let mut queue = self.timer.queue();
            queue.push_back((self.due, cx.waker().clone()));
            if queue.len() == 1 {
                return match self.timer.arm(self.due) {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(Err(error)),
                };
            }
        }
        Poll::Pending
    }
}
