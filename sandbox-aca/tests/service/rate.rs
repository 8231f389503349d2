//! The service takes 600 requests a minute: few are needed, and its refusal is obeyed.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sandbox_core::{FileBatch, Sandbox, SandboxExt as _};
use sandbox_testkit::aca::RetryAfter;

use super::rig::{Rig, each};

async fn write(sandbox: &dyn Sandbox, files: usize) {
    let mut batch = FileBatch::new();
    for number in 0..files {
        batch.push(format!("d/{number}"), format!("content of {number}"));
    }
    sandbox.write_files(batch).await.expect("they are written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_files_take_two_requests_as_five_thousand_do() {
    each(async |rig| {
        let (emulator, backend) = (&rig.emulator, rig.provider.backend());
        let sandbox = rig.sandbox().await;
        for files in [1000, 5000] {
            let before = emulator.requests("");
            write(&*sandbox, files).await;
            let cost = emulator.requests("") - before;
            println!("{backend}: {files} files in {cost} requests");
            assert!(cost <= 2, "{backend}: {files} files in {cost} requests");
        }
        let read = sandbox.read("d/4999").await.expect("a file");
        assert_eq!(read, "content of 4999");
        // So that a limit that allows no more than that is not met.
        emulator.change(|options| options.rate = Some(2));
        write(&*sandbox, 1000).await;
        emulator.change(|options| options.rate = None);
        sandbox.close().await.expect("it closes");
    })
    .await;
}

const FORMS: [RetryAfter; 6] = [
    RetryAfter::Body,
    RetryAfter::Seconds,
    RetryAfter::Millis,
    RetryAfter::Date,
    RetryAfter::Past,
    RetryAfter::Absent,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_obeyed_in_every_form_and_nothing_is_run_twice() {
    // At once: each waits until the service says that it may.
    join_all(FORMS.map(|form| each(async move |rig| obeyed(rig, form).await))).await;
}

/// The seconds of a minute that are left when the third request comes.
const LEFT: Duration = Duration::from_secs(3);

async fn obeyed(rig: Rig, form: RetryAfter) {
    let (emulator, provider) = (&rig.emulator, &rig.provider);
    let sandbox = rig.sandbox().await;
    let mut made = 0;
    let what = format!("{} {form:?}", provider.backend());
    loop {
        // The clocks of client and service disagree.
        emulator.advance(Duration::from_secs(3600));
        emulator.change(|options| {
            options.rate = Some(2);
            options.retry_after = form;
        });
        let (before, executions) = (emulator.requests(""), emulator.executions(""));
        let begun = Instant::now();
        make(&*sandbox, &mut made).await;
        make(&*sandbox, &mut made).await;
        // So long the service wants to be left alone.
        emulator.advance(Duration::from_secs(60) - LEFT);
        make(&*sandbox, &mut made).await;
        emulator.change(|options| options.rate = None);
        let refused = emulator.requests("") - before - 3;
        assert_eq!(emulator.executions("") - executions, 3, "{what}");
        if refused == 0 && begun.elapsed() >= LEFT {
            // This machine was so slow that the minute was over.
            continue;
        }
        // Who is told when asks once; who is told nothing, a few times.
        let most = match form {
            RetryAfter::Past | RetryAfter::Absent => 4,
            _ => 1,
        };
        assert!((1..=most).contains(&refused), "{what}: {refused} times");
        break;
    }
    let there = sandbox.list("made").await.expect("a list").len();
    assert_eq!(there, made, "{}", provider.backend());
    sandbox.close().await.expect("it closes");
}

/// Makes a file that was not there, which takes one request and succeeds once.
async fn make(sandbox: &dyn Sandbox, made: &mut usize) {
    let batch = FileBatch::new().new_file(format!("made/{made}"), "x");
    sandbox.write_files(batch).await.expect("it is written");
    *made += 1;
}
