//! A ramp as a picture: what a connection and a message cost, against the number of connections.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Climb, Stage};
use crate::commands::text::grouped;
use crate::load::LoadError;

/// The picture's size in pixels.
const SIZE: (u32, u32) = (1_120, 500);

/// Two colours that everyone tells apart (Okabe and Ito), and those of text and grid.
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(213, 94, 0);
const INK: RGBColor = RGBColor(50, 50, 50);
const FAINT: RGBColor = RGBColor(225, 225, 225);

const FONT: &str = "sans-serif";

/// A cost counts as flat within this many percent, up and down.
const FLAT_PERCENT: f64 = 10.0;

/// What one panel shows.
pub(in crate::load) struct Panel {
    pub(in crate::load) title: &'static str,
    pub(in crate::load) unit: &'static str,
    /// What matters most comes last, and so lies on top.
    pub(in crate::load) curves: Vec<Curve>,
    /// A range of values that is shaded, with what it means.
    band: Option<(f64, f64, String)>,
}

pub(in crate::load) struct Curve {
    pub(in crate::load) name: &'static str,
    color: RGBColor,
    /// Connections and value.
    pub(in crate::load) points: Vec<(f64, f64)>,
}

/// What is to be seen of a ramp.
pub(in crate::load) fn panels(climb: &Climb) -> [Panel; 2] {
    [memory(climb), cost(climb)]
}

/// The picture, as SVG.
pub(in crate::load) fn svg(climb: &Climb) -> Result<String, LoadError> {
    draw(climb).map_err(|error| LoadError::Plot { reason: error.to_string() })
}

fn draw(climb: &Climb) -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    if climb.stages.is_empty() {
        return Err("no step was measured".into());
    }
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (left, right) = root.split_horizontally(SIZE.0 / 2);
        for (area, panel) in [left, right].iter().zip(panels(climb)) {
            draw_panel(area, climb, &panel)?;
        }
        root.present()?;
    }
    Ok(text)
}

fn memory(climb: &Climb) -> Panel {
    let curve =
        |name, color, value: &dyn Fn(&Stage) -> Option<f64>| Curve { name, color, points: points(climb, value) };
    Panel {
        title: "Memory of a connection",
        unit: "bytes per connection",
        curves: vec![
            curve("machine: kernel, both ends, and server", ORANGE, &|stage| stage.machine_each(&climb.before)),
            curve("server process", BLUE, &|stage| stage.private_each(&climb.before)),
        ],
        band: None,
    }
}

/// The server's CPU time if it could be measured; else how long a message took, spread over those who got it.
fn cost(climb: &Climb) -> Panel {
    let cpu = points(climb, &|stage| Some(stage.cost_ns()? / 1e3));
    if cpu.is_empty() {
        let took = points(climb, &|stage| Some(stage.took_ns()? / 1e3 / stage.connections as f64));
        let curve = Curve { name: "one message to all", color: BLUE, points: took };
        return Panel { title: "Time of a delivery", unit: "µs per recipient", curves: vec![curve], band: None };
    }
    let (low, high) = cpu.iter().fold((f64::MAX, 0.0_f64), |(low, high), point| (low.min(point.1), high.max(point.1)));
    let middle = (low + high) / 2.0;
    let part = middle * FLAT_PERCENT / 100.0;
    let curve = Curve { name: "one message to all", color: BLUE, points: cpu };
    Panel {
        title: "Server CPU time of a delivered message",
        unit: "µs per delivered message",
        curves: vec![curve],
        band: Some((middle - part, middle + part, format!("±{FLAT_PERCENT} % around the middle"))),
    }
}

