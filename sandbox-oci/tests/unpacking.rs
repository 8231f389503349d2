//! Layers on disk, and what is refused of them.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use sandbox_core::ErrorKind;
use sandbox_oci::{Cache, Image, ImageFault, Limits, Merged, Platform, Reference};
use serde_json::json;
use support::*;

fn fault(error: &sandbox_core::Error) -> Option<ImageFault> {
    use std::error::Error as _;
    error
        .source()
        .and_then(|source| source.downcast_ref())
        .cloned()
}

fn is_whiteout(path: &Path) -> bool {
    let found = fs::symlink_metadata(path).unwrap();
    found.file_type().is_char_device() && found.rdev() == 0
}

fn opaque(path: &Path) -> bool {
    let mut value = [0; 4];
    let read = rustix::fs::getxattr(path, "user.overlay.opaque", value.as_mut_slice());
    read.is_ok_and(|length| &value[..length] == b"y")
}

#[test]
fn layers_stack_as_the_specification_says() {
    let dir = support::place();
    let lower = Tar::new()
        .dir("usr/", 0o755)
        .dir("usr/lib/", 0o750)
        .file("usr/lib/one", "1")
        .link("lib", "usr/lib")
        .file("deleted", "x")
        .dir("hidden/", 0o755)
        .file("hidden/old", "x")
        .file("becomes-dir", "x")
        .dir("becomes-file/", 0o755)
        .file("becomes-file/in", "x")
        .file_of("of-other", "x", 0o640, (33, 34))
        .finish();
    let upper = Tar::new()
        // Through the link of the layer below.
        .file("./lib/two", "2")
        .file(".wh.deleted", "")
        .file(".wh.never-there", "")
        .file("hidden/new", "n")
        // Wherever it stands.
        .file("hidden/.wh..wh..opq", "")
        .dir("becomes-dir/", 0o700)
        .file("becomes-dir/in", "y")
        .file("becomes-file", "y")
        .hard("also-one", "lib/one")
        .fifo("fifo")
        .device("null", 1, 3)
        .device("forged", 0, 0)
        .file("/rooted", "r")
        .finish();
    let image = unpacked(dir.path(), &[lower, upper]).unwrap();
    let [top, bottom] = &image.layers[..] else {
        panic!("{image:?}");
    };
    let at = |path: &str| top.root.join(path);
    assert_eq!(fs::read(at("usr/lib/two")).unwrap(), b"2");
    assert!(!at("lib").exists(), "the link is not hidden by a directory");
    assert_eq!(fs::metadata(at("usr/lib")).unwrap().mode() & 0o7777, 0o750);
    assert!(is_whiteout(&at("deleted")));
    assert!(!at("never-there").exists());
    assert!(opaque(&at("hidden")) && at("hidden/new").exists());
    assert!(at("becomes-dir/in").exists() && at("becomes-file").is_file());
    assert_eq!(fs::read(at("also-one")).unwrap(), b"1");
    let one = fs::metadata(at("usr/lib/one")).unwrap();
    assert_eq!(one.ino(), fs::metadata(at("also-one")).unwrap().ino());
    assert_eq!(one.mtime(), 1_000_000_000);
    assert!(
        fs::symlink_metadata(at("fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert!(!at("null").exists() && !at("forged").exists());
    assert_eq!(fs::read(at("rooted")).unwrap(), b"r");
    let mut value = [0; 64];
    let kept = bottom.root.join("of-other");
    let length =
        rustix::fs::getxattr(&kept, "user.containers.override_stat", value.as_mut_slice()).unwrap();
    assert_eq!(&value[..length], b"33:34:0640");
    if let Some((uid, gid)) = owner() {
        for path in [
            at("usr"),
            at("deleted"),
            at("rooted"),
            kept,
            top.root.clone(),
        ] {
            let found = fs::symlink_metadata(&path).unwrap();
            assert_eq!((found.uid(), found.gid()), (uid, gid), "{}", path.display());
        }
    }
    let merged = Merged::open(image.layers.iter().map(|layer| &layer.root)).unwrap();
    let read = |path: &str| merged.read(path, 100).unwrap();
    assert_eq!(read("lib/one").as_deref(), Some(&b"1"[..]));
    assert_eq!(read("hidden/new").as_deref(), Some(&b"n"[..]));
    for gone in ["deleted", "hidden/old", "becomes-file/in", "nothing"] {
        assert_eq!(read(gone), None, "{gone}");
    }
}

#[test]
fn every_order_of_the_same_entries_gives_the_same_tree() {
    let dir = support::place();
    let lower = Tar::new().dir("d/", 0o755).file("d/old", "x").finish();
    let upper = Tar::new()
        .file(".wh.d", "")
        .file("d/new", "n")
        .file("twice", "first")
        .file("twice", "last")
        .dir("t/", 0o755)
        .file("t/in", "x")
        .file("t", "a file now")
        .dir("closed/", 0)
        .file("closed/in", "x")
        .finish();
    let image = unpacked(dir.path(), &[lower, upper]).unwrap();
    let at = |path: &str| image.layers[0].root.join(path);
    assert!(opaque(&at("d")), "what was deleted first stays deleted");
    assert_eq!(fs::read(at("twice")).unwrap(), b"last");
    assert_eq!(fs::read(at("t")).unwrap(), b"a file now");
    assert_eq!(fs::metadata(at("closed")).unwrap().mode() & 0o7777, 0);
}

#[test]
fn extended_headers_are_taken_over_as_far_as_they_are_harmless() {
    let dir = support::place();
    let long = format!("{}/x", "n".repeat(200));
    let layer = Tar::new()
        .pax(&[
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.user.note", b"kept"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.capability", b"x"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("f", "x")
        .file(&long, "long")
        .finish();
    let image = unpacked(dir.path(), &[layer]).unwrap();
    let at = image.layers[0].root.join("f");
    let found = fs::metadata(&at).unwrap();
    assert_eq!((found.mtime(), found.mtime_nsec()), (-2, 500_000_000));
    let mut names = [0; 256];
    let length = rustix::fs::listxattr(&at, names.as_mut_slice()).unwrap();
    assert_eq!(&names[..length], b"user.note\0");
    assert_eq!(fs::read(image.layers[0].root.join(&long)).unwrap(), b"long");
}

/// Each refused or kept inside; the control shows that the same entry is one when it is harmless.
#[test]
fn a_hostile_layer_reaches_nothing_outside() {
    let outside = support::place();
    let victim = outside.path().join("victim");
    let path = victim.to_str().unwrap();
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        (
            "a name that leads up",
            Tar::new().file("../../victim", "evil").finish(),
        ),
        ("a name of the host", Tar::new().file(path, "evil").finish()),
        (
            "a link, then a file through it",
            Tar::new()
                .link("out", outside.path().to_str().unwrap())
                .file("out/victim", "evil")
                .finish(),
        ),
        (
            "a link that leads up, then a file through it",
            Tar::new()
                .link("up", "../../../../../../../../../..")
                .file(&format!("up{path}"), "evil")
                .finish(),
        ),
        (
            "a link in the place of a file",
            Tar::new().link("f", path).file("f", "evil").finish(),
        ),
        (
            "a link in the place of a directory",
            Tar::new()
                .dir("d/", 0o755)
                .file("d/victim", "x")
                .link("d", outside.path().to_str().unwrap())
                .file("d/victim", "evil")
                .finish(),
        ),
        (
            "a hard link to outside",
            Tar::new().hard("h", path).file("h", "evil").finish(),
        ),
        (
            "a hard link that leads up",
            Tar::new()
                .hard("h", &format!("../../../../..{path}"))
                .finish(),
        ),
        (
            "a hard link through a link",
            Tar::new()
                .link("out", outside.path().to_str().unwrap())
                .hard("h", "out/victim")
                .finish(),
        ),
        (
            "a deletion through a link",
            Tar::new()
                .link("out", outside.path().to_str().unwrap())
                .file("out/.wh.victim", "")
                .finish(),
        ),
        (
            "a deletion that leads up",
            Tar::new().file(".wh...", "").finish(),
        ),
        (
            "an opaque directory through a link",
            Tar::new()
                .link("out", outside.path().to_str().unwrap())
                .file("out/.wh..wh..opq", "")
                .finish(),
        ),
    ];
    for (what, layer) in hostile {
        fs::write(&victim, "untouched").unwrap();
        let dir = support::place();
        let result = unpacked(dir.path(), &[layer]);
        assert_eq!(fs::read(&victim).unwrap(), b"untouched", "{what}");
        assert_eq!(fs::metadata(&victim).unwrap().nlink(), 1, "{what}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{what}");
        assert!(!opaque(outside.path()), "{what}");
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error}");
        }
        for left in ["cache/making", "cache/trash"] {
            assert_eq!(
                fs::read_dir(dir.path().join(left)).unwrap().count(),
                0,
                "{what}"
            );
        }
    }
    let dir = support::place();
    let control = Tar::new()
        .link("in", "d")
        .dir("d/", 0o755)
        .file("in/victim", "x")
        .finish();
    let image = unpacked(dir.path(), &[control]).unwrap();
    assert!(image.layers[0].root.join("d/victim").exists());
}

#[test]
fn what_no_image_should_have_is_refused_with_its_place() {
    let loops = Tar::new()
        .link("a", "b")
        .link("b", "a")
        .file("a/x", "")
        .finish();
    let through = Tar::new().file("f", "").file("f/x", "").finish();
    let nothing = Tar::new().hard("h", "missing").finish();
    let directory = Tar::new().dir("d/", 0o755).hard("h", "d").finish();
    for (what, layer) in [
        ("a loop", loops),
        ("a file as a directory", through),
        ("a link to nothing", nothing),
        ("a hard link to a directory", directory),
        ("no archive", b"this is not an archive at all".repeat(50)),
        (
            "half an archive",
            Tar::new().file("f", &"x".repeat(5000)).finish()[..2000].to_vec(),
        ),
    ] {
        let dir = support::place();
        let error = unpacked(dir.path(), &[layer]).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error}");
        assert_eq!(
            fs::read_dir(dir.path().join("cache/layers"))
                .unwrap()
                .count(),
            0
        );
    }
}

#[test]
fn a_bomb_is_stopped_at_its_limit() {
    let zeros = Tar::new().file("zeros", &"\0".repeat(3 << 20)).finish();
    let mut many = Tar::new();
    for number in 0..200 {
        many = many.file(&format!("f{number}"), "");
    }
    let limits = Limits::new().bytes(1 << 20).entries(100);
    for (blob, tar) in [
        (gzip(&zeros), zeros.clone()),
        (zstd(&zeros), zeros.clone()),
        (zeros.clone(), zeros.clone()),
        {
            let many = many.finish();
            (gzip(&many), many)
        },
    ] {
        let dir = support::place();
        let mut layout = Layout::new(dir.path().join("image"));
        let manifest = layout.manifest(&[(blob, &tar)], json!({}), &arch());
        layout.name("it", manifest);
        let reference = format!("oci:{}", layout.dir.display());
        let bounded = Cache::open(dir.path().join("bounded"), owner(), limits, u64::MAX).unwrap();
        let image = open(&reference).unwrap();
        let error = bounded
            .take(&reference, &image, &|_| {}, &|| true)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
        assert!(
            matches!(fault(&error), Some(ImageFault::Limit { .. })),
            "{error:?}"
        );
        // The control: the same image within its limits.
        take(&cache(&dir.path().join("cache")), &reference).unwrap();
    }
}

#[test]
fn a_small_layer_that_asks_for_very_many_lookups_is_stopped_at_its_limit() {
    let deep = |top: &str, end: &str| format!("{top}{}/{end}", "/d".repeat(40));
    let mut turns = Tar::new();
    for number in 0..100 {
        turns = turns.file(&deep(["a", "b"][number % 2], &format!("f{number}")), "");
    }
    let below = Tar::new().file(&deep("a", "f"), "").finish();
    let mut deletions = Tar::new();
    for number in 0..100 {
        deletions = deletions.file(&deep("a", &format!(".wh.f{number}")), "");
    }
    let mut climbing = Tar::new().link("a/up", &format!("{}b", "d/../".repeat(18)));
    for number in 0..100 {
        climbing = climbing.file(&format!("a/up/{number}/f"), "");
    }
    let (turns, deletions, climbing) = (turns.finish(), deletions.finish(), climbing.finish());
    let limits = Limits::new().lookups(3000);
    for layers in [vec![&turns], vec![&below, &deletions], vec![&climbing]] {
        let dir = support::place();
        let mut layout = Layout::new(dir.path().join("image"));
        let layers: Vec<_> = layers.iter().map(|tar| (gzip(tar), &tar[..])).collect();
        let manifest = layout.manifest(&layers, json!({}), &arch());
        layout.name("it", manifest);
        let reference = format!("oci:{}", layout.dir.display());
        let bounded = Cache::open(dir.path().join("bounded"), owner(), limits, u64::MAX).unwrap();
        let image = open(&reference).unwrap();
        let taken = bounded.take(&reference, &image, &|_| {}, &|| true);
        let error = taken.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
        assert!(error.to_string().contains("looked up"), "{error}");
        // The control: the same image within the default limits.
        take(&cache(&dir.path().join("cache")), &reference).unwrap();
    }
}

#[test]
fn a_file_behind_very_deep_links_is_not_looked_for_without_end() {
    let dir = support::place();
    // Forty links, each of which leads three hundred directories down.
    let deep = dir.path().join("d/".repeat(300));
    fs::create_dir_all(&deep).unwrap();
    let down = format!("/{}", "d/".repeat(300));
    for number in 0..39 {
        let next = format!("{down}l{}", number + 1);
        std::os::unix::fs::symlink(next, deep.join(format!("l{number}"))).unwrap();
    }
    fs::write(deep.join("l39"), "found").unwrap();
    std::os::unix::fs::symlink(format!("{down}l0"), dir.path().join("all")).unwrap();
    std::os::unix::fs::symlink(format!("{down}l39"), dir.path().join("one")).unwrap();
    let merged = Merged::open([dir.path()]).unwrap();
    let error = merged.read("all", 10).unwrap_err();
    // ELOOP.
    assert_eq!(error.raw_os_error(), Some(40), "{error}");
    // The control: as deep, behind one link.
    let merged = Merged::open([dir.path()]).unwrap();
    assert_eq!(
        merged.read("one", 10).unwrap().as_deref(),
        Some(&b"found"[..])
    );
}

#[test]
fn an_altered_document_or_layer_is_never_used() {
    let layer = Tar::new().file("f", "content").finish();
    for compress in [gzip as fn(&[u8]) -> Vec<u8>, zstd, |plain| plain.to_vec()] {
        let blob = compress(&layer);
        let dir = support::place();
        let mut layout = Layout::new(dir.path().join("image"));
        let manifest = layout.manifest(&[(blob.clone(), &layer)], json!({}), &arch());
        layout.name("it", manifest);
        let reference = format!("oci:{}", layout.dir.display());
        let blobs: Vec<_> = fs::read_dir(layout.dir.join("blobs/sha256"))
            .unwrap()
            .collect();
        assert_eq!(blobs.len(), 3);
        for path in blobs.into_iter().map(|entry| entry.unwrap().path()) {
            let sound = fs::read(&path).unwrap();
            let mut longer = sound.clone();
            longer.push(b' ');
            let mut altered = sound.clone();
            *altered.last_mut().unwrap() ^= 0x20;
            for bad in [
                longer,
                altered,
                sound[..sound.len() - 1].to_vec(),
                Vec::new(),
            ] {
                fs::write(&path, &bad).unwrap();
                let cache = cache(&dir.path().join("cache"));
                let error = take(&cache, &reference).expect_err("an altered blob was used");
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::Other | ErrorKind::LimitExceeded | ErrorKind::InvalidInput
                    ),
                    "{error}"
                );
                assert!(cache.layers().unwrap().is_empty());
            }
            fs::write(&path, &sound).unwrap();
        }
        // A blob that is what it says, and not what the configuration says.
        let other = Tar::new().file("f", "another").finish();
        let wrong = layout.manifest(&[(compress(&other), &layer)], json!({}), &arch());
        layout.name("wrong", wrong);
        let cache = cache(&dir.path().join("cache"));
        let error = take(&cache, &format!("{reference}:wrong")).unwrap_err();
        assert!(
            matches!(fault(&error), Some(ImageFault::Digest { .. })),
            "{error:?}"
        );
        assert!(cache.layers().unwrap().is_empty());
        take(&cache, &format!("{reference}:it")).unwrap();
    }
}

