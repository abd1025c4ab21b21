//! Columns of the two lists, by what fits.

use super::{
    model::TREND,
    rows::{self, BackendRow, Order, ServiceRow},
    text::{latency, rate},
};
use crate::{
    api::rates::Rates,
    cli::{
        fit::Extent,
        table::{Align, Tone, count},
        tables::{able, admin, endpoint, health, tone},
    },
};

/// Widest name that is shown whole.
const MAX_NAME: usize = 40;

/// A column.
#[derive(Debug)]
pub(super) struct Column<R> {
    /// Its head.
    pub title: &'static str,
    /// The order that it stands for.
    pub order: Option<Order>,
    /// Side of its cells.
    pub align: Align,
    /// Width that it needs.
    least: usize,
    /// Width that it can use.
    most: usize,
    /// Columns of lower rank are shown first.
    rank: u8,
    /// The cell of a row.
    pub cell: Cell<R>,
}

/// What a column shows of a row.
#[derive(Debug)]
pub(super) enum Cell<R> {
    /// Words.
    Text(fn(&R) -> (String, Tone)),
    /// One of the rates of the latest samples.
    Trend(fn(&Rates) -> f64),
}

const fn text<R>(
    rank: u8,
    title: &'static str,
    least: usize,
    most: usize,
    cell: fn(&R) -> (String, Tone),
) -> Column<R> {
    Column {
        title,
        order: None,
        align: Align::Left,
        least,
        most,
        rank,
        cell: Cell::Text(cell),
    }
}

const fn number<R>(
    rank: u8,
    title: &'static str,
    order: Option<Order>,
    cell: fn(&R) -> (String, Tone),
) -> Column<R> {
    Column {
        order,
        align: Align::Right,
        ..text(rank, title, 6, 7, cell)
    }
}

const fn trend<R>(rank: u8, title: &'static str, value: fn(&Rates) -> f64) -> Column<R> {
    Column {
        title,
        order: None,
        align: Align::Right,
        least: 8,
        most: TREND,
        rank,
        cell: Cell::Trend(value),
    }
}

fn plain(text: String) -> (String, Tone) {
    (text, Tone::Plain)
}

/// Columns of services, as they stand.
pub(super) fn of_services<'a>() -> Vec<Column<ServiceRow<'a>>> {
    vec![
        Column {
            order: Some(Order::Name),
            ..text(0, "SERVICE", 12, MAX_NAME, |row| plain(row.service.name.clone()))
        },
        text(10, "ADDRESS", 22, 46, |row| plain(endpoint(row.service))),
        text(14, "MODE", 5, 5, |row| plain(row.service.mode.clone())),
        Column {
            order: Some(Order::State),
            ..text(1, "STATE", 8, 14, |row| {
                let state = row.service.judged();
                (state.name().to_owned(), tone(state))
            })
        },
        Column {
            align: Align::Right,
            ..text(2, "UP", 7, 22, |row| plain(able(row.service)))
        },
        number(1, "PKT/s", Some(Order::Packets), |row| {
            plain(rate(row.rates.traffic.map(|rates| rates.packets)))
        }),
        trend(9, "PACKETS", |rates| rates.packets),
        number(3, "BIT/s", Some(Order::Bits), |row| {
            plain(rate(row.rates.traffic.map(|rates| rates.bits)))
        }),
        trend(13, "BITS", |rates| rates.bits),
        number(4, "NEW/s", Some(Order::NewFlows), |row| {
            plain(rate(row.rates.traffic.map(|rates| rates.new_flows)))
        }),
        trend(13, "NEW", |rates| rates.new_flows),
        number(11, "RPKT/s", None, |row| {
            plain(rate(row.rates.traffic.map(|rates| rates.reply_packets)))
        }),
        number(12, "RBIT/s", None, |row| {
            plain(rate(row.rates.traffic.map(|rates| rates.reply_bits)))
        }),
        number(5, "FLOWS", Some(Order::Flows), |row| {
            plain(count(row.service.active_flows))
        }),
        number(6, "DROP/s", Some(Order::Drops), |row| {
            let dropped = row.rates.dropped();
            let tone = if dropped.is_some_and(|dropped| dropped > 0.0) {
                Tone::Notice
            } else {
                Tone::Plain
            };
            (rate(dropped), tone)
        }),
        number(7, "CHECK", Some(Order::Latency), |row| {
            plain(
                row.latency()
                    .map_or_else(|| "-".into(), |(median, _)| latency(median)),
            )
        }),
        number(12, "MAX", None, |row| {
            plain(
                row.latency()
                    .map_or_else(|| "-".into(), |(_, most)| latency(most)),
            )
        }),
        text(12, "MOST DROPS", 16, 24, |row| {
            let first = row.rates.drops.first();
            let reason = first.filter(|drops| drops.packets_per_second.is_some_and(|rate| rate > 0.0));
            plain(reason.map_or_else(|| "-".into(), |drops| drops.reason.clone()))
        }),
    ]
}

