//! The run itself and its tables.

use std::rc::Rc;

use sandbox::local::{LocalConfig, LocalProvider};
use serde_json::{Value, json};

use super::command::{Call, Program};
use super::containers::{Podman, Runtime};
use super::hakoniwa::Hakoniwa;
use super::isolation;
use super::launchers::{Bubblewrap, Firejail, Nspawn};
use super::ours::{Kind, Ours, Plain};
use super::page;
use super::peer::{Missing, Peer, Place, Work, version};
use crate::support::measure::{Budget, Case, Measured, interleaved};
use crate::support::report::{self, Table, ratio, time};
use crate::support::{Effort, Outcome, host, wanted};

/// Index of this crate's own line, with which the others are compared.
const OURS: usize = 1;

/// Everything that is here, and what is not.
struct Field {
    peers: Vec<Box<dyn Peer>>,
    missing: Vec<Missing>,
}

/// Runs what is asked for and prints it.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn print(effort: Effort) -> Outcome<()> {
    let mut field = Field::new(&Rc::new(Place::new(effort)?))?;
    let machine = host::machine();
    println!("## The same work in every sandbox that is installed\n\n{machine}.\n");
    let mut all = Vec::new();
    for work in Work::ALL {
        if wanted(work.key()) {
            eprintln!("measuring: {}", work.title());
            all.push((work, field.measure(effort, work)));
        }
    }
    let isolation = field.isolation();
    let (times, in_force) = (field.times(&all), field.what_is_in_force(&isolation));
    println!("{times}");
    println!("Medians; in brackets this crate's time by theirs, the median over paired rounds.\n");
    println!("{in_force}");
    for goal in goals(&all) {
        println!("- {goal}");
    }
    if std::env::args().any(|arg| arg == "--html") {
        let works: Vec<_> = all
            .iter()
            .map(|(work, measured)| (work.title(), measured.iter().flatten().collect()))
            .collect();
        let file = page::write(&machine, &works, [&times, &in_force])?;
        eprintln!("written: {}", file.display());
    }
    report::save("peers", &field.json(&machine, &all, &isolation))
}

type Times = (Work, Vec<Option<Measured>>);
type InForce = Vec<Result<[String; 5], String>>;

impl Field {
    fn new(place: &Rc<Place>) -> Outcome<Self> {
        let runtime = Rc::new(tokio::runtime::Runtime::new()?);
        let provider = LocalProvider::new(LocalConfig::default())?;
        let prepared = LocalProvider::new(LocalConfig::default().prepared(4))?;
        let ours = |kind| {
            let provider = match kind {
                Kind::Prepared => prepared.clone(),
                _ => provider.clone(),
            };
            let (place, runtime) = (Rc::clone(place), Rc::clone(&runtime));
            Box::new(Ours::new(kind, place, runtime, provider))
        };
        let mut field = Self {
            peers: vec![
                Box::new(Plain {
                    place: Rc::clone(place),
                }),
                ours(Kind::Default),
                ours(Kind::First),
                ours(Kind::Prepared),
                ours(Kind::Limits),
            ],
            missing: Vec::new(),
        };
        field.add(Bubblewrap, place);
        match Hakoniwa::start(Rc::clone(place)) {
            Ok(peer) => field.peers.push(Box::new(peer)),
            Err(why) => field.missing.push(Missing {
                name: "hakoniwa crate".into(),
                why,
            }),
        }
        field.add(Runtime::runc(), place);
        field.add(Runtime::crun(), place);
        field.add(Runtime::runsc(), place);
        field.add(Firejail, place);
        field.add(Nspawn, place);
        field.add(Podman, place);
        Ok(field)
    }

    fn add(&mut self, call: impl Call + 'static, place: &Rc<Place>) {
        let name = call.program().to_owned();
        match version(&name) {
            Ok(version) => {
                let peer = Program::new(call, version, Rc::clone(place));
                self.peers.push(Box::new(peer));
            }
            Err(why) => self.missing.push(Missing { name, why }),
        }
    }

    /// One result a peer; `None` where it has no such thing.
    fn measure(&mut self, effort: Effort, work: Work) -> Vec<Option<Measured>> {
        let (rounds, seconds) = match work {
            Work::Hundred => (7, 8),
            Work::Fork | Work::Files => (21, 4),
            Work::True | Work::Exec => (51, 4),
        };
        let budget = Budget::of(effort, rounds, seconds);
        let mut has = Vec::new();
        let mut cases = Vec::new();
        for peer in &mut self.peers {
            let offers = peer.offers(work);
            has.push(offers);
            if offers {
                let name = peer.name();
                cases.push(Case::new(name, move || peer.round(work)));
            }
        }
        let mut measured = interleaved(effort, budget, cases).into_iter();
        let results = has
            .into_iter()
            .map(|offers| if offers { measured.next() } else { None })
            .collect();
        self.peers.iter_mut().for_each(|peer| peer.finish());
        results
    }

    fn isolation(&mut self) -> InForce {
        let mut answers = self.peers.iter_mut().map(|peer| {
            peer.probe(isolation::PROBE)
                .map_err(|error| error.to_string())
        });
        let host = answers.next().unwrap_or(Err("no host".into()));
        let all: Vec<_> = answers.collect();
        all.into_iter()
            .map(|inside| {
                let host = host.as_deref().map_err(Clone::clone)?;
                isolation::cells(&inside?, host).map_err(|error| error.to_string())
            })
            .collect()
    }

