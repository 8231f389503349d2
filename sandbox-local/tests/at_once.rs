//! Sixteen tasks at once on one sandbox: commands, files, forks, and its close. What they see of a
//! file must be what one after the other could have seen (linearisability).
//!
//! Short here; `SANDBOX_AT_ONCE` says how many rounds.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sandbox_core::{Command, ErrorKind, Sandbox, SandboxExt as _};
use tokio::task::JoinSet;

const TASKS: usize = 16;
/// Operations of each task.
const STEPS: usize = 10;
const FILES: usize = 4;

/// Effect of an operation on a file, whose content is a number that is written once, or which is
/// not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Wrote(u64),
    Read(Option<u64>),
    /// And whether it was there.
    Removed(bool),
}

/// An operation, and the moments between which it took effect.
#[derive(Clone, Copy, Debug)]
struct Event {
    file: usize,
    begun: u64,
    ended: u64,
    effect: Effect,
}

impl Event {
    /// The content after it, if it can come next.
    fn apply(&self, content: Option<u64>) -> Option<Option<u64>> {
        match self.effect {
            Effect::Wrote(number) => Some(Some(number)),
            Effect::Read(seen) => (seen == content).then_some(content),
            Effect::Removed(there) => (there == content.is_some()).then_some(None),
        }
    }
}

/// Whether there is an order of the events of one file, each within its time, that explains them.
/// A search of all orders that goes to no state twice (Wing and Gong, Lowe).
fn is_linearisable(events: &[Event]) -> bool {
    assert!(events.len() <= 128, "{} events", events.len());
    let all = u128::MAX >> (128 - events.len().max(1));
    let mut seen = HashSet::new();
    let mut todo = vec![(0_u128, None)];
    while let Some((done, content)) = todo.pop() {
        if events.is_empty() || done == all {
            return true;
        }
        if !seen.insert((done, content)) {
            continue;
        }
        let open = |index: &usize| done & 1 << index == 0;
        let left = || (0..events.len()).filter(open);
        // What ended before another began comes before it.
        let first_end = left().map(|index| events[index].ended).min().unwrap_or(0);
        for index in left().filter(|index| events[*index].begun <= first_end) {
            if let Some(next) = events[index].apply(content) {
                todo.push((done | 1 << index, next));
            }
        }
    }
    false
}

#[test]
fn a_history_that_no_order_explains_is_found_out() {
    let event = |begun, ended, effect| Event {
        file: 0,
        begun,
        ended,
        effect,
    };
    let history = |seen| {
        [
            event(1, 2, Effect::Wrote(7)),
            event(3, 6, Effect::Wrote(8)),
            event(4, 5, Effect::Read(seen)),
            event(7, 8, Effect::Removed(true)),
            event(9, 10, Effect::Read(None)),
        ]
    };
    // During the second write either is right; what was before the first is not.
    assert!(is_linearisable(&history(Some(7))) && is_linearisable(&history(Some(8))));
    assert!(!is_linearisable(&history(None)) && !is_linearisable(&history(Some(9))));
    // Two that see two writes in two orders.
    let torn = [
        event(1, 9, Effect::Wrote(1)),
        event(1, 9, Effect::Wrote(2)),
        event(2, 3, Effect::Read(Some(1))),
        event(4, 5, Effect::Read(Some(2))),
        event(6, 7, Effect::Read(Some(1))),
    ];
    assert!(!is_linearisable(&torn));
}

/// The clock of a history: each look at it is another moment.
static CLOCK: AtomicU64 = AtomicU64::new(1);

fn now() -> u64 {
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

fn name(file: usize) -> String {
    format!("f{file}")
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Content of a file, by the file API.
async fn content(
    sandbox: &Arc<dyn Sandbox>,
    file: usize,
) -> Result<Option<u64>, sandbox_core::Error> {
    match sandbox.read(name(file)).await {
        Ok(bytes) => Ok(number(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// One operation on one file; a fork looks at all of them.
async fn step(
    sandbox: &Arc<dyn Sandbox>,
    kind: u64,
    file: usize,
) -> Result<Vec<Event>, sandbox_core::Error> {
    let begun = now();
    let sh = async |script: String| {
        let output = sandbox.exec(Command::shell(script)).await?;
        Ok::<_, sandbox_core::Error>(output.stdout.to_string_lossy().into_owned())
    };
    let effect = match kind {
        0 | 1 => {
            sandbox.write(name(file), begun.to_string()).await?;
            Effect::Wrote(begun)
        }
        2 | 3 => Effect::Read(content(sandbox, file).await?),
        4 => {
            let removed = sandbox
                .remove(&name(file).as_str().into(), Default::default())
                .await;
            match removed {
                Err(error) if error.kind() == ErrorKind::NotFound => Effect::Removed(false),
                other => other.map(|()| Effect::Removed(true))?,
            }
        }
        5 => {
            let file = name(file);
            sh(format!(
                "echo {begun} > {file}.{begun} && mv {file}.{begun} {file}"
            ))
            .await?;
            Effect::Wrote(begun)
        }
        6 => Effect::Read(number(
            &sh(format!("cat {} 2>/dev/null", name(file))).await?,
        )),
        _ => {
            let child = match sandbox.fork_one().await {
                // Something would not stand still: an honest answer.
                Err(error) if error.kind() == ErrorKind::Busy => return Ok(Vec::new()),
                other => other?,
            };
            let ended = now();
            let mut events = Vec::new();
            for file in 0..FILES {
                let effect = Effect::Read(content(&child, file).await?);
                events.push(Event {
                    file,
                    begun,
                    ended,
                    effect,
                });
            }
            child.close().await?;
            return Ok(events);
        }
    };
    let ended = now();
    Ok(vec![Event {
        file,
        begun,
        ended,
        effect,
    }])
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_tasks_see_what_one_after_the_other_could_have_seen() {
    let rounds = std::env::var("SANDBOX_AT_ONCE").ok();
    let rounds: u32 = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let random = RandomState::new();
    for round in 0..rounds {
        let sandbox = support::default().await;
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let sandbox = sandbox.clone();
            let random = random.clone();
            tasks.spawn(async move {
                let mut events = Vec::new();
                for at in 0..STEPS {
                    let dice = random.hash_one((round, task, at));
                    // A fork costs as much as all others together.
                    let kind = (dice >> 8) % 29;
                    let kind = if kind < 28 { kind % 7 } else { 7 };
                    let done = step(&sandbox, kind, dice as usize % FILES).await;
                    events.extend(done.expect("an operation"));
                }
                events
            });
        }
        let events = tasks.join_all().await.concat();
        let forks = events.len()
            - events
                .iter()
                .map(|event| event.begun)
                .collect::<HashSet<_>>()
                .len();
        println!(
            "round {round}: {} events, {} forks",
            events.len(),
            forks / (FILES - 1)
        );
        for file in 0..FILES {
            let of_file: Vec<Event> = events
                .iter()
                .filter(|event| event.file == file)
                .copied()
                .collect();
            assert!(is_linearisable(&of_file), "no order explains {of_file:#?}");
        }
        // And its end, among all of that: whatever is under way ends, and says so.
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let sandbox = sandbox.clone();
            tasks.spawn(async move {
                if task % 4 == 3 {
                    sandbox.close().await.expect("close");
                    return;
                }
                loop {
                    if let Err(error) = step(&sandbox, task as u64 % 8, task % FILES).await {
                        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                        return;
                    }
                }
            });
        }
        tasks.join_all().await;
    }
}
