//! One page with the results as pictures: for each kind of work a bar for every peer's median and a
//! dot for every round. It must never show a figure that the tables don't have.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use plotters::prelude::{Circle, Color, IntoDrawingArea, RGBColor, Rectangle, SVGBackend, Text};

use crate::support::measure::Measured;
use crate::support::report::{self, Table, time};
use crate::support::{Outcome, host};

const WIDTH: u32 = 980;
const ROW: i32 = 26;
/// Column at which the names end and the bars begin.
const LEFT: i32 = 360;
/// Column at which the bars end and the figures begin.
const RIGHT: i32 = 860;

const INK: RGBColor = RGBColor(40, 40, 40);
const OURS: RGBColor = RGBColor(31, 119, 180);
const THEIRS: RGBColor = RGBColor(160, 170, 180);

/// Writes `target/sandbox-bench/peers.html` and says where it is.
pub(crate) fn write(
    machine: &str,
    works: &[(&str, Vec<&Measured>)],
    tables: [&Table; 2],
) -> Outcome<PathBuf> {
    let date = host::run(Command::new("date").args(["-u", "+%F"]))?;
    let mut page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>The same work in every sandbox</title>\n\
         <style>body{{font:15px/1.5 sans-serif;max-width:{WIDTH}px;margin:2em auto;padding:0 1em}}\
         table{{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}}\
         td,th{{border:1px solid #ccc;padding:.2em .5em;text-align:left;vertical-align:top}}\
         svg{{max-width:100%;height:auto}}</style>\n\
         <h1>The same work in every sandbox that is installed</h1>\n\
         <p>{}, {}. Command: <code>cargo bench --bench peers -- --html</code>. A bar ends at the \
         median, a dot is one round; the scale is logarithmic.</p>\n",
        escaped(machine),
        date.trim(),
    );
    for (title, measured) in works {
        let _ = writeln!(page, "<h2>{}</h2>\n{}", plain(title), chart(measured)?);
    }
    for table in tables {
        let _ = writeln!(page, "{}", html(table));
    }
    let file = report::dir().join("peers.html");
    std::fs::create_dir_all(report::dir())?;
    std::fs::write(&file, page)?;
    Ok(file)
}

/// The bars and dots of one kind of work, as SVG.
fn chart(measured: &[&Measured]) -> Outcome<String> {
    let of = |time: &std::time::Duration| time.as_secs_f64().max(1e-9);
    let all = || measured.iter().flat_map(|case| &case.times).map(of);
    // Full powers of ten, so that the scale has an end.
    let low = 10_f64.powf(all().fold(f64::INFINITY, f64::min).log10().floor());
    let high = 10_f64.powf(all().fold(0.0, f64::max).log10().ceil());
    if !low.is_finite() || !high.is_finite() {
        return Ok("<p>Nothing was measured.</p>".into());
    }
    let high = high.max(low * 10.0);
    let at = |seconds: f64| {
        let part = (seconds / low).log10() / (high / low).log10();
        // Between the two edges, both of them small.
        #[allow(clippy::cast_possible_truncation)]
        let x = (part * f64::from(RIGHT - LEFT)).round() as i32;
        LEFT + x
    };
    let rows = i32::try_from(measured.len())?;
    let height = u32::try_from((rows + 1) * ROW + 10)?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let bottom = rows * ROW + 4;
        let mut power = low;
        while power <= high * 1.01 {
            let x = at(power);
            area.draw(&Rectangle::new(
                [(x, 0), (x + 1, bottom)],
                THEIRS.mix(0.5).filled(),
            ))?;
            let label = time(std::time::Duration::from_secs_f64(power));
            area.draw(&Text::new(label, (x - 16, bottom + 6), ("sans-serif", 12)))?;
            power *= 10.0;
        }
        for (row, case) in (0..).zip(measured) {
            let top = row * ROW + 4;
            let name = plain(&case.name);
            let color = if name.starts_with("this crate") {
                OURS
            } else {
                THEIRS
            };
            area.draw(&Text::new(name, (0, top + 3), ("sans-serif", 13)))?;
            let Some(median) = case.median() else {
                let why = case.error.as_deref().unwrap_or("no round");
                let why: String = why.chars().take(60).collect();
                area.draw(&Text::new(why, (LEFT + 4, top + 3), ("sans-serif", 12)))?;
                continue;
            };
            let end = at(of(&median));
            area.draw(&Rectangle::new(
                [(LEFT, top + 2), (end, top + ROW - 6)],
                color.filled(),
            ))?;
            for (place, round) in (0..).zip(&case.times) {
                // Beside each other a little, so that more than one can be seen.
                let y = top + 6 + place % 9;
                area.draw(&Circle::new((at(of(round)), y), 2, INK.mix(0.45).filled()))?;
            }
            area.draw(&Text::new(
                time(median),
                (RIGHT + 12, top + 3),
                ("sans-serif", 13),
            ))?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// A text of the tables without its marks.
fn plain(text: &str) -> String {
    text.replace(['*', '`'], "")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn html(table: &Table) -> String {
    let (head, rows) = table.cells();
    let line = |cells: &[String], tag: &str| {
        let cells = cells.iter().map(|cell| escaped(&plain(cell)));
        let cells = cells.map(|cell| format!("<{tag}>{cell}</{tag}>"));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let body: String = rows.iter().map(|row| line(row, "td")).collect();
    format!("<table>\n{}{body}</table>", line(head, "th"))
}
