//! Aligned text tables: a header, rows, no lines, two spaces between columns.

use std::{borrow::Cow, iter};

/// Side on which a column's cells stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Meaning of a cell's content, shown by its colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tone {
    /// Neither.
    Plain,
    /// As it should be.
    Good,
    /// On purpose, or passing.
    Notice,
    /// Wrong.
    Bad,
}

impl Tone {
    /// `text` in this tone's colour.
    pub(super) fn paint(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Good => format!("\x1b[32m{text}\x1b[0m"),
            Self::Notice => format!("\x1b[33m{text}\x1b[0m"),
            Self::Bad => format!("\x1b[31m{text}\x1b[0m"),
        }
    }
}

/// A cell: text and tone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cell<'a> {
    text: Cow<'a, str>,
    tone: Tone,
}

impl<'a> Cell<'a> {
    /// Text in a tone.
    pub(super) fn new(text: impl Into<Cow<'a, str>>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<'a, T: Into<Cow<'a, str>>> From<T> for Cell<'a> {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// How tables are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Style {
    /// With a header line.
    pub headers: bool,
    /// With colours.
    pub colour: bool,
}

/// A table that is filled row by row and then rendered.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    /// The texts of all cells, one after the other: a string for each cell of a long table takes most of its time.
    texts: String,
    /// Where each cell's text ends, and its tone, row by row.
    cells: Vec<(usize, Tone)>,
}

impl Table {
    /// An empty table with these columns.
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            texts: String::new(),
            cells: Vec::new(),
        }
    }

    /// Adds a row; missing cells stay empty, empty ones are shown as `-`.
    pub(super) fn row<'a>(&mut self, cells: impl IntoIterator<Item = Cell<'a>>) {
        let mut cells = cells.into_iter();
        for _ in &self.columns {
            let Cell { text, tone } = cells.next().unwrap_or_else(|| Cell::from(""));
            self.texts.push_str(if text.is_empty() { "-" } else { &text });
            self.cells.push((self.texts.len(), tone));
        }
    }

    /// The table as text, one line per row.
    pub(super) fn render(&self, style: Style) -> String {
        self.render_part(style, &mut Vec::new())
    }

    /// The rows so far as text, for a table that is printed in parts. They are taken out. `widths` are those of the parts
    /// before, empty at first, when the header comes.
    pub(super) fn take(&mut self, style: Style, widths: &mut Vec<usize>) -> String {
        let headers = style.headers && widths.is_empty();
        let text = self.render_part(Style { headers, ..style }, widths);
        self.texts.clear();
        self.cells.clear();
        text
    }

    fn render_part(&self, style: Style, widths: &mut Vec<usize>) -> String {
        let columns = self.columns.len();
        let heads = self.columns.iter().map(|(name, _)| (*name, Tone::Plain));
        let mut begin = 0;
        let cells = self.cells.iter().map(|(end, tone)| {
            let text = &self.texts[begin..*end];
            begin = *end;
            (text, *tone)
        });
        let heads = heads.take(if style.headers { columns } else { 0 });
        // Cells with the characters that they take.
        let cells = heads.chain(cells);
        let cells: Vec<_> = cells
            .map(|(text, tone)| (text, text.chars().count(), tone))
            .collect();
        widths.resize(columns, 0);
        for line in cells.chunks(columns.max(1)) {
            for (width, (_, taken, _)) in widths.iter_mut().zip(line) {
                *width = (*width).max(*taken);
            }
        }
        let line = widths.iter().sum::<usize>() + "  ".len() * columns;
        let mut text = String::with_capacity(line * (cells.len() / columns.max(1)));
        let pad = |text: &mut String, count: usize| text.extend(iter::repeat_n(' ', count));
        for row in cells.chunks(columns.max(1)) {
            for (((cell, taken, tone), width), (_, align)) in row.iter().zip(&*widths).zip(&self.columns) {
                let blanks = width - taken;
                if *align == Align::Right {
                    pad(&mut text, blanks);
                }
                if style.colour {
                    text.push_str(&tone.paint(cell));
                } else {
                    text.push_str(cell);
                }
                if *align == Align::Left {
                    pad(&mut text, blanks);
                }
                text.push_str("  ");
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }
}

/// A count for people: exact below 10,000, then with three digits and a unit.
pub(super) fn count(n: u64) -> String {
    scaled(n, 1_000, &["", "k", "M", "G", "T", "P", "E"])
}

/// Bytes for people, in powers of 1,024.
pub(super) fn bytes(n: u64) -> String {
    scaled(n, 1_024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(n: u64, base: u64, units: &[&str]) -> String {
    let mut divisor = 1_u64;
    let mut unit = 0;
    while n / divisor >= 10 * base && unit + 1 < units.len() {
        divisor *= base;
        unit += 1;
    }
    let (whole, rest) = (n / divisor, n % divisor);
    let space = if units[0].is_empty() || units[unit].is_empty() {
        ""
    } else {
        " "
    };
    if unit == 0 || whole >= 100 {
        format!("{whole}{space}{}", units[unit])
    } else {
        format!("{whole}.{}{space}{}", rest * 10 / divisor, units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let mut table = Table::new(&[
            ("NAME", Align::Left),
            ("PACKETS", Align::Right),
            ("NOTE", Align::Left),
        ]);
        table.row(["web".into(), "7".into()]);
        table.row(["a-long-name".into(), "12345678".into(), Cell::new("x", Tone::Bad)]);
        let plain = Style {
            headers: true,
            colour: false,
        };
        assert_eq!(
            table.render(plain),
            "NAME          PACKETS  NOTE\nweb                 7  -\na-long-name  12345678  x\n"
        );
        let bare = Style {
            headers: false,
            colour: true,
        };
        assert_eq!(
            table.render(bare),
            "web                 7  -\na-long-name  12345678  \x1b[31mx\x1b[0m\n"
        );
    }

    #[test]
    fn a_table_in_parts_has_one_header_and_never_narrower_columns() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right)]);
        let style = Style {
            headers: true,
            colour: false,
        };
        let mut widths = Vec::new();
        table.row(["web-1".into(), "10".into()]);
        assert_eq!(table.take(style, &mut widths), "NAME    N\nweb-1  10\n");
        table.row(["a".into(), "7".into()]);
        assert_eq!(table.take(style, &mut widths), "a       7\n");
        assert_eq!(table.take(style, &mut widths), "");
    }

    #[test]
    fn counts_stay_exact_while_they_are_short() {
        for (n, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (1_234_567, "1234k"),
            (12_345_678, "12.3M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(count(n), text);
        }
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1_048_576), "1024 KiB");
        assert_eq!(bytes(123_456_789), "117 MiB");
    }
}
