//! Cost per call of the trait object and of each layer.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use sandbox::layer::{CapabilityGuard, ConcurrencyLimit, Layer, Retry, Stack, Timeout, Tracing};
use sandbox::layers::{Audit, Metered, Policy};
use sandbox::local::{LocalConfig, LocalProvider};
use sandbox::{Command, Provider, Sandbox, SandboxSpec};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::listeners::Numbers;
use super::null::Null;
use crate::support::measure::{Budget, Case, interleaved, timed};
use crate::support::report::{Table, ratio, time};
use crate::support::{Effort, Outcome};

fn command() -> Command {
    Command::new("/bin/true")
}

fn minutes() -> Duration {
    Duration::from_secs(600)
}

/// Times many calls at once, for one is too short for the clock.
#[allow(clippy::print_stdout)]
pub(crate) fn print(effort: Effort, runtime: &Runtime) -> Outcome<Value> {
    let calls: u32 = effort.pick(10, 10_000, 20_000);
    let null = || -> Arc<dyn Sandbox> { Arc::new(Null) };
    let place = tempfile::tempdir()?;
    let audit = Audit::open(place.path().join("audit.jsonl"))?;
    let policy = Policy::new()
        .deny_read("**/.env")?
        .allow_program("/bin/*")?
        .deny_program("rm")?;
    let layered: [(&str, Arc<dyn Sandbox>); 10] = [
        ("`Arc<dyn Sandbox>`", null()),
        (
            "with `Tracing`, nobody listening",
            Tracing::new().layer(null()),
        ),
        ("with `Retry`", Retry::new(3).layer(null())),
        (
            "with `ConcurrencyLimit`",
            ConcurrencyLimit::new(16).layer(null()),
        ),
        ("with `Timeout`", Timeout::new(minutes()).layer(null())),
        (
            "with `CapabilityGuard`",
            CapabilityGuard::new().layer(null()),
        ),
        ("with `Policy`, three patterns", policy.layer(null())),
        ("with `Metered`, no recorder", Metered::new().layer(null())),
        ("with `Audit`, to a file", audit.layer(null())),
        (
            "with all five of the core",
            Stack::new()
                .with(Tracing::new())
                .with(Retry::new(3))
                .with(ConcurrencyLimit::new(16))
                .with(Timeout::new(minutes()))
                .with(CapabilityGuard::new())
                .layer(null()),
        ),
    ];
    let local = LocalProvider::new(LocalConfig::default())?;
    let real = runtime.block_on(local.create(SandboxSpec::new()))?;
    let mut cases = vec![
        Case::new("a plain async function", move || {
            let null = black_box(Null);
            let all = timed(|| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        black_box(null.plain(black_box(command())).await)?;
                    }
                    Ok(())
                })
            })?;
            Ok(all / calls)
        }),
        Case::new("a type that is `Sandbox`", move || {
            let null = black_box(Null);
            let all = timed(|| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        black_box(null.exec(black_box(command())).await)?;
                    }
                    Ok(())
                })
            })?;
            Ok(all / calls)
        }),
    ];
    for (name, sandbox) in layered {
        cases.push(Case::new(name, move || {
            let sandbox = black_box(&sandbox);
            let all = timed(|| {
                runtime.block_on(async {
                    for _ in 0..calls {
                        black_box(sandbox.exec(black_box(command())).await)?;
                    }
                    Ok(())
                })
            })?;
            Ok(all / calls)
        }));
    }
    let exec_all = |sandbox: &Arc<dyn Sandbox>| {
        let sandbox = black_box(sandbox);
        timed(|| {
            runtime.block_on(async {
                for _ in 0..calls {
                    black_box(sandbox.exec(black_box(command())).await)?;
                }
                Ok(())
            })
        })
    };
    let traced = Tracing::new().layer(null());
    cases.push(Case::new(
        "with `Tracing`, a subscriber that keeps spans",
        move || {
            // In force for this case only: what is known of a listener changes the others' cost.
            let spans = tracing_subscriber::registry();
            let all = tracing::subscriber::with_default(spans, || exec_all(&traced))?;
            Ok(all / calls)
        },
    ));
    let metered = Metered::new().layer(null());
    let numbers = Numbers::default();
    cases.push(Case::new("with `Metered`, a recorder", move || {
        let all = metrics::with_local_recorder(&numbers, || exec_all(&metered))?;
        if numbers.len() == 0 {
            return Err("nothing was recorded".into());
        }
        Ok(all / calls)
    }));
    let ten = effort.pick(1, 10, 10);
    let sandbox = Arc::clone(&real);
    cases.push(Case::new(
        "for scale: `true` in a local sandbox",
        move || {
            let all = timed(|| {
                runtime.block_on(async {
                    for _ in 0..ten {
                        sandbox.exec(command()).await?;
                    }
                    Ok(())
                })
            })?;
            Ok(all / ten)
        },
    ));
    let measured = interleaved(effort, Budget::of(effort, 51, 5), cases);
    runtime.block_on(real.close())?;
    let mut table = Table::new(["`exec` of a sandbox that does nothing", "A call", "Ratio"]);
    let mut rows = Vec::new();
    for case in &measured {
        let median = case.median().ok_or("no round")?;
        let by_plain = case.ratio_to(&measured[0]);
        table.row(vec![
            case.name.clone(),
            time(median),
            by_plain.map(ratio).unwrap_or_default(),
        ]);
        rows.push(json!({
            "name": case.name, "median_ns": median.as_secs_f64() * 1e9, "ratio": by_plain,
        }));
    }
    println!("{table}");
    Ok(rows.into())
}
