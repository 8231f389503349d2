//! Cost of a batch against plain writes into the same filesystem. For a release build:
//! `cargo test --release -p sandbox-local -- --ignored --nocapture batch_against_plain_writes`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandbox_core::FileBatch;

use super::super::GuestRoot;
use super::mounts::{Namespace, write};
use super::{Fixture, open_root};

const FILES: usize = 1000;

#[test]
#[ignore = "a measurement; needs a release build and a quiet machine"]
fn batch_against_plain_writes() {
    for (place, f) in [("disk", Fixture::new()), ("memory", Fixture::fast())] {
        println!("{place}, plain directory");
        measure(&f.guest, &f.root(""));
        for dir in ["lower", "upper", "work", "merged"] {
            fs::create_dir(f.host(dir)).unwrap();
        }
        let namespace = Namespace::new(
            f.dir.path(),
            "mount -t overlay overlay \
             -o volatile,lowerdir=host/lower,upperdir=host/upper,workdir=host/work host/merged",
        );
        let inside = namespace.path(&f.host("merged"));
        println!("{place}, overlay in another namespace");
        measure(&GuestRoot::new(open_root(&inside), None), &inside);
    }
}

fn measure(guest: &GuestRoot, root: &Path) {
    let content = vec![b'x'; 1024];
    let mut times: [Vec<Duration>; 4] = Default::default();
    for round in 0..15 {
        let batch = |dir: &str| {
            (0..FILES).fold(FileBatch::new(), |batch, n| {
                batch.file(format!("/{dir}/{n}"), content.clone())
            })
        };
        let dir = |kind: &str| -> (String, PathBuf) {
            let name = format!("{kind}{round}");
            let path = root.join(&name);
            (name, path)
        };
        let mut time = |index: usize, run: &dyn Fn()| {
            let started = Instant::now();
            run();
            times[index].push(started.elapsed());
        };
        let (_, plain) = dir("plain");
        fs::create_dir(&plain).unwrap();
        time(0, &|| {
            for n in 0..FILES {
                fs::write(plain.join(n.to_string()), &content).unwrap();
            }
        });
        let (name, there) = dir("there");
        fs::create_dir(&there).unwrap();
        let files = batch(&name);
        time(1, &|| write(guest, &files).unwrap());
        time(2, &|| write(guest, &files).unwrap());
        let (name, new) = dir("new");
        let files = batch(&name);
        time(3, &|| write(guest, &files).unwrap());
        for dir in [plain, there, new] {
            fs::remove_dir_all(dir).unwrap();
        }
    }
    let median = times.map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    });
    for (label, time) in ["plain", "existing directory", "replacing", "new directory"]
        .iter()
        .zip(median)
    {
        println!("  {label:20} {time:7.1} ms  {:.2}", time / median[0]);
    }
}
