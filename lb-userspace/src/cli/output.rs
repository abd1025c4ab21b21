//! Parts that commands share: the daemon's socket, the format of the output, and repeated output (`--watch`).

use std::{
    env,
    future::Future,
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use ratatui::crossterm::terminal;
use serde::Serialize;

use super::{
    client::{Client, DEFAULT_SOCKET},
    error::{CliError, Exit},
    fit::Extent,
    remote::Remote,
    table::Style,
    yaml::Node,
};
use crate::config::values::duration;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(super) enum Output {
    /// Tables.
    #[default]
    Table,
    /// Tables with more columns.
    Wide,
    /// JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// Names alone, one a line.
    Name,
}

/// A form of output for programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Data {
    /// JSON.
    Json,
    /// YAML with the same fields.
    Yaml,
}

impl Output {
    /// The form for programs; `None` for text.
    pub(super) const fn data(self) -> Option<Data> {
        match self {
            Self::Json => Some(Data::Json),
            Self::Yaml => Some(Data::Yaml),
            Self::Table | Self::Wide | Self::Name => None,
        }
    }
}

impl Data {
    /// A value that is all of the output.
    pub(super) fn whole(self, value: &impl Serialize) -> Result<String, CliError> {
        match self {
            Self::Json => json(value, true),
            Self::Yaml => yaml(&json(value, false)?),
        }
    }

    /// One of several values: a line of JSON, or a document of YAML, so that a reader of the stream can separate them.
    pub(super) fn one_of_many(self, value: &impl Serialize) -> Result<String, CliError> {
        self.line(json(value, false)?.trim_end())
    }

    /// The same of a line of JSON.
    pub(super) fn line(self, line: &str) -> Result<String, CliError> {
        match self {
            Self::Json => Ok(format!("{line}\n")),
            Self::Yaml => Ok(format!("---\n{}", yaml(line)?)),
        }
    }
}

fn yaml(json: &str) -> Result<String, CliError> {
    let node = Node::parse(json);
    let node = node.map_err(|error| CliError::new(Exit::Failed, format!("output: {error}")))?;
    Ok(node.document())
}

/// When output has colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(super) enum Colour {
    /// On a terminal that has them, unless `NO_COLOR` is set (no-color.org).
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Never.
    Never,
}

impl Colour {
    fn is_on(self) -> bool {
        let no_color = || env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = || env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self {
            Self::Auto => io::stdout().is_terminal() && !no_color() && !is_dumb(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// `--watch` of reading commands.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Repeat at this interval until interrupted [default: 1s]
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true,
          default_missing_value = "1s", value_parser = duration)]
    watch: Option<Duration>,
}

/// The context of every command.
#[derive(Debug)]
pub(super) struct Context {
    socket: Option<PathBuf>,
    remote: Option<Remote>,
    /// How results are printed.
    pub output: Output,
    /// How tables are printed.
    pub style: Style,
}

impl Context {
    /// From the global flags.
    pub(super) fn new(
        socket: Option<PathBuf>,
        remote: Option<Remote>,
        output: Output,
        colour: Colour,
        headers: bool,
    ) -> Self {
        let style = Style {
            headers,
            colour: colour.is_on(),
            extent: Extent::of_stdout(output == Output::Wide),
        };
        Self {
            socket,
            remote,
            output,
            style,
        }
    }

    /// The socket that was named by flag or environment.
    pub(super) fn named_socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The host of a daemon elsewhere; `None` if the daemon is on this machine.
    pub(super) fn remote_host(&self) -> Option<&str> {
        self.remote.as_ref().map(Remote::host)
    }

    /// The daemon.
    pub(super) fn client(&self) -> Client {
        match &self.remote {
            Some(remote) => Client::Remote(remote.clone()),
            None => Client::new(self.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into())),
        }
    }

