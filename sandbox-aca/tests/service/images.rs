//! Images that lack what the scripts in the guest use: refused by name when the sandbox is made.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use sandbox_core::{ErrorKind, Provider as _, SandboxSpec};
use sandbox_testkit::aca::Options;
use tempfile::TempDir;

use super::{VERSIONS, start_in, until};

/// Debian's `busybox-static`, which needs no libraries.
const BUSYBOX: &str = "/bin/busybox";

/// Programs that Debian's BusyBox has not, whose shell finds what it has without a name in a directory.
/// That they do nothing here matters to no case.
const LACKING: [&str; 2] = ["flock", "split"];

/// The files of an image whose programs are all BusyBox, but for one that is not there.
fn busybox(without: &str) -> TempDir {
    let image = tempfile::tempdir().expect("a directory");
    let bin = image.path().join("bin");
    for directory in ["bin", "proc", "dev", "tmp"] {
        std::fs::create_dir(image.path().join(directory)).expect("a directory");
    }
    std::fs::copy(BUSYBOX, bin.join("busybox")).expect("busybox: Debian's busybox-static");
    let listed = std::process::Command::new(BUSYBOX).arg("--list").output();
    let listed = listed.expect("its programs").stdout;
    let listed = String::from_utf8_lossy(&listed);
    let mut names: BTreeSet<&str> = listed.lines().chain(LACKING).collect();
    for other in ["busybox", without] {
        names.remove(other);
    }
    for name in names {
        symlink("busybox", bin.join(name)).expect("a link");
    }
    image
}

// The control is that what is named differs with what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_what_the_scripts_use_is_refused_by_name() {
    for version in VERSIONS {
        for (without, named) in [
            ("split", "`split`"),
            ("flock", "`flock`"),
            ("", "`find -printf`"),
        ] {
            let image = busybox(without);
            let mut options = Options::default();
            options.root = Some(image.path().to_owned());
            let (emulator, provider) = start_in(version, options).await;
            let refused = provider.create(SandboxSpec::new()).await;
            let error = refused.expect_err("it lacks something");
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.to_string().contains(named), "{error}");
            let needs = error.hint().expect("what an image must have");
            assert!(needs.contains("findutils"), "{needs}");
            until("nothing is left", || emulator.counts() == (0, 0)).await;
        }
    }
}
