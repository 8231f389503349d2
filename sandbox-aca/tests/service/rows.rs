//! The table of faults of a remote service, row by row, for sandboxes and both kinds of sessions.
//!
//! | Row | Here, and at every request of every operation (`positions`) |
//! |---|---|
//! | refused before send | `what_is_refused_before_it_is_sent_is_tried_again` |
//! | reset after send or mid-stream | `positions`, `table`, `stream` |
//! | 429, 503 in every form | `whatever_is_answered_a_command_runs_once`, `what_the_service_does_not_delete_at_once_is_deleted_later` |
//! | 401 mid-run | `a_service_whose_clock_is_ahead_refuses_a_token_once`, `auth` |
//! | expiry, restart | `what_the_service_lost_is_lost_for_every_operation`, `sessions_faults` |
//! | upload cut | `positions`, `table` |
//! | clock ± 1 h | both tests of clocks here, `rate` |
//! | future dropped | the last two here |
//! | slow, garbage, oversized, sliced | `positions`, `what_comes_late_comes` |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use sandbox_aca::{AccessToken, Credential};
use sandbox_core::{
    Command, ErrorKind, Execution, Provider as _, Result, Sandbox, SandboxExt as _, SandboxSpec,
    async_trait,
};
use sandbox_testkit::aca::{Action, Fault};
use sandbox_testkit::proxy::Break;

use super::counted;
use super::rig::{COOLDOWN, Rig, each};

async fn count(sandbox: &dyn Sandbox) -> usize {
    sandbox.read("count").await.map_or(0, |bytes| bytes.len())
}

