//! Flows printed as they come, in bounded memory.

use std::{
    io::{self, BufWriter, Write as _},
    ops::ControlFlow,
    time::Duration,
};

use super::super::{
    error::{CliError, Exit},
    fit::Extent,
    output::{Context, Output},
    table::{Cell, Layout, Table, Tone, name, number, text},
    yaml::Node,
};
use crate::{api::types::Flow, datapath::FlowState, duration, state::words::Word as _};

/// Rows that are lined up together: a longer table is printed in parts, so that it takes no memory.
const ROWS: usize = 1_000;
/// Bytes that are written at a time.
const WRITTEN: usize = 256 * 1024;
/// Number of usual columns, which come first.
const USUAL: usize = 8;

/// Prints flows as they come.
pub(super) struct Printer<'a> {
    context: &'a Context,
    out: BufWriter<io::Stdout>,
    table: Table,
    /// Whether the table has more than the usual columns.
    has_extra: bool,
    layout: Layout,
    /// Flows so far.
    pub(super) flows: u64,
}

impl<'a> Printer<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        // A million rows take noticeably longer with cells that are not shown.
        let has_extra = context.style.extent != Extent::Usual;
        let columns = [
            name("SERVICE", 8),
            name("CLIENT", 21),
            name("BACKEND", 10).rank(1),
            name("VIA", 21).rank(5),
            text("STATE").rank(2),
            number("AGE").rank(3),
            number("IDLE").rank(4),
            number("SLOT").rank(6),
            text("PROTOCOL").extra(9),
            name("ADDRESS", 21).extra(8),
            name("TO", 21).extra(7),
            name("INTERFACE", 15).extra(10),
            text("VLANS").extra(11),
        ];
        Self {
            context,
            out: BufWriter::with_capacity(WRITTEN, io::stdout()),
            table: Table::new(if has_extra { &columns } else { &columns[..USUAL] }),
            has_extra,
            layout: Layout::default(),
            flows: 0,
        }
    }

    pub(super) fn line(&mut self, line: &str) -> Result<ControlFlow<()>, CliError> {
        let is_first = self.flows == 0;
        self.flows += 1;
        if self.context.output == Output::Yaml {
            let flow = Node::parse(line);
            let flow =
                flow.map_err(|error| CliError::new(Exit::Failed, format!("flow {line:?}: {error}")))?;
            return self.write(|out| out.write_all(flow.element().as_bytes()));
        }
        if self.context.output == Output::Json {
            // An array with a flow on each line, as the daemon has written it.
            let before = if is_first { "[\n" } else { ",\n" };
            return self.write(|out| {
                out.write_all(before.as_bytes())?;
                out.write_all(line.as_bytes())
            });
        }
        let flow: Flow<'_> = serde_json::from_str(line)
            .map_err(|error| CliError::new(Exit::Failed, format!("flow {line:?}: {error}")))?;
        row(&flow, self.has_extra, &mut self.table);
        if self.flows.is_multiple_of(ROWS as u64) {
            return self.rows();
        }
        Ok(ControlFlow::Continue(()))
    }

    pub(super) fn end(&mut self) -> Result<ControlFlow<()>, CliError> {
        let written = match self.context.output {
            Output::Json | Output::Yaml if self.flows == 0 => self.write(|out| out.write_all(b"[]\n")),
            Output::Json => self.write(|out| out.write_all(b"\n]\n")),
            Output::Yaml => Ok(ControlFlow::Continue(())),
            Output::Table | Output::Wide | Output::Name => self.rows(),
        }?;
        if written.is_break() {
            return Ok(written);
        }
        self.write(|out| out.flush())
    }

    fn rows(&mut self) -> Result<ControlFlow<()>, CliError> {
        let text = self.table.take(self.context.style, &mut self.layout);
        self.write(|out| out.write_all(text.as_bytes()))
    }

    /// Breaks when the reader has closed the pipe.
    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<io::Stdout>) -> io::Result<()>,
    ) -> Result<ControlFlow<()>, CliError> {
        match write(&mut self.out) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(CliError::new(Exit::Failed, format!("output: {error}"))),
        }
    }
}

fn row(flow: &Flow<'_>, has_extra: bool, table: &mut Table) {
    let Flow {
        service,
        backend,
        protocol,
        client,
        address,
        to,
        via,
        state,
        age,
        idle,
        slot,
        interface,
        vlans,
    } = flow;
    let tone = match FlowState::from_word(state) {
        Some(FlowState::Opening | FlowState::Closing) => Tone::Notice,
        Some(FlowState::Established) => Tone::Good,
        Some(FlowState::Closed) | None => Tone::Plain,
    };
    let seconds = |seconds: u32| duration::text(Duration::from_secs(seconds.into()));
    let cells: [Cell<'_>; USUAL] = [
        (&**service).into(),
        (&**client).into(),
        (&**backend).into(),
        via.unwrap_or_default().into(),
        Cell::new(&**state, tone),
        age.map(seconds).unwrap_or_default().into(),
        seconds(*idle).into(),
        slot.map(|slot| slot.to_string()).unwrap_or_default().into(),
    ];
    if !has_extra {
        return table.row(cells);
    }
    let vlans: Vec<String> = vlans.iter().map(ToString::to_string).collect();
    table.row(cells.into_iter().chain([
        (&**protocol).into(),
        (&**address).into(),
        (&**to).into(),
        interface.as_deref().unwrap_or_default().into(),
        vlans.join(",").into(),
    ]));
}

#[cfg(test)]
mod tests {
    use super::{super::super::output::Colour, *};

    #[test]
    fn a_row_shows_dashes_for_what_is_not_recorded() {
        let line = r#"{"service":"web","backend":"b0","protocol":"tcp","client":"[2001:db8::7]:40000","address":
            "[2001:db8::1]:80","to":"[2001:db8::2]:8080","via":null,"state":"established","age":null,"idle":4,
            "slot":17,"interface":null,"vlans":[]}"#;
        let flow: Flow<'_> = serde_json::from_str(line).unwrap();
        let context = Context::new(None, None, Output::Table, Colour::Never, false);
        let mut printer = Printer::new(&context);
        row(&flow, false, &mut printer.table);
        assert_eq!(
            printer.table.take(context.style, &mut printer.layout),
            "web  [2001:db8::7]:40000  b0  -  established  -  4s  17\n"
        );
    }
}
