//! Flows printed as they come, in bounded memory.

use std::{
    io::{self, BufWriter, Write as _},
    ops::ControlFlow,
    time::Duration,
};

use super::super::{
    error::{CliError, Exit},
    output::{Context, Output},
    table::{Align, Cell, Table, Tone},
};
use crate::{api::types::Flow, datapath::FlowState, duration, state::words::Word as _};

/// Rows that are lined up together: a longer table is printed in parts, so that it takes no memory.
const ROWS: usize = 1_000;
/// Bytes that are written at a time.
const WRITTEN: usize = 256 * 1024;

/// Prints flows as they come.
pub(super) struct Printer<'a> {
    context: &'a Context,
    out: BufWriter<io::Stdout>,
    table: Table,
    widths: Vec<usize>,
    /// Flows so far.
    pub(super) flows: u64,
}

impl<'a> Printer<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        let mut columns = vec![
            ("SERVICE", Align::Left),
            ("CLIENT", Align::Left),
            ("BACKEND", Align::Left),
            ("VIA", Align::Left),
            ("STATE", Align::Left),
            ("AGE", Align::Right),
            ("IDLE", Align::Right),
            ("SLOT", Align::Right),
        ];
        if context.output == Output::Wide {
            columns.extend([
                ("PROTOCOL", Align::Left),
                ("ADDRESS", Align::Left),
                ("TO", Align::Left),
                ("INTERFACE", Align::Left),
                ("VLANS", Align::Left),
            ]);
        }
        Self {
            context,
            out: BufWriter::with_capacity(WRITTEN, io::stdout()),
            table: Table::new(&columns),
            widths: Vec::new(),
            flows: 0,
        }
    }

    pub(super) fn line(&mut self, line: &str) -> Result<ControlFlow<()>, CliError> {
        let is_first = self.flows == 0;
        self.flows += 1;
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
        row(&flow, self.context.output == Output::Wide, &mut self.table);
        if self.flows.is_multiple_of(ROWS as u64) {
            return self.rows();
        }
        Ok(ControlFlow::Continue(()))
    }

    pub(super) fn end(&mut self) -> Result<ControlFlow<()>, CliError> {
        let written = match self.context.output {
            Output::Json if self.flows == 0 => self.write(|out| out.write_all(b"[]\n")),
            Output::Json => self.write(|out| out.write_all(b"\n]\n")),
            Output::Table | Output::Wide => self.rows(),
        }?;
        if written.is_break() {
            return Ok(written);
        }
        self.write(|out| out.flush())
    }

    fn rows(&mut self) -> Result<ControlFlow<()>, CliError> {
        let text = self.table.take(self.context.style, &mut self.widths);
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

fn row(flow: &Flow<'_>, wide: bool, table: &mut Table) {
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
    let cells: [Cell<'_>; 8] = [
        (&**service).into(),
        (&**client).into(),
        (&**backend).into(),
        via.unwrap_or_default().into(),
        Cell::new(&**state, tone),
        age.map(seconds).unwrap_or_default().into(),
        seconds(*idle).into(),
        slot.map(|slot| slot.to_string()).unwrap_or_default().into(),
    ];
    if !wide {
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
    use super::*;

    #[test]
    fn a_row_shows_dashes_for_what_is_not_recorded() {
        let line = r#"{"service":"web","backend":"b0","protocol":"tcp","client":"[2001:db8::7]:40000","address":
            "[2001:db8::1]:80","to":"[2001:db8::2]:8080","via":null,"state":"established","age":null,"idle":4,
            "slot":17,"interface":null,"vlans":[]}"#;
        let flow: Flow<'_> = serde_json::from_str(line).unwrap();
        let context = Context::new(None, None, Output::Table, false);
        let mut printer = Printer::new(&context);
        row(&flow, false, &mut printer.table);
        assert_eq!(
            printer.table.take(context.style, &mut printer.widths),
            "web  [2001:db8::7]:40000  b0  -  established  -  4s  17\n"
        );
    }
}
