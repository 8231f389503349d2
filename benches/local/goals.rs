//! Goals, and whether this run reached them. All are ratios within the run.

use std::time::Duration;

use crate::support::measure::Measured;
use crate::support::report::{ratio, time};

type Groups = [(String, Vec<Measured>)];

/// One time by another must be at most this.
struct Goal {
    what: &'static str,
    /// Group and case.
    this: (&'static str, &'static str),
    by: (&'static str, &'static str),
    at_most: f64,
}

const fn goal(
    what: &'static str,
    this: (&'static str, &'static str),
    by: (&'static str, &'static str),
    at_most: f64,
) -> Goal {
    Goal {
        what,
        this,
        by,
        at_most,
    }
}

const GOALS: &[Goal] = &[
    goal(
        "exec of a static program by a plain spawn",
        ("exec static program", "exec"),
        ("exec static program", "tokio spawn"),
        1.5,
    ),
    goal(
        "exec of /bin/true by a plain spawn",
        ("exec /bin/true", "exec"),
        ("exec /bin/true", "tokio spawn"),
        1.15,
    ),
    goal(
        "fork to a usable child, 100,000 files by 1,000",
        ("fork of 100000 files", "fork"),
        ("fork of 1000 files", "fork"),
        1.3,
    ),
    goal(
        "1,000 files by plain writes",
        ("write_files of 1000 × 1 KiB", "write_files"),
        ("write_files of 1000 × 1 KiB", "plain writes"),
        1.5,
    ),
    goal(
        // 0.8 of its throughput.
        "streaming 1 GiB by a bare pipe",
        ("stream of 1024 MiB", "spawn"),
        ("stream of 1024 MiB", "a bare pipe"),
        1.25,
    ),
    goal(
        "create with a host of 1 GiB by a small one",
        ("create, host of 1 GiB", "create, exec true"),
        ("create", "create, exec true"),
        1.1,
    ),
    goal(
        "exec with a host of 1 GiB by a small one",
        ("exec true, host of 1 GiB", "exec true"),
        ("exec true", "exec true"),
        1.1,
    ),
    goal(
        // 1.6 times the throughput.
        "execs of a static program two at a time by one after the other",
        (
            "200 execs of a static program",
            "two at a time, two sandboxes",
        ),
        ("200 execs of a static program", "one after the other"),
        0.625,
    ),
    goal(
        "execs of /bin/true two at a time by one after the other",
        ("200 execs of /bin/true", "two at a time, two sandboxes"),
        ("200 execs of /bin/true", "one after the other"),
        0.625,
    ),
    goal(
        // Half of its throughput.
        "2 GiB through an egress policy by the host's loopback",
        ("2048 MiB by name", "through the egress policy"),
        ("2048 MiB by name", "loopback of the host"),
        2.0,
    ),
    goal(
        "second start of an image by a default sandbox",
        ("create, exec true, second start", "of an image"),
        ("create, exec true, second start", "of the host's programs"),
        1.1,
    ),
    goal(
        "first unpacking of an image by tar",
        ("first unpacking of an image", "unpack, digests compared"),
        ("first unpacking of an image", "tar x"),
        1.5,
    ),
];

/// A line for each goal whose groups were run.
pub(crate) fn lines(groups: &Groups) -> Vec<String> {
    let median = |(group, case): (&str, &str)| {
        let (_, cases) = groups.iter().find(|(name, _)| name == group)?;
        cases.iter().find(|one| one.name == case)?.median()
    };
    let word = |reached: bool| if reached { "reached" } else { "**missed**" };
    let mut lines: Vec<_> = GOALS
        .iter()
        .filter_map(|goal| {
            let (this, by) = (median(goal.this)?, median(goal.by)?);
            let is = this.as_secs_f64() / by.as_secs_f64();
            let (what, at_most) = (goal.what, ratio(goal.at_most));
            let word = word(is <= goal.at_most);
            Some(format!("{what}: {} (goal {at_most}): {word}", ratio(is)))
        })
        .collect();
    const FORK: Duration = Duration::from_micros(2_500);
    if let Some(is) = median(("fork of 1000 files", "fork")) {
        let (is_text, goal) = (time(is), time(FORK));
        let word = word(is <= FORK);
        lines.push(format!(
            "fork to a usable child: {is_text} (goal {goal}): {word}"
        ));
    }
    lines
}
