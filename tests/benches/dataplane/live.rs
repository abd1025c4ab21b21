//! Live frames: from a generator over a virtual Ethernet pair to the program, and from there back over the same pair
//! (XDP_TX), or over another one (redirection), to a program that counts and drops them. All on one core, so a packet's
//! nanoseconds include all three ends and both ways. The floor is the same with a program that only swaps MAC
//! addresses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::{
    maps::{Array, PerCpuArray},
    programs::{
        TestRun, TestRunAttrs, TestRunOptions, Xdp,
        xdp::{XdpLink, XdpMode},
    },
};
use lb_common::{
    addr::{NetV4, NetV6},
    service::Mode,
};
use lb_tests::{lane::Lane, netns::Netns, wait};

use crate::{
    frames, median,
    packets::{self, ACK, Address, Frame},
    setup::{Bench, Program, Way, map_mut},
};

/// Flows known, unless numbers are given.
const FLOWS: [u32; 3] = [1, 1 << 16, 1 << 20];
/// Rounds of which the median counts, and frames of one.
const ROUNDS: usize = 5;
const REPEAT: u32 = 1 << 20;
/// Frames that the generator makes at a time.
const BATCH: u32 = 64;
/// Flows that are opened at a time.
const OPENED: u32 = 256;
/// Share of the frames that must arrive. The others met a full queue while other work had the core; the time is per
/// arrived frame.
const ARRIVING: f64 = 0.9;
/// Until the last ones have.
const LAST: Duration = Duration::from_secs(5);

/// Measures and prints all ways with these numbers of flows.
pub(crate) fn live(given: &[u32]) -> Result<()> {
    println!(
        "\n{:<12} {:>6} {:>9}  {:>24}  {:>24}",
        "on veth", "family", "flows", "XDP_TX: ns, x, M/s", "redirect: ns, x, M/s"
    );
    for &flows in if given.is_empty() { &FLOWS[..] } else { given } {
        family::<NetV4>(flows)?;
        family::<NetV6>(flows)?;
    }
    Ok(())
}

fn family<A: Address>(flows: u32) -> Result<()> {
    let v6 = A::VIP.is_ipv6();
    for (name, mode) in [
        ("nat", Mode::Nat),
        ("dnat", Mode::Dnat),
        ("l2dsr", Mode::L2dsr),
        ("ipip", Mode::Ipip),
        ("gue", Mode::Gue),
    ] {
        let _lane = Lane::alone()?;
        let bench = Bench::new::<A>(flows, Way { mode, v6 })?;
        let mut clients = packets::clients::<A>(flows, A::VIP);
        packets::shuffle(&mut clients);
        let mut wire = Wire::new(bench)?;
        wire.bench.fill(&frames(&clients, ACK))?;
        let [plain_tx, plain_redirect, tx, redirect] = wire.measure(flows, mode == Mode::Nat)?;
        if mode == Mode::Nat {
            row::<A>(
                "plain",
                flows,
                [plain_tx, plain_redirect],
                [plain_tx, plain_redirect],
            );
        }
        row::<A>(name, flows, [tx, redirect], [plain_tx, plain_redirect]);
    }
    Ok(())
}

fn row<A: Address>(name: &str, flows: u32, ns: [f64; 2], plain: [f64; 2]) {
    let [tx, redirect] = [0, 1].map(|n| {
        let ratio = ns[n] / plain[n];
        format!("{:>9.1} {ratio:>6.2} {:>7.2}", ns[n], 1e3 / ns[n])
    });
    println!("{name:<12} {:>6} {flows:>9}  {tx}  {redirect}", A::NAME);
}

/// Two pairs of devices: `out`–`in` and `back`–`away`. The generator is on `out`, the program under test on `in`; its
/// frames arrive on `out`, or on `back`.
pub(crate) struct Wire {
    /// Before the objects, so that devices let go of programs first.
    _ends: [XdpLink; 3],
    under_test: Option<XdpLink>,
    pub(crate) bench: Bench,
    generator: Netns,
    balancer: Netns,
    inward: u32,
    away: u32,
}

