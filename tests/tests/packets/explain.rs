//! `lb explain` and the program agree: random packets to random services in every mode have the verdict, the reason and the backend that
//! an explanation predicts, and explaining changes no map. `LB_EXPLAIN_PACKETS` sets the number for each set of services,
//! `LB_EXPLAIN_SEED` the seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, PerCpuArray};
use fastrand::Rng;
use lb_common::{
    backend::{ALIVE, Backend, BackendId, IN_USE},
    counters::{PacketCount, verdict_slot},
    map_names,
    reason::{Action, Reason},
    service::Mode,
};
use lb_tests::frames;
use lb_userspace::{
    control::ControlView,
    explain::{Explanation, Question, explain},
    plan::{Target, TargetService},
    state::service::Protocol,
};

use super::{
    ABORTED, DROP, FAMILIES, PASS, REDIRECT, TX,
    bench::{self, Bench},
    build, dnat,
    explained::{self, Asked, SNAT},
    fuzz::setting,
};

/// Packets to each set of services, in the test command.
const PACKETS: u64 = 300;
/// Bytes of a packet that fit the way to a backend with a small MTU.
const SMALL_MTU: u16 = 300;
/// Most backends in use.
const BACKENDS: u16 = 128;
/// Modes of the backends of each set; without one any.
const MODES: [Option<Mode>; 6] = [
    None,
    Some(Mode::Nat),
    Some(Mode::Dnat),
    Some(Mode::L2dsr),
    Some(Mode::Ipip),
    Some(Mode::Gue),
];
/// Reasons that the packets of all sets must reach.
const REACHED: [Reason; 13] = [
    Reason::SentBack,
    Reason::Redirected,
    Reason::NotOurs,
    Reason::OtherProtocol,
    Reason::TooBigAnswered,
    Reason::NoBackend,
    Reason::RejectedReset,
    Reason::RejectedUnreachable,
    Reason::NoFlowReset,
    Reason::TtlExpired,
    Reason::MartianSource,
    Reason::ClientDenied,
    Reason::ModeMissing,
];

#[test]
fn random_packets_go_the_way_that_is_explained() -> Result<()> {
    let count = setting("LB_EXPLAIN_PACKETS", PACKETS)?;
    let seed = setting("LB_EXPLAIN_SEED", 3)?;
    let mut met = BTreeSet::new();
    for (mode, number) in MODES.into_iter().zip(0..) {
        let mut rng = Rng::with_seed(seed + number);
        Set::new(mode, &mut rng)
            .and_then(|set| set.compare(&mut rng, count, &mut met))
            .with_context(|| format!("mode {mode:?} of seed {seed}"))?;
    }
    let missed: Vec<_> = REACHED.iter().filter(|reason| !met.contains(*reason)).collect();
    ensure!(missed.is_empty(), "never met: {missed:?}");
    Ok(())
}

/// Services, and what was asked about them.
struct Set {
    bench: Bench,
    view: ControlView,
    /// Backends by the link-layer address that each gets its frames at.
    backends: BTreeMap<[u8; 6], SocketAddr>,
    verdicts: Verdicts,
}

impl Set {
    fn new(mode: Option<Mode>, rng: &mut Rng) -> Result<Self> {
        let first = explained::target(rng, mode)?;
        // Some backends drain, so that slots change hands and older flows are looked up.
        let mut second = first.clone();
        for service in second.services.values_mut() {
            let mut changed = TargetService::clone(service);
            for backend in changed.backends.values_mut() {
                backend.weight = backend.weight.min(u32::from(rng.u8(..3) > 0));
            }
            *service = changed.into();
        }
        let view = view(&second);
        let bench = Bench::of_each(vec![first, second])?;
        bench.ports(SNAT)?;
        dnat::route_clients(&bench)?;
        Ok(Self {
            view,
            backends: prepare(&bench, rng)?,
            verdicts: Verdicts(PerCpuArray::try_from(bench.map(map_names::VERDICTS)?)?),
            bench,
        })
    }

    /// Compares each packet's explanation with what the program does, then has all of them explained once more, which changes nothing.
    fn compare(&self, rng: &mut Rng, count: u64, met: &mut BTreeSet<Reason>) -> Result<()> {
        let hostile: Vec<_> = FAMILIES.into_iter().flat_map(build::hostile).collect();
        let mut questions = Vec::new();
        let mut replies = Vec::new();
        let mut sent_on = 0;
        self.bench.many(|runner| {
            for number in 0..count {
                let asked = explained::packet(rng, &replies);
                if rng.u8(..4) == 0 {
                    let frame = explained::disturbance(rng, &asked, &hostile);
                    runner.run(frame.bytes())?;
                }
                let Asked { question, frame } = asked;
                let told = self.explain(&question)?;
                let before = self.verdicts.read()?;
                let (action, output) = runner.run(frame.bytes())?;
                let reason = before.one_more(&self.verdicts.read()?)?;
                let is_sent = self.check(&question, &told, action, reason, output);
                sent_on += u64::from(is_sent.with_context(|| {
                    format!("packet {number} was counted {reason:?}: {told:#?}\n{question:#?}")
                })?);
                met.insert(reason);
                replies.extend(reply(&question, &told, output)?);
                questions.push(question);
            }
            Ok(())
        })?;
        ensure!(sent_on > 0, "no packet reached a backend");
        let before = self.bench.map_contents()?;
        for question in &questions {
            self.explain(question)?;
        }
        let changed = before.changed(&self.bench.map_contents()?);
        ensure!(changed.is_empty(), "explanations change {changed:?}");
        Ok(())
    }

