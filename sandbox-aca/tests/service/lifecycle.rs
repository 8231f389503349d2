//! The end of a sandbox that its program has lost, and the network of a fork, however the service
//! reads what it does not document.

use std::sync::Arc;
use std::time::Duration;

use sandbox_aca::{
    AcaOptions, AcaSandboxProvider, EgressAction, EgressPolicy, Lifecycle, StaticToken,
};
use sandbox_core::{
    Command, ErrorKind, Network, Provider as _, Sandbox, SandboxExt as _, SandboxId, SandboxSpec,
    SnapshotId, Source,
};
use sandbox_testkit::aca::{AcaEmulator, AutoDeleteFrom, Options, Restore, RestoredEgress};
use serde_json::json;

use super::{config, provider, until};

/// An emulator, and a provider whose token outlives the days that pass here.
async fn start(options: Options) -> (AcaEmulator, AcaSandboxProvider) {
    let emulator = AcaEmulator::start(options).await.expect("an emulator");
    let token = emulator.token_for("https://dynamicsessions.io", 30 * 86_400);
    let provider = provider(&emulator, Arc::new(StaticToken::new(token)));
    (emulator, provider)
}

const DAY: Duration = Duration::from_secs(86_400);
const COUNTS: [AutoDeleteFrom; 3] = [
    AutoDeleteFrom::Suspend,
    AutoDeleteFrom::Creation,
    AutoDeleteFrom::Use,
];
const RESTORES: [Restore; 3] = [Restore::Takes, Restore::Ignores, Restore::Refuses];
const RESTORED: [RestoredEgress; 2] = [RestoredEgress::Absent, RestoredEgress::Inherited];

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_its_program_lost_ends_however_deletion_counts() {
    for from in COUNTS {
        for restore in RESTORES {
            let mut options = Options::default();
            options.auto_delete_from = from;
            options.restore = restore;
            let (emulator, provider) = start(options).await;
            let sandbox = provider
                .create(SandboxSpec::new())
                .await
                .expect("a sandbox");
            let fork = sandbox.fork(Default::default()).await.expect("a fork");
            until("the fork's snapshot is deleted", || {
                emulator.counts() == (2, 0)
            })
            .await;
            drop((sandbox, fork));
            // The service looks at its clock when it is asked something.
            emulator.advance(DAY);
            provider.list(&Default::default()).await.expect("a list");
            emulator.advance(DAY);
            provider.list(&Default::default()).await.expect("a list");
            assert_eq!(emulator.counts(), (0, 0), "{from:?}, {restore:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_used_or_asked_to_stay_does_not_end() {
    for from in [AutoDeleteFrom::Suspend, AutoDeleteFrom::Use] {
        let mut options = Options::default();
        options.auto_delete_from = from;
        let (emulator, provider) = start(options).await;
        let used = provider
            .create(SandboxSpec::new())
            .await
            .expect("a sandbox");
        let stays = AcaOptions::new().lifecycle(Lifecycle::new(None));
        let stays = provider.create_with(SandboxSpec::new(), stays).await;
        let stays = stays.expect("a sandbox");
        for _ in 0..5 {
            emulator.advance(DAY / 2);
            assert!(used.sh("true").await.expect("it runs").success());
        }
        assert!(
            stays.sh("true").await.expect("it runs").success(),
            "{from:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_reaches_no_more_than_its_parent_from_the_first_request_on() {
    for restore in RESTORES {
        for restored in RESTORED {
            let mut options = Options::default();
            options.restore = restore;
            options.restored_egress = restored;
            let (emulator, provider) = start(options).await;
            let sandbox = provider
                .create(SandboxSpec::new())
                .await
                .expect("a sandbox");
            let child = sandbox.fork(Default::default()).await.expect("a fork");
            let id = child.info().id;
            let state = provider.handle(&id).expect("a handle").state().await;
            let egress = state.expect("a state").egress.expect("a policy");
            assert_eq!(
                egress.default,
                EgressAction::Deny,
                "{restore:?}, {restored:?}"
            );
            let sent = emulator.requested(id.as_str());
            let first = sent.iter().find(|line| !line.starts_with("GET"));
            let first = first.expect("something was sent");
            assert!(first.ends_with("/egresspolicy"), "{sent:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_keeps_a_policy_in_the_newer_form_and_refuses_an_unknown_one() {
    let (emulator, provider) = start(Options::default()).await;
    let open = SandboxSpec::new().network(Network::Open);
    let sandbox = provider.create(open).await.expect("a sandbox");
    let id = sandbox.info().id;
    let handle = provider.handle(&id).expect("a handle");
    let newer = json!({"http": {"defaultAction": "Deny", "hostRules": []}});
    post(&emulator, &id, "egresspolicy", &newer).await;
    let shown = handle.state().await.expect("a state").egress;
    assert_eq!(shown.expect("it is understood").default, EgressAction::Deny);
    let report = sandbox.isolation().await.expect("a report").to_string();
    assert!(report.contains("the egress policy"), "{report}");
    let child = sandbox.fork(Default::default()).await.expect("a fork");
    let child = provider.handle(&child.info().id).expect("a handle");
    let shown = child.state().await.expect("a state").egress;
    assert_eq!(shown.expect("it is understood").default, EgressAction::Deny);
    // What the client can't read is not taken for permission.
    let before = emulator.counts();
    for unknown in [
        json!(null),
        json!({"http": {"defaultAction": "Deny", "enforcementMode": "Audit"}}),
    ] {
        post(&emulator, &id, "egresspolicy", &unknown).await;
        let refused = sandbox.fork(Default::default()).await.expect_err("unknown");
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused:?}");
        assert!(refused.hint().is_some(), "{refused:?}");
        until("nothing is left of it", || emulator.counts() == before).await;
    }
    handle
        .set_egress(EgressPolicy::deny())
        .await
        .expect("it is set");
    sandbox
        .fork(Default::default())
        .await
        .expect("a fork again");
}

/// Sends what the crate itself would not send.
async fn post(
    emulator: &AcaEmulator,
    id: &SandboxId,
    what: &str,
    body: &serde_json::Value,
) -> serde_json::Value {
    let (endpoint, group) = (emulator.endpoint(), config("").sandbox_group);
    let url = format!(
        "{endpoint}/subscriptions/sub/resourceGroups/group/sandboxGroups/{group}/sandboxes/{id}/{what}?api-version=2026-02-01-preview",
    );
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let request = client.post(url).bearer_auth(emulator.token());
    let answer = request
        .body(body.to_string())
        .send()
        .await
        .expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    let answer = answer.bytes().await.expect("a body");
    serde_json::from_slice(&answer).expect("JSON")
}

/// Another client's handle, as a program that was started again has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_suspended_by_itself_is_resumed_by_its_handle() {
    let (emulator, first) = start(Options::default()).await;
    let sandbox = first.create(SandboxSpec::new()).await.expect("a sandbox");
    sandbox.write("kept", "kept").await.expect("a file");
    let id = sandbox.info().id;
    drop(sandbox);
    emulator.advance(DAY + Duration::from_secs(60));
    let again = provider(&emulator, Arc::new(StaticToken::new(emulator.token())));
    let found = again.attach(&id).await.expect("it is there");
    let error = found.read("kept").await.expect_err("it is suspended");
    assert!(
        error.hint().is_some_and(|hint| hint.contains("resume")),
        "{error:?}"
    );
    again
        .handle(&id)
        .expect("a handle")
        .resume()
        .await
        .expect("it resumes");
    assert_eq!(found.read("kept").await.expect("the file"), "kept");
    found.close().await.expect("it closes");
}

/// Mark of the process that a restore goes on with.
const NEEDLE: &str = "reaches-out";

/// A program that tries to reach something, without end.
fn reaching(emulator: &AcaEmulator) -> Command {
    let port = emulator.address().port();
    let script = format!(
        ": {NEEDLE}; while :; do exec 3<> /dev/tcp/127.0.0.1/{port} || continue; \
         printf 'GET /.emulator/outside/%s HTTP/1.0\r\n\r\n' \"${{EMULATED_SANDBOX:-parent}}\" >&3; \
         read -r line <&3; exec 3>&-; sleep 0.05; done"
    );
    Command::new("bash").args(["-c", &script])
}

/// A parent without network in which that program runs.
async fn restless(
    version: &str,
    restore: Restore,
    restored: RestoredEgress,
) -> (
    AcaEmulator,
    AcaSandboxProvider,
    Arc<dyn Sandbox>,
    sandbox_core::Process,
) {
    let mut options = Options::default();
    options.restore = restore;
    options.restored_egress = restored;
    options.asks_outside = true;
    options.inherited = Some(NEEDLE.into());
    let (emulator, provider) = super::start_in(version, options).await;
    let sandbox = provider.create(SandboxSpec::new()).await;
    let sandbox = sandbox.expect("a sandbox");
    let process = sandbox.spawn(reaching(&emulator)).await;
    let process = process.expect("a process");
    until("it tries", || emulator.outside("parent").0 > 0).await;
    assert_eq!(emulator.outside("parent").1, 0, "the parent has no network");
    (emulator, provider, sandbox, process)
}

/// Whether that program is there, stopped or not.
async fn reaches_out(sandbox: &dyn Sandbox) -> bytes::Bytes {
    let script = format!("grep -qsa '{NEEDLE}[:;]' /proc/[0-9]*/cmdline && echo yes || echo no");
    let said = sandbox.sh(script).await.expect("it runs");
    said.stdout.bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fork_inherits_reaches_nothing_that_its_parent_may_not() {
    let mut all = Vec::new();
    for restore in RESTORES {
        for restored in RESTORED {
            // Once in the newer version, where the service's own default is the worst.
            let newer = (restore, restored) == (Restore::Ignores, RestoredEgress::Absent);
            let versions = &super::VERSIONS[..if newer { 2 } else { 1 }];
            for version in versions {
                all.push(async move {
                    let what = format!("{version}, {restore:?}, {restored:?}");
                    let rig = restless(version, restore, restored).await;
                    let (emulator, _provider, sandbox, process) = &rig;
                    let child = sandbox.fork(Default::default()).await.expect(&what);
                    // What it inherited has ended, without ever having reached anything.
                    assert_eq!(reaches_out(&**sandbox).await, "yes\n", "{what}");
                    assert_eq!(reaches_out(&*child).await, "no\n", "{what}");
                    let id = child.info().id;
                    assert_eq!(emulator.outside(id.as_str()).1, 0, "{what}");
                    // The parent's goes on.
                    let tried = emulator.outside("parent").0;
                    until(&what, || emulator.outside("parent").0 > tried).await;
                    process.kill().await.expect(&what);
                });
            }
        }
    }
    futures_util::future::join_all(all).await;
}

/// The control: what the test above would see of a client that stops nothing. What a restore goes on
/// with is ended here too.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_in_a_restore_reaches_out_where_the_service_lets_it() {
    for restored in RESTORED {
        let rig = restless(super::VERSIONS[0], Restore::Ignores, restored).await;
        let (emulator, provider, sandbox, _process) = &rig;
        let id = sandbox.info().id;
        let taken = post(emulator, &id, "snapshot", &json!({})).await;
        let taken = taken["id"].as_str().expect("an identifier").to_owned();
        let spec = SandboxSpec::new().source(Source::Snapshot(SnapshotId::new(taken)));
        let restore = provider.create(spec).await.expect("a sandbox");
        let (tried, reached) = emulator.outside(restore.info().id.as_str());
        let open = restored == RestoredEgress::Absent;
        assert!(
            tried > 0 && (reached > 0) == open,
            "{restored:?}: {tried}, {reached}"
        );
        // It was not stopped before, and has ended all the same.
        assert_eq!(reaches_out(&**sandbox).await, "yes\n", "{restored:?}");
        assert_eq!(reaches_out(&*restore).await, "no\n", "{restored:?}");
    }
}
