//! The daemon's log: changes of state at INFO, to stderr.

use std::{
    env,
    fs::File,
    io::{self, IsTerminal, Write},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, writer::BoxMakeWriter},
};

use crate::config::daemon::LogFormat;

/// Environment variable with filter directives of `tracing_subscriber`, for example `debug`.
const FILTER: &str = "LB_LOG";

/// Starts logging. Called once; a second call changes nothing.
pub(super) fn start(format: LogFormat) {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var(FILTER);
    let to_journal = to_journal();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_target(false)
        // It would report a failed write to stderr, and panic where stderr itself has no reader any more.
        .log_internal_errors(false)
        .with_ansi(format == LogFormat::Text && io::stderr().is_terminal() && !no_color);
    let writer = if to_journal {
        BoxMakeWriter::new(Journal)
    } else {
        BoxMakeWriter::new(io::stderr)
    };
    let _ = match format {
        LogFormat::Json => log.json().flatten_event(true).with_writer(writer).try_init(),
        // The journal has its own clock.
        LogFormat::Text if to_journal => log.without_time().with_writer(writer).try_init(),
        LogFormat::Text => log.with_writer(writer).try_init(),
    };
}

/// Whether stderr leads to systemd's journal: it is the stream that `JOURNAL_STREAM` names (systemd.exec(5)), or, where the journal
/// has the output of a pipeline, a pipe.
pub(crate) fn to_journal() -> bool {
    let Some(stream) = env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    stderr.and_then(|stderr| stderr.metadata()).is_ok_and(|stderr| {
        stderr.file_type().is_fifo() || stream.to_str() == Some(&format!("{}:{}", stderr.dev(), stderr.ino()))
    })
}

/// Puts the priority of `level` before each line of `text`, as the journal wants it (sd-daemon(3)).
pub(crate) fn with_priority(level: Level, text: &str) -> String {
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

/// Writes to stderr, each line with its priority.
struct Journal;

impl<'a> MakeWriter<'a> for Journal {
    type Writer = JournalLine;

    fn make_writer(&'a self) -> JournalLine {
        JournalLine(Level::INFO)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> JournalLine {
        JournalLine(*metadata.level())
    }
}

/// Writes log lines of one level.
struct JournalLine(Level);

impl Write for JournalLine {
    /// The log writes each event with one call.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = with_priority(self.0, &String::from_utf8_lossy(event));
        io::stderr().lock().write_all(text.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_gets_the_priority_of_each_line() {
        assert_eq!(
            with_priority(Level::ERROR, "a: b\nhint: c\n"),
            "<3>a: b\n<3>hint: c\n"
        );
        assert_eq!(with_priority(Level::WARN, "a"), "<4>a\n");
        assert_eq!(with_priority(Level::INFO, "a"), "<6>a\n");
        assert_eq!(with_priority(Level::TRACE, "a"), "<7>a\n");
    }
}