fn points(climb: &Climb, value: &dyn Fn(&Stage) -> Option<f64>) -> Vec<(f64, f64)> {
    climb.stages.iter().filter_map(|stage| Some((stage.connections as f64, value(stage)?))).collect()
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    climb: &Climb,
    panel: &Panel,
) -> Result<(), Box<dyn std::error::Error>> {
    let steps: Vec<f64> = climb.stages.iter().map(|stage| stage.connections as f64).collect();
    // Room at both ends, so that no mark lies on an axis, and one step has a width.
    let (first, last) = (steps[0] / 1.25, steps[steps.len() - 1] * 1.25);
    let values = panel.curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
    let top = values.chain(panel.band.iter().map(|band| band.1)).fold(0.0, f64::max);
    let top = if top > 0.0 { top * 1.35 } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 19).into_font().color(&INK))
        .margin(14)
        .x_label_area_size(48)
        .y_label_area_size(64)
        .build_cartesian_2d((first..last).log_scale().with_key_points(steps.clone()), 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .x_desc("connections (logarithmic)")
        .y_desc(panel.unit)
        .axis_desc_style((FONT, 14).into_font().color(&INK))
        .label_style((FONT, 13).into_font().color(&INK))
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| if top < 10.0 { format!("{value:.1}") } else { grouped(value.round() as u64) })
        .y_labels(6)
        .draw()?;
    if let Some((low, high, meaning)) = &panel.band {
        chart
            .draw_series([Rectangle::new([(first, *low), (last, *high)], BLUE.mix(0.1).filled())])?
            .label(meaning)
            .legend(|(x, y)| Rectangle::new([(x, y - 6), (x + 20, y + 6)], BLUE.mix(0.15).filled()));
    }
    for (index, curve) in panel.curves.iter().enumerate().filter(|(_, curve)| !curve.points.is_empty()) {
        let color = curve.color;
        chart.draw_series(LineSeries::new(curve.points.iter().copied(), color.stroke_width(2)))?;
        let style = (FONT, 13).into_font().color(&color);
        // Different marks too, for prints without colour.
        let is_round = index > 0 || panel.curves.len() == 1;
        chart
            .draw_series(curve.points.iter().map(|&(x, y)| {
                let mark = if is_round {
                    Circle::new((0, 0), 5, color.filled()).into_dyn()
                } else {
                    TriangleMarker::new((0, 0), 7, color.filled()).into_dyn()
                };
                let text = if y < 100.0 { format!("{y:.1}") } else { grouped(y.round() as u64) };
                EmptyElement::at((x, y)) + mark + Text::new(text, (-14, -22), style.clone())
            }))?
            .label(curve.name)
            .legend(move |(x, y)| {
                let line = PathElement::new([(0, 0), (20, 0)], color.stroke_width(2)).into_dyn();
                let mark = if is_round {
                    Circle::new((10, 0), 5, color.filled()).into_dyn()
                } else {
                    TriangleMarker::new((10, 0), 7, color.filled()).into_dyn()
                };
                EmptyElement::at((x, y)) + line + mark
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .label_font((FONT, 13).into_font().color(&INK))
        .draw()?;
    Ok(())
}

/// 100000 as 100k.
fn short(connections: f64) -> String {
    let number = connections.round() as u64;
    match number {
        0 => "0".into(),
        _ if number.is_multiple_of(1_000_000) => format!("{}M", number / 1_000_000),
        _ if number.is_multiple_of(1_000) => format!("{}k", number / 1_000),
        _ => grouped(number),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Delivery;
    use super::*;
    use crate::load::usage::{Memory, MemoryOfAll};

    fn climb(has_server: bool) -> Climb {
        let memory = |connections: u64| MemoryOfAll {
            machine: connections * 7_100,
            client: 0,
            server: has_server.then_some(Memory { resident: 0, private: connections * 1_108 }),
        };
        let stage = |connections: u64, cost_ns| Stage {
            connections,
            idle: memory(connections),
            after: memory(connections),
            to_all: vec![Delivery {
                expected: connections,
                received: connections,
                took_ns: connections * 11_000,
                cpu_ns: has_server.then_some(connections * cost_ns),
            }],
            ..Stage::default()
        };
        let stages = vec![stage(100_000, 9_120), stage(500_000, 9_900), stage(1_000_000, 10_240)];
        Climb { before: memory(0), stages, ..Climb::default() }
    }

    #[test]
    fn axes_have_units_and_each_step_its_mark_and_value() {
        let svg = svg(&climb(true)).unwrap();
        for text in ["bytes per connection", "µs per delivered message", "connections (logarithmic)", "±10 %"] {
            assert!(svg.contains(text), "{text}");
        }
        for text in ["100k", "500k", "1M", "1,108", "7,100", "9.1", "9.9", "10.2"] {
            assert!(svg.lines().any(|line| line.trim() == text), "{text}: {svg}");
        }
    }

    #[test]
    fn without_the_servers_process_there_is_the_time_and_without_a_step_no_picture() {
        let svg = svg(&climb(false)).unwrap();
        assert!(svg.contains("µs per recipient") && svg.contains("11.0"), "{svg}");
        let error = self::svg(&Climb::default()).unwrap_err();
        assert_eq!(error.to_string(), "cannot draw the result into --svg: no step was measured");
    }
}
