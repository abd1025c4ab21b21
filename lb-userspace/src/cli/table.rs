//! Aligned text tables: a header, rows, no lines, two spaces between columns.

use std::{borrow::Cow, iter};

use super::fit::{Cut, Extent, cut};

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
    /// Which columns are shown, and how wide they are.
    pub extent: Extent,
}

/// A column: where its cells stand, and what happens to it where there is too little room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    align: Align,
    /// Where there is too little room, columns of lower rank are shown; those of rank 0 always.
    rank: u8,
    /// Whether it is not one of the usual columns.
    is_extra: bool,
    /// Width down to which its cells are cut, and which part of them is left out.
    cut: Option<(usize, Cut)>,
}

/// A column of words.
pub(super) const fn text(title: &'static str) -> Column {
    Column {
        title,
        align: Align::Left,
        rank: 0,
        is_extra: false,
        cut: None,
    }
}

/// A column of numbers.
pub(super) const fn number(title: &'static str) -> Column {
    Column {
        align: Align::Right,
        ..text(title)
    }
}

/// A column of names or addresses, which are cut down to this width.
pub(super) const fn name(title: &'static str, least: usize) -> Column {
    Column {
        cut: Some((least, Cut::Middle)),
        ..text(title)
    }
}

/// A column of sentences, which are cut down to this width.
pub(super) const fn sentence(title: &'static str, least: usize) -> Column {
    Column {
        cut: Some((least, Cut::End)),
        ..text(title)
    }
}

impl Column {
    /// The same, left out earlier than columns of lower rank.
    pub(super) const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }

    /// The same, shown only with all columns, or where there is room.
    pub(super) const fn extra(self, rank: u8) -> Self {
        Self {
            rank,
            is_extra: true,
            ..self
        }
    }
}

/// Narrowest column of a window that is too narrow for the columns that are always shown.
const NARROWEST: usize = 4;
/// Blanks between columns.
const GAP: usize = 2;

/// Columns of a table that is printed in parts: those shown, and their widths so far.
#[derive(Debug, Default)]
pub(super) struct Layout {
    shown: Vec<usize>,
    natural: Vec<usize>,
}

/// A table that is filled row by row and then rendered.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    /// The texts of all cells, one after the other: a string for each cell of a long table takes most of its time.
    texts: String,
    /// Where each cell's text ends, and its tone, row by row.
    cells: Vec<(usize, Tone)>,
}

/// A cell that is about to be printed: its text, the characters that it takes, and its tone.
type Printed<'a> = (&'a str, usize, Tone);

impl Table {
    /// An empty table with these columns.
    pub(super) fn new(columns: &[Column]) -> Self {
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
        self.render_part(style, &mut Layout::default())
    }

    /// The rows so far as text, for a table that is printed in parts. They are taken out. `layout` is that of the parts
    /// before, empty at first, when the header comes.
    pub(super) fn take(&mut self, style: Style, layout: &mut Layout) -> String {
        let headers = style.headers && layout.natural.is_empty();
        let text = self.render_part(Style { headers, ..style }, layout);
        self.texts.clear();
        self.cells.clear();
        text
    }

