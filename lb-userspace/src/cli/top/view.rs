//! The screen: totals, the rows that the window has room for, and a line for the selected row and the keys.

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    columns::{self, Cell, Column},
    model::{Change, Mode, Model, Page, TREND, Trend},
    rows::{BackendRow, Order, Row, ServiceRow},
    text::{latency, rate, spark},
};
use crate::{
    api::rates::{DropRate, Rates},
    cli::{
        fit::{Cut, cut},
        local_time::local,
        table::{Align, Tone, count},
        tables::{endpoint, tone},
    },
    state::backend::Admin,
};

/// Lines below the totals that no row can have: what is listed, heads of columns, the selected row, keys.
const FIXED: usize = 4;

/// Draws all of it. `has_colours`: else tones are not shown.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, has_colours: bool) {
    let area = frame.area();
    let screen = &mut Screen {
        buffer: frame.buffer_mut(),
        area,
        next: area.y,
        has_colours,
    };
    let height = usize::from(area.height);
    let most = height.saturating_sub(FIXED + 1);
    for line in totals(model, screen).into_iter().take(most) {
        screen.line(line);
    }
    model.height = height.saturating_sub(usize::from(screen.next - area.y) + FIXED);
    if model.mode == Mode::Help {
        help(screen, height);
        return;
    }
    match model.page.clone() {
        Page::Services => {
            let rows = model.service_rows();
            let place = model.place(rows.iter().map(|row| row.name()));
            let first = first(model, rows.len(), place);
            let all = model.sample.services.len();
            screen.line(Line::from(listed("services", rows.len(), all, model)));
            let trend = |row: &ServiceRow<'_>| model.trend(&row.service.name, None);
            screen.rows(columns::of_services(), &rows, first, place, model, trend);
            let selected = rows.get(place).map(|row| of_service(row));
            screen.bottom(selected, keys(model));
            model.list_mut().first = first;
        }
        Page::Backends(service) => {
            let rows = model.backend_rows(&service);
            let place = model.place(rows.iter().map(|row| row.name()));
            let first = first(model, rows.len(), place);
            let of = model.service(&service);
            let all = of.map_or(0, |row| row.service.backends.len());
            let mut title = vec![Span::from(format!("{service}: "))];
            if let Some(row) = of {
                let state = row.service.judged();
                title.push(screen.span(state.name().to_owned(), tone(state)));
                title.push(Span::from(format!(", {}; ", endpoint(row.service))));
            }
            title.push(Span::from(listed("backends", rows.len(), all, model)));
            screen.line(Line::from(title));
            let trend = |row: &BackendRow<'_>| model.trend(&service, Some(&row.backend.name));
            screen.rows(columns::of_backends(), &rows, first, place, model, trend);
            let selected = rows.get(place).map(|row| of_backend(row));
            screen.bottom(selected, keys(model));
            model.list_mut().first = first;
        }
    }
}

/// The first row that is shown: the selected one is in the window, which moves no further than it has to.
fn first(model: &Model, rows: usize, place: usize) -> usize {
    let height = model.height.max(1);
    let first = model.list().first.min(rows.saturating_sub(height));
    first.clamp((place + 1).saturating_sub(height), place)
}

/// `services 3, by packets/s`
fn listed(what: &str, shown: usize, all: usize, model: &Model) -> String {
    let list = model.list();
    let found = if list.filter.is_empty() {
        format!("{all} {what}")
    } else {
        format!("{shown} of {all} {what} with \"{}\"", list.filter)
    };
    let direction = if list.sort.is_reversed { ", reversed" } else { "" };
    format!("{found}, by {}{direction}", list.sort.by.name())
}

