//! Layouts that are saved into by processes which are killed.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sandbox_oci::{Cache, ImageConfig, Layout, Limits, NewImage};
use support::Tar;

/// Set in a process of these tests that is to save an image and be killed.
const VICTIM: &str = "SANDBOX_OCI_SAVING";

const NAME: &str = "a_process_that_is_killed_at_any_of_its_writes_leaves_the_old_index_or_the_new";

fn save(dir: &Path, name: &str) {
    let layout = Layout::open(dir).unwrap();
    let in_use = layout.use_blobs().unwrap();
    let mut writer = layout.write_blob(&in_use).unwrap();
    let layer = Tar::new().file("name", name).finish();
    writer.write_all(&layer).unwrap();
    let blob = writer.finish().unwrap();
    let image = NewImage::new(ImageConfig::default(), vec![blob]);
    layout.save(name, image, &in_use).unwrap();
}

/// The images of a layout; each of them can be unpacked, with its digests compared.
fn sound(dir: &Path, cache: &Path) -> Vec<String> {
    let layout = Layout::open(dir).unwrap();
    let images = layout.images().unwrap().into_iter();
    let names: Vec<String> = images.map(|image| image.name).collect();
    let cache = Cache::open(cache, None, Limits::new(), u64::MAX).unwrap();
    for name in &names {
        let image = layout.image(name, &Limits::new()).unwrap();
        let taken = cache.take(name, &image, &|_| {}, &|| true).unwrap();
        let file = taken.layers[0].root.join("name");
        assert_eq!(fs::read_to_string(file).unwrap(), *name);
    }
    names
}

#[test]
fn a_process_that_is_killed_at_any_of_its_writes_leaves_the_old_index_or_the_new() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        return save(Path::new(&dir), "new");
    }
    let dir = support::place();
    let (layout, cache) = (dir.path().join("layout"), dir.path().join("cache"));
    save(&layout, "old");
    let (mut kept, mut replaced) = (0, 0);
    // The system calls that change what is on the disk, each time one of them later.
    for calls in ["write", "fsync", "/^rename"] {
        for number in 1.. {
            let inject = format!("inject={calls}:signal=KILL:when={number}");
            let status = Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-e"])
                .arg(format!("trace={calls}"))
                .args(["-e", &inject])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", NAME, "--test-threads=1"])
                .env(VICTIM, &layout)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .expect("Debian's strace is installed: see .ci/run");
            match (status.signal(), sound(&layout, &cache).len()) {
                (None, 2) => {
                    assert!(status.success(), "{status}");
                    assert!(number > 1, "no control: {calls} was never called");
                    break;
                }
                (Some(9), 1) => kept += 1,
                (Some(9), 2) => {
                    replaced += 1;
                    assert!(Layout::open(&layout).unwrap().remove("new").unwrap());
                }
                (signal, images) => {
                    panic!("{calls} {number}: signal {signal:?}, {images} images, {status}")
                }
            }
        }
        assert!(Layout::open(&layout).unwrap().remove("new").unwrap());
    }
    assert!(kept > 5 && replaced > 0, "{kept} kept, {replaced} replaced");
    // What the dead ones left is gone with the next removal: one image has three blobs.
    assert_eq!(sound(&layout, &cache), ["old"]);
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    assert_eq!(blobs.count(), 3);
}