impl Wire {
    pub(crate) fn new(mut bench: Bench) -> Result<Self> {
        let (generator, balancer) = (Netns::new("generator")?, Netns::new("balancer")?);
        let there = balancer.name();
        generator.ip(&format!(
            "link add out type veth peer name in netns {there}\nlink add back type veth peer name away netns {there}\n\
             link set out up\nlink set back up"
        ))?;
        balancer.ip("link set in up\nlink set away up")?;
        let [out, back] = [generator.ifindex("out")?, generator.ifindex("back")?];
        let [inward, away] = [balancer.ifindex("in")?, balancer.ifindex("away")?];
        let mut devices: Array<_, u32> = map_mut(&mut bench.wrapper, "DEVICES")?.try_into()?;
        devices.set(0, out, 0)?;
        devices.set(1, away, 0)?;
        let ends = [
            attach(&generator, bench.program_mut(Program::Sink)?, out)?,
            attach(&generator, bench.program_mut(Program::Sink)?, back)?,
            // As on every interface of a balancer.
            attach(&balancer, bench.program_mut(Program::Pass)?, away)?,
        ];
        Ok(Self {
            _ends: ends,
            under_test: None,
            bench,
            generator,
            balancer,
            inward,
            away,
        })
    }

    /// Medians of: plain XDP_TX, plain redirection, and ours of both, which `opens` flows or not.
    fn measure(&mut self, flows: u32, opens: bool) -> Result<[f64; 4]> {
        let ways = [
            (Program::Swap, self.inward),
            (Program::Forward, self.away),
            (Program::Lb, self.inward),
            (Program::Lb, self.away),
        ];
        self.replace(Program::Lb, self.inward)?;
        if opens {
            // So few at a time that none meets a full queue: to open a flow takes longer than to make its frame.
            for _ in 0..flows.div_ceil(OPENED) {
                let _ = self.send(OPENED);
            }
        }
        // And retry lost ones, or ones without memory in time.
        self.send(flows.max(BATCH))?;
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            for ((program, out), times) in ways.iter().zip(&mut times) {
                self.replace(*program, *out)?;
                times.push(self.send(REPEAT)?);
            }
        }
        Ok(times.map(median))
    }

    /// Has the program run, with backends behind the device that frames come from.
    pub(crate) fn run_lb(&mut self) -> Result<()> {
        self.replace(Program::Lb, self.inward)
    }

    /// Selects the program under test, with backends behind a device.
    fn replace(&mut self, program: Program, out: u32) -> Result<()> {
        self.bench.change_backends(|backend| backend.ifindex = out)?;
        let xdp = self.bench.program_mut(program)?;
        let link = match self.under_test.take() {
            Some(link) => xdp.attach_to_link(link).and_then(|id| xdp.take_link(id))?,
            None => attach(&self.balancer, xdp, self.inward)?,
        };
        self.under_test = Some(link);
        Ok(())
    }

    /// Nanoseconds per arrived frame, of `count` sent.
    pub(crate) fn send(&mut self, count: u32) -> Result<f64> {
        const FRAME: [u8; size_of::<Frame>()] = [0; size_of::<Frame>()];
        let before = self.received()?;
        let generate: &Xdp = self
            .bench
            .wrapper
            .program("generate")
            .context("no generator")?
            .try_into()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&FRAME);
        options.repeat = count;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        let result = self.generator.enter(|| generate.test_run(options))??;
        let sent = f64::from(count);
        let arrived = || -> Result<f64> { Ok((self.received()? - before) as f64) };
        let all = || Ok(arrived()? >= sent * ARRIVING);
        if wait::until_true("the frames arrive", LAST, all).is_err() {
            ensure!(false, "{} of {sent} frames arrived", arrived()?);
        }
        Ok(result.duration.as_secs_f64() * 1e9 * sent / arrived()?)
    }

    fn received(&self) -> Result<u64> {
        let map = self.bench.wrapper.map("RECEIVED").context("no map RECEIVED")?;
        let received: PerCpuArray<_, u64> = map.try_into()?;
        Ok(received.get(&0, 0)?.iter().sum())
    }
}

/// Attaches a program, in native mode, to a device of a namespace; dropping the link detaches it.
fn attach(ns: &Netns, program: &mut Xdp, ifindex: u32) -> Result<XdpLink> {
    let id = ns.enter(|| program.attach_to_if_index(ifindex, XdpMode::Driver))??;
    Ok(program.take_link(id)?)
}
