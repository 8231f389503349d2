//! A plot of a series: its points and the line through them, as SVG.

use plotters::prelude::{
    BLUE, ChartBuilder, Circle, Color, IntoDrawingArea, LineSeries, RED, SVGBackend, WHITE,
};

use super::series::Series;
use crate::support::{Outcome, report};

/// Writes `target/sandbox-bench/scaling/NAME.svg`.
pub(crate) fn draw(series: &Series) -> Outcome<()> {
    let dir = report::dir().join("scaling");
    std::fs::create_dir_all(&dir)?;
    let words = series.name.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let file = dir.join(format!("{}.svg", words.join("-")));
    let largest = |of: fn(&(f64, f64)) -> f64| {
        let all = series.points.iter().map(of);
        // Nothing has no size, and an axis needs one.
        all.fold(0.0, f64::max).max(1e-6) * 1.05
    };
    let (width, height) = (largest(|point| point.0), largest(|point| point.1));
    let area = SVGBackend::new(&file, (720, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .caption(series.name, ("sans-serif", 18))
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..width, 0.0..height)?;
    chart
        .configure_mesh()
        .x_desc(series.against)
        .y_desc(series.unit)
        .draw()?;
    if let Some(line) = series.line() {
        let ends = [0.0, width].map(|x| (x, line.start + line.slope * x));
        chart.draw_series(LineSeries::new(ends, BLUE))?;
    }
    let dots = series.points.iter();
    chart.draw_series(dots.map(|point| Circle::new(*point, 4, RED.filled())))?;
    area.present()?;
    Ok(())
}
