//! The remote backends over raw requests to the same double, and how many requests each operation
//! is.

use std::sync::Arc;

use sandbox::aca::{AcaConfig, AcaSandboxProvider, StaticToken};
use sandbox::dagger::{DaggerConfig, DaggerProvider};
use sandbox::{
    Command, FileBatch, ForkOptions, ListOptions, Network, Provider, ReadOptions, Sandbox,
    SandboxExt, SandboxSpec,
};
use sandbox_testkit::aca::{AcaEmulator, Options};
use sandbox_testkit::dagger::{DaggerDouble, Quirks};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::raw::Raw;
use crate::support::measure::{Budget, Case, Measured, interleaved, timed};
use crate::support::report::{Table, ratio, time};
use crate::support::{Effort, Outcome, host};

/// The Dagger crate's `exec` against a bare query that runs the same program.
pub(crate) fn dagger(effort: Effort, runtime: &Runtime) -> Outcome<Value> {
    let (double, sandbox, raw, id) = runtime.block_on(async {
        let double = DaggerDouble::start(Quirks::default()).await?;
        let config = DaggerConfig::default().with_session(double.port(), double.token());
        let spec = SandboxSpec::new().with_network(Network::Open);
        let sandbox = DaggerProvider::with_config(config).create(spec).await?;
        let authorization = format!("Basic {}", base64(&format!("{}:", double.token())));
        let mut raw = Raw::connect(double.port(), &authorization).await?;
        let query = json!({
            "query": "query { container { from(address: \"docker.io/library/alpine:3.22\") \
                      { id } } }",
        });
        let made = raw.ask("POST /query", &query).await?;
        let id = made["data"]["container"]["from"]["id"].as_str();
        let id = id.ok_or("the double gave no id")?.to_owned();
        Outcome::Ok((double, sandbox, Mutex::new(raw), id))
    })?;
    let mut number = 0;
    let cases = vec![
        Case::new("one raw query that runs `true`", || {
            // Another argument each time: the engine would answer from its cache.
            number += 1;
            let query = format!(
                "query {{ node(id: \"{id}\") {{ ... on Container {{ \
                 withExec(args: [\"/bin/true\", \"{number}\"]) {{ id stdout }} }} }} }}"
            );
            let query = json!({"query": query});
            timed(|| runtime.block_on(async { raw.lock().await.ask("POST /query", &query).await }))
        }),
        Case::new("one raw query that runs `sh -c true`", {
            let (raw, id) = (&raw, &id);
            let mut number = 0;
            move || {
                number += 1;
                let query = format!(
                    "query {{ node(id: \"{id}\") {{ ... on Container {{ \
                     withExec(args: [\"/bin/sh\", \"-c\", \"/bin/true\", \"{number}\"]) \
                     {{ id stdout }} }} }} }}"
                );
                let query = json!({"query": query});
                timed(|| {
                    runtime.block_on(async { raw.lock().await.ask("POST /query", &query).await })
                })
            }
        }),
        exec(runtime, &sandbox),
    ];
    let measured = interleaved(effort, Budget::of(effort, 51, 6), cases);
    let requests = runtime.block_on(requests(&sandbox, || {
        usize::try_from(double.queries()).unwrap_or(usize::MAX)
    }))?;
    runtime.block_on(sandbox.close())?;
    print("Dagger, against the engine double", &measured, &requests)
}

/// The ACA crate's `exec` against a bare request that runs the same program.
pub(crate) fn aca(effort: Effort, runtime: &Runtime) -> Outcome<Value> {
    const GROUP: &str = "/subscriptions/sub/resourceGroups/group/sandboxGroups/bench";
    let (emulator, sandbox, raw) = runtime.block_on(async {
        let emulator = AcaEmulator::start(Options::default()).await?;
        let config = AcaConfig::new(emulator.endpoint(), "sub", "group", "bench");
        let token = emulator.token();
        let provider = AcaSandboxProvider::new(config, Arc::new(StaticToken::new(token.clone())))?;
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
    print(
        "Azure Container Apps, against the emulator",
        &measured,
        &requests,
    )
}

fn exec<'a>(runtime: &'a Runtime, sandbox: &'a Arc<dyn Sandbox>) -> Case<'a> {
    Case::new("`exec` of `true`", || {
        timed(|| Ok(runtime.block_on(sandbox.exec(Command::new("/bin/true")))?))
    })
}

/// How many requests each operation is, as the double counts them.
async fn requests(
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
    sandbox
        .read_file(&"many/7".into(), ReadOptions::default())
        .await?;
    note("`read_file`");
    sandbox
        .list_dir(&"many".into(), ListOptions::default())
        .await?;
    note("`list_dir`, 100 entries");
    sandbox.metadata(&"many/7".into()).await?;
    note("`metadata`");
    sandbox.remove_all("one").await?;
    note("`remove`");
    let fork = sandbox.fork(ForkOptions::default()).await?;
    note("`fork`");
    fork.close().await?;
    note("`close`");
    Ok(all)
}

#[allow(clippy::print_stdout)]
fn print(title: &str, measured: &[Measured], requests: &[(&'static str, usize)]) -> Outcome<Value> {
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
    let mut table = Table::new(["Operation", "Requests"]);
    for (what, count) in requests {
        table.row(vec![(*what).into(), count.to_string()]);
    }
    println!("{table}");
    let requests: serde_json::Map<_, _> = requests
        .iter()
        .map(|(what, count)| ((*what).to_owned(), json!(count)))
        .collect();
    Ok(json!({"exec": rows, "requests": requests}))
}

/// Basic authentication wants it, and nothing else here does.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk
            .iter()
            .chain(std::iter::repeat(&0))
            .take(3)
            .fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            out.push(match digit <= chunk.len() {
                true => char::from(DIGITS[value]),
                false => '=',
            });
        }
    }
    out
}
