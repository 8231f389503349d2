//! Time of operations beside that of the barest queries that do the same, in one run and session.
//!
//! It prints a table and judges nothing: how long an engine takes is not this crate's.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{Command, Provider as _, Sandbox, SandboxExt as _};
use sandbox_dagger::DaggerProvider;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::config;
use crate::support::{Outcome, spec};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Number of times that each is measured; the median counts.
const ROUNDS: usize = 11;

/// A session, asked without a client.
struct Raw {
    port: u16,
    head: String,
}

impl Raw {
    /// Sends a query; the answer's text, which has no errors in it.
    async fn ask(&self, query: &str) -> Result<String, Error> {
        let body = serde_json::json!({"query": query}).to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.set_nodelay(true)?;
        let head = format!("{}content-length: {}\r\n\r\n", self.head, body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        match answer.contains(" 200 ") && !answer.contains("\"errors\"") {
            true => Ok(answer),
            false => Err(format!("{query}: {answer}").into()),
        }
    }

    /// Asks something of the container of an id.
    async fn of(&self, id: &str, below: &str) -> Result<String, Error> {
        let query = format!("query {{ node(id: \"{id}\") {{ ... on Container {{ {below} }} }} }}");
        self.ask(&query).await
    }
}

/// The text of a field in an answer.
fn field(answer: &str, name: &str) -> Result<String, Error> {
    let (_, rest) = answer
        .split_once(&format!("\"{name}\":\""))
        .ok_or_else(|| format!("no {name} in {answer}"))?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Measures two things in turn and prints a row.
#[allow(clippy::print_stdout)]
async fn row(
    name: &str,
    mut raw: impl AsyncFnMut(usize) -> Outcome,
    mut ours: impl AsyncFnMut(usize) -> Outcome,
) -> Outcome {
    let (mut raws, mut our) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let started = Instant::now();
        raw(round).await?;
        raws.push(started.elapsed());
        let started = Instant::now();
        ours(round).await?;
        our.push(started.elapsed());
    }
    let (raw, ours) = (median(raws).as_secs_f64(), median(our).as_secs_f64());
    println!(
        "| {name} | {:.1} ms | {:.1} ms | {:.2} |",
        raw * 1e3,
        ours * 1e3,
        ours / raw
    );
    Ok(())
}

pub(crate) async fn beside_raw_queries() -> Outcome {
    let named = std::env::var_os("_EXPERIMENTAL_DAGGER_CLI_BIN");
    let mut cli = tokio::process::Command::new(named.unwrap_or_else(|| "dagger".into()))
        .arg("session")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut line = String::new();
    let said = cli.stdout.take().ok_or("the CLI has no output")?;
    BufReader::new(said).read_line(&mut line).await?;
    let session: serde_json::Value = serde_json::from_str(&line)?;
    let port = session["port"].as_u64().ok_or("no port")?;
    let port = u16::try_from(port)?;
    let token = session["session_token"].as_str().ok_or("no token")?;
    let provider = DaggerProvider::new(config().session(port, token))?;
    use base64::Engine as _;
    let authorization = base64::engine::general_purpose::STANDARD.encode(format!("{token}:"));
    let raw = Raw {
        port,
        head: format!(
            "POST /query HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Basic {authorization}\r\n\
             content-type: application/json\r\nconnection: close\r\n"
        ),
    };
    let measured = table(&raw, &provider).await;
    cli.kill().await?;
    measured
}

#[allow(clippy::print_stdout)]
async fn table(raw: &Raw, provider: &DaggerProvider) -> Outcome {
    let image = std::env::var("SANDBOX_DAGGER_IMAGE").unwrap_or("node:20-alpine3.22".into());
    let from = format!("query {{ container {{ from(address: \"{image}\") {{ id }} }} }}");
    let base = field(&raw.ask(&from).await?, "id")?;
    let seed = "mkdir /workspace; cd /workspace; echo text >f; mkdir d; \
                head -c 5242880 /dev/urandom >big; for i in 1 2 3 4 5 6 7 8 9; do echo >d/$i; done";
    let seeded = format!("withExec(args: [\"sh\", \"-c\", \"{seed}\"]) {{ sync }}");
    let id = &field(&raw.of(&base, &seeded).await?, "sync")?;
    let sandbox: Arc<dyn Sandbox> = provider.create(spec()).await?;
    sandbox.sh(seed).await?;
    let dir = tempfile::tempdir()?;
    println!("\n| | Raw queries | This crate | Ratio |\n|---|---|---|---|");
    let run = |number: String| format!("withExec(args: [\"true\", \"{number}\"]) {{ id stdout }}");
    row(
        "exec of `true`",
        async |round| raw.of(id, &run(format!("e{round}"))).await.map(drop),
        async |_| Ok(sandbox.exec(Command::new("true")).await.map(drop)?),
    )
    .await?;
    row(
        "create and exec",
        async |round| {
            let base = field(&raw.ask(&from).await?, "id")?;
            raw.of(&base, &run(format!("c{round}"))).await.map(drop)
        },
        async |_| {
            let sandbox = provider.create(spec()).await?;
            sandbox.exec(Command::new("true")).await?;
            Ok(sandbox.close().await?)
        },
    )
    .await?;
    let new = |round: usize, path: &str, below: &str| {
        format!("withNewFile(path: \"/workspace/{path}\", contents: \"new {round}\") {{ {below} }}")
    };
    row(
        "write of a new text file",
        async |round| {
            raw.of(id, &new(round, &format!("n{round}"), "sync"))
                .await
                .map(drop)
        },
        async |round| {
            Ok(sandbox
                .write(format!("n{round}"), format!("new {round}"))
                .await?)
        },
    )
    .await?;
    row(
        "write over a text file",
        async |round| raw.of(id, &new(round, "f", "sync")).await.map(drop),
        async |round| Ok(sandbox.write("f", format!("new {round}")).await?),
    )
    .await?;
    row(
        "write of a file that is no text",
        async |round| raw.of(id, &new(round, "f", "sync")).await.map(drop),
        async |round| {
            Ok(sandbox
                .write(
                    "b",
                    format!("new {round}\u{1}")
                        .into_bytes()
                        .iter()
                        .map(|byte| byte | 0x80)
                        .collect::<Vec<u8>>(),
                )
                .await?)
        },
    )
    .await?;
    let contents = "file(path: \"/workspace/f\") { contents }";
    row(
        "read of a small file",
        async |_| raw.of(id, contents).await.map(drop),
        async |_| Ok(sandbox.read("f").await.map(drop)?),
    )
    .await?;
    row(
        "write, then read",
        async |round| {
            let below = new(round + 100, "f", contents);
            raw.of(id, &below).await.map(drop)
        },
        async |round| {
            sandbox.write("f", format!("and {round}")).await?;
            Ok(sandbox.read("f").await.map(drop)?)
        },
    )
    .await?;
    let to = dir.path().join("big");
    let export = format!("file(path: \"/workspace/big\") {{ export(path: {to:?}) }}");
    row(
        "read of 5 MiB",
        async |_| raw.of(id, &export).await.map(drop),
        async |_| Ok(sandbox.read("big").await.map(drop)?),
    )
    .await?;
    row(
        "list of a directory",
        async |_| {
            raw.of(id, "directory(path: \"/workspace/d\") { entries }")
                .await
                .map(drop)
        },
        async |_| Ok(sandbox.list("d").await.map(drop)?),
    )
    .await?;
    row(
        "metadata",
        async |_| {
            raw.of(id, "stat(path: \"/workspace/f\") { size permissions }")
                .await
                .map(drop)
        },
        async |_| Ok(sandbox.stat("f").await.map(drop)?),
    )
    .await?;
    Ok(())
}
