//! Plots as SVG: lines over an axis, or bars with their spread.

use anyhow::{Result, anyhow};
use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    },
    prelude::*,
};

use super::samples::{Samples, Unit};

/// Pixels of a plot; readers scale it.
const WIDTH: u32 = 860;
const HEIGHT: u32 = 480;
/// Height of a bar with its margin, and of what stands around all bars.
const BAR_HEIGHT: u32 = 30;
const BARS_MARGIN: u32 = 90;
/// Pixels that a bar leaves free above and below it.
const BAR_MARGIN: u32 = 5;
/// Pixels of a letter beside a bar, and letters for which there is space at least.
const LETTER: u32 = 7;
const SHORTEST: usize = 18;
/// Pixels of the legend of lines: of a sample of a line, between that and others, above the first one, and from one to the next.
const LEGEND_LINE: u32 = 18;
const LEGEND_GAP: u32 = 6;
const LEGEND_TOP: i32 = 45;
const LEGEND_ROW: usize = 20;
const FONT: &str = "sans-serif";
/// Colours that people with colour blindness tell apart, too (Okabe and Ito, 2008), and more.
const COLOURS: [RGBColor; 11] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(140, 86, 75),
    RGBColor(127, 127, 127),
    RGBColor(148, 0, 211),
    RGBColor(160, 160, 0),
];

/// How values of an axis are spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// Evenly, from zero or the least value.
    Linear,
    /// By their logarithm.
    Log,
    /// Quantiles, from 0 to below 1, by how few values lie above them: 0.9, 0.99 and 0.999 are a step apart each.
    Quantile,
}

/// An axis.
pub struct Axis {
    /// What stands beside it.
    pub label: String,
    /// What its values count.
    pub unit: Unit,
    /// How they are spread.
    pub scale: Scale,
}

impl Axis {
    /// An axis.
    pub fn new(label: &str, unit: Unit, scale: Scale) -> Self {
        Self {
            label: label.to_owned(),
            unit,
            scale,
        }
    }

    /// Where a value lies on an axis that the plotting library knows.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear | Scale::Log => value,
            Scale::Quantile => 1.0 / (1.0 - value),
        }
    }

    fn show(&self, place: f64) -> String {
        match self.scale {
            Scale::Linear | Scale::Log => self.unit.show(place),
            Scale::Quantile => percent(1.0 - 1.0 / place),
        }
    }
}

