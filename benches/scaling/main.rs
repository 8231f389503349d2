//! Growth of costs: with the number of live sandboxes, of layers, of files, with the size of a
//! batch and of an output. Each is a series of medians with a line fitted through it.
//!
//! `cargo bench --bench scaling`; `-- --quick` for smaller ranges, `-- layers` for one series.
//! Prints Markdown, writes `target/sandbox-bench/scaling.json` and a plot for each series beside
//! it. A live sandbox holds three descriptors: `ulimit -n 8192` before, for a thousand of them.
//!
//! It must leave a machine memory to live on: a series ends early instead, and says so.

#[cfg(target_os = "linux")]
mod live;
#[cfg(target_os = "linux")]
mod plot;
#[cfg(target_os = "linux")]
mod series;
#[cfg(target_os = "linux")]
mod sizes;
#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> support::Outcome<()> {
    use sandbox::local::{LocalConfig, LocalProvider};
    use support::report::Table;

    let effort = support::Effort::from_args();
    let runtime = tokio::runtime::Runtime::new()?;
    let machine = support::host::machine();
    println!("## How costs grow\n\n{machine}.\n");
    let mut all = Vec::new();
    type Series = fn(&series::Setup<'_>) -> support::Outcome<Vec<series::Series>>;
    let kinds: [(&str, Series); 5] = [
        ("live", live::measure),
        ("layers", sizes::layers),
        ("tree", sizes::tree),
        ("batch", sizes::batch),
        ("output", sizes::output),
    ];
    for (name, measure) in kinds {
        if support::wanted(name) {
            eprintln!("measuring: {name}");
            let provider = LocalProvider::new(LocalConfig::default())?;
            let (runtime, provider) = (&runtime, &provider);
            all.extend(measure(&series::Setup {
                effort,
                runtime,
                provider,
            })?);
        }
    }
    let mut table = Table::new(["", "Against", "Smallest", "Largest", "Start", "Slope", "R²"]);
    for series in &all {
        table.row(series.cells());
        plot::draw(series)?;
    }
    println!("{table}");
    for note in all.iter().filter_map(|series| series.note.as_ref()) {
        println!("- {note}");
    }
    let json = all.iter().map(series::Series::json).collect::<Vec<_>>();
    support::report::save(
        "scaling",
        &serde_json::json!({"machine": machine, "series": json}),
    )
}

#[cfg(not(target_os = "linux"))]
fn main() {}
