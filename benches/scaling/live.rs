//! Against the number of live sandboxes: what one more takes of memory and time, and what they
//! take when they are idle.

use std::fs;
use std::time::{Duration, Instant};

use super::series::{Series, Setup};
use crate::support::Outcome;
use crate::support::measure::timed;

/// No further sandbox is created with less memory than this left, in KiB.
const LEFT: u64 = 2 << 20;
/// Time that the idle ones are watched.
const WATCH: Duration = Duration::from_secs(2);

pub(crate) fn measure(setup: &Setup<'_>) -> Outcome<Vec<Series>> {
    const AGAINST: &str = "live sandboxes";
    let stops: &[usize] = setup.effort.pick(
        &[1, 2, 4],
        &[1, 10, 50, 100],
        &[1, 10, 50, 100, 200, 350, 500, 750, 1_000],
    );
    let mut create = Series::new("create", AGAINST, "ms");
    let mut exec = Series::new("exec of true in the first", AGAINST, "ms");
    let mut agents = Series::new("memory of agents (PSS)", AGAINST, "KiB");
    let mut own = Series::new("memory of the host process (RSS)", AGAINST, "KiB");
    let mut all_memory = Series::new("memory of the whole machine", AGAINST, "KiB");
    let mut descriptors = Series::new("descriptors of the host process", AGAINST, "descriptors");
    let mut idle = Series::new("processor time of idle sandboxes", AGAINST, "ms a second");
    let first = setup.create()?;
    setup.exec_true(&first)?;
    let mut sandboxes = vec![first];
    let (free, resident) = (available()?, kib("/proc/self/status", "VmRSS:")?);
    let mut created = Vec::new();
    for stop in stops {
        while sandboxes.len() < *stop {
            if available()? < LEFT {
                create.note = Some(format!(
                    "Live sandboxes: ended at {} with less than 2 GiB of memory left.",
                    sandboxes.len()
                ));
                break;
            }
            let started = Instant::now();
            match setup.create() {
                Ok(sandbox) => sandboxes.push(sandbox),
                Err(error) => {
                    let at = sandboxes.len();
                    create.note = Some(format!("Live sandboxes: ended at {at}: {error}."));
                    break;
                }
            }
            created.push(started.elapsed());
        }
        if sandboxes.len() < *stop {
            break;
        }
        let count = u32::try_from(sandboxes.len())?;
        let x = f64::from(count);
        created.sort();
        if let Some(median) = created.get(created.len() / 2) {
            create.time(x, *median);
        }
        created.clear();
        exec.time(x, setup.median(21, || setup.exec_true(&sandboxes[0]))?);
        idle.points.push((x, busy(setup)?));
        agents.points.push((x, whole(pss_of_children()?)));
        let now = kib("/proc/self/status", "VmRSS:")?;
        own.points.push((x, whole(now.saturating_sub(resident))));
        all_memory
            .points
            .push((x, whole(free.saturating_sub(available()?))));
        descriptors
            .points
            .push((x, whole(fs::read_dir("/proc/self/fd")?.count() as u64)));
    }
    let mut close = Series::new("close", AGAINST, "ms");
    while let Some(sandbox) = sandboxes.pop() {
        let time = timed(|| setup.close(&sandbox))?;
        // Some of the run are enough for the line.
        if sandboxes.len() % setup.effort.pick(1, 5, 25) == 0 {
            close.time(whole(sandboxes.len() as u64 + 1), time);
        }
    }
    close.points.reverse();
    Ok(vec![
        create,
        exec,
        close,
        agents,
        own,
        all_memory,
        descriptors,
        idle,
    ])
}

/// Counts here are far below what an `f64` holds exactly.
#[allow(clippy::cast_precision_loss)]
fn whole(number: u64) -> f64 {
    number as f64
}

/// Processor time that this process and its agents take in a second without requests, in
/// milliseconds; the clock ticks every ten.
fn busy(setup: &Setup<'_>) -> Outcome<f64> {
    let watch = setup.effort.pick(WATCH / 20, WATCH / 2, WATCH);
    let before = ticks()?;
    std::thread::sleep(watch);
    let ms = ticks()?.saturating_sub(before) * 10;
    Ok(whole(ms) / watch.as_secs_f64())
}

fn ticks() -> Outcome<u64> {
    let mut sum = 0;
    for pid in children()?.into_iter().chain(["self".to_owned()]) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // What stands before is the name in brackets, which may have spaces.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let times = fields.split(' ').skip(11).take(2);
        sum += times
            .filter_map(|time| time.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(sum)
}

/// The agents: every child of this process.
fn children() -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let list = fs::read_to_string(task?.path().join("children"));
        // A thread may end while it is looked at.
        all.extend(
            list.unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned),
        );
    }
    Ok(all)
}

fn pss_of_children() -> Outcome<u64> {
    let mut sum = 0;
    for pid in children()? {
        sum += kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
    }
    Ok(sum)
}

fn available() -> Outcome<u64> {
    kib("/proc/meminfo", "MemAvailable:")
}

/// A line's number of KiB.
fn kib(file: &str, key: &str) -> Outcome<u64> {
    let text = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number
        .ok_or_else(|| format!("{file} has no {key}"))?
        .parse()?)
}