    fn explain(&self, question: &Question) -> Result<Explanation> {
        Ok(explain(question, self.bench.tables(), &self.view)?)
    }

    /// Whether the packet was sent to a backend, which is the one that was explained, as is all else.
    fn check(
        &self,
        question: &Question,
        told: &Explanation,
        action: u32,
        reason: Reason,
        output: &[u8],
    ) -> Result<bool> {
        ensure!(is_explained(told.reason, reason), "another reason");
        ensure!(action == code(reason.action()), "action {action}");
        if !matches!(reason, Reason::SentBack | Reason::Redirected) {
            return Ok(false);
        }
        let explained = told.backend.context("no backend is explained")?;
        let to: &[u8; 6] = output.first_chunk().context("no whole frame was sent")?;
        if let Some(backend) = self.backends.get(to) {
            ensure!(explained == *backend, "it went to {backend}");
            return Ok(true);
        }
        ensure!(explained == question.source, "it is no reply of that backend");
        Ok(false)
    }
}

/// The counters of packets, of all interfaces.
struct Verdicts(PerCpuArray<aya::maps::MapData, PacketCount>);

/// Packets by their reasons.
struct Counted(BTreeMap<Reason, u64>);

impl Verdicts {
    /// Of the interface that packets of a test count for.
    fn read(&self) -> Result<Counted> {
        let mut counted = BTreeMap::new();
        for reason in Reason::ALL.iter().copied() {
            let of_cpus = self.0.get(&verdict_slot(0, reason as u32), 0)?;
            counted.insert(reason, of_cpus.iter().map(|count| count.packets).sum());
        }
        Ok(Counted(counted))
    }
}

impl Counted {
    /// The reason of the one packet that was counted since.
    fn one_more(&self, later: &Self) -> Result<Reason> {
        let more: Vec<_> = later
            .0
            .iter()
            .filter(|(reason, count)| self.0.get(*reason) != Some(*count))
            .map(|(reason, count)| (*reason, count - self.0[reason]))
            .collect();
        match more[..] {
            [(reason, 1)] => Ok(reason),
            _ => bail!("counted: {more:?}"),
        }
    }
}

/// The ends of the reply to a packet that was sent to a backend whose replies come back: source, destination and protocol.
fn reply(
    question: &Question,
    told: &Explanation,
    output: &[u8],
) -> Result<Option<(SocketAddr, SocketAddr, Protocol)>> {
    let is_request = told.backend.is_some_and(|backend| backend != question.source);
    // Only those clients have a route.
    let may_reply = match told.mode {
        Some(Mode::Nat) => true,
        Some(Mode::Dnat) => FAMILIES
            .iter()
            .any(|side| side.client(0).ip() == question.source.ip()),
        Some(Mode::L2dsr | Mode::Ipip | Mode::Gue) | None => false,
    };
    if told.reason != Reason::SentBack || !is_request || !may_reply {
        return Ok(None);
    }
    let sent = frames::Frame::parse(output).context("no whole packet was sent")?;
    Ok(Some((sent.destination, sent.source, question.protocol)))
}

/// What explanations take names from: there are none.
pub(crate) fn view(target: &Target) -> ControlView {
    ControlView {
        desired: Arc::default(),
        wanted: Arc::new(target.clone()),
        programmed: None,
        failure: None,
        lingering: Vec::new(),
        drain_deadlines: BTreeMap::new(),
        whole_at: BTreeMap::new(),
        last_apply_ok: true,
        applied: None,
        refused: None,
    }
}

/// Whether packets with this explanation may be counted so. Budgets of answers are not part of an explanation.
fn is_explained(explained: Reason, counted: Reason) -> bool {
    let over_budget = [
        (Reason::TooBigAnswered, Reason::TooBig),
        (Reason::RejectedUnreachable, Reason::UnreachableRate),
    ];
    explained == counted || over_budget.contains(&(explained, counted))
}

/// Number of an action (`enum xdp_action` of linux/bpf.h).
const fn code(action: Action) -> u32 {
    match action {
        Action::Aborted => ABORTED,
        Action::Drop => DROP,
        Action::Pass => PASS,
        Action::Tx => TX,
        Action::Redirect => REDIRECT,
    }
}

/// Has frames leave where they came in, each backend's to an address of its own; some backends dead, and some behind a small MTU.
fn prepare(bench: &Bench, rng: &mut Rng) -> Result<BTreeMap<[u8; 6], SocketAddr>> {
    let mut records: Array<_, Backend> = Array::try_from(bench.map(map_names::BACKENDS)?)?;
    let mut backends = BTreeMap::new();
    for id in (1..=BACKENDS).map(BackendId) {
        let mut record = records.get(&u32::from(id.0), 0)?;
        if record.has(IN_USE) {
            bench::resolve(&mut record);
            let [high, low] = id.0.to_be_bytes();
            record.next_hop_mac = [2, 0, 0, 0xbe, high, low];
            let address = SocketAddr::new(record.address.to_ip(), record.port.get());
            backends.insert(record.next_hop_mac, address);
            if rng.u8(..6) == 0 {
                record.flags &= !ALIVE;
            }
            if rng.u8(..4) == 0 {
                record.mtu = SMALL_MTU;
            }
            records.set(u32::from(id.0), record, 0)?;
        }
    }
    Ok(backends)
}