#[test]
fn the_image_of_this_machine_is_chosen_and_another_refused() {
    let dir = support::place();
    let layer = Tar::new().file("f", "").finish();
    let mut layout = Layout::new(dir.path());
    let of = |arch: &str, name: &str| {
        let config = json!({"WorkingDir": name, "Env": null});
        layout.manifest(&[(layer.clone(), &layer)], config, arch)
    };
    let (ours, theirs) = (of(&arch(), "/ours"), of("s390x", "/theirs"));
    let both = layout.nested(&[theirs.clone(), ours.clone()]);
    layout.name("both", both);
    layout.name("theirs", theirs.clone());
    let reference = format!("oci:{}", dir.path().display());
    assert_eq!(
        open(&format!("{reference}:both"))
            .unwrap()
            .config
            .working_dir,
        "/ours"
    );
    let error = open(&format!("{reference}:theirs")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("s390x"), "{error}");
    let missing = open(&format!("{reference}:none")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.hint().unwrap().contains("both"), "{missing:?}");
    assert_eq!(
        open(&reference).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    layout.index(&[theirs, ours]);
    assert_eq!(open(&reference).unwrap().config.working_dir, "/ours");
    let other = Platform::linux("riscv64");
    let reference: Reference = reference.parse().unwrap();
    let error = Image::open(&reference, &other, &Limits::new()).unwrap_err();
    assert!(matches!(fault(&error), Some(ImageFault::Platform { found, .. }) if found.len() == 2));
}

#[test]
fn an_archive_in_the_way_of_docker_or_of_the_layout_is_read_where_it_lies() {
    let dir = support::place();
    let layer = Tar::new().file("f", "content").finish();
    let layout = image(&dir.path().join("layout"), std::slice::from_ref(&layer));
    let archive = dir.path().join("layout.tar");
    let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
    tar.append_dir_all(".", &layout.dir).unwrap();
    tar.finish().unwrap();
    let config = json!({
        "architecture": arch(), "os": "linux", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [sandbox_oci::Digest::of(&layer).to_string()]},
    })
    .to_string();
    let name = format!("{}.json", sandbox_oci::Digest::of(config.as_bytes()).hex());
    let saved = |file: &str, name: &str| {
        let manifest = json!([{"Config": name, "RepoTags": ["x/y:1"], "Layers": ["a/layer.tar"]}]);
        let path = dir.path().join(file);
        let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, bytes) in [
            ("manifest.json", manifest.to_string().as_bytes()),
            (name, config.as_bytes()),
            ("b/layer.tar", &layer),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        // As older versions share a layer.
        tar.append_link(&mut header, "a/layer.tar", "../b/layer.tar")
            .unwrap();
        tar.finish().unwrap();
        path
    };
    let docker = saved("docker.tar", &name);
    let cache = cache(&dir.path().join("cache"));
    let mut chains = Vec::new();
    for reference in [
        format!("oci:{}:it", layout.dir.display()),
        format!("oci-archive:{}", archive.display()),
        format!("docker-archive:{}", docker.display()),
        format!("docker-archive:{}:x/y:1", docker.display()),
    ] {
        let image = take(&cache, &reference).unwrap();
        let file = image.layers[0].root.join("f");
        assert_eq!(fs::read(file).unwrap(), b"content", "{reference}");
        chains.push(image.layers[0].chain.clone());
    }
    chains.dedup();
    assert_eq!(chains.len(), 1, "the same layer is unpacked once");
    let lies = saved(
        "lies.tar",
        &format!("{}.json", sandbox_oci::Digest::of(b"else").hex()),
    );
    let error = open(&format!("docker-archive:{}", lies.display())).unwrap_err();
    assert!(
        matches!(fault(&error), Some(ImageFault::Digest { .. })),
        "{error:?}"
    );
    let other = format!("docker-archive:{}:x/z:1", docker.display());
    assert_eq!(open(&other).unwrap_err().kind(), ErrorKind::NotFound);
}
