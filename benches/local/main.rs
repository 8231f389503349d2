//! Cost of the local backend, each group beside its baseline in the same run.
//!
//! `cargo bench --bench local` prints criterion's lines and then a Markdown table, and writes
//! `target/sandbox-bench/local.json`; `-- --quick` is shorter, `-- fork` runs what has the word in
//! its name. `SANDBOX_BENCH_DIR` puts what baselines write elsewhere than in `/var/tmp`. Under
//! `cargo test` each bench runs once on small input. It must never compare across runs: absolute
//! times move between machines, ratios hold.

#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod create;
#[cfg(target_os = "linux")]
mod egress;
#[cfg(target_os = "linux")]
mod exec;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod fork;
#[cfg(target_os = "linux")]
mod goals;
#[cfg(target_os = "linux")]
mod images;
#[cfg(target_os = "linux")]
mod stream;
#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(target_os = "linux")]
mod transfer;

#[cfg(target_os = "linux")]
fn main() -> support::Outcome<()> {
    use std::time::Duration;

    let criterion = criterion::Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .sample_size(15)
        .configure_from_args();
    let mut bench = bench::Bench::new(criterion)?;
    create::all(&mut bench)?;
    exec::all(&mut bench)?;
    stream::all(&mut bench)?;
    egress::all(&mut bench)?;
    files::all(&mut bench)?;
    fork::all(&mut bench)?;
    transfer::all(&mut bench)?;
    images::all(&mut bench)?;
    bench.finish()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