/// The service can't be reached, and every open connection is known to be broken.
async fn cut_off(rig: &mut Rig, sandbox: &dyn Sandbox) {
    rig.proxy.leave().await.expect("it leaves");
    loop {
        let error = sandbox.read("count").await.expect_err("nobody answers");
        if error.to_string().contains("can't be reached") {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_before_it_is_sent_is_tried_again() {
    each(async |mut rig| {
        let sandbox = rig.sandbox().await;
        cut_off(&mut rig, &*sandbox).await;
        let away = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            rig.proxy.come_back().await.expect("the port is free");
        };
        let (ran, ()) = tokio::join!(sandbox.exec(counted()), away);
        assert_eq!(ran.expect("it runs").stdout.bytes, "ran");
        assert_eq!(count(&*sandbox).await, 1);
        cut_off(&mut rig, &*sandbox).await;
        let error = sandbox.exec(counted()).await.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert_eq!(error.execution(), Some(Execution::NotStarted), "{error:?}");
        assert!(error.is_retryable(), "{error:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_does_not_delete_at_once_is_deleted_later() {
    let rig = Rig::new(None).await;
    let sandbox = rig.sandbox().await;
    // The snapshot that the fork is made from, and no caller would wait for so long.
    rig.proxy.arm("DELETE", Break::Status(429, Some("99999")));
    let fork = sandbox.fork(Default::default()).await.expect("a fork");
    rig.left(2, "a fork's snapshot is refused to go").await;
    assert!(rig.proxy.fired());
    fork.close().await.expect("it closes");
    sandbox.close().await.expect("it closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_answered_a_command_runs_once() {
    let mut actions = vec![
        Action::DropBefore,
        Action::DropAfter,
        Action::Garbage,
        Action::StatusAfter(500),
        Action::StatusAfter(504),
        Action::Status(401, None),
        Action::Status(403, None),
    ];
    let past = "Wed, 21 Oct 2015 07:28:00 GMT";
    let far = "Fri, 31 Dec 2117 23:59:59 GMT";
    for status in [429, 503] {
        for after in [
            None,
            Some("0"),
            Some("1"),
            Some(past),
            Some(far),
            Some("99999999"),
            Some("soon"),
        ] {
            actions.push(Action::Status(status, after.map(str::to_owned)));
        }
    }
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        for action in &actions {
            let what = format!("{} {action:?}", rig.provider.backend());
            let before = count(&*sandbox).await;
            rig.emulator
                .inject(Fault::new(rig.execution(), action.clone()));
            let ran = sandbox.exec(counted()).await;
            let more = count(&*sandbox).await - before;
            match (action, ran) {
                (_, Ok(output)) => {
                    assert_eq!((&*output.stdout.bytes, more), (&b"ran"[..], 1), "{what}")
                }
                (Action::Status(429, Some(after)), Err(error)) => {
                    assert!(after == far || after == "99999999", "{what}: {error:?}");
                    assert_eq!(error.kind(), ErrorKind::RateLimited, "{what}: {error:?}");
                    assert_eq!(
                        (error.execution(), more),
                        (Some(Execution::NotStarted), 0),
                        "{what}"
                    );
                }
                // That it was refused shows that it was not begun: but after a 429 that is unknown.
                (_, Err(error)) => match error.execution() {
                    Some(Execution::NotStarted) => assert_eq!(more, 0, "{what}: {error:?}"),
                    ran => assert!(ran.is_some() && more <= 1, "{what}: {error:?}"),
                },
            }
        }
        sandbox.close().await.expect("it closes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_comes() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        rig.proxy
            .arm(rig.execution(), Break::Slow(Duration::from_millis(500)));
        let ran = sandbox.exec(counted()).await.expect("it runs");
        assert!(rig.proxy.fired());
        assert_eq!(
            (&*ran.stdout.bytes, count(&*sandbox).await),
            (&b"ran"[..], 1)
        );
        sandbox.close().await.expect("it closes");
    })
    .await;
}

const AUDIENCE: &str = "https://dynamicsessions.io";

/// Gives one token after the other, and the last for ever; says of each when it ends by a clock
/// that may be wrong.
#[derive(Debug)]
struct Skewed {
    tokens: Vec<String>,
    ends: fn(SystemTime) -> SystemTime,
    asked: AtomicUsize,
}

#[async_trait]
impl Credential for Skewed {
    async fn token(&self, _: &str) -> Result<AccessToken> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let token = &self.tokens[asked.min(self.tokens.len() - 1)];
        Ok(AccessToken::new(
            token.as_str(),
            Some((self.ends)(SystemTime::now())),
        ))
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_clock_is_ahead_refuses_a_token_once() {
    each(async |rig| {
        let credential = Arc::new(Skewed {
            tokens: vec![rig.emulator.token_for(AUDIENCE, 3600), rig.emulator.token()],
            ends: |now| now + HOUR,
            asked: AtomicUsize::new(0),
        });
        let provider = rig.with(credential.clone());
        let sandbox = provider.create(SandboxSpec::new()).await;
        let sandbox = sandbox.expect("a sandbox");
        rig.emulator.advance(HOUR + Duration::from_secs(60));
        for _ in 0..2 {
            let ran = sandbox.exec(counted()).await.expect("it runs");
            assert_eq!(ran.stdout.bytes, "ran");
        }
        assert_eq!(count(&*sandbox).await, 2);
        assert_eq!(credential.asked.load(Ordering::Relaxed), 2, "one refresh");
        sandbox.close().await.expect("it closes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_clock_is_behind_gives_tokens_that_are_used_all_the_same() {
    each(async |rig| {
        let credential = Arc::new(Skewed {
            tokens: vec![rig.emulator.token()],
            // By this clock they ended before they came.
            ends: |now| now - HOUR,
            asked: AtomicUsize::new(0),
        });
        let provider = rig.with(credential.clone());
        let before = rig.emulator.requests("");
        let sandbox = provider.create(SandboxSpec::new()).await;
        let sandbox = sandbox.expect("a sandbox");
        let ran = sandbox.exec(counted()).await.expect("it runs");
        assert_eq!(ran.stdout.bytes, "ran");
        let requests = rig.emulator.requests("") - before;
        assert!(requests > 1, "the control: more than one request");
        assert_eq!(credential.asked.load(Ordering::Relaxed), 1, "asked once");
        sandbox.close().await.expect("it closes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_lost_is_lost_for_every_operation() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        sandbox.write("f", "x").await.expect("a file");
        rig.forget(&sandbox.info().id).await;
        let batch = sandbox_core::FileBatch::new().file("f", "y");
        let host = tempfile::tempdir().expect("a directory");
        let out = host.path().join("out");
        let errors = [
            sandbox.exec(counted()).await.map(drop),
            sandbox.read("f").await.map(drop),
            sandbox.list(".").await.map(drop),
            sandbox.write_files(batch).await,
            sandbox.fork(Default::default()).await.map(drop),
            sandbox
                .export_dir(&".".into(), &out, Default::default())
                .await
                .map(drop),
            sandbox
                .import_dir(host.path(), &"in".into(), Default::default())
                .await
                .map(drop),
        ];
        for (number, done) in errors.into_iter().enumerate() {
            let what = format!("{} operation {number}", rig.provider.backend());
            let error = done.expect_err(&what);
            assert_eq!(error.kind(), ErrorKind::Lost, "{what}: {error:?}");
        }
        assert!(!out.exists());
        rig.left(0, "no empty one takes its place").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_future_is_dropped_is_killed_in_the_guest() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        let long = Command::shell("echo $$ > pid; exec sleep 1000");
        let begun = async {
            while !sandbox
                .read_to_string("pid")
                .await
                .is_ok_and(|text| text.ends_with('\n'))
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ran = sandbox.exec(long) => panic!("it ended: {ran:?}"),
            () = begun => {}
        }
        let gone = async {
            while sandbox
                .sh("kill -0 $(cat pid)")
                .await
                .expect("it runs")
                .success()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(120), gone).await;
        gone.expect("it is killed");
        sandbox.close().await.expect("it closes");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_closes_is_ended_by_the_service() {
    each(async |rig| {
        let sandbox = rig.sandbox().await;
        sandbox.write("f", "x").await.expect("a file");
        // As if this program had been killed: nothing more is sent.
        drop(sandbox);
        let before = rig.emulator.requests("");
        // Sandboxes are suspended after a day, and deleted after another.
        rig.emulator.advance(2 * COOLDOWN + HOUR);
        assert_eq!(rig.emulator.requests(""), before, "something was sent");
        // The next request of any client brings the service's books up to date.
        let token = Arc::new(sandbox_aca::StaticToken::new(rig.emulator.token()));
        let other = rig.with(token).create(SandboxSpec::new()).await;
        let other = other.expect("a sandbox");
        assert_eq!(rig.there().await, 1, "what was left is gone");
        other.close().await.expect("it closes");
    })
    .await;
}
