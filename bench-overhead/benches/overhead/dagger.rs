//! The Dagger crate over raw queries to the same double.
//!
//! `exec` is one query like the raw one, so that its ratio is what the supervisor costs in the
//! guest: a shell and about fifteen short-lived programs. They buy what the engine does not tell:
//! codes from 128 to 191 and signals without the loss of the files, both streams byte for byte
//! within their limits and counted beyond, a timeout that ends daemons too and keeps what was said.
//! It is a fixed cost of some milliseconds; a bare exec of a real engine takes 100 to 200.

use std::cell::Cell;
use std::path::Path;

use sandbox::dagger::{DaggerConfig, DaggerProvider};
use sandbox::{FileBatch, Network, Provider, Sandbox, SandboxSpec};
use sandbox_testkit::dagger::{DaggerDouble, Quirks};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::raw::Raw;
use super::remote::{exec, print, print_requests, requests};
use crate::support::measure::{Budget, Case, interleaved, timed};
use crate::support::{Effort, Outcome, host};

/// A container of the double, and the connection to ask for more.
struct Container {
    raw: Mutex<Raw>,
    id: String,
    number: Cell<u64>,
}

impl Container {
    async fn new(double: &DaggerDouble) -> Outcome<Self> {
        let authorization = format!("Basic {}", base64(&format!("{}:", double.token())));
        let mut raw = Raw::connect(double.port(), &authorization).await?;
        let query =
            "query { container { from(address: \"docker.io/library/alpine:3.22\") { id } } }";
        let made = raw.ask("POST /query", &json!({"query": query})).await?;
        let id = made["data"]["container"]["from"]["id"].as_str();
        Ok(Self {
            id: id.ok_or("the double gave no id")?.to_owned(),
            raw: Mutex::new(raw),
            number: Cell::new(0),
        })
    }

    async fn ask(&self, query: String) -> Outcome<Value> {
        let query = json!({"query": query});
        self.raw.lock().await.ask("POST /query", &query).await
    }

    async fn exec(&self, arguments: &[&str]) -> Outcome<Value> {
        // Another argument each time: the engine would answer from its cache.
        self.number.set(self.number.get() + 1);
        let (id, number) = (&self.id, self.number.get().to_string());
        let arguments = [arguments, &[&*number]].concat();
        self.ask(format!(
            "query {{ node(id: \"{id}\") {{ ... on Container {{ withExec(args: {arguments:?}) \
             {{ id stdout }} }} }} }}"
        ))
        .await
    }

    /// Puts a directory of the host into the container: what no client could do with less.
    async fn put(&self, dir: &Path) -> Outcome<Value> {
        let read = self
            .ask(format!(
                "query {{ host {{ directory(path: {dir:?}, noCache: true) {{ id }} }} }}"
            ))
            .await?;
        let directory = read["data"]["host"]["directory"]["id"].as_str();
        let (id, directory) = (&self.id, directory.ok_or("the double gave no id")?);
        self.ask(format!(
            "query {{ node(id: \"{id}\") {{ ... on Container {{ \
             withDirectory(path: \"/put\", source: {directory:?}) {{ sync }} }} }} }}"
        ))
        .await
    }
}

/// The crate's `exec` and `write_files` against bare queries that do the same.
pub(crate) fn dagger(effort: Effort, runtime: &Runtime) -> Outcome<Value> {
    let (double, sandbox, container) = runtime.block_on(async {
        let double = DaggerDouble::start(Quirks::default()).await?;
        let config = DaggerConfig::default().session(double.port(), double.token());
        let spec = SandboxSpec::new().network(Network::Open);
        let sandbox = DaggerProvider::new(config)?.create(spec).await?;
        let container = Container::new(&double).await?;
        Outcome::Ok((double, sandbox, container))
    })?;
    let raw = |name: &str, arguments: &'static [&'static str]| {
        let container = &container;
        Case::new(format!("one raw query that runs `{name}`"), move || {
            timed(|| runtime.block_on(container.exec(arguments)))
        })
    };
    let cases = vec![
        raw("true", &["/bin/true"]),
        raw("sh -c true", &["/bin/sh", "-c", "/bin/true"]),
        exec(runtime, &sandbox),
    ];
    let measured = interleaved(effort, Budget::of(effort, 51, 6), cases);
    let execs = print("Dagger, against the engine double", &measured)?;

    let dirs = [1_u32, 100].map(|files| (files, tempfile::tempdir()));
    let mut cases = Vec::new();
    for (files, dir) in &dirs {
        let (files, dir) = (*files, dir.as_ref().map_err(ToString::to_string)?.path());
        for file in 0..files {
            std::fs::write(dir.join(file.to_string()), host::KIB)?;
        }
        let (container, sandbox) = (&container, &sandbox);
        let name = format!("two raw queries that put {files} of 1 KiB in place");
        cases.push(Case::new(name, move || {
            timed(|| runtime.block_on(container.put(dir)))
        }));
        cases.push(Case::new(format!("`write_files` of {files}"), move || {
            timed(|| {
                let batch = (0..files).fold(FileBatch::new(), |batch, file| {
                    batch.file(format!("put/{file}"), &host::KIB[..])
                });
                Ok(runtime.block_on(sandbox.write_files(batch))?)
            })
        }));
    }
    let measured = interleaved(effort, Budget::of(effort, 51, 6), cases);
    let writes = measured
        .chunks(2)
        .map(|pair| print("Files of Dagger, against the engine double", pair))
        .collect::<Outcome<Vec<_>>>()?;
    let requests = runtime.block_on(requests(&sandbox, || {
        usize::try_from(double.queries()).unwrap_or(usize::MAX)
    }))?;
    runtime.block_on(sandbox.close())?;
    Ok(json!({"exec": execs, "write_files": writes, "requests": print_requests(&requests)}))
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
