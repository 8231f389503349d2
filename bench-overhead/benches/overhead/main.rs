//! Cost of the library above what it is built on: the trait object, each layer, and the remote
//! backends over raw requests to the same double.
//!
//! `cargo bench -p bench-overhead`. Prints Markdown, writes
//! `target/sandbox-bench/overhead.json`. The doubles run every command in a local sandbox, so that
//! a ratio here is the client's part of a real command, not of an empty answer; requests per
//! operation are counted at the double. It must never reach a network.

#[cfg(target_os = "linux")]
mod dagger;
#[cfg(target_os = "linux")]
mod layers;
#[cfg(target_os = "linux")]
mod listeners;
#[cfg(target_os = "linux")]
mod null;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(target_os = "linux")]
mod remote;
#[cfg(target_os = "linux")]
#[path = "../../../benches/support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
#[allow(clippy::print_stdout)]
fn main() -> support::Outcome<()> {
    let effort = support::Effort::from_args();
    let runtime = tokio::runtime::Runtime::new()?;
    let machine = support::host::machine();
    println!("## What the library costs above what it is built on\n\n{machine}.\n");
    let mut report = serde_json::Map::new();
    report.insert("machine".into(), machine.into());
    if support::wanted("layers") {
        report.insert("layers".into(), layers::print(effort, &runtime)?);
    }
    if support::wanted("aca") {
        report.insert("aca".into(), remote::aca(effort, &runtime)?);
    }
    if support::wanted("dagger") {
        report.insert("dagger".into(), dagger::dagger(effort, &runtime)?);
    }
    support::report::save("overhead", &report.into())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
