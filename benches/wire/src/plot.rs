//! The plots: lines over a grid, as SVG that is readable on light and dark backgrounds.
//!
//! The background is transparent, and all colours are of medium brightness.

use std::ops::Range;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Draws `recorded/foreign.csv`.
pub fn foreign(csv: &str) -> String {
    let lines = [("no cookie of ours", line(csv, 1, 1.0)), ("ours among them", line(csv, 2, 1.0))];
    Chart {
        title: "What foreign cookies cost a request",
        x: ("foreign cookies, 34 bytes each", 0.0..80.0),
        y: ("instructions", 0.0..16_000.0),
        format: |value| format!("{value:.0}"),
    }
    .draw(&lines)
}

/// Draws `recorded/nodes.csv`.
pub fn nodes(csv: &str) -> String {
    Chart {
        title: "1000 requests at once with the same due cookie",
        x: ("nodes", 0.0..50.0),
        y: ("calls to the operator", 0.0..50.0),
        format: |value| format!("{value:.0}"),
    }
    .draw(&[("one for each node that is asked", line(csv, 1, 1.0))])
}

/// Draws `recorded/due.csv`.
pub fn due(csv: &str) -> String {
    let of = |mode: &str| {
        let rows: String = csv
            .lines()
            .filter_map(|row| row.strip_prefix(mode))
            .fold("\n".to_owned(), |all, row| all + row.trim_start_matches(',') + "\n");
        line(&rows, 2, 1.0)
    };
    Chart {
        title: "What due visitors cost: pages per second of processor, with the layer : without",
        x: ("requests that bring a due cookie, %", 0.0..20.0),
        y: ("ratio to the bare site", 0.0..1.0),
        format: |value| format!("{value:.1}"),
    }
    .draw(&[("Blocking", of("Blocking")), ("Concurrent", of("Concurrent"))])
}

/// Draws the memory that the soak has recorded.
pub fn soak(csv: &str) -> String {
    let minutes = |column| line(csv, column, 1.0 / 1024.0).into_iter().map(|(x, y)| (x / 60.0, y)).collect::<Vec<_>>();
    let lines = [("the site, two nodes", minutes(1)), ("2000 visitors and the operator", minutes(2))];
    let ends =
        |index: fn(&(f64, f64)) -> f64| lines.iter().flat_map(|(_, points)| points).map(index).fold(1.0, f64::max);
    Chart {
        title: "Resident memory while the operator fails in turn",
        x: ("minutes", 0.0..ends(|point| point.0)),
        y: ("MiB", 0.0..ends(|point| point.1) * 1.1),
        format: |value| format!("{value:.0}"),
    }
    .draw(&lines)
}

/// Returns the points of a column over the first column, from a file with a header line.
fn line(csv: &str, column: usize, scale: f64) -> Vec<(f64, f64)> {
    let rows = csv.lines().skip(1).filter(|row| !row.is_empty());
    let rows = rows.map(|row| row.split(',').map(|field| field.parse().expect("a number")).collect::<Vec<f64>>());
    rows.map(|row| (row[0], row[column] * scale)).collect()
}

struct Chart {
    title: &'static str,
    x: (&'static str, Range<f64>),
    y: (&'static str, Range<f64>),
    format: fn(&f64) -> String,
}

impl Chart {
    fn draw(self, lines: &[(&str, Vec<(f64, f64)>)]) -> String {
        let mut svg = String::new();
        self.draw_on(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), lines).expect("text has room");
        svg
    }

    fn draw_on<B: DrawingBackend>(
        self,
        area: &DrawingArea<B, plotters::coord::Shift>,
        lines: &[(&str, Vec<(f64, f64)>)],
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let text = |size, colour: RGBColor| ("sans-serif", size).into_font().color(&colour);
        area.draw_text(self.title, &text(17, GREY), (12, 10))?;
        let mut end = 12;
        for ((name, _), colour) in lines.iter().zip(COLOURS) {
            area.draw(&Rectangle::new([(end, 42), (end + 18, 45)], colour.filled()))?;
            let style = text(14, colour).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw_text(name, &style, (end + 24, 44))?;
            end += 54 + 8 * i32::try_from(name.len()).unwrap_or(0);
        }
        let mut chart = ChartBuilder::on(area)
            .margin_top(64)
            .margin_right(24)
            .margin_left(4)
            .x_label_area_size(46)
            .y_label_area_size(64)
            .build_cartesian_2d(self.x.1, self.y.1)?;
        chart
            .configure_mesh()
            .x_desc(self.x.0)
            .y_desc(self.y.0)
            .x_labels(10)
            .y_labels(6)
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&self.format)
            .axis_style(GREY)
            .bold_line_style(GREY.mix(0.25))
            .light_line_style(TRANSPARENT)
            .label_style(text(13, GREY))
            .axis_desc_style(text(14, GREY))
            .draw()?;
        for ((_, points), colour) in lines.iter().zip(COLOURS) {
            chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
            if points.len() < 30 {
                chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
            }
        }
        area.present()
    }
}

const SIZE: (u32, u32) = (720, 340);
const GREY: RGBColor = RGBColor(128, 128, 128);
const COLOURS: [RGBColor; 2] = [RGBColor(47, 129, 214), RGBColor(217, 115, 13)];
