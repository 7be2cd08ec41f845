//! Plots as SVG. Colours are those of the light page; the page's style sheet has the dark ones.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;

/// Pixels between the baselines of two labels.
const LABEL_STEP: i32 = 15;

/// Points up to which each of them is marked.
const MARKS_MAX: usize = 40;

const FONT: &str = "system-ui,sans-serif";
const INK: RGBColor = RGBColor(0x55, 0x5B, 0x66);
const GRID: RGBColor = RGBColor(0xE3, 0xE6, 0xEB);

/// Colours that people with any colour vision tell apart (Okabe and Ito).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hue {
    Blue,
    Green,
    Purple,
    Red,
}

impl Hue {
    fn color(self) -> RGBColor {
        match self {
            Hue::Blue => RGBColor(0x00, 0x72, 0xB2),
            Hue::Green => RGBColor(0x00, 0x7F, 0x5F),
            Hue::Purple => RGBColor(0xA6, 0x4D, 0x8A),
            Hue::Red => RGBColor(0xD5, 0x5E, 0x00),
        }
    }
}

/// One course; `None` in the y breaks it off.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) label: &'static str,
    pub(super) hue: Hue,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A plot without its size.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// What the axes show, with the unit where the ticks don't name it.
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) lines: Vec<Line>,
    /// Whether the space below the lines is filled.
    pub(super) is_filled: bool,
}

impl Plot {
    /// Draws it, in pixels.
    pub(super) fn svg(&self, width: u32, height: u32) -> String {
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, (width, height)).into_drawing_area();
            // It writes to a text, which takes everything.
            self.draw(&root, width).and_then(|()| root.present()).expect("a text can be drawn on");
        }
        text
    }

    fn draw(
        &self,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
        width: u32,
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let is_narrow = width < 500;
        let size = if is_narrow { 12 } else { 13 };
        let ink = (FONT, size).into_font().color(&INK);
        let label_space = self.lines.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);
        let right = if self.lines.len() > 1 { 16 + 7 * label_space as i32 } else { 18 };
        let mut chart = ChartBuilder::on(root)
            .margin_top(26)
            .margin_right(right)
            .margin_bottom(20)
            .x_label_area_size(24)
            .y_label_area_size(58)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(0)
            .axis_style(GRID)
            .bold_line_style(GRID)
            .label_style(ink.clone())
            .x_label_formatter(&|tick| self.x.text(*tick))
            .y_label_formatter(&|tick| self.y.text(*tick))
            .draw()?;
        let floor = self.y.range().start;
        for line in &self.lines {
            let color = line.hue.color();
            for run in line.points.split(|(_, y)| y.is_none()) {
                let points: Vec<_> =
                    run.iter().filter_map(|(x, y)| Some((self.x.place(*x), self.y.place((*y)?)))).collect();
                if self.is_filled {
                    chart.draw_series(AreaSeries::new(points.clone(), floor, color.mix(0.14)))?;
                }
                if points.len() == 1 || points.len() <= MARKS_MAX && !is_narrow && line.points.len() <= MARKS_MAX {
                    chart.draw_series(points.iter().map(|point| Circle::new(*point, 2, color.filled())))?;
                }
                chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
            }
        }
        if self.lines.len() > 1 {
            let ends = self.lines.iter().filter_map(|line| {
                let (x, y) = line.points.iter().rev().find_map(|(x, y)| Some((*x, (*y)?)))?;
                Some((line, chart.backend_coord(&(self.x.place(x), self.y.place(y)))))
            });
            for (line, at) in apart(ends.collect()) {
                let style = (FONT, size).into_font().color(&line.hue.color()).pos(Pos::new(HPos::Left, VPos::Center));
                root.draw(&Text::new(line.label, at, style))?;
            }
        }
        let (_, below) = root.dim_in_pixel();
        let log = if self.y.is_log() { ", logarithmic" } else { "" };
        root.draw(&Text::new(format!("{}{log}", self.y_label), (4, 4), ink.clone()))?;
        let under = ink.pos(Pos::new(HPos::Right, VPos::Bottom));
        root.draw(&Text::new(self.x_label, (width as i32 - right, below as i32 - 4), under))?;
        Ok(())
    }
}

/// Moves labels at the ends of lines apart, keeping their order.
fn apart(mut labels: Vec<(&Line, (i32, i32))>) -> Vec<(&Line, (i32, i32))> {
    // At the same height, the line that comes later lies higher: maxima come behind percentiles.
    labels.reverse();
    labels.sort_by_key(|(_, (_, y))| *y);
    for (_, at) in &mut labels {
        at.0 += 8;
    }
    for index in (0..labels.len().saturating_sub(1)).rev() {
        labels[index].1.1 = labels[index].1.1.min(labels[index + 1].1.1 - LABEL_STEP);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::super::axis::Unit;
    use super::*;

    #[test]
    fn labels_of_lines_that_end_together_do_not_overlap() {
        let line = |label| Line { label, hue: Hue::Blue, points: Vec::new() };
        let lines = [line("p50"), line("p99"), line("max")];
        let labels = apart(lines.iter().zip([(90, 50), (90, 50), (90, 48)]).collect());
        let placed: Vec<_> = labels.iter().map(|(line, at)| (line.label, *at)).collect();
        assert_eq!(placed, [("max", (98, 20)), ("p99", (98, 35)), ("p50", (98, 50))]);
    }

    #[test]
    fn a_plot_has_ticks_labels_and_breaks() {
        let points = vec![(0.0, Some(1_000.0)), (1.0, None), (2.0, Some(3_000.0)), (3.0, Some(2_000.0))];
        let plot = Plot {
            x: Axis::along(Unit::Seconds, 4.0, 6),
            y: Axis::upwards(Unit::Count, [3_000.0].into_iter(), 4),
            x_label: "s",
            y_label: "messages/s",
            lines: vec![
                Line { label: "in", hue: Hue::Blue, points: points.clone() },
                Line { label: "out", hue: Hue::Red, points },
            ],
            is_filled: false,
        };
        for width in [360, 860] {
            let svg = plot.svg(width, 240);
            for text in ["messages/s", "1k", "3k", "in", "out"] {
                assert!(svg.contains(&format!("\n{text}\n")), "no {text} in {svg}");
            }
            assert_eq!(svg.matches("<polyline fill=\"none\" opacity=\"1\" stroke=\"#0072B2\"").count(), 2, "{svg}");
        }
    }
}