fn totals<'a>(model: &Model, screen: &Screen<'_>) -> Vec<Line<'a>> {
    let sample = &model.sample;
    let (status, totals) = (&sample.status, &sample.totals);
    let width = usize::from(screen.area.width);
    let time = |at| local(at).chars().take(8).collect::<String>();
    let mut head = vec![Span::from(format!("lb {}  ", status.version))];
    match model.away {
        Some(since) => head.push(screen.span(
            format!("the daemon is away since {}, waiting", time(since)),
            Tone::Bad,
        )),
        None => {
            head.push(if status.ready {
                screen.span("ready".to_owned(), Tone::Good)
            } else {
                screen.span("not ready".to_owned(), Tone::Bad)
            });
            head.push(Span::from(format!(
                "  revision {}  {}",
                status.revision,
                time(sample.time)
            )));
            if !status.problems.is_empty() {
                let problems = status.problems.len();
                let words = format!("  problems: {problems}, see `lb status`");
                head.push(screen.span(words, Tone::Bad));
            }
        }
    }
    // Three trends share what the words of their line leave.
    let trend = (width.saturating_sub(53) / 3).clamp(4, TREND);
    let rates = totals.rates;
    let of = |value: fn(&Rates) -> f64| rate(rates.as_ref().map(value));
    let part = |name: &str, value: fn(&Rates) -> f64| {
        let bars = spark(model.total_trend().newest(trend, value));
        format!("{name} {:<6}{bars:<trend$}  ", of(value))
    };
    let traffic = part("packets/s", |rates| rates.packets)
        + &part("bits/s", |rates| rates.bits)
        + &part("new flows/s", |rates| rates.new_flows);
    let replies = format!(
        "replies/s {:<6}bits/s {:<6}flows {:<6}received/s {:<6}dropped/s {}",
        of(|rates| rates.reply_packets),
        of(|rates| rates.reply_bits),
        count(totals.active_flows),
        rate(totals.received_per_second),
        rate(totals.dropped_per_second),
    );
    let drops = match reasons(&totals.drops) {
        words if words.is_empty() => Line::from("drops     none"),
        words => {
            let words = cut(&words, width.saturating_sub("drops     ".len()), Cut::End);
            Line::from(vec![Span::from("drops     "), screen.span(words, Tone::Notice)])
        }
    };
    vec![
        Line::from(head),
        Line::from(traffic),
        Line::from(replies),
        drops,
        Line::from(cut(&format!("maps      {}", maps(model)), width, Cut::End)),
    ]
}

/// Reasons with their rates; those of rate 0 after the others.
fn reasons(drops: &[DropRate]) -> String {
    let words = drops.iter().map(|drops| {
        let rate = rate(drops.packets_per_second);
        format!("{} {rate}/s ({})", drops.reason, count(drops.packets))
    });
    words.collect::<Vec<_>>().join(", ")
}

/// How full maps are, the fullest first.
fn maps(model: &Model) -> String {
    let mut maps: Vec<_> = model
        .sample
        .status
        .maps
        .iter()
        .map(|map| (map.entries as f64 / map.capacity.max(1) as f64, map))
        .collect();
    maps.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let words = maps
        .iter()
        .map(|(share, map)| format!("{} {:.0}% of {}", map.name, share * 100.0, count(map.capacity)));
    words.collect::<Vec<_>>().join(", ")
}

/// About the selected service: why it cannot work, or its drops.
fn of_service(row: &ServiceRow<'_>) -> (String, Tone) {
    let service = row.service;
    let drops = reasons(&row.rates.drops);
    match (
        service.broken.as_ref().or(service.error.as_ref()),
        service.faults.first(),
    ) {
        (Some(why), _) => (format!("{}: {why}", service.name), Tone::Bad),
        (None, Some(fault)) => (
            format!("{}/{}: {}", service.name, fault.backend, fault.message),
            Tone::Bad,
        ),
        (None, None) if drops.is_empty() => (
            format!(
                "{}: {}, mode {}, {}",
                service.name,
                endpoint(service),
                service.mode,
                service.algorithm
            ),
            Tone::Plain,
        ),
        (None, None) => (format!("{}: drops {drops}", service.name), Tone::Notice),
    }
}