    fn times(&self, all: &[Times]) -> Table {
        let mut head = vec!["".to_owned()];
        head.extend(all.iter().map(|(work, _)| work.title().to_owned()));
        let mut table = Table::with_head(head);
        for (row, peer) in self.peers.iter().enumerate() {
            let mut cells = vec![peer.name()];
            for (_, measured) in all {
                let ours = measured[OURS].as_ref();
                cells.push(match measured[row].as_ref() {
                    None => "–".into(),
                    Some(theirs) => cell(theirs, ours.filter(|_| row != OURS)),
                });
            }
            table.row(cells);
        }
        for missing in &self.missing {
            let mut cells = vec![missing.name.clone()];
            cells.extend(all.iter().map(|_| missing.why.clone()));
            table.row(cells);
        }
        table
    }

    fn what_is_in_force(&self, isolation: &InForce) -> Table {
        let mut head = vec!["In force, asked from inside".to_owned()];
        head.extend(isolation::COLUMNS.map(str::to_owned));
        head.extend([
            "Landlock (asked for)".to_owned(),
            "How the work is done".to_owned(),
        ]);
        let mut table = Table::with_head(head);
        for (peer, inside) in self.peers.iter().skip(OURS).zip(isolation) {
            let mut cells = vec![peer.name()];
            match inside {
                Ok(inside) => cells.extend(inside.clone()),
                Err(why) => {
                    cells.push(format!("failed: {}", brief(why)));
                    cells.extend(isolation::COLUMNS.iter().skip(1).map(|_| "–".to_owned()));
                }
            }
            cells.extend([peer.landlock().to_owned(), peer.note()]);
            table.row(cells);
        }
        table
    }

    fn json(&self, machine: &str, all: &[Times], isolation: &InForce) -> Value {
        let works = all.iter().map(|(work, measured)| {
            let ours = measured[OURS].as_ref();
            let peers = measured.iter().flatten().map(|theirs| {
                json!({
                    "name": theirs.name,
                    "median_us": theirs.median().map(|time| time.as_secs_f64() * 1e6),
                    "p95_us": theirs.p95().map(|time| time.as_secs_f64() * 1e6),
                    "rounds": theirs.times.len(),
                    "ours_by_theirs": ours.and_then(|ours| ours.ratio_to(theirs)),
                    "error": theirs.error,
                })
            });
            json!({
                "work": work.key(), "title": work.title(), "peers": peers.collect::<Vec<_>>(),
            })
        });
        let names = self.peers.iter().skip(OURS).map(|peer| peer.name());
        let in_force = names.zip(isolation).map(|(name, inside)| match inside {
            Ok(cells) => json!({"name": name, "in_force": cells}),
            Err(why) => json!({"name": name, "error": why}),
        });
        let missing = self.missing.iter();
        json!({
            "machine": machine,
            "works": works.collect::<Vec<_>>(),
            "columns": isolation::COLUMNS,
            "isolation": in_force.collect::<Vec<_>>(),
            "missing": missing.map(|m| json!({"name": m.name, "why": m.why})).collect::<Vec<_>>(),
        })
    }
}

/// Shortens an error to what a table has room for; the JSON has all of it.
fn brief(error: &str) -> String {
    error
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(100)
        .collect()
}

fn cell(theirs: &Measured, ours: Option<&Measured>) -> String {
    let Some(median) = theirs.median() else {
        return format!(
            "failed: {}",
            brief(theirs.error.as_deref().unwrap_or("no round"))
        );
    };
    let ratio_text = ours.and_then(|ours| ours.ratio_to(theirs)).map(ratio);
    match (ratio_text, &theirs.error) {
        (_, Some(error)) => format!("{}, then failed: {}", time(median), brief(error)),
        (Some(ratio), None) => format!("{} ({ratio})", time(median)),
        (None, None) => format!("**{}**", time(median)),
    }
}

/// Goals beside the results.
fn goals(all: &[Times]) -> Vec<String> {
    let of = |work: Work, name: &str| {
        let (_, measured) = all.iter().find(|(w, _)| *w == work)?;
        let found = measured.iter().flatten();
        found.into_iter().find(|m| m.name.starts_with(name))
    };
    let ours = "**this crate**";
    [
        (
            "create to the end of the first command against all of bwrap",
            Work::True,
            "this crate, until",
            "bwrap",
            0.5,
        ),
        (
            "the same, prepared ahead of time",
            Work::True,
            "this crate, prepared",
            "bwrap",
            0.35,
        ),
        (
            "100 execs against 100 bwraps",
            Work::Hundred,
            ours,
            "bwrap",
            0.25,
        ),
        (
            "exec against a plain spawn",
            Work::Exec,
            ours,
            "no sandbox",
            1.15,
        ),
        (
            "1,000 files against plain writes",
            Work::Files,
            ours,
            "no sandbox",
            1.5,
        ),
    ]
    .into_iter()
    .filter_map(|(what, work, ours, theirs, goal)| {
        let is = of(work, ours)?.ratio_to(of(work, theirs)?)?;
        let word = if is <= goal { "reached" } else { "**missed**" };
        Some(format!(
            "{what}: {} (goal {}): {word}",
            ratio(is),
            ratio(goal)
        ))
    })
    .collect()
}
