//! The cache: shared by threads and processes, killed at any moment, collected.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sandbox_core::backend::FileLock;
use sandbox_oci::Event;
use support::*;

/// Set in a process of these tests that is to unpack an image and be killed.
const VICTIM: &str = "SANDBOX_OCI_VICTIM";

fn filled(dir: &Path, layers: usize, files: usize) -> String {
    let layers: Vec<_> = (0..layers)
        .map(|layer| {
            let mut tar = Tar::new().dir("d/", 0o755).dir("d/closed/", 0);
            for file in 0..files {
                tar = tar.file(&format!("d/{layer}-{file}"), &"x".repeat(3000));
            }
            tar.finish()
        })
        .collect();
    format!("oci:{}", image(dir, &layers).dir.display())
}

#[test]
fn many_that_start_at_once_unpack_once() {
    let dir = support::place();
    let reference = filled(&dir.path().join("image"), 3, 300);
    let unpacked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                // As other providers have it: each its own.
                let cache = cache(&dir.path().join("cache"));
                let count = |event| {
                    if let Event::Ready { cached: false, .. } = event {
                        unpacked.fetch_add(1, Ordering::Relaxed);
                    }
                };
                let image = open(&reference).unwrap();
                let taken = cache.take(&reference, &image, &count, &|| true).unwrap();
                assert_eq!(
                    fs::read_dir(taken.layers[0].root.join("d"))
                        .unwrap()
                        .count(),
                    301
                );
            });
        }
    });
    assert_eq!(unpacked.into_inner(), 3);
}

#[test]
fn a_process_that_is_killed_at_any_moment_leaves_nothing_half() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        let dir = PathBuf::from(dir);
        let reference = format!("oci:{}", dir.join("image").display());
        let _ = take(&cache(&dir.join("cache")), &reference);
        return;
    }
    let dir = support::place();
    let reference = filled(&dir.path().join("image"), 3, 400);
    let own = cache(&dir.path().join("cache"));
    let mut cut = 0;
    for round in 0..12 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_process_that_is_killed_at_any_moment_leaves_nothing_half",
            ])
            .env(VICTIM, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At another moment of the work each time, told by what is there and not by a clock.
        let reached = || {
            let making = dir.path().join("cache/making");
            let files = fs::read_dir(making)
                .into_iter()
                .flatten()
                .flatten()
                .map(|at| {
                    fs::read_dir(at.path().join("root/d")).map_or(0, |entries| entries.count())
                });
            files.sum::<usize>() > round * 30
        };
        while !reached() && victim.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        victim.kill().unwrap();
        cut += usize::from(!victim.wait().unwrap().success());
        for layer in own.layers().unwrap() {
            let root = dir
                .path()
                .join("cache/layers")
                .join(layer.chain.hex())
                .join("root/d");
            assert_eq!(fs::read_dir(root).unwrap().count(), 401);
        }
    }
    assert!(cut > 0, "none was cut short");
    let taken = take(&own, &reference).unwrap();
    assert_eq!(taken.layers.len(), 3);
    own.collect(u64::MAX).unwrap();
    for left in ["making", "trash"] {
        assert_eq!(
            fs::read_dir(dir.path().join("cache").join(left))
                .unwrap()
                .count(),
            0
        );
    }
}

