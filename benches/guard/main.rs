//! Counts the system calls of fixed work, so that a cost that came in by oversight is seen on a
//! machine too busy to time anything.
//!
//! `cargo bench --bench guard` compares with `benches/guard.json` and fails if a count has risen by
//! more than a tenth; `cargo bench --bench guard -- --bless` writes the file anew. Needs strace.
//!
//! The program runs itself under strace with `--work`. Counted are the host's threads, the agent,
//! and a command's process until it runs its program; what the program does is not ours. It must
//! never time anything.

#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod trace;
#[cfg(target_os = "linux")]
mod work;

#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let done = match has("--work") {
        true => work::all().map(|()| true),
        false => compare::run(has("--bless")),
    };
    match done {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("guard: {error}");
            }
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
