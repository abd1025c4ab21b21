//! Commands and their output, as documents show them: fenced blocks of kind `console`, in which lines with `$ ` are commands.
//!
//! A block of kind `console` or `sh` that no test can run has a comment before it that says why: `<!-- illustration: … -->`. A block
//! whose kind is followed by a name (`text haproxy.cfg`) is the content of that file.

use std::{fs, ops::Range, path::PathBuf};

use anyhow::{Context, Result, ensure};

/// What the comment before a block that is not run begins with.
const ILLUSTRATION: &str = "<!-- illustration: ";
/// Columns of tables whose cells differ from run to run.
const VARYING: [&str; 9] = [
    "PROGRAM",
    "PACKETS",
    "DROPPED",
    "FLOWS",
    "NEW FLOWS",
    "BYTES",
    "LAST CHECK",
    "AGE",
    "IDLE",
];

/// A document of the checkout.
pub struct Document {
    /// Its path below the top of the checkout.
    pub path: String,
    lines: Vec<String>,
    /// Its fenced blocks.
    pub blocks: Vec<Block>,
}

/// A fenced block.
pub struct Block {
    /// Its kind: the first word behind the fence.
    pub kind: String,
    /// The name of the file whose content it is.
    pub file: Option<String>,
    /// Whether the comment before it says that it is not run.
    pub is_illustration: bool,
    /// Places of its lines.
    lines: Range<usize>,
}

/// A command with the output that is shown for it.
pub struct Shown {
    /// The command.
    pub command: String,
    /// Line of the command, from 1.
    pub line: usize,
    /// The output.
    pub output: String,
    /// Places of the output's lines.
    lines: Range<usize>,
}

/// The top of the checkout.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// README.md, and every document below `docs/` that is written by hand.
///
/// # Errors
/// When one cannot be read.
pub fn all() -> Result<Vec<Document>> {
    let mut paths = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root().join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    paths.sort();
    paths.iter().map(|path| Document::read(path)).collect()
}

impl Document {
    /// Reads a document by its path below the top of the checkout.
    ///
    /// # Errors
    /// When it cannot be read, or a block does not end.
    pub fn read(path: &str) -> Result<Self> {
        let text = fs::read_to_string(root().join(path)).with_context(|| path.to_owned())?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut blocks = Vec::new();
        let mut open: Option<(usize, String)> = None;
        for (at, line) in lines.iter().enumerate() {
            let Some(info) = line.trim_start().strip_prefix("```") else {
                continue;
            };
            match open.take() {
                None => open = Some((at, info.to_owned())),
                Some((begin, info)) => {
                    let mut words = info.split_whitespace();
                    let before = lines[..begin].iter().rev().find(|line| !line.is_empty());
                    blocks.push(Block {
                        kind: words.next().unwrap_or_default().to_owned(),
                        file: words.next().map(str::to_owned),
                        is_illustration: before.is_some_and(|line| line.starts_with(ILLUSTRATION)),
                        lines: begin + 1..at,
                    });
                }
            }
        }
        ensure!(open.is_none(), "{path}: a block does not end");
        Ok(Self {
            path: path.to_owned(),
            lines,
            blocks,
        })
    }

    /// The content of a block.
    pub fn text(&self, block: &Block) -> String {
        self.lines[block.lines.clone()]
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// The commands of its blocks of kind `console` that are run, in order.
    ///
    /// # Errors
    /// When a block has output before the first command.
    pub fn shown(&self) -> Result<Vec<Shown>> {
        let mut all: Vec<Shown> = Vec::new();
        let runs = |block: &&Block| block.kind == "console" && !block.is_illustration;
        for block in self.blocks.iter().filter(runs) {
            let first = all.len();
            for at in block.lines.clone() {
                let line = &self.lines[at];
                if let Some(command) = line.strip_prefix("$ ") {
                    all.push(Shown {
                        command: command.to_owned(),
                        line: at + 1,
                        output: String::new(),
                        lines: at + 1..at + 1,
                    });
                    continue;
                }
                let shown = all.get_mut(first..).and_then(<[Shown]>::last_mut);
                let shown =
                    shown.with_context(|| format!("{}:{}: no command before it", self.path, at + 1))?;
                shown.output.push_str(&format!("{line}\n"));
                shown.lines.end = at + 1;
            }
        }
        Ok(all)
    }

    /// Writes the document with these outputs in place of what it shows.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, outputs: &[(&Shown, String)]) -> Result<()> {
        let mut lines = self.lines.clone();
        for (shown, output) in outputs.iter().rev() {
            lines.splice(shown.lines.clone(), output.lines().map(str::to_owned));
        }
        let path = root().join(&self.path);
        fs::write(&path, lines.join("\n") + "\n").with_context(|| self.path.clone())
    }
}

/// An output without what differs from run to run: times, link-layer addresses, process ids, counters in tables, and the width of
/// columns.
pub fn settled(output: &str) -> String {
    let mut columns: Vec<&str> = Vec::new();
    let mut settled = String::new();
    for line in output.lines() {
        let cells: Vec<&str> = line
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        let is_header = cells.len() > 1
            && !line.chars().any(char::is_lowercase)
            && !line.contains(|c: char| c.is_ascii_digit());
        if is_header {
            columns.clone_from(&cells);
        } else if cells.len() != columns.len() {
            columns.clear();
        }
        let kept = cells.iter().enumerate().map(|(at, cell)| {
            let varies = !is_header && columns.get(at).is_some_and(|column| VARYING.contains(column));
            if varies { "…".to_owned() } else { words(cell) }
        });
        settled.push_str(&kept.collect::<Vec<_>>().join("  "));
        settled.push('\n');
    }
    settled
}

fn words(cell: &str) -> String {
    let mut before = "";
    let kept = cell.split(' ').map(|word| {
        let is_pid = before == "pid";
        before = word;
        if is_pid {
            "PID"
        } else if is_time(word) {
            "TIME"
        } else if is_mac(word) {
            "MAC"
        } else {
            word
        }
    });
    kept.collect::<Vec<_>>().join(" ")
}

/// `2026-11-29T17:14:35.164Z`
fn is_time(word: &str) -> bool {
    word.len() >= 20 && word.ends_with('Z') && word.get(10..11) == Some("T") && word.get(4..5) == Some("-")
}

/// `b2:b7:8f:a2:a0:35`
fn is_mac(word: &str) -> bool {
    let parts: Vec<&str> = word.split(':').collect();
    parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_taken_out_and_the_rest_is_compared() {
        let one = "lb 0.1.0  pid 1851  since 2026-11-29T17:14:35.164Z  revision 3\n\n\
                   BACKEND  WEIGHT  PACKETS  LAST CHECK\nweb-1       100      101  ok 6.5 ms\n";
        let other = "lb 0.1.0  pid 7  since 2027-01-01T00:00:00.000Z  revision 3\n\n\
                     BACKEND  WEIGHT  PACKETS  LAST CHECK\nweb-1       100        9  ok 12 ms\n";
        assert_eq!(settled(one), settled(other));
        assert_ne!(
            settled(one),
            settled(&other.replace("web-1       100", "web-1       300"))
        );
        assert_ne!(settled(one), settled(&other.replace("revision 3", "revision 4")));
        assert_eq!(
            settled("the next hop towards 10.0.0.12 is b2:b7:8f:a2:a0:35"),
            "the next hop towards 10.0.0.12 is MAC\n"
        );
    }
}