    fn render_part(&self, style: Style, layout: &mut Layout) -> String {
        let columns = self.columns.len().max(1);
        let mut begin = 0;
        let rows: Vec<Printed<'_>> = self
            .cells
            .iter()
            .map(|(end, tone)| {
                let text = &self.texts[begin..*end];
                begin = *end;
                (text, text.chars().count(), *tone)
            })
            .collect();
        let head: Vec<Printed<'_>> = self
            .columns
            .iter()
            .filter(|_| style.headers)
            .map(|column| (column.title, column.title.chars().count(), Tone::Plain))
            .collect();
        let lines = head.chunks(columns).chain(rows.chunks(columns));
        layout.natural.resize(self.columns.len(), 0);
        for line in lines.clone() {
            for (width, (_, taken, _)) in layout.natural.iter_mut().zip(line) {
                *width = (*width).max(*taken);
            }
        }
        if layout.shown.is_empty() {
            layout.shown = self.shown(style.extent, &layout.natural, &rows);
        }
        let widths = self.widths(style.extent, layout);
        let line = widths.iter().sum::<usize>() + GAP * columns;
        let mut text = String::with_capacity(line * (rows.len() / columns + 1));
        let pad = |text: &mut String, count: usize| text.extend(iter::repeat_n(' ', count));
        for row in lines {
            for (place, width) in layout.shown.iter().zip(&widths) {
                let (Some((cell, taken, tone)), Some(column)) = (row.get(*place), self.columns.get(*place))
                else {
                    continue;
                };
                let part = column.cut.map_or(Cut::End, |(_, part)| part);
                let words = if taken > width {
                    cut(cell, *width, part).into()
                } else {
                    Cow::Borrowed(*cell)
                };
                let blanks = width.saturating_sub(*taken);
                if column.align == Align::Right {
                    pad(&mut text, blanks);
                }
                if style.colour {
                    text.push_str(&tone.paint(&words));
                } else {
                    text.push_str(&words);
                }
                if column.align == Align::Left {
                    pad(&mut text, blanks);
                }
                pad(&mut text, GAP);
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }

    /// Places of the columns that are shown, in order.
    fn shown(&self, extent: Extent, natural: &[usize], rows: &[Printed<'_>]) -> Vec<usize> {
        let places = 0..self.columns.len();
        let window = match extent {
            Extent::Usual => return places.filter(|place| !self.columns[*place].is_extra).collect(),
            Extent::All => return places.collect(),
            Extent::Window(window) => window,
        };
        let mut by_rank: Vec<usize> = places.collect();
        by_rank.sort_by_key(|place| (self.columns[*place].is_extra, self.columns[*place].rank));
        // With usual columns cut as far as they can be, and with names whole: none is cut for the sake of an extra column.
        let (mut used, mut whole, mut misses_usual) = (0, 0, false);
        let has_room = |place: &usize| {
            let column = &self.columns[*place];
            let is_empty = || rows.chunks(self.columns.len()).all(|row| row[*place].0 == "-");
            if column.is_extra && (misses_usual || is_empty()) {
                return false;
            }
            let gap = if used == 0 { 0 } else { GAP };
            let natural = natural[*place];
            let least = gap + column.least(natural);
            let wanted = gap + column.wanted(natural);
            let fits = match column.is_extra {
                true => whole + wanted <= window,
                false => used + least <= window || column.rank == 0,
            };
            misses_usual |= !fits;
            if fits {
                used += least;
                whole += wanted;
            }
            fits
        };
        let mut shown: Vec<usize> = by_rank.into_iter().filter(has_room).collect();
        shown.sort_unstable();
        shown
    }

    /// Widths of the columns that are shown: in a window, cells are cut to what is left, the longest first.
    fn widths(&self, extent: Extent, layout: &Layout) -> Vec<usize> {
        let natural: Vec<usize> = layout.shown.iter().map(|place| layout.natural[*place]).collect();
        let Extent::Window(window) = extent else {
            return natural;
        };
        let columns: Vec<&Column> = layout.shown.iter().map(|place| &self.columns[*place]).collect();
        let gaps = GAP * columns.len().saturating_sub(1);
        let room = window.saturating_sub(gaps);
        let mut widths = natural;
        while widths.iter().sum::<usize>() > room {
            let cuttable = (0..widths.len()).filter(|place| columns[*place].cut.is_some());
            let widest = |least: &dyn Fn(usize) -> usize| {
                let above = cuttable.clone().filter(|place| widths[*place] > least(*place));
                above.max_by_key(|place| widths[*place])
            };
            let next =
                widest(&|place| columns[place].least(widths[place])).or_else(|| widest(&|_| NARROWEST));
            let Some(next) = next else { break };
            widths[next] -= 1;
        }
        widths
    }
}

impl Column {
    /// Width with whole names; sentences may be cut.
    fn wanted(&self, natural: usize) -> usize {
        match self.cut {
            Some((_, Cut::End)) => self.least(natural),
            Some((_, Cut::Middle)) | None => natural,
        }
    }

    /// Width that it needs, of the width that its cells have.
    fn least(&self, natural: usize) -> usize {
        let (least, title) = (self.cut.map(|(least, _)| least), self.title.chars().count());
        least.map_or(natural, |least| natural.min(least.max(title)))
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
        let mut table = Table::new(&[text("NAME"), number("PACKETS"), text("NOTE")]);
        table.row(["web".into(), "7".into()]);
        table.row(["a-long-name".into(), "12345678".into(), Cell::new("x", Tone::Bad)]);
        let plain = Style {
            headers: true,
            colour: false,
            extent: Extent::Usual,
        };
        assert_eq!(
            table.render(plain),
            "NAME          PACKETS  NOTE\nweb                 7  -\na-long-name  12345678  x\n"
        );
        let bare = Style {
            headers: false,
            colour: true,
            extent: Extent::Usual,
        };
        assert_eq!(
            table.render(bare),
            "web                 7  -\na-long-name  12345678  \x1b[31mx\x1b[0m\n"
        );
    }

    #[test]
    fn a_table_in_parts_has_one_header_and_never_narrower_columns() {
        let mut table = Table::new(&[text("NAME"), number("N")]);
        let style = Style {
            headers: true,
            colour: false,
            extent: Extent::Usual,
        };
        let mut layout = Layout::default();
        table.row(["web-1".into(), "10".into()]);
        assert_eq!(table.take(style, &mut layout), "NAME    N\nweb-1  10\n");
        table.row(["a".into(), "7".into()]);
        assert_eq!(table.take(style, &mut layout), "a       7\n");
        assert_eq!(table.take(style, &mut layout), "");
    }

    fn in_window(table: &Table, window: usize) -> String {
        table.render(Style {
            headers: true,
            colour: false,
            extent: Extent::Window(window),
        })
    }

    #[test]
    fn a_window_shows_the_columns_that_it_has_room_for() {
        let mut table = Table::new(&[
            name("NAME", 8),
            text("STATE"),
            number("FLOWS").rank(1),
            number("BYTES").rank(2),
            text("SINCE").extra(3),
            text("AGENT").extra(4),
        ]);
        let long = "web-of-the-first-rack-0001";
        table.row([long, "ok", "7", "1024", "3m"].map(Cell::from));
        for (window, lines) in [
            (
                60,
                "NAME                        STATE  FLOWS  BYTES  SINCE\nweb-of-the-first-rack-0001  ok         7   1024  3m\n",
            ),
            (
                53,
                "NAME                        STATE  FLOWS  BYTES\nweb-of-the-first-rack-0001  ok         7   1024\n",
            ),
            (
                30,
                "NAME       STATE  FLOWS  BYTES\nweb-…0001  ok         7   1024\n",
            ),
            (25, "NAME         STATE  FLOWS\nweb-o…-0001  ok         7\n"),
            (14, "NAME     STATE\nweb…001  ok\n"),
        ] {
            assert_eq!(in_window(&table, window), lines, "{window}");
        }
    }

    #[test]
    fn parts_of_a_table_in_a_window_have_the_same_columns() {
        let mut table = Table::new(&[name("NAME", 6), number("N").rank(1)]);
        let style = Style {
            headers: true,
            colour: false,
            extent: Extent::Window(10),
        };
        let mut layout = Layout::default();
        table.row(["a".into(), "1".into()]);
        assert_eq!(table.take(style, &mut layout), "NAME  N\na     1\n");
        table.row(["a-longer-name".into(), "1000".into()]);
        assert_eq!(table.take(style, &mut layout), "a-…e  1000\n");
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