/// About the selected backend: its address, and its last check.
fn of_backend(row: &BackendRow<'_>) -> (String, Tone) {
    let backend = row.backend;
    let (check, tone) = match &backend.last_check {
        None => ("not checked yet".to_owned(), Tone::Plain),
        Some(check) if check.ok => (format!("check ok, {}", latency(check.latency_us)), Tone::Plain),
        Some(check) => (check.detail.clone(), Tone::Bad),
    };
    let words = format!(
        "{}: {}, weight {} ({} in force); {check}",
        backend.name, backend.address, backend.weight, backend.effective_weight
    );
    (words, tone)
}

/// The last line: what is asked or written, the result of the last key, or the keys.
fn keys(model: &Model) -> (String, Tone) {
    match &model.mode {
        Mode::Filter => (format!("/{}_", model.list().filter), Tone::Plain),
        Mode::Confirm(change) => {
            let name = format!("{}/{}", change.service, change.backend);
            let question = match change.admin {
                Admin::Enabled => format!("enable {name}?"),
                Admin::Draining => format!("drain {name}: no new flows{}?", consequence(model, change)),
                Admin::Disabled => format!("disable {name}?"),
            };
            (format!("{question} [y/N]"), Tone::Notice)
        }
        Mode::Browse | Mode::Help => match (&model.message, &model.page) {
            (Some(message), _) => (message.clone(), Tone::Notice),
            (None, Page::Services) => (
                "ENTER backends  / filter  n h p b w f x c order  r reverse  ? keys  q end".to_owned(),
                Tone::Plain,
            ),
            (None, Page::Backends(_)) => (
                "d drain  e enable  ESC back  / filter  n h p b w f c order  ? keys  q end".to_owned(),
                Tone::Plain,
            ),
        },
    }
}

/// What a drain means for the service.
fn consequence(model: &Model, change: &Change) -> String {
    let rows = model.backend_rows(&change.service);
    let Some(row) = rows.iter().find(|row| row.backend.name == change.backend) else {
        return String::new();
    };
    let able = model
        .service(&change.service)
        .map_or(0, |row| row.service.healthy_backends);
    if able == 1 && row.backend.effective_weight > 0 {
        ", and it is the last that takes them".to_owned()
    } else {
        format!(", {} flows finish", count(row.backend.active_flows))
    }
}

fn help(screen: &mut Screen<'_>, height: usize) {
    let mut lines = vec![
        "ENTER        the backends of the selected service".to_owned(),
        "ESC          take the filter back; then back to the services".to_owned(),
        "up down k j  select; also PgUp, PgDn, Home, End, g, G".to_owned(),
        "/            only rows with this in their name or address; ENTER ends it".to_owned(),
        "d  e         drain or enable the selected backend, after a confirmation".to_owned(),
        "r  < >       reverse the order; order by the column before or after".to_owned(),
    ];
    let orders = Order::ALL.map(|order| format!("{} {}", order.key(), order.name()));
    lines.push(format!("order by     {}", orders[..4].join(", ")));
    lines.push(format!("             {}", orders[4..].join(", ")));
    lines.push("q            end; also Ctrl-C".to_owned());
    lines.push(String::new());
    lines.push("UP: backends that take new flows, of all. RPKT/s and RBIT/s: replies.".to_owned());
    lines.push("CHECK: median latency of the last checks, MAX the highest.".to_owned());
    lines.push("Rates are those of the last interval.".to_owned());
    for line in lines.into_iter().take(height.saturating_sub(1)) {
        screen.line(Line::from(line));
    }
    screen.bottom(None, ("any key closes this list".to_owned(), Tone::Plain));
}

/// The buffer, filled from the top.
struct Screen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    next: u16,
    has_colours: bool,
}

