//! The remote backends over raw requests to the same double, and how many requests each operation
//! is.

use std::sync::Arc;

use sandbox::aca::{AcaConfig, AcaSandboxProvider, StaticToken};
use sandbox::{Command, FileBatch, Provider, Sandbox, SandboxExt, SandboxSpec};
use sandbox_testkit::aca::{AcaEmulator, Options};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::raw::Raw;
use crate::support::measure::{Budget, Case, Measured, interleaved, timed};
use crate::support::report::{Table, ratio, time};
use crate::support::{Effort, Outcome, host};

/// The ACA crate's `exec` against a bare request that runs the same program.
pub(crate) fn aca(effort: Effort, runtime: &Runtime) -> Outcome<Value> {
    const GROUP: &str = "/subscriptions/sub/resourceGroups/group/sandboxGroups/bench";
    let (emulator, sandbox, raw) = runtime.block_on(async {
        let emulator = AcaEmulator::start(Options::default()).await?;
        let config = AcaConfig::new(emulator.endpoint(), "sub", "group", "bench");
        let token = emulator.token();
        let provider =
            AcaSandboxProvider::new(config.credential(Arc::new(StaticToken::new(token.clone()))))?;
        let sandbox = provider.create(SandboxSpec::new()).await?;
        let authorization = format!("Bearer {token}");
        let raw = Raw::connect(emulator.address().port(), &authorization).await?;
        Outcome::Ok((emulator, sandbox, Mutex::new(raw)))
    })?;
    let request = format!(
        "POST {GROUP}/sandboxes/{}/executeShellCommand?api-version=2026-02-01-preview",
        sandbox.info().id
    );
    let body = json!({"command": "/bin/true", "workingDirectory": "/"});
    let cases = vec![
        Case::new("one raw request that runs `true`", || {
            timed(|| runtime.block_on(async { raw.lock().await.ask(&request, &body).await }))
        }),
        exec(runtime, &sandbox),
    ];
    let measured = interleaved(effort, Budget::of(effort, 51, 6), cases);
    let requests = runtime.block_on(requests(&sandbox, || emulator.requests("")))?;
    runtime.block_on(sandbox.close())?;
    let exec = print("Azure Container Apps, against the emulator", &measured)?;
    Ok(json!({"exec": exec, "requests": print_requests(&requests)}))
}

pub(crate) fn exec<'a>(runtime: &'a Runtime, sandbox: &'a Arc<dyn Sandbox>) -> Case<'a> {
    Case::new("`exec` of `true`", || {
        timed(|| Ok(runtime.block_on(sandbox.exec(Command::new("/bin/true")))?))
    })
}

/// Requests of each operation, as the double counts them.
pub(crate) async fn requests(
    sandbox: &Arc<dyn Sandbox>,
    count: impl Fn() -> usize,
) -> Outcome<Vec<(&'static str, usize)>> {
    let mut all = Vec::new();
    let mut before = count();
    let mut note = |what| {
        let now = count();
        all.push((what, now.saturating_sub(before)));
        before = now;
    };
    let batch = |dir: &str, files: u32| {
        (0..files).fold(FileBatch::new(), |batch, file| {
            batch.file(format!("{dir}/{file}"), &host::KIB[..])
        })
    };
    sandbox.exec(Command::new("/bin/true")).await?;
    note("`exec`");
    sandbox.write_files(batch("one", 1)).await?;
    note("`write_files`, 1 file");
    sandbox.write_files(batch("many", 100)).await?;
    note("`write_files`, 100 files");
    sandbox.read("many/7").await?;
    note("`read_file`");
    sandbox.list("many").await?;
    note("`list_dir`, 100 entries");
    sandbox.stat("many/7").await?;
    note("`metadata`");
    sandbox.remove_all("one").await?;
    note("`remove`");
    let fork = sandbox.fork_one().await?;
    note("`fork`");
    fork.close().await?;
    note("`close`");
    Ok(all)
}

/// Prints what each takes and how much more than the first.
#[allow(clippy::print_stdout)]
pub(crate) fn print(title: &str, measured: &[Measured]) -> Outcome<Value> {
    let mut table = Table::new([title, "A call", "Ratio"]);
    let mut rows = Vec::new();
    for case in measured {
        let median = case.median().ok_or_else(|| {
            let why = case.error.as_deref().unwrap_or("no round");
            format!("{title}, {}: {why}", case.name)
        })?;
        let by_raw = measured.first().and_then(|raw| case.ratio_to(raw));
        table.row(vec![
            case.name.clone(),
            time(median),
            by_raw.map(ratio).unwrap_or_default(),
        ]);
        rows.push(json!({
            "name": case.name, "median_us": median.as_secs_f64() * 1e6, "ratio": by_raw,
        }));
    }
    println!("{table}");
    Ok(rows.into())
}

#[allow(clippy::print_stdout)]
pub(crate) fn print_requests(requests: &[(&'static str, usize)]) -> Value {
    let mut table = Table::new(["Operation", "Requests"]);
    for (what, count) in requests {
        table.row(vec![(*what).into(), count.to_string()]);
    }
    println!("{table}");
    let requests: serde_json::Map<_, _> = requests
        .iter()
        .map(|(what, count)| ((*what).to_owned(), json!(count)))
        .collect();
    requests.into()
}
