//! One datagram each millisecond to a service whose backends echo, and which of them were answered.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use lb_tests::{netns::Netns, udp, wait};

const PERIOD: Duration = Duration::from_millis(1);
/// Longest wait for an answer to the last datagram, and how long each look lasts.
const LAST_ANSWER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);
/// Longest wait for the first answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends until it is stopped or dropped.
pub(super) struct Probe {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<Vec<usize>>,
}

/// What became of the datagrams.
pub(super) struct Probed {
    sent: Vec<Instant>,
    /// Numbers of those that were answered, each once.
    answered: Vec<usize>,
}

impl Probe {
    pub(super) fn start(ns: &Netns, target: SocketAddr) -> Result<Self> {
        let socket = ns.enter(|| udp::open(target, 0))??;
        socket.set_read_timeout(Some(LOOK))?;
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (sending, stopped) = (socket.try_clone()?, Arc::clone(&stop));
        let sender = thread::Builder::new().spawn(move || send(&sending, &stopped))?;
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&answers));
        let receiver = thread::Builder::new().spawn(move || receive(&socket, &stopped, &counted))?;
        Ok(Self {
            stop,
            answers,
            sender,
            receiver,
        })
    }

    /// Waits for an answer.
    pub(super) fn wait_answered(&self) -> Result<()> {
        wait::until_true("a datagram is answered", PATIENCE, || {
            Ok(self.answers.load(Ordering::Relaxed) > 0)
        })
    }

    pub(super) fn stop(self) -> Result<Probed> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = |_| anyhow!("a thread of the probe panicked");
        Ok(Probed {
            sent: self.sender.join().map_err(ended)?,
            answered: self.receiver.join().map_err(ended)?,
        })
    }
}

fn send(socket: &UdpSocket, stop: &AtomicBool) -> Vec<Instant> {
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        sent.push(Instant::now());
        // Before the program is attached, the balancer's machine refuses datagrams, and the next call reports that.
        let _ = socket.send((sent.len() - 1).to_string().as_bytes());
        wait::pace(PERIOD);
    }
    sent
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, answers: &AtomicUsize) -> Vec<usize> {
    let (mut answered, mut buffer) = (Vec::new(), [0; 128]);
    let mut end = None;
    while end.is_none_or(|end| Instant::now() < end) {
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(Instant::now() + LAST_ANSWER);
        }
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        // The server's name comes first.
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        answered.extend(
            text.split(' ')
                .nth(1)
                .and_then(|number| number.parse::<usize>().ok()),
        );
        answers.store(answered.len(), Ordering::Relaxed);
    }
    answered.sort_unstable();
    answered.dedup();
    answered
}

impl Probed {
    /// When the first datagram was sent that was answered.
    pub(super) fn first_answered(&self) -> Option<Instant> {
        self.sent.get(*self.answered.first()?).copied()
    }

    pub(super) fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Datagrams without an answer.
    pub(super) fn lost(&self) -> usize {
        self.sent.len() - self.answered.len()
    }
}