#[test]
fn a_collection_removes_what_was_used_longest_ago_and_nothing_in_use() {
    let dir = support::place();
    let cache = cache(&dir.path().join("cache"));
    let references: Vec<_> = ["a", "b", "c"]
        .iter()
        .enumerate()
        .map(|(number, name)| filled(&dir.path().join(name), 1, 10 + number))
        .collect();
    let kept = take(&cache, &references[0]).unwrap();
    take(&cache, &references[1]).unwrap();
    take(&cache, &references[2]).unwrap();
    let age = |layer: &sandbox_oci::UnpackedLayer, seconds| {
        let about = cache.layers_dir().join(layer.chain.hex()).join("about");
        let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
        fs::File::open(about).unwrap().set_modified(then).unwrap();
    };
    for layer in cache.layers().unwrap() {
        age(&layer, if layer.entries == 14 { 10 } else { 100 });
    }
    assert_eq!(cache.images().unwrap().len(), 3);
    let collected = cache.collect(70_000).unwrap();
    assert_eq!(collected.layers, 1, "{collected:?}");
    let left: Vec<_> = cache
        .layers()
        .unwrap()
        .iter()
        .map(|layer| layer.entries)
        .collect();
    assert_eq!(left, [12, 14], "the one in use is older, and stays");
    assert_eq!(cache.images().unwrap().len(), 2);
    drop(kept);
    assert_eq!(cache.collect(0).unwrap().layers, 2);
    assert!(cache.layers().unwrap().is_empty());
    take(&cache, &references[1]).unwrap();
    assert_eq!(cache.remove(&references[1]).unwrap().unwrap().layers, 1);
    assert_eq!(cache.remove(&references[1]).unwrap(), None);
}

/// A process that another thread starts has a copy of each lock until it executes its program.
#[test]
fn a_layer_that_is_not_used_any_more_can_be_removed_while_programs_start() {
    let dir = support::place();
    let reference = filled(&dir.path().join("image"), 1, 1);
    let cache = cache(&dir.path().join("cache"));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        let removed = (0..200).all(|_| {
            drop(take(&cache, &reference).unwrap());
            cache.remove(&reference).unwrap().unwrap().layers == 1
        });
        done.store(true, Ordering::Relaxed);
        assert!(removed);
    });
}

#[test]
fn a_layer_that_may_not_have_reached_the_disk_before_a_restart_is_unpacked_again() {
    let dir = support::place();
    let reference = filled(&dir.path().join("image"), 1, 5);
    let cache = cache(&dir.path().join("cache"));
    let taken = take(&cache, &reference).unwrap();
    let place = cache.layers_dir().join(taken.layers[0].chain.hex());
    drop(taken);
    while !place.join("synced").exists() {
        std::thread::yield_now();
    }
    let about = fs::read_to_string(place.join("about")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(place.join("about"), about.replace(boot.trim(), "another")).unwrap();
    let half = place.join("root/d/0-0");
    fs::write(&half, "half").unwrap();
    // On the disk: it is what it was.
    take(&cache, &reference).unwrap();
    assert_eq!(fs::read(&half).unwrap(), b"half");
    fs::remove_file(place.join("synced")).unwrap();
    take(&cache, &reference).unwrap();
    assert_eq!(fs::read(&half).unwrap().len(), 3000);
}

#[test]
fn an_unpacking_that_is_not_wanted_any_more_ends_and_leaves_nothing() {
    let dir = support::place();
    let reference = filled(&dir.path().join("image"), 1, 2000);
    let cache = cache(&dir.path().join("cache"));
    let image = open(&reference).unwrap();
    cache
        .take(&reference, &image, &|_| {}, &|| false)
        .unwrap_err();
    assert!(cache.layers().unwrap().is_empty());
    assert_eq!(
        fs::read_dir(dir.path().join("cache/making"))
            .unwrap()
            .count(),
        0
    );
    take(&cache, &reference).unwrap();
}

#[test]
fn a_layer_that_another_process_works_on_is_waited_for_only_as_long_as_it_is_wanted() {
    let dir = support::place();
    let reference = filled(&dir.path().join("image"), 1, 1);
    let cache = cache(&dir.path().join("cache"));
    let image = open(&reference).unwrap();
    let held = dir
        .path()
        .join("cache/locks")
        .join(image.layers[0].chain.hex());
    let held = FileLock::exclusive(fs::File::create(held).unwrap()).unwrap();
    let asked = AtomicUsize::new(0);
    let wanted = || asked.fetch_add(1, Ordering::Relaxed) < 5;
    let error = cache.take(&reference, &image, &|_| {}, &wanted);
    assert!(error.unwrap_err().to_string().contains("not wanted"));
    drop(held);
    assert_eq!(take(&cache, &reference).unwrap().layers.len(), 1);
}