/// Columns of backends, as they stand.
pub(super) fn of_backends<'a>() -> Vec<Column<BackendRow<'a>>> {
    vec![
        Column {
            order: Some(Order::Name),
            ..text(0, "BACKEND", 12, MAX_NAME, |row| plain(row.backend.name.clone()))
        },
        text(8, "ADDRESS", 21, 47, |row| plain(row.backend.address.to_string())),
        Column {
            order: Some(Order::State),
            ..text(1, "HEALTH", 9, 18, |row| {
                let (word, tone) = health(row.backend);
                (word.to_owned(), tone)
            })
        },
        text(2, "ADMIN", 8, 24, |row| admin(row.backend, Extent::All)),
        number(10, "WEIGHT", None, |row| plain(row.backend.weight.to_string())),
        number(1, "PKT/s", Some(Order::Packets), |row| {
            plain(rate(row.rates.map(|rates| rates.packets)))
        }),
        trend(7, "PACKETS", |rates| rates.packets),
        number(3, "BIT/s", Some(Order::Bits), |row| {
            plain(rate(row.rates.map(|rates| rates.bits)))
        }),
        trend(13, "BITS", |rates| rates.bits),
        number(4, "NEW/s", Some(Order::NewFlows), |row| {
            plain(rate(row.rates.map(|rates| rates.new_flows)))
        }),
        trend(13, "NEW", |rates| rates.new_flows),
        number(9, "RPKT/s", None, |row| {
            plain(rate(row.rates.map(|rates| rates.reply_packets)))
        }),
        number(11, "RBIT/s", None, |row| {
            plain(rate(row.rates.map(|rates| rates.reply_bits)))
        }),
        number(5, "FLOWS", Some(Order::Flows), |row| {
            plain(count(row.backend.active_flows))
        }),
        number(6, "CHECK", Some(Order::Latency), |row| {
            plain(rows::latency(row.backend).map_or_else(|| "-".into(), latency))
        }),
        text(12, "FAILURE", 16, 40, |row| {
            let check = row.backend.last_check.as_ref().filter(|check| !check.ok);
            let words = check.map_or_else(|| "-".into(), |check| check.detail.clone());
            (words, Tone::Bad)
        }),
    ]
}

/// The columns that fit into `width`, with a blank between them: those of the lowest rank.
pub(super) fn that_fit<R>(columns: Vec<Column<R>>, width: usize) -> Vec<Column<R>> {
    let mut by_rank: Vec<(u8, usize)> = (0..)
        .zip(&columns)
        .map(|(place, column)| (column.rank, place))
        .collect();
    by_rank.sort_unstable();
    let mut used = 0;
    let fits = by_rank.into_iter().take_while(|(_, place)| {
        used += columns[*place].least + usize::from(used > 0);
        used <= width
    });
    let shown: Vec<usize> = fits.map(|(_, place)| place).collect();
    let columns = (0..).zip(columns);
    columns
        .filter(|(place, _)| shown.contains(place))
        .map(|(_, column)| column)
        .collect()
}

/// The width of each column: what it needs, then what its cells, of width `natural`, can use, then trends what is left.
pub(super) fn widths<R>(columns: &[Column<R>], natural: &[usize], width: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = columns.iter().map(|column| column.least).collect();
    let used = widths.iter().sum::<usize>() + columns.len().saturating_sub(1);
    let mut left = width.saturating_sub(used);
    for ((column, natural), width) in columns.iter().zip(natural).zip(&mut widths) {
        let more = (*natural).min(column.most).saturating_sub(*width).min(left);
        *width += more;
        left -= more;
    }
    let is_trend = |column: &Column<R>| matches!(column.cell, Cell::Trend(_));
    let mut trends = columns.iter().filter(|column| is_trend(column)).count();
    for (column, width) in columns.iter().zip(&mut widths) {
        if is_trend(column) {
            let more = (left / trends).min(column.most.saturating_sub(*width));
            *width += more;
            left -= more;
            trends -= 1;
        }
    }
    widths
}
