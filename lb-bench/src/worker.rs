//! Threads that send: each has a runtime, a timer, a meter and its share of the connections.

use std::{
    io, mem,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    connect::Connector,
    echo::{TcpEcho, UdpEcho},
    http1::{Http1, request_bytes},
    http2::{Http2, request_head},
    lane::{Lane, Link, Load, Meter, known},
    options::{HttpVersion, Plan, Traffic},
    timer::Timer,
};

/// A thread that sends.
pub(crate) struct Worker {
    thread: JoinHandle<Result<Times>>,
    /// What it measures.
    pub(crate) meter: Arc<Meter>,
}

/// What a thread and the one that started it tell each other.
pub(crate) struct Signals {
    /// When the load begins, as soon as that is known.
    pub(crate) begin: watch::Receiver<Option<Instant>>,
    /// Changes when the thread must end.
    pub(crate) stop: watch::Receiver<bool>,
    /// Dropped when the thread has opened its connections.
    pub(crate) opening: mpsc::Sender<()>,
    /// Dropped at the end.
    pub(crate) ended: mpsc::Sender<()>,
}

/// The time of a thread.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// How long it ran or waited.
    pub(crate) ran: Duration,
    /// How long it ran on a CPU.
    pub(crate) cpu: Duration,
}

/// The connections of one thread.
pub(crate) struct Share {
    plan: Plan,
    connectors: Vec<Connector>,
    /// Numbers of the connections.
    numbers: Vec<u32>,
}

/// Spreads the connections over the threads.
pub(crate) fn shares(plan: &Plan, connectors: &[Connector]) -> Vec<Share> {
    let of_thread = |first: u32| Share {
        plan: plan.clone(),
        connectors: connectors.to_vec(),
        numbers: (first..)
            .step_by(plan.threads)
            .take_while(|number| (*number as usize) < plan.connections)
            .collect(),
    };
    (0..).take(plan.threads).map(of_thread).collect()
}

impl Worker {
    /// Starts a thread, which ends with the load.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(share: Share, load: Arc<Load>, meter: Meter, signals: Signals) -> Result<Self> {
        let meter = Arc::new(meter);
        let of_thread = Arc::clone(&meter);
        let work = move || {
            let begin = Instant::now();
            work(&share, &load, &of_thread, signals)?;
            Ok(Times {
                ran: begin.elapsed(),
                cpu: cpu_time()?,
            })
        };
        let thread = thread::Builder::new()
            .spawn(work)
            .context("cannot start a thread: lower -t")?;
        Ok(Self { thread, meter })
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The thread's.
    pub(crate) fn join(self) -> Result<Times> {
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| {
            Err(anyhow::anyhow!(
                "a thread of this tool panicked; its message stands above"
            ))
        })
    }
}

fn work(share: &Share, load: &Arc<Load>, meter: &Arc<Meter>, signals: Signals) -> Result<()> {
    let Signals {
        mut begin,
        mut stop,
        opening,
        ended: _ended,
    } = signals;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up an event loop")?;
    runtime.block_on(async {
        let timer = Timer::new().context("cannot create a timer")?;
        let (here, begin_here) = watch::channel(None);
        let mut lanes = JoinSet::new();
        for number in &share.numbers {
            for link in share.links(*number)? {
                let lane = Lane {
                    load: Arc::clone(load),
                    meter: Arc::clone(meter),
                    timer: Arc::clone(&timer),
                    begin: begin_here.clone(),
                    link,
                    opening: opening.clone(),
                };
                lanes.spawn(lane.run());
            }
        }
        drop(opening);
        // A lane that another thread wakes waits in a queue of which a busy runtime takes one task in 31: the last of thousands of lanes
        // would begin many seconds late.
        let ended = async {
            here.send_replace(known(&mut begin).await);
            drop(here);
            while lanes.join_next().await.is_some() {}
        };
        tokio::select! {
            () = ended => Ok(()),
            _ = stop.changed() => Ok(()),
            result = timer.run() => result.context("the timer failed"),
        }
    })
}

impl Share {
    /// A connection, in as many lanes as it has requests at a time.
    fn links(&self, number: u32) -> Result<Vec<Link>> {
        let plan = &self.plan;
        // Each thread sends to all targets: with one of its own, it and that server would hardly wait for others, as no client of a
        // balancer's address can.
        let place = number as usize / plan.threads % plan.targets.len();
        let (target, connector) = (&plan.targets[place], self.connectors[place].clone());
        let keepalive = plan.keepalive;
        let link = match &plan.traffic {
            Traffic::Http(request) if request.version == HttpVersion::Two => {
                let head = request_head(request, target).context("cannot make a request")?;
                let shared = Http2::new(connector, head, request.body.clone(), keepalive);
                let lanes = (0..plan.streams).map(|_| Link::Http2(Arc::clone(&shared)));
                return Ok(lanes.collect());
            }
            Traffic::Http(request) => {
                let bytes = request_bytes(request, target, keepalive);
                Link::Http1(
                    Http1::new(bytes, request.method == http::Method::HEAD, keepalive),
                    connector,
                )
            }
            Traffic::Tcp(size) => Link::Tcp(TcpEcho::new(number, *size, keepalive), connector),
            Traffic::Udp(size) => Link::Udp(UdpEcho::new(number, *size, keepalive), connector),
        };
        Ok(vec![link])
    }
}

/// CPU time of this thread.
fn cpu_time() -> io::Result<Duration> {
    // SAFETY: all bits zero are a timespec.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one timespec to the place it is given, which lives until the call returns.
    match unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } {
        0 => Ok(Duration::new(
            time.tv_sec.try_into().unwrap_or_default(),
            time.tv_nsec.try_into().unwrap_or_default(),
        )),
        _ => Err(io::Error::last_os_error()),
    }
}
