//! Reading: contents, kinds of refusal, bounds.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use sandbox_core::{ErrorKind, ReadOptions};

use super::{Fixture, fails, mkfifo, path};

#[test]
fn bytes_come_back_exactly() {
    let f = Fixture::new();
    let all: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    fs::write(f.root("all"), &all).unwrap();
    fs::write(f.root("empty"), "").unwrap();
    let options = ReadOptions::new();
    assert_eq!(f.guest.read(&path("/all"), &options).unwrap(), all);
    assert_eq!(f.guest.read(&path("/empty"), &options).unwrap(), "");
}

#[test]
fn links_are_followed_within_the_root_only() {
    let f = Fixture::new();
    f.put("etc/passwd", "guest's");
    fs::write(f.host("secret"), "host's").unwrap();
    symlink("/etc/passwd", f.root("absolute")).unwrap();
    symlink("../../../../etc/passwd", f.root("etc/up")).unwrap();
    symlink(f.host("secret"), f.root("out")).unwrap();
    symlink("../host/secret", f.root("out2")).unwrap();
    symlink("loop", f.root("loop")).unwrap();
    let options = ReadOptions::new();
    for inside in ["/absolute", "/etc/up"] {
        assert_eq!(f.guest.read(&path(inside), &options).unwrap(), "guest's");
    }
    for out in ["/out", "/out2"] {
        fails(f.guest.read(&path(out), &options), ErrorKind::NotFound, out);
    }
    fails(
        f.guest.read(&path("/loop"), &options),
        ErrorKind::InvalidInput,
        "/loop",
    );
}

#[test]
fn what_is_no_regular_file_is_refused_within_a_second() {
    let f = Fixture::new();
    mkfifo(&f.root("fifo"));
    let _socket = UnixListener::bind(f.root("socket")).unwrap();
    fs::create_dir(f.root("dir")).unwrap();
    f.put("file", "");
    let started = Instant::now();
    for (at, kind) in [
        ("/fifo", ErrorKind::NotARegularFile),
        ("/socket", ErrorKind::NotARegularFile),
        ("/dir", ErrorKind::IsADirectory),
        ("/", ErrorKind::IsADirectory),
        ("/missing", ErrorKind::NotFound),
        ("/file/below", ErrorKind::NotADirectory),
    ] {
        fails(f.guest.read(&path(at), &ReadOptions::new()), kind, at);
    }
    assert!(started.elapsed() < Duration::from_secs(120));
}

#[test]
fn devices_and_files_of_procfs_are_refused() {
    // The host's own root stands for a guest that has /dev and /proc mounted.
    let guest = super::GuestRoot::new(super::open_root("/".as_ref()), None);
    for at in ["/dev/zero", "/dev/null", "/proc/self/status", "/proc/kmsg"] {
        let read = guest.read(&path(at), &ReadOptions::new());
        fails(read, ErrorKind::NotARegularFile, at);
    }
    // A magic link leads wherever the kernel says, so it is not followed at all.
    let read = guest.read(&path("/proc/self/exe"), &ReadOptions::new());
    fails(read, ErrorKind::InvalidInput, "/proc/self/exe");
}

#[test]
fn the_limit_is_stated_and_holds_for_sparse_and_growing_files() {
    let f = Fixture::new();
    f.put("ten", "0123456789");
    let sparse = fs::File::create(f.root("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let limited = |limit| {
        f.guest
            .read(&path("/ten"), &ReadOptions::new().limit(limit))
    };
    assert_eq!(limited(10).unwrap().len(), 10);
    let error = fails(limited(9), ErrorKind::LimitExceeded, "/ten");
    assert!(error.message().contains('9'), "{error}");
    let started = Instant::now();
    fails(
        f.guest.read(&path("/sparse"), &ReadOptions::new()),
        ErrorKind::LimitExceeded,
        "/sparse",
    );
    assert!(started.elapsed() < Duration::from_secs(120));
}
