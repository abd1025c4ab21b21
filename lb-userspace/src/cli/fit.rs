//! Text that fits into a terminal: its width, and cut and folded text.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use ratatui::crossterm::terminal;

/// Columns of a terminal that does not say how many it has.
const USUAL_COLUMNS: usize = 80;
/// More blanks than its first line has the rest of a folded line.
const INDENT: usize = 4;

/// How much of a table is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    /// The usual columns, whole: what programs read.
    Usual,
    /// All columns, whole.
    All,
    /// As many columns as a terminal of this width has room for. Long names are cut.
    Window(usize),
}

impl Extent {
    /// For standard output; `is_wide`: with all columns.
    pub(super) fn of_stdout(is_wide: bool) -> Self {
        if is_wide {
            Self::All
        } else if io::stdout().is_terminal() {
            Self::Window(columns())
        } else {
            Self::Usual
        }
    }

    /// `text` with lines that are no longer than the terminal is wide; as it is where there is no terminal.
    pub(super) fn fold(self, text: &str) -> String {
        match self {
            Self::Window(width) => text.lines().map(|line| folded(line, width) + "\n").collect(),
            Self::Usual | Self::All => text.to_owned(),
        }
    }

    /// Whether ages and local times stand beside times in UTC: people read the output.
    pub(super) const fn has_ages(self) -> bool {
        match self {
            Self::Window(_) | Self::All => true,
            Self::Usual => false,
        }
    }
}

/// Columns of the terminal: `COLUMNS` (POSIX), else what the terminal says.
pub(super) fn columns() -> usize {
    let named = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let of_terminal = || terminal::size().ok().map(|(columns, _)| usize::from(columns));
    named
        .or_else(of_terminal)
        .filter(|columns| *columns > 0)
        .unwrap_or(USUAL_COLUMNS)
}

/// Which part of a long text is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// The middle: names often differ at the end, and addresses have their port there.
    Middle,
    /// The end.
    End,
}

/// The text in at most `width` characters; `…` stands for what is left out.
pub(super) fn cut(text: &str, width: usize, part: Cut) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let Some(kept) = width.checked_sub(1) else {
        return String::new();
    };
    let last = match part {
        Cut::Middle => kept / 2,
        Cut::End => 0,
    };
    let first = text.chars().take(kept - last);
    first
        .chain(['…'])
        .chain(text.chars().skip(length - last))
        .collect()
}

/// A line in pieces of at most `width` characters, broken at blanks outside of commands in backticks where that is possible.
fn folded(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let own = line.chars().take_while(|char| *char == ' ').count();
    let indent = if own + 2 * INDENT < width { own + INDENT } else { 0 };
    let mut text = " ".repeat(own);
    let (mut used, mut begin) = (own, own);
    for word in words(line.trim_start()) {
        let blank = usize::from(used > begin);
        let length = word.chars().count();
        if used + blank + length <= width {
            text.push_str(&" ".repeat(blank));
            text.push_str(&word);
            used += blank + length;
            continue;
        }
        if used > begin {
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            (used, begin) = (indent, indent);
        }
        for char in word.chars() {
            if used == width {
                text.push('\n');
                text.push_str(&" ".repeat(indent));
                (used, begin) = (indent, indent);
            }
            text.push(char);
            used += 1;
        }
    }
    text
}

/// Words of a line; a command in backticks is one.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_open = false;
    for word in line.split(' ') {
        match words.last_mut() {
            Some(last) if is_open => {
                last.push(' ');
                last.push_str(word);
            }
            Some(_) | None => words.push(word.to_owned()),
        }
        is_open ^= word.matches('`').count() % 2 == 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_with_a_mark() {
        for (width, part, text) in [
            (9, Cut::End, "backend-1"),
            (5, Cut::End, "back…"),
            (8, Cut::Middle, "back…d-1"),
            (1, Cut::Middle, "…"),
            (0, Cut::End, ""),
        ] {
            assert_eq!(cut("backend-1", width, part), text, "{width}");
        }
    }

    #[test]
    fn lines_are_folded_at_blanks_and_commands_stay_whole() {
        let text = "  web/b1: down: connection refused\n    hint: `lb doctor --vip 1.2.3.4` or wait\nshort\n";
        assert_eq!(
            Extent::Window(30).fold(text),
            "  web/b1: down: connection\n      refused\n    hint:\n        `lb doctor --vip 1.2.3\n        .4` or wait\nshort\n"
        );
        assert_eq!(
            Extent::Window(36).fold(text),
            "  web/b1: down: connection refused\n    hint: `lb doctor --vip 1.2.3.4`\n        or wait\nshort\n"
        );
        for extent in [Extent::Usual, Extent::All] {
            assert_eq!(extent.fold(text), text);
        }
        let long = "x".repeat(100);
        for line in Extent::Window(30).fold(&format!("  {long} {long}\n")).lines() {
            assert!(line.chars().count() <= 30, "{line}");
        }
    }
}
