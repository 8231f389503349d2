//! Both versions of the sandboxes' interface: each works however the service reads what is not
//! documented, and an unknown one is refused before anything is sent.

use std::time::{Duration, Instant};

use sandbox_aca::{
    AcaOptions, AcaSandboxProvider, AcaSource, AcaState, EgressAction, EgressPolicy, NewDiskImage,
    VolumeKind,
};
use sandbox_core::{
    Command, ErrorKind, Execution, Labels, Network, Provider as _, Sandbox, SandboxExt as _,
    SandboxSpec, Signal,
};
use sandbox_testkit::aca::{AcaEmulator, Lists, Options};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{BOTH, VERSIONS, config, start_in, until};

const NEWER: &str = VERSIONS[1];

#[test]
fn an_unknown_version_is_refused_with_those_that_are_known() {
    for unknown in ["1999-01-01", "2026-09-01", ""] {
        let config = config("http://127.0.0.1:1").api_version(unknown);
        let error = AcaSandboxProvider::new(config).expect_err("unknown");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        let hint = error.hint().expect("what to do");
        assert!(VERSIONS.iter().all(|known| hint.contains(known)), "{hint}");
    }
}

/// Readings of what the newer version leaves open.
fn readings() -> Vec<(&'static str, Options)> {
    let with = |how: fn(&mut Options)| {
        let mut options = Options::default();
        options.page = Some(1);
        how(&mut options);
        options
    };
    vec![
        ("as documented", with(|_| {})),
        (
            "200 and 204",
            with(|options| {
                options.plain_created = true;
                options.bare_deleted = true;
                options.relative_links = true;
            }),
        ),
        (
            "numbered pages",
            with(|options| options.lists = Lists::Paged),
        ),
        (
            "bare lists",
            with(|options| {
                options.lists = Lists::Bare;
                options.empty_forbidden = true;
                options.any_scope = true;
            }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_works_however_the_service_reads_it() {
    let older = ("the older one", {
        let mut options = Options::default();
        options.envelope = true;
        options.page = Some(1);
        options
    });
    let newer = readings().into_iter().map(|reading| (NEWER, reading));
    let all = newer.chain([(VERSIONS[0], older)]);
    let all = all.map(async |(version, (what, options))| {
        let (emulator, provider) = start_in(version, options).await;
        everything(&emulator, &provider, &format!("{version}, {what}")).await;
    });
    futures_util::future::join_all(all).await;
}

async fn everything(emulator: &AcaEmulator, provider: &AcaSandboxProvider, what: &str) {
    let first = provider.create(SandboxSpec::new().label("n", "1")).await;
    let first = first.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let second = provider.create(SandboxSpec::new()).await.expect(what);
    let third = provider.create(SandboxSpec::new()).await.expect(what);
    let all = provider.list(&Labels::new()).await.expect(what);
    assert_eq!(all.len(), 3, "{what}: every page");
    let one = Labels::from([("n".to_owned(), "1".to_owned())]);
    assert_eq!(provider.list(&one).await.expect(what).len(), 1, "{what}");
    // A file that goes by a request of its own, and one that comes so.
    let large = "l".repeat(600_000);
    first.write("large", large.clone()).await.expect(what);
    assert!(first.read("large").await.expect(what) == large, "{what}");
    let ran = first
        .sh("echo out; echo err >&2; exit 3")
        .await
        .expect(what);
    assert_eq!(ran.stdout.bytes, "out\n", "{what}");
    // Snapshots over pages, whose sizes a version may write as text.
    for _ in 0..2 {
        let snapshot = first.snapshot(Default::default()).await.expect(what);
        assert_eq!(snapshot.size, Some(1 << 20), "{what}");
    }
    let snapshots = provider.snapshots().await.expect(what);
    assert_eq!(snapshots.len(), 2, "{what}");
    for snapshot in snapshots {
        provider.delete_snapshot(&snapshot.id).await.expect(what);
    }
    let image = NewDiskImage::new("docker.io/library/debian:12").credentials("me", "hidden");
    let image = provider.create_disk_image(image).await.expect(what);
    assert_eq!(provider.disk_images().await.expect(what).len(), 1, "{what}");
    provider.delete_disk_image(&image).await.expect(what);
    for name in ["a", "b"] {
        let made = provider.create_volume(name, VolumeKind::AzureBlob).await;
        made.expect(what);
    }
    assert_eq!(provider.volumes().await.expect(what).len(), 2, "{what}");
    let handle = provider.handle(&first.info().id).expect(what);
    let stats = handle.stats().await.expect(what);
    assert_eq!(stats.memory.total, 2 << 30, "{what}: {stats:?}");
    assert_eq!(stats.disk.total, 20 << 30, "{what}: {stats:?}");
    let decided = handle.egress_decisions().await.expect(what);
    assert!(decided.denied.is_empty(), "{what}");
    let policy = EgressPolicy::deny().rule("*.example.com", EgressAction::Allow);
    handle.set_egress(policy.clone()).await.expect(what);
    let child = first.fork(Default::default()).await.expect(what);
    assert!(child.read("large").await.expect(what) == large, "{what}");
    let shown = provider.handle(&child.info().id).expect(what);
    let shown = shown.state().await.expect(what);
    assert_eq!(shown.egress, Some(policy), "{what}");
    handle.suspend().await.expect(what);
    assert_eq!(handle.state().await.expect(what).state, AcaState::Stopped);
    handle.resume().await.expect(what);
    for sandbox in [first, second, third, child] {
        sandbox.close().await.expect(what);
    }
    until(what, || emulator.counts() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_on_a_stream_has_input_output_and_an_end_in_each_version() {
    let all = VERSIONS.map(async |version| {
        let (_emulator, provider) = start_in(version, Options::default()).await;
        let sandbox = provider.create(SandboxSpec::new()).await.expect(version);
        streams(&*sandbox, version).await;
        sandbox.close().await.expect(version);
    });
    futures_util::future::join_all(all).await;
}

async fn streams(sandbox: &dyn Sandbox, version: &str) {
    // Bytes of every kind, more than fit into a frame, and the end of input.
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let command = Command::shell("cat; echo over >&2; exit 7").stdin_piped();
    let mut process = sandbox.spawn(command).await.expect(version);
    let mut stdin = process.stdin.take().expect("a pipe");
    let mut stdout = process.stdout.take().expect("a stream");
    let (given, mut got) = (bytes.clone(), Vec::new());
    let giving = async move {
        stdin.write_all(&given).await.expect("it is read");
        drop(stdin);
    };
    let (_, read) = tokio::join!(giving, stdout.read_to_end(&mut got));
    read.expect(version);
    assert!(got == bytes, "{version}: {} bytes", got.len());
    let exit = process.wait().await.expect(version);
    assert_eq!(exit.status.shell_code(), 7, "{version}");
    // A signal is no exit code.
    let long = Command::shell("echo up; exec sleep 1000");
    let mut process = sandbox.spawn(long).await.expect(version);
    let mut stdout = process.stdout.take().expect("a stream");
    let mut line = [0; 3];
    stdout.read_exact(&mut line).await.expect(version);
    process.signal(Signal::TERMINATE).await.expect(version);
    let exit = process.wait().await.expect(version);
    assert_eq!(
        exit.status,
        sandbox_core::ExitStatus::Signal(15),
        "{version}"
    );
    // What goes on in the background when all is read may print, also where the names of its
    // pipes are gone: the next command clears them away at any moment.
    for removed in [
        "",
        "rm $(readlink /proc/$$/fd/1) $(readlink /proc/$$/fd/2); ",
    ] {
        let script = format!(
            "{removed}rm -f go log; (until [ -e go ]; do sleep 0.05; done; echo more; \
             echo more >&2; echo x > log) & echo said"
        );
        let command = || Command::shell(script.as_str());
        for spawned in [true, false] {
            let output = match spawned {
                true => {
                    let process = sandbox.spawn(command()).await.expect(version);
                    process.wait_with_output(Default::default()).await
                }
                false => sandbox.exec(command()).await,
            };
            let output = output.expect(version);
            assert_eq!(output.stdout.bytes, "said\n", "{version}");
            let wait = Command::shell("touch go; until [ -s log ]; do sleep 0.05; done");
            let waited = sandbox.exec(wait.timeout(Duration::from_secs(120))).await;
            waited.expect("the program printed and goes on");
        }
    }
    let none = sandbox.spawn(Command::new("no-such-program")).await;
    let error = none.expect_err("there is none");
    assert_eq!(
        error.kind(),
        ErrorKind::CommandNotFound,
        "{version}: {error:?}"
    );
    assert_eq!(error.execution(), Some(Execution::NotStarted), "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_is_refused_where_input_needs_a_terminal_and_the_rest_works() {
    let mut options = Options::default();
    options.input_needs_terminal = true;
    let (_emulator, provider) = start_in(NEWER, options).await;
    let sandbox = provider
        .create(SandboxSpec::new())
        .await
        .expect("a sandbox");
    let begun = Instant::now();
    let command = Command::shell("touch ran; cat").stdin_piped();
    let error = sandbox.spawn(command).await.expect_err("no input");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert_eq!(error.execution(), Some(Execution::NotStarted), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(120));
    assert!(!sandbox.exists("ran").await.expect("it says"), "it ran");
    let process = sandbox.spawn(Command::shell("echo said; exit 4")).await;
    let process = process.expect("a process");
    let output = process.wait_with_output(Default::default()).await;
    let output = output.expect("it ended");
    assert_eq!(
        (&*output.stdout.bytes, output.status.shell_code()),
        (&b"said\n"[..], 4)
    );
    sandbox.close().await.expect("it closes");
}

/// Sends what the crate itself would not send.
struct Raw {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Raw {
    fn new(emulator: &AcaEmulator, audience: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().build();
        Self {
            client: client.expect("a client"),
            base: format!(
                "{}/subscriptions/sub/resourceGroups/group/sandboxGroups/faults",
                emulator.endpoint()
            ),
            token: emulator.token_for(audience, 3600),
        }
    }

    async fn send(&self, method: &str, path: &str, version: &str, body: Value) -> (u16, Value) {
        let between = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}/{path}{between}api-version={version}", self.base);
        let method = method.parse().expect("a method");
        let request = self.client.request(method, url).bearer_auth(&self.token);
        let answer = request.body(body.to_string()).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.expect("a body");
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emulator_takes_in_each_version_what_the_service_takes_and_no_more() {
    let (emulator, _) = start_in(NEWER, Options::default()).await;
    let raw = Raw::new(&emulator, BOTH);
    let source = json!({"sourcesRef": {"diskImage": {"name": "ubuntu", "isPublic": true}}});
    let [older, newer] = VERSIONS;
    assert_eq!(
        raw.send("POST", "sandboxes", older, source.clone()).await.0,
        404
    );
    assert_eq!(
        raw.send("PUT", "sandboxes", newer, source.clone()).await.0,
        404
    );
    assert_eq!(
        raw.send("PUT", "sandboxes", older, source.clone()).await.0,
        200
    );
    let (status, made) = raw.send("POST", "sandboxes", newer, source.clone()).await;
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_str().expect("an identifier");
    // The service was seen to take versions that it does not have.
    assert_eq!(
        raw.send("GET", "sandboxes", "1999-01-01", Value::Null)
            .await
            .0,
        200
    );
    emulator.change(|options| options.strict_versions = true);
    assert_eq!(
        raw.send("GET", "sandboxes", "1999-01-01", Value::Null)
            .await
            .0,
        400
    );
    let count = raw.send("GET", "sandboxes/count", newer, Value::Null).await;
    assert_eq!(count, (200, json!({"count": 2})));
    assert_eq!(
        raw.send("GET", "sandboxes/count", older, Value::Null)
            .await
            .0,
        400
    );
    // Paths and words of one version are none of the other.
    let paths = [
        ("GET", "egressDecisions", [404, 200]),
        ("GET", "egress-decisions", [200, 404]),
        ("GET", "ports", [404, 200]),
        ("POST", "disable", [404, 200]),
        ("POST", "resume", [200, 409]),
        ("POST", "enable", [404, 200]),
        ("POST", "stop/async", [404, 404]),
        ("POST", "resume", [200, 200]),
    ];
    for (method, path, statuses) in paths {
        for (version, status) in VERSIONS.into_iter().zip(statuses) {
            if (path, version, status) == ("resume", older, 200) {
                continue;
            }
            let path = format!("sandboxes/{id}/{path}");
            let (answered, body) = raw.send(method, &path, version, json!({})).await;
            assert_eq!(answered, status, "{method} {path} in {version}: {body}");
        }
    }
    named_policies(&raw).await;
    let argv = json!({"command": "/bin/echo", "args": ["$HOME", "a b"], "environment": {"A": "1"}});
    let run = format!("sandboxes/{id}/executeCommand");
    let (_, ran) = raw.send("POST", &run, newer, argv.clone()).await;
    assert_eq!(ran["stdout"], "$HOME a b\n", "{ran}");
    assert_eq!(raw.send("POST", &run, older, argv).await.0, 404);
    // A token for the one version is none for the other, which is said in words.
    let other = Raw::new(&emulator, "https://dynamicsessions.io");
    assert_eq!(
        other.send("GET", "sandboxes", older, Value::Null).await.0,
        200
    );
    let (status, body) = other.send("GET", "sandboxes", newer, Value::Null).await;
    assert_eq!((status, &body["errorCode"]), (401, &json!("Unauthorized")));
    emulator.change(|options| options.any_scope = true);
    assert_eq!(
        other.send("GET", "sandboxes", newer, Value::Null).await.0,
        200
    );
    emulator.change(|options| options.forbidden = true);
    let (status, body) = raw.send("GET", "sandboxes", newer, Value::Null).await;
    assert_eq!((status, &body["errorCode"]), (403, &json!("Forbidden")));
}

/// Checks what the newer version has for groups and ports.
async fn named_policies(raw: &Raw) {
    let [older, newer] = VERSIONS;
    let deny = json!({"http": {"defaultAction": "Deny", "hostRules": []}});
    assert_eq!(
        raw.send("PUT", "egressPolicies/none", newer, deny.clone())
            .await
            .0,
        201
    );
    assert_eq!(
        raw.send("PUT", "egressPolicies/none", newer, deny.clone())
            .await
            .0,
        200
    );
    assert_eq!(
        raw.send("GET", "egressPolicies/none", older, Value::Null)
            .await
            .0,
        404
    );
    let (_, all) = raw.send("GET", "egressPolicies", newer, Value::Null).await;
    assert_eq!(all["value"][0]["name"], "none", "{all}");
    let source = json!({"diskImage": {"name": "ubuntu", "isPublic": true}});
    let body = json!({"sourcesRef": source, "egressPolicyId": "none", "ports": [{"port": 80}]});
    let (status, made) = raw.send("POST", "sandboxes", newer, body.clone()).await;
    assert_eq!(
        (status, &made["egressPolicy"]["http"]),
        (201, &deny["http"]),
        "{made}"
    );
    let ports = format!(
        "sandboxes/{}/ports",
        made["id"].as_str().expect("an identifier")
    );
    let more = json!({"ports": [{"port": 80, "protocol": "Http2"}, {"port": 90}]});
    let (_, shown) = raw.send("PATCH", &ports, newer, more).await;
    assert_eq!(shown["ports"].as_array().map(Vec::len), Some(2), "{shown}");
    assert_eq!(
        raw.send("DELETE", "egressPolicies/none", newer, Value::Null)
            .await
            .0,
        200
    );
    assert_eq!(raw.send("POST", "sandboxes", newer, body).await.0, 404);
    let secret = json!({"values": {"key": "hidden"}});
    assert_eq!(
        raw.send("PUT", "secrets/abc", newer, secret.clone())
            .await
            .0,
        201
    );
    assert_eq!(
        raw.send("PUT", "secrets/abc", newer, secret.clone())
            .await
            .0,
        200
    );
    assert_eq!(
        raw.send("PUT", "secrets/a", newer, secret.clone()).await.0,
        400
    );
    assert_eq!(raw.send("PUT", "secrets/a", older, secret).await.0, 200);
    assert_eq!(
        raw.send("GET", "volumes/count", newer, Value::Null).await.1,
        json!({"count": 0})
    );
    assert_eq!(
        raw.send("GET", "volumes/v/files", newer, Value::Null)
            .await
            .0,
        501
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_could_not_be_suspended_is_told_at_once() {
    let (emulator, provider) = start_in(NEWER, Options::default()).await;
    let open = SandboxSpec::new().network(Network::Open);
    let options = AcaOptions::new().source(AcaSource::PublicImage("node-22".into()));
    let sandbox = provider
        .create_with(open, options)
        .await
        .expect("a sandbox");
    let handle = provider.handle(&sandbox.info().id).expect("a handle");
    emulator.change(|options| options.stop_fails = true);
    let error = handle.suspend().await.expect_err("it fails");
    assert!(error.to_string().contains("StopFailed"), "{error}");
    assert!(error.hint().is_some(), "{error:?}");
}