impl Screen<'_> {
    fn style(&self, tone: Tone) -> Style {
        let style = Style::new();
        match tone {
            _ if !self.has_colours => style,
            Tone::Plain => style,
            Tone::Good => style.fg(Color::Green),
            Tone::Notice => style.fg(Color::Yellow),
            Tone::Bad => style.fg(Color::Red),
        }
    }

    fn span<'a>(&self, text: String, tone: Tone) -> Span<'a> {
        Span::styled(text, self.style(tone))
    }

    fn put(&mut self, y: u16, line: &Line<'_>) {
        if y < self.area.bottom() {
            self.buffer.set_line(self.area.x, y, line, self.area.width);
        }
    }

    /// The next line from the top.
    fn line(&mut self, line: Line<'_>) {
        self.put(self.next, &line);
        self.next = self.next.saturating_add(1);
    }

    /// The two lines at the bottom.
    fn bottom(&mut self, selected: Option<(String, Tone)>, (keys, tone): (String, Tone)) {
        let width = usize::from(self.area.width);
        if let Some((text, tone)) = selected
            && self.area.height > 4
        {
            let line = Line::from(self.span(cut(&text, width, Cut::End), tone));
            self.put(self.area.bottom() - 2, &line);
        }
        if self.area.height > 0 {
            let line = Line::from(self.span(cut(&keys, width, Cut::End), tone));
            self.put(self.area.bottom() - 1, &line);
        }
    }

    /// Heads of columns, and the rows of the window, which alone are formatted.
    fn rows<'m, R: Row>(
        &mut self,
        columns: Vec<Column<R>>,
        rows: &[R],
        first: usize,
        selected: usize,
        model: &'m Model,
        trend: impl Fn(&R) -> Option<&'m Trend>,
    ) {
        let width = usize::from(self.area.width);
        let columns = columns::that_fit(columns, width);
        let shown = rows.iter().skip(first).take(model.height);
        let cells: Vec<Vec<(String, Tone)>> = shown
            .clone()
            .map(|row| {
                let cells = columns.iter().map(|column| match column.cell {
                    Cell::Text(text) => text(row),
                    Cell::Trend(_) => (String::new(), Tone::Plain),
                });
                cells.collect()
            })
            .collect();
        let natural = (0..columns.len()).map(|place| {
            let lengths = cells.iter().map(|row| row[place].0.chars().count());
            lengths.max().unwrap_or(0)
        });
        let widths = columns::widths(&columns, &natural.collect::<Vec<_>>(), width);

        let order = model.list().sort.by;
        let heads = columns.iter().zip(&widths).map(|(column, width)| {
            let style = if column.order == Some(order) {
                Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
            } else {
                Style::new().add_modifier(Modifier::BOLD)
            };
            Span::styled(padded(column.title, *width, column.align), style)
        });
        self.line(joined(heads));
        for ((place, row), cells) in (first..).zip(shown).zip(&cells) {
            let spans = columns.iter().zip(&widths).zip(cells);
            let spans = spans.map(|((column, width), (text, tone))| match column.cell {
                Cell::Text(_) => self.span(padded(text, *width, column.align), *tone),
                Cell::Trend(value) => {
                    let bars = trend(row).map(|trend| spark(trend.newest(*width, value)));
                    self.span(
                        padded(&bars.unwrap_or_default(), *width, column.align),
                        Tone::Plain,
                    )
                }
            });
            let line = joined(spans);
            let y = self.next;
            self.line(line);
            if place == selected && y < self.area.bottom() {
                let area = Rect::new(self.area.x, y, self.area.width, 1);
                self.buffer
                    .set_style(area, Style::new().add_modifier(Modifier::REVERSED));
            }
        }
    }
}

/// With a blank between each two.
fn joined<'a>(spans: impl Iterator<Item = Span<'a>>) -> Line<'a> {
    let mut line: Vec<Span<'a>> = Vec::new();
    for span in spans {
        if !line.is_empty() {
            line.push(Span::from(" "));
        }
        line.push(span);
    }
    Line::from(line)
}

fn padded(text: &str, width: usize, align: Align) -> String {
    let text = cut(text, width, Cut::End);
    match align {
        Align::Left => format!("{text:<width$}"),
        Align::Right => format!("{text:>width$}"),
    }
}

#[cfg(test)]
mod tests;
