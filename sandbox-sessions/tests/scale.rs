//! Many tenants, and many sessions for long.
//!
//! Small in every run. `SANDBOX_SCALE=simulation` has 100,000 tenants on the model;
//! `SANDBOX_SCALE=soak` keeps 1,000 sessions in the journal and 200 sandboxes of the local backend
//! live for ten minutes; `SANDBOX_SCALE=creation` measures creation with and without a pool. Each prints
//! its figures.
#![cfg(target_os = "linux")]
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use sandbox_core::{Capability, Command, Operation, Provider as _, SandboxExt as _, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};
use sandbox_sessions::{
    Clock, Filter, Limits, OnIdle, Pool, Sessions, SessionsConfig, ShutdownOptions, Status,
};
use sandbox_testkit::Scratch;
use sandbox_testkit::model::ModelProvider;
use support::eventually;

fn asked_for(form: &str) -> bool {
    std::env::var("SANDBOX_SCALE").is_ok_and(|asked| asked == form)
}

fn spec() -> SandboxSpec {
    SandboxSpec::new()
}

#[tokio::test]
async fn many_tenants_are_served_in_turn_expire_together_and_leave_a_small_journal() {
    let (tenants, total) = if asked_for("simulation") {
        (100_000, 5_000)
    } else {
        (2_000, 100)
    };
    let began = Instant::now();
    let place = Scratch::new().unwrap();
    let (clock, hand) = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let model = ModelProvider::new();
    let config = SessionsConfig::new()
        .journal(place.path())
        .sync(false)
        .clock(clock)
        .idle_timeout(Duration::from_secs(60))
        .limits(Limits::new().total(total).waiting(2 * tenants));
    let sessions = Sessions::open(Arc::new(model.clone()), config)
        .await
        .unwrap();

    // One tenant asks for as many as all others together, and first.
    let served = Arc::new(Mutex::new(Vec::new()));
    let most = Arc::new(AtomicUsize::new(0));
    let greedy = (0..tenants).map(|key| ("greedy".to_owned(), format!("k{key}")));
    let others = (0..tenants).map(|number| (format!("t{number}"), "k".to_owned()));
    let tasks: Vec<_> = greedy
        .chain(others)
        .map(|(tenant, key)| {
            let (sessions, served, most) = (sessions.clone(), served.clone(), most.clone());
            tokio::spawn(async move {
                let session = sessions
                    .get_or_create(tenant.as_str(), key, spec())
                    .await
                    .unwrap();
                most.fetch_max(sessions.stats().places, Ordering::Relaxed);
                served.lock().unwrap().push(tenant);
                session.close().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let served = std::mem::take(&mut *served.lock().unwrap());
    assert_eq!(served.len(), 2 * tenants);
    assert!(most.load(Ordering::Relaxed) <= total);
    // Those that took the first places were there before a queue was; then it goes in turn.
    let when_all_others = served
        .iter()
        .rposition(|tenant| tenant != "greedy")
        .unwrap();
    let greedy = served[..=when_all_others]
        .iter()
        .filter(|tenant| *tenant == "greedy")
        .count();
    let served_in = began.elapsed();
    assert!(
        greedy <= 2 * total + 2,
        "the greedy tenant was served {greedy} times before the last of the others"
    );

    // The reaper ends all that are idle at once.
    let began = Instant::now();
    for number in 0..total {
        let session = sessions
            .get_or_create(format!("r{number}"), "k", spec())
            .await;
        session.unwrap();
    }
    let filled = began.elapsed();
    let began = Instant::now();
    hand.advance(Duration::from_secs(61));
    eventually("all are reaped", async || sessions.stats().sessions == 0).await;
    let reaped = began.elapsed();
    eventually("their places are free", async || {
        sessions.stats().places == 0
    })
    .await;
    assert_eq!(model.count(Operation::Create), 2 * tenants + total);
    sessions.shutdown(ShutdownOptions::new()).await.unwrap();
    let journal = std::fs::metadata(place.path().join("journal"))
        .unwrap()
        .len();
    // What is over needs no place: two records for each live one, and the slack of a thousand.
    assert!(journal < 2 << 20, "the journal has {journal} bytes");
    println!(
        "{} sessions of {} tenants through {total} places in {served_in:.1?}; {greedy} of the greedy \
         tenant's before the last of the others; {total} created in {filled:.1?}, reaped in \
         {reaped:.1?}; journal {journal} bytes",
        2 * tenants,
        tenants + 1,
    );
}

/// Resident memory in KiB, descriptors, and processes below this one.
fn held() -> (u64, usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut children = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let list = task.unwrap().path().join("children");
        let list = std::fs::read_to_string(list).unwrap_or_default();
        children += list.split_whitespace().count();
    }
    (memory, descriptors, children)
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    format!("p50 {:.2?}, p99 {:.2?} of {}", at(50), at(99), times.len())
}

/// Times of creations, eight callers at once.
async fn creations(sessions: &Sessions, tenant: &str, count: usize) -> Vec<Duration> {
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (sessions, tenant) = (sessions.clone(), format!("{tenant}{caller}"));
            tokio::spawn(async move {
                let mut times = Vec::new();
                for key in 0..count / 8 {
                    let began = Instant::now();
                    let made = sessions.get_or_create(tenant.as_str(), format!("k{key}"), spec());
                    let session = made.await.unwrap();
                    times.push(began.elapsed());
                    assert!(session.sandbox().sh("true").await.unwrap().success());
                    session.close().await.unwrap();
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.unwrap());
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sessions_hold_does_not_grow_with_time() {
    let long = asked_for("soak");
    let (journaled, live, time) = match long {
        true => (1_000, 200, Duration::from_secs(600)),
        false => (12, 6, Duration::from_secs(2)),
    };
    let place = Scratch::new().unwrap();
    let state = LocalConfig::default().state_dir(place.path().join("state"));
    let provider = Arc::new(LocalProvider::new(state).unwrap());
    let snapshots = provider.capabilities().has(Capability::Snapshot);
    let mut config = SessionsConfig::new()
        .journal(place.path().join("journal"))
        .limits(Limits::new().total(live + 8));
    if snapshots {
        config = config.on_idle(OnIdle::Suspend);
    }
    let sessions = Sessions::open(provider, config).await.unwrap();
    // Those that are not live are suspended, where there are snapshots.
    let kept = if snapshots { journaled } else { live };
    for number in 0..kept {
        let session = sessions
            .get_or_create("t", format!("k{number}"), spec())
            .await
            .unwrap();
        if number >= live {
            session.suspend().await.unwrap();
        }
    }
    // Everything has been done once before what is held is counted.
    let round = async |number: usize| {
        let key = format!("k{}", number % live);
        let session = sessions
            .get_or_create("t", key.as_str(), spec())
            .await
            .unwrap();
        session
            .sandbox()
            .write("f", number.to_string())
            .await
            .unwrap();
        let output = session.sandbox().sh("cat f; seq 1000").await.unwrap();
        assert!(output.success());
        let spawned = session
            .sandbox()
            .spawn(Command::new("sleep").arg("60"))
            .await;
        drop(spawned.unwrap());
        if number.is_multiple_of(10) {
            session.close().await.unwrap();
            sessions
                .get_or_create("t", key.as_str(), spec())
                .await
                .unwrap();
        }
        let _ = sessions.list(&Filter::new().status(Status::Ready)).len();
    };
    for number in 0..2 * live {
        round(number).await;
    }
    let before = held();
    let (began, mut rounds, mut told) = (Instant::now(), 0, Instant::now());
    while began.elapsed() < time {
        round(rounds).await;
        rounds += 1;
        if long && told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            println!("after {:.0?}: {:?}", began.elapsed(), held());
        }
    }
    eventually("what was killed is collected", async || {
        held().2 <= before.2 + 2
    })
    .await;
    let after = held();
    assert_eq!(sessions.stats().sessions, kept);
    assert!(
        after.1 <= before.1 + 16,
        "descriptors: {before:?}, {after:?}"
    );
    assert!(
        after.0 < before.0 + before.0 / 4 + 16 * 1024,
        "memory: {before:?}, {after:?}"
    );
    let journal = std::fs::metadata(place.path().join("journal/journal"))
        .unwrap()
        .len();
    println!(
        "{rounds} rounds over {kept} sessions, {live} live, in {:.0?}: KiB, descriptors, processes \
         {before:?} then {after:?}; journal {journal} bytes",
        began.elapsed()
    );
    let report = sessions.shutdown(ShutdownOptions::new()).await.unwrap();
    assert!(report.left.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creation_with_and_without_a_pool() {
    let (rounds, count) = if asked_for("creation") {
        (5, 80)
    } else {
        (1, 8)
    };
    let place = Scratch::new().unwrap();
    let state = LocalConfig::default().state_dir(place.path().join("state"));
    let provider = Arc::new(LocalProvider::new(state).unwrap());
    let journal = |name: &str| SessionsConfig::new().journal(place.path().join(name));
    let plain = Sessions::open(provider.clone(), journal("plain"));
    let plain = plain.await.unwrap();
    let config = journal("pooled").pool(Pool::new(spec(), 16));
    let pooled = Sessions::open(provider, config).await.unwrap();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // In turn, so that what else the machine does is in both.
    for _ in 0..rounds {
        without.extend(creations(&plain, "c", count).await);
        eventually("filled", async || pooled.stats().pool_ready == 16).await;
        with.extend(creations(&pooled, "c", count).await);
    }
    assert_eq!(pooled.stats().sessions, 0);
    println!(
        "creation, eight callers at once, without a pool: {}",
        quantiles(without)
    );
    println!(
        "creation, eight callers at once, a pool of 16: {}",
        quantiles(with)
    );
    for sessions in [plain, pooled] {
        let report = sessions.shutdown(ShutdownOptions::new()).await.unwrap();
        assert!(report.left.is_empty());
    }
}
