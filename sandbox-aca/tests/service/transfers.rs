//! Transfers of more than the service takes in one request, in parts and both directions: holes
//! stay holes; and what ends a busy sandbox is asked for once.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;

use sandbox_core::{Command, ErrorKind, SandboxExt as _};

use super::rig::each;

/// Less than the service is said to take, and a little more than a part.
const CAP: u32 = 17 << 20;
const LARGE: usize = 18 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_a_request_goes_in_parts() {
    each(async |rig| {
        let what = rig.provider.backend();
        let sandbox = rig.sandbox().await;
        rig.emulator.change(|options| options.file_cap = Some(CAP));
        let make = format!(
            "mkdir d && head -c {LARGE} /dev/urandom > d/large && truncate -s 1G d/sparse && \
             sha256sum < d/large"
        );
        let made = sandbox.sh(make).await.expect(what);
        let sum = made.stdout.to_string_lossy().into_owned();
        let host = tempfile::tempdir().expect("a directory");
        let out = host.path().join("out");
        let exported = sandbox
            .export_dir(&"d".into(), &out, Default::default())
            .await;
        exported.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let sparse = out.join("sparse").metadata().expect("a file");
        assert_eq!(sparse.len(), 1 << 30, "{what}");
        assert!(sparse.blocks() < 2048, "{what}: {} blocks", sparse.blocks());
        // The same bytes come back as input, and once more as output.
        let large = std::fs::read(out.join("large")).expect("a file");
        let command = Command::shell("sha256sum < /dev/stdin; exec cat d/large >&2");
        let command = command.stdin(large.clone()).output_limit(64 << 20);
        let ran = sandbox.exec(command).await;
        let ran = ran.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(ran.stdout.to_string_lossy(), sum, "{what}");
        assert!(
            ran.stderr.bytes == large,
            "{what}: {} bytes",
            ran.stderr.bytes.len()
        );
        let read = sandbox.read("d/large").await.expect(what);
        assert!(read == large, "{what}: {} bytes", read.len());
        // And an import with its holes.
        let back = sandbox
            .import_dir(&out, &"back".into(), Default::default())
            .await;
        back.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let compared = "cmp d/large back/large && stat -c '%s %b' back/sparse";
        let compared = sandbox.sh(compared).await.expect(what);
        let compared = compared.stdout.to_string_lossy().into_owned();
        let blocks = compared.trim().strip_prefix("1073741824 ");
        let blocks: u64 = blocks.expect(&compared).parse().expect("a number");
        assert!(blocks < 2048, "{what}: {blocks} blocks");
        sandbox.close().await.expect(what);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_keeps_modes_and_takes_the_place_of_what_is_read_only() {
    each(async |rig| {
        let what = rig.provider.backend();
        let sandbox = rig.sandbox().await;
        let from = tempfile::tempdir().expect("a directory");
        for (name, mode) in [("object", 0o444), ("script", 0o755), ("own", 0o600)] {
            let file = from.path().join(name);
            std::fs::write(&file, "first").expect("a file");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&file, mode).expect("its mode");
        }
        for content in ["first", "second"] {
            let file = from.path().join("object");
            std::fs::remove_file(&file).expect("it goes");
            std::fs::write(&file, content).expect("a file");
            let mode = std::fs::Permissions::from_mode(0o444);
            std::fs::set_permissions(&file, mode).expect("its mode");
            let done = sandbox
                .import_dir(from.path(), &"in".into(), Default::default())
                .await;
            done.unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let modes = sandbox
                .sh("cat in/object; stat -c %a in/object in/script in/own")
                .await;
            let modes = modes.expect(what).stdout.to_string_lossy().into_owned();
            assert_eq!(modes, format!("{content}444\n755\n600\n"), "{what}");
        }
        sandbox.close().await.expect(what);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_at_once_of_a_busy_sandbox_end_its_commands_and_itself_once() {
    each(async |rig| {
        let what = rig.provider.backend();
        let sandbox = rig.sandbox().await;
        let busy = Arc::clone(&sandbox);
        let busy = tokio::spawn(async move { busy.sh("touch begun; exec sleep 1000").await });
        while !sandbox.exists("begun").await.expect(what) {}
        let deletions = rig.emulator.requests("DELETE ");
        let closes = (0..3).map(|_| sandbox.close());
        for closed in futures_util::future::join_all(closes).await {
            closed.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        }
        assert_eq!(rig.emulator.requests("DELETE ") - deletions, 1, "{what}");
        // Of sessions the service sees no text of ours.
        if rig.kind.is_none() {
            assert_eq!(rig.emulator.executions("/cancel; "), 1, "{what}");
        }
        let ended = busy.await.expect("it ended").expect_err("it is closed");
        assert_eq!(ended.kind(), ErrorKind::Closed, "{what}: {ended:?}");
    })
    .await;
}
