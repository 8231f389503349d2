//! The emulator as a program.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::client::{GROUP, VERSION};

struct Program {
    child: Child,
    line: Value,
}

async fn start(args: &[&str]) -> Program {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aca-emulator"))
        .args(args)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).await.expect("a line");
    Program {
        child,
        line: serde_json::from_str(&line).expect("JSON"),
    }
}

impl Program {
    fn text(&self, key: &str) -> &str {
        self.line[key]
            .as_str()
            .unwrap_or_else(|| panic!("no {key}: {}", self.line))
    }

    async fn get(&self, client: &reqwest::Client, path: &str) -> reqwest::Response {
        let url = format!("{}{path}", self.text("endpoint"));
        let asked = client.get(url).bearer_auth(self.text("token"));
        asked.send().await.expect("an answer")
    }

    /// Tells it to end, and waits until it has.
    async fn end(mut self) -> std::process::ExitStatus {
        let id = self.child.id().expect("it runs").to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status().await;
        assert!(told.expect("kill").success());
        let ended = tokio::time::timeout(Duration::from_secs(120), self.child.wait()).await;
        ended.expect("it ends").expect("its status")
    }
}

fn client(ca: Option<&Path>) -> reqwest::Client {
    // The second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy();
    let builder = match ca {
        Some(file) => {
            let pem = std::fs::read(file).expect("the certificate");
            let ca = reqwest::Certificate::from_pem(&pem).expect("a certificate");
            builder.tls_certs_only([ca])
        }
        None => builder,
    };
    builder.build().expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_it_is_and_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let log = log.to_str().expect("UTF-8");
    let program = start(&["--tls", "--log", log]).await;
    assert!(program.text("endpoint").starts_with("https://127.0.0.1:"));
    let client = client(Some(Path::new(program.text("caFile"))));
    let path = format!("{GROUP}/sandboxes?api-version={VERSION}");
    assert_eq!(program.get(&client, &path).await.status(), 200);
    let missing = format!("{GROUP}/sandboxes/{}?api-version={VERSION}", "0".repeat(32));
    assert_eq!(program.get(&client, &missing).await.status(), 404);
    let token = program.text("token").to_owned();
    assert!(program.end().await.success());
    let logged = std::fs::read_to_string(log).expect("the log");
    let lines: Vec<&str> = logged.lines().collect();
    assert_eq!(lines.len(), 2, "{logged}");
    assert!(
        lines[0].contains(&format!(" 200 GET {GROUP}/sandboxes ")),
        "{logged}"
    );
    assert!(
        lines[1].contains(" 404 ") && lines[1].ends_with(" SandboxNotFound"),
        "{logged}"
    );
    assert!(
        !logged.contains(&token) && !logged.contains("api-version"),
        "{logged}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn its_options_are_the_switches() {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    let ca = ca.to_str().expect("UTF-8");
    let args = [
        "--forbidden",
        "--gateway",
        "2000",
        "--retry-after",
        "date",
        "--rate",
        "600",
    ];
    let program = start(&[&args[..], &["--tls", "--ca-file", ca]].concat()).await;
    assert_eq!(program.text("caFile"), ca);
    let client = client(Some(Path::new(ca)));
    let switches = program.get(&client, "/.emulator/switches").await;
    let switches = switches.text().await.expect("a body");
    let switches: Value = serde_json::from_str(&switches).expect("JSON");
    assert_eq!(switches["forbidden"], true);
    assert_eq!(switches["gateway"], 2000);
    assert_eq!(switches["retry-after"], "date");
    assert_eq!(switches["rate"], 600);
    assert!(program.end().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_help_names_every_switch_and_a_wrong_option_is_refused() {
    let run = async |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aca-emulator"));
        let mut child = command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut text = String::new();
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_to_string(&mut text).await.expect("its output");
        (text, child.wait_with_output().await.expect("its end"))
    };
    let (help, ended) = run(&["--help"]).await;
    assert!(ended.status.success());
    for switch in sandbox_testkit::aca::SWITCHES {
        assert!(
            help.contains(&format!("--{}", switch.name)),
            "{}",
            switch.name
        );
    }
    for wrong in [
        &["--no-such"][..],
        &["--gateway", "soon"],
        &["--listen", "nowhere"],
    ] {
        let (stdout, ended) = run(wrong).await;
        assert!(!ended.status.success() && stdout.is_empty(), "{wrong:?}");
        let why = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            why.contains(wrong[0].trim_start_matches('-')),
            "{wrong:?}: {why}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_against_it_and_its_code_is_the_programs() {
    let script = r#"
        [ "$SANDBOX_ACA_ENDPOINT" ] && [ "$SANDBOX_ACA_TOKEN" ] && [ -s "$SANDBOX_ACA_CA_FILE" ]
        [ "$SANDBOX_PROVIDER" = aca-sandboxes: ] || exit 1
        printf '%s' "$ACA_EMULATOR"
        exit 7
    "#;
    let mut command = Command::new(env!("CARGO_BIN_EXE_aca-emulator"));
    command.args(["--tls", "--", "/bin/sh", "-ec", script]);
    let ran = command
        .env_remove("SANDBOX_PROVIDER")
        .output()
        .await
        .expect("it runs");
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    let line: Value = serde_json::from_slice(&ran.stdout).expect("nothing but the line");
    assert!(line["pythonPool"].is_string(), "{line}");
    let missing = Command::new(env!("CARGO_BIN_EXE_aca-emulator"))
        .args(["--", "/no/such/program"])
        .output();
    let missing = missing.await.expect("it runs");
    assert!(
        !missing.status.success() && missing.stdout.is_empty(),
        "{missing:?}"
    );
}