    /// Runs a client command: one thread is enough.
    pub(super) fn block_on(
        &self,
        command: impl Future<Output = Result<(), CliError>>,
    ) -> Result<(), CliError> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::new(Exit::Failed, format!("runtime: {error}")))?
            .block_on(command)
    }

    /// With `-o name` the names, one a line, else the table.
    pub(super) fn names_or(
        &self,
        names: impl IntoIterator<Item = String>,
        table: impl FnOnce() -> String,
    ) -> String {
        match self.output {
            Output::Name => names.into_iter().map(|name| name + "\n").collect(),
            Output::Table | Output::Wide | Output::Json | Output::Yaml => table(),
        }
    }

    /// Prints `value` as JSON or YAML, or as text by `table`.
    pub(super) fn show<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        match self.output.data() {
            Some(data) => print(&data.whole(value)?),
            None => print(&table(value)),
        }
    }

    /// Fetches and shows once, or again and again with `--watch`.
    pub(super) async fn show_watched<T: Serialize, F: Future<Output = Result<T, CliError>>>(
        &self,
        watch: Watch,
        fetch: impl Fn() -> F,
        table: impl Fn(&T) -> String,
    ) -> Result<(), CliError> {
        let Some(interval) = watch.watch else {
            return self.show(&fetch().await?, table);
        };
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(100)));
        let mut outage = Outage::default();
        loop {
            ticks.tick().await;
            let Some(value) = outage.bridge(fetch().await)? else {
                continue;
            };
            let text = match self.output.data() {
                Some(data) => data.one_of_many(&value)?,
                None if io::stdout().is_terminal() => {
                    // Home, the new text, then clear the rest of longer lines: no flicker.
                    let text = table(&value);
                    let text = terminal::size().map_or_else(|_| text.clone(), |window| fitted(&text, window));
                    let text = text.replace('\n', "\x1b[K\n");
                    format!("\x1b[H{text}\x1b[J")
                }
                None => format!("{}\n", table(&value)),
            };
            if print_while_read(&text)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// The first lines of `text`, as many as a window of these columns and rows has room for, and how many more there are. Lines that
/// are longer than the window is wide take several rows.
fn fitted(text: &str, (columns, rows): (u16, u16)) -> String {
    let columns = usize::from(columns).max(1);
    // The cursor stands below the last line.
    let room = usize::from(rows).saturating_sub(1);
    let needed = |line: &str| columns_of(line).div_ceil(columns).max(1);
    if text.lines().map(needed).sum::<usize>() <= room {
        return text.to_owned();
    }
    let mut used = 1;
    let kept = text.lines().take_while(|line| {
        used += needed(line);
        used <= room
    });
    // The first line is the header of most tables.
    let kept = kept.count().max(1);
    let lines: Vec<&str> = text.lines().collect();
    let (shown, more) = lines.split_at(kept.min(lines.len()));
    format!("{}\n… {} more\n", shown.join("\n"), more.len())
}

/// Columns that a line takes, without its colours.
fn columns_of(line: &str) -> usize {
    let mut parts = line.split('\x1b');
    let plain = parts.next().map_or(0, |text| text.chars().count());
    // Each colour ends with an `m`.
    let coloured = parts.filter_map(|part| part.split_once('m'));
    plain + coloured.map(|(_, text)| text.chars().count()).sum::<usize>()
}

/// Time that `--watch` waits for a daemon that does not answer: longer than an upgrade takes.
const LONGEST_OUTAGE: Duration = Duration::from_secs(60);

/// Waiting of `--watch` while the daemon is away, reported once.
#[derive(Debug, Default)]
pub(super) struct Outage {
    seen: bool,
    away: Option<Instant>,
}

impl Outage {
    /// The result of a call; `None` while a daemon that answered before is away.
    ///
    /// # Errors
    /// Any other failure, a daemon that has never answered, or one that has been away for [`LONGEST_OUTAGE`].
    pub(super) fn bridge<T>(&mut self, result: Result<T, CliError>) -> Result<Option<T>, CliError> {
        match result {
            Ok(value) => {
                self.answered();
                Ok(Some(value))
            }
            Err(error) if self.may_wait() && error.exit == Exit::Unreachable => {
                self.left(&error.message);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The daemon is there.
    pub(super) fn answered(&mut self) {
        if self.away.take().is_some() {
            remark("the daemon is back");
        }
        self.seen = true;
    }

    fn may_wait(&self) -> bool {
        self.seen && self.away.is_none_or(|since| since.elapsed() < LONGEST_OUTAGE)
    }

    /// The daemon is away.
    pub(super) fn left(&mut self, why: &str) {
        if self.away.is_none() {
            remark(&format!("{why}; waiting for the daemon"));
            self.away = Some(Instant::now());
        }
    }
}

/// `value` as JSON with a closing line feed.
fn json(value: &impl Serialize, pretty: bool) -> Result<String, CliError> {
    let text = if pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    match text {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(CliError::new(Exit::Failed, format!("output: {error}"))),
    }
}

/// Writes to stdout. A closed pipe (`lb status | head`) is no failure: the command continues without it.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    print_while_read(text).map(drop)
}

/// Like [`print`], for endless output: breaks when the reader has closed the pipe.
pub(super) fn print_while_read(text: &str) -> Result<ControlFlow<()>, CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(CliError::new(Exit::Failed, format!("output: {error}"))),
    }
}

/// Asks on the terminal; only `y` or `yes` is yes.
pub(super) fn ask(question: &str) -> Result<bool, CliError> {
    let failed = |error| CliError::new(Exit::Failed, format!("cannot ask: {error}"));
    write!(io::stderr(), "{question} [y/N] ").map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

/// Writes a remark to stderr, and ignores a closed stderr.
pub(super) fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::{super::table::Tone, *};

    #[test]
    fn repeated_tables_are_cut_to_the_window_and_say_so() {
        let text = "NAME\none\ntwo\nthree\n";
        for (window, fits) in [
            ((80, 24), text),
            ((80, 5), text),
            ((80, 4), "NAME\none\n… 2 more\n"),
            ((80, 3), "NAME\n… 3 more\n"),
            ((80, 1), "NAME\n… 3 more\n"),
            // Each of the longer lines takes two rows.
            ((4, 6), text),
            ((4, 5), "NAME\none\ntwo\n… 1 more\n"),
        ] {
            assert_eq!(fitted(text, window), fits, "{window:?}");
        }
        assert_eq!(fitted("", (80, 24)), "");
    }

    #[test]
    fn colours_take_no_columns() {
        let line = format!("{} {}", Tone::Good.paint("up"), Tone::Bad.paint("down"));
        assert_eq!(columns_of(&line), 7);
        assert_eq!(columns_of("plain"), 5);
    }
}