/// A quantile in percent, with the digits that tell it from the next one.
fn percent(quantile: f64) -> String {
    let text = format!("{:.4}", quantile * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A line of a plot.
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// What is drawn.
enum Content {
    Lines {
        x: Axis,
        y: Axis,
        lines: Vec<Line>,
    },
    Bars {
        unit: Unit,
        bars: Vec<(String, Samples)>,
    },
}

/// A plot.
pub struct Plot {
    /// Ends its file's name; empty for the first plot of a run.
    pub suffix: String,
    /// Its title.
    pub title: String,
    content: Content,
}

impl Plot {
    /// Lines over an axis.
    pub fn lines(suffix: &str, title: &str, x: Axis, y: Axis, lines: Vec<Line>) -> Self {
        Self {
            suffix: suffix.to_owned(),
            title: title.to_owned(),
            content: Content::Lines { x, y, lines },
        }
    }

    /// A bar for each median, with a line from the least to the greatest value.
    pub fn bars(suffix: &str, title: &str, unit: Unit, bars: Vec<(String, Samples)>) -> Self {
        Self {
            suffix: suffix.to_owned(),
            title: title.to_owned(),
            content: Content::Bars { unit, bars },
        }
    }

    /// The picture.
    ///
    /// # Errors
    /// Without a value to draw.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        let height = match &self.content {
            Content::Lines { .. } => HEIGHT,
            Content::Bars { bars, .. } => BARS_MARGIN + BAR_HEIGHT * u32::try_from(bars.len())?,
        };
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
            let area = area.margin(10, 10, 10, 20);
            self.draw(&area)
                .map_err(|error| error.context(format!("plot {:?}", self.title)))?;
            area.present().map_err(|error| anyhow!("{error}"))?;
        }
        Ok(svg)
    }

    fn draw(&self, area: &Area) -> Result<()> {
        match &self.content {
            Content::Bars { unit, bars } => draw_bars(area, &self.title, *unit, bars),
            Content::Lines { x, y, lines } => {
                let points = || lines.iter().flat_map(|line| &line.points);
                let (across, up) = (
                    range(x, points().map(|point| point.0))?,
                    range(y, points().map(|point| point.1))?,
                );
                let draw = Lines {
                    area,
                    title: &self.title,
                    x,
                    y,
                    lines,
                };
                match (x.scale == Scale::Linear, y.scale == Scale::Linear) {
                    (true, true) => draw.on(across, up),
                    (true, false) => draw.on(across, up.log_scale()),
                    (false, true) => draw.on(across.log_scale(), up),
                    (false, false) => draw.on(across.log_scale(), up.log_scale()),
                }
            }
        }
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// From the least to the greatest place of these values on an axis, with some margin.
fn range(axis: &Axis, values: impl Iterator<Item = f64>) -> Result<std::ops::Range<f64>> {
    let mut places: Vec<f64> = values.map(|value| axis.place(value)).collect();
    places.retain(|place| place.is_finite() && (axis.scale == Scale::Linear || *place > 0.0));
    places.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (places.first(), places.last()) else {
        return Err(anyhow!("no value to draw on the axis {:?}", axis.label));
    };
    Ok(match axis.scale {
        Scale::Linear => least.min(0.0)..most.max(f64::MIN_POSITIVE) * 1.05,
        // Whole decades: the library finds no marks on an axis without any, and looks for them without end.
        Scale::Log | Scale::Quantile => decade(least.log10().floor())..decade((most * 1.01).log10().ceil()),
    })
}

fn decade(exponent: f64) -> f64 {
    10_f64.powf(exponent)
}

/// A plot of lines, whose axes are not chosen yet.
struct Lines<'a, 'b> {
    area: &'a Area<'b>,
    title: &'a str,
    x: &'a Axis,
    y: &'a Axis,
    lines: &'a [Line],
}

impl Lines<'_, '_> {
    fn on<X, Y>(&self, x: X, y: Y) -> Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
        let longest = self.lines.iter().map(|line| line.name.chars().count()).max();
        let longest = u32::try_from(longest.unwrap_or_default())?;
        // Beside the axes, where no line can be behind it.
        let legend_width = LEGEND_LINE + 2 * LEGEND_GAP + LETTER * longest;
        let (area, legend) = self
            .area
            .split_horizontally(self.area.dim_in_pixel().0.saturating_sub(legend_width));
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, (FONT, 20))
            .x_label_area_size(45)
            .y_label_area_size(85)
            .build_cartesian_2d(x, y)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .label_style((FONT, 13))
            .x_label_formatter(&|place| self.x.show(*place))
            .y_label_formatter(&|place| self.y.show(*place))
            .draw()
            .map_err(|error| failed(&error))?;
        let rows = (LEGEND_TOP..).step_by(LEGEND_ROW);
        for ((line, colour), row) in self.lines.iter().zip(COLOURS.iter().cycle()).zip(rows) {
            let places = line
                .points
                .iter()
                .map(|(x, y)| (self.x.place(*x), self.y.place(*y)));
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(places, style))
                .map_err(|error| failed(&error))?;
            let (begin, end) = (LEGEND_GAP.cast_signed(), (LEGEND_GAP + LEGEND_LINE).cast_signed());
            legend
                .draw(&PathElement::new([(begin, row), (end, row)], style))
                .map_err(|error| failed(&error))?;
            let text = (end + LEGEND_GAP.cast_signed(), row - 7);
            legend
                .draw(&Text::new(line.name.clone(), text, (FONT, 13)))
                .map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

fn draw_bars(area: &Area, title: &str, unit: Unit, bars: &[(String, Samples)]) -> Result<()> {
    let most = bars.iter().map(|(_, samples)| samples.most()).fold(0.0, f64::max);
    if most <= 0.0 {
        return Err(anyhow!("no value to draw"));
    }
    let longest = bars.iter().map(|(name, _)| name.chars().count()).max();
    let longest = longest.unwrap_or_default().max(SHORTEST);
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    let count = i32::try_from(bars.len())?;
    let name = |place: &SegmentValue<i32>| match place {
        // The first bar is the highest one.
        SegmentValue::CenterOf(at) => usize::try_from(count - 1 - at)
            .ok()
            .and_then(|at| bars.get(at))
            .map_or_else(String::new, |(name, _)| name.clone()),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 20))
        .x_label_area_size(30)
        .y_label_area_size(LETTER * u32::try_from(longest)?)
        .build_cartesian_2d(0.0..most * 1.15, (0..count - 1).into_segmented())
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .y_labels(bars.len())
        .label_style((FONT, 13))
        .x_label_formatter(&|value| unit.show(*value))
        .y_label_formatter(&name)
        .draw()
        .map_err(|error| failed(&error))?;
    for (row, (_, samples)) in (0..count).rev().zip(bars) {
        let median = samples.median();
        let corners = [
            (0.0, SegmentValue::Exact(row)),
            (median, SegmentValue::Exact(row + 1)),
        ];
        let mut bar = Rectangle::new(corners, COLOURS[1].mix(0.6).filled());
        bar.set_margin(BAR_MARGIN, BAR_MARGIN, 0, 0);
        let middle = |value: f64| (value, SegmentValue::CenterOf(row));
        let ends = [middle(samples.least()), middle(samples.most())];
        let figure =
            EmptyElement::at(middle(samples.most())) + Text::new(unit.show(median), (6, -6), (FONT, 13));
        chart.draw_series([bar]).map_err(|error| failed(&error))?;
        chart
            .draw_series([PathElement::new(ends, BLACK.stroke_width(2))])
            .map_err(|error| failed(&error))?;
        chart.draw_series([figure]).map_err(|error| failed(&error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_bars_have_their_names_and_axes() {
        let line = Line {
            name: "ours".to_owned(),
            points: vec![(0.0, 0.001), (0.9, 0.002), (0.999, 0.1)],
        };
        let plot = Plot::lines(
            "",
            "Latency",
            Axis::new("quantile", Unit::Percent, Scale::Quantile),
            Axis::new("latency", Unit::Seconds, Scale::Log),
            vec![line],
        );
        let svg = plot.svg().unwrap();
        for text in ["<svg", "Latency", "ours", "99.9 %", "10.0 ms"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        let bars = vec![
            ("direct".to_owned(), Samples::new(vec![1_000.0, 1_200.0, 900.0])),
            ("nat".to_owned(), Samples::one(800.0)),
        ];
        let svg = Plot::bars("-bars", "Requests a second", Unit::Count, bars)
            .svg()
            .unwrap();
        for text in ["direct", "nat", "800", "1,000"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }

    #[test]
    fn nothing_to_draw_is_an_error_that_names_the_plot() {
        let axis = || Axis::new("n", Unit::Count, Scale::Log);
        let error = Plot::lines("", "Empty", axis(), axis(), Vec::new())
            .svg()
            .unwrap_err();
        assert!(format!("{error:#}").contains("Empty"), "{error:#}");
    }
}
