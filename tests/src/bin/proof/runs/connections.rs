//! Many connections through mode `nat` at a time: real ones, and crafted flows up to what the tables hold. What a flow takes in
//! memory, what a packet takes beside them, and whether any is lost.

mod flows;
mod real;

use anyhow::Result;
use lb_common::flow::{NatFlowV4, NatFlowV6, TupleV4, TupleV6};
use lb_tests::report::{
    document::{Figure, Report},
    plot::Plot,
    samples::{Samples, Unit},
    table::Table,
};

use self::flows::Crafted;
use crate::context::Context;

/// Real connections.
const CONNECTIONS: usize = 50_000;
/// Crafted flows, of both families together: the last is nearly what the tables of mode `nat` hold.
const FLOWS: [u32; 3] = [2, 250_000, 1_000_000];

/// Measures.
pub(crate) fn measure(context: &mut Context) -> Result<Report> {
    let mut report = Report::new(
        "Real connections: `lb-bench` in four processes against four nginx, through four services of mode `nat`; all connections are open \
         and busy together, each with its next request as soon as it is answered. Crafted flows: opened, answered and acknowledged by \
         packets through the program of a running daemon (BPF_PROG_TEST_RUN), half of each family; then packets of known flows in random \
         order, each of which the kernel measures by itself (medians): its clock and caches that a call has left cold are in each figure, so \
         only rows compare. Memory of a flow: \
         growth of the flow tables as the kernel states it, by the number of flows.",
    );
    if context.wants("real") {
        let count = context.pick(100, CONNECTIONS);
        add_real(context, &mut report, count)?;
    }
    if context.wants("crafted") {
        add_crafted(context, &mut report)?;
    }
    Ok(report)
}

fn add_real(context: &mut Context, report: &mut Report, count: usize) -> Result<()> {
    context.progress(&format!("{count} real connections"));
    let held = real::hold(count, context.pick(2, 20))?;
    let columns = [
        ("open at a time", Unit::Count),
        ("requests", Unit::Count),
        ("requests/s", Unit::Count),
        ("flow tables a connection", Unit::Bytes),
        ("daemon a connection", Unit::Bytes),
    ];
    let mut table = Table::new("Real connections, once", "connections", &columns);
    let cells = [
        held.open as f64,
        held.requests,
        held.per_second,
        held.tables,
        held.daemon,
    ];
    table.row(
        Unit::Count.show(count as f64),
        cells.map(|value| Some(Samples::one(value))),
    );
    report.table(table);
    report.check_equal("all connections were open together", held.open, count as u64);
    let errors = (!held.errors.is_empty()).then(|| held.errors.join(", "));
    report.check("no request failed", errors);
    Ok(())
}

/// Bytes before the key of an entry: `struct htab_elem` of the kernel's `kernel/bpf/hashtab.c`, and the `struct llist_node` that
/// `kernel/bpf/memalloc.c` adds.
const HEAD: usize = 48 + 8;
/// The sizes of which the kernel gives memory for an entry (`mm/slab_common.c`).
const SIZES: [usize; 5] = [96, 128, 192, 256, 512];

/// What a flow of mode `nat` consists of in memory, and what was measured.
fn layout(measured: &Crafted) -> Table {
    let columns = [
        ("head of an entry", Unit::Bytes),
        ("key", Unit::Bytes),
        ("value", Unit::Bytes),
        ("entry", Unit::Bytes),
        ("kernel's next size", Unit::Bytes),
        ("a flow: two entries", Unit::Bytes),
        ("measured", Unit::Bytes),
    ];
    let mut table = Table::new("Memory of a flow of mode `nat`", "family", &columns);
    let sizes = [
        ("IPv4", size_of::<TupleV4>(), size_of::<NatFlowV4>()),
        ("IPv6", size_of::<TupleV6>(), size_of::<NatFlowV6>()),
    ];
    for ((family, key, value), measured) in sizes.into_iter().zip(measured.of_family) {
        let entry = HEAD + key + value;
        let size = SIZES.into_iter().find(|size| *size >= entry).unwrap_or(entry);
        let computed = [HEAD, key, value, entry, size, 2 * entry].map(|bytes| bytes as f64);
        table.row(
            family,
            computed
                .into_iter()
                .chain([measured])
                .map(|bytes| Some(Samples::one(bytes))),
        );
    }
    table
}

fn add_crafted(context: &mut Context, report: &mut Report) -> Result<()> {
    let columns = [
        ("flows", Unit::Count),
        ("flow tables a flow", Unit::Bytes),
        ("daemon a flow", Unit::Bytes),
        ("forward, IPv4", Unit::Seconds),
        ("reply, IPv4", Unit::Seconds),
        ("forward, IPv6", Unit::Seconds),
        ("reply, IPv6", Unit::Seconds),
    ];
    let mut table = Table::new("Crafted flows", "mode and flows", &columns);
    let mut bars = Vec::new();
    let mut most: Option<Crafted> = None;
    for count in context.pick(&[2, 2_000][..], &FLOWS[..]) {
        context.progress(&format!("{count} crafted flows"));
        let crafted = Crafted::measure(*count, context.turns(), context.pick(1_000, 50_000))?;
        let name = format!("`nat`, {}", Unit::Count.show(f64::from(*count)));
        let mut cells = vec![
            Samples::one(crafted.counted as f64),
            Samples::one(crafted.tables),
            Samples::one(crafted.daemon),
        ];
        cells.extend(crafted.seconds.clone());
        bars.extend(
            ["forward, IPv4", "reply, IPv4"]
                .iter()
                .zip(&crafted.seconds)
                .map(|(what, seconds)| (format!("{name}, {what}"), seconds.clone())),
        );
        table.row(name, cells.into_iter().map(Some));
        report.check_equal(
            format!("the tables hold {count} flows"),
            crafted.counted,
            (*count).into(),
        );
        most = Some(crafted);
    }
    context.progress("flows without translation");
    let untracked = flows::untracked(context.pick(2_000, 1_000_000))?;
    table.row(
        "`ipip`",
        [
            Some(Samples::one(untracked.flows)),
            Some(Samples::one(untracked.tables)),
        ]
        .into_iter()
        .chain([const { None }; 5]),
    );
    report.table(table);
    if let Some(most) = &most {
        report.table(layout(most));
    }
    report.plot(Plot::bars(
        "",
        "A packet of a known flow, by flows",
        Unit::Seconds,
        bars,
    ));
    report.check(
        "every packet of every flow was sent on, to the ends of its flow",
        None,
    );
    report.note("`ipip`, `gue`, `l2dsr` record no flow of a slot that keeps its backend, so there is no number of flows that they hold at most.");
    if let Some(most) = most {
        report.figure(Figure {
            target: "memory-connection",
            ours: format!(
                "{} in `nat`, {} in `ipip`; in the daemon {}",
                Unit::Bytes.show(most.tables),
                Unit::Bytes.show(untracked.tables),
                Unit::Bytes.show(most.daemon)
            ),
            peers: String::new(),
            is_met: Some(most.tables <= 64.0),
            note: "a flow of mode `nat` is two entries, one for each direction; the kernel's head of an entry takes 56 B before any key"
                .to_owned(),
        });
        report.figure(Figure {
            target: "active-connections",
            ours: format!(
                "{} in `nat`, any number in modes without translation",
                Unit::Count.show(most.counted as f64)
            ),
            peers: String::new(),
            is_met: Some(most.counted >= 1_000_000),
            note: String::new(),
        });
    }
    Ok(())
}
