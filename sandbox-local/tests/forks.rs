//! Forks of sandboxes in every state that a guest can bring them into.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::sync::Arc;

use sandbox_core::{Command, ErrorKind, FileBatch, GuestPath, RenameOptions, Sandbox, SandboxExt};
use support::{close, fork, run, sh, until};

async fn read(sandbox: &Arc<dyn Sandbox>, path: &str) -> Vec<u8> {
    let path = GuestPath::from(path);
    sandbox.read(&path).await.expect("it can be read").to_vec()
}

#[tokio::test]
async fn a_server_goes_on_across_a_fork_with_its_files_open() {
    let sandbox = support::default().await;
    // Appends to a file that it opened once, and answers over a FIFO.
    let server = "exec 3>>log; mkfifo ask answer; n=0; while read -r _ <ask; do \
        n=$((n+1)); echo $n >&3; echo $n >answer; done";
    let serving = sandbox
        .spawn(Command::shell(format!("while :; do {server}; done")))
        .await;
    let serving = serving.expect("the server starts");
    until("it serves", async || sandbox.stat("answer").await.ok()).await;
    let ask = async || sh(&sandbox, "echo > ask; cat answer").await;
    assert_eq!(ask().await, "1\n");
    for round in 0..5 {
        let child = fork(&sandbox).await;
        let expected: String = (1..=round + 1).map(|n| format!("{n}\n")).collect();
        assert_eq!(
            String::from_utf8_lossy(&read(&child, "log").await),
            expected
        );
        assert_eq!(
            ask().await,
            format!("{}\n", round + 2),
            "the same server still"
        );
        assert_eq!(
            String::from_utf8_lossy(&read(&child, "log").await),
            expected,
            "as of the call"
        );
        assert_eq!(
            sh(&child, "ps ax | grep -c '[w]hile read' || true").await,
            "0\n"
        );
        child.close().await.expect("close");
    }
    assert_eq!(read(&sandbox, "log").await, b"1\n2\n3\n4\n5\n6\n");
    drop(serving);
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn shared_memory_stays_the_parents() {
    let sandbox = support::default().await;
    sh(&sandbox, "echo mine > /dev/shm/a; echo file > f").await;
    let child = fork(&sandbox).await;
    assert_eq!(sh(&sandbox, "cat /dev/shm/a").await, "mine\n");
    assert_eq!(sh(&child, "ls /dev/shm; cat f").await, "file\n");
    sh(&sandbox, "rm /dev/shm/a; echo more >> f").await;
    let late = fork(&sandbox).await;
    assert_eq!(sh(&late, "cat f").await, "file\nmore\n");
    assert_eq!(sh(&child, "cat f").await, "file\n");
    close([sandbox, child, late]).await;
}

#[tokio::test]
async fn forks_during_writes_see_whole_batches() {
    let sandbox = support::default().await;
    let writer = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move {
            for number in 0..60 {
                let content = number.to_string();
                let batch = FileBatch::new()
                    .file("a/x", content.clone())
                    .file("b/y", content);
                sandbox.write_files(batch).await.expect("the batch");
            }
        })
    };
    until("the first batch", async || sandbox.stat("b/y").await.ok()).await;
    for _ in 0..12 {
        let child = fork(&sandbox).await;
        assert_eq!(read(&child, "a/x").await, read(&child, "b/y").await);
        child.close().await.expect("close");
    }
    writer.await.expect("no panic");
    assert_eq!(read(&sandbox, "a/x").await, b"59");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn a_fork_outlives_parent_and_provider() {
    let parent = support::default().await;
    sh(&parent, "echo old > f").await;
    let child = fork(&parent).await;
    let grandchild = fork(&child).await;
    close([parent, child]).await;
    assert_eq!(
        sh(&grandchild, "cat f; echo new >> f; cat f").await,
        "old\nold\nnew\n"
    );
    let last = fork(&grandchild).await;
    drop(grandchild);
    assert_eq!(sh(&last, "cat f").await, "old\nnew\n");
    last.close().await.expect("close");
}

#[tokio::test]
async fn a_guest_that_replaced_its_own_directories_can_be_forked() {
    let sandbox = support::default().await;
    let script = "rm -rf /tmp /home /workspace /opt; echo file > /tmp; ln -s / /home; \
        ln -s /proc/self /opt; mv /etc /etc.old; mkdir /etc; echo mine > /etc/passwd; \
        ln -s /nowhere /workspace; rm -rf /var; mkdir -m 000 /var; chmod 751 /; \
        mv /usr /usr2 2>/dev/null; rm -rf /proc /dev 2>/dev/null; true";
    run(&sandbox, Command::shell(script).cwd("/")).await;
    for busy in [false, true, false] {
        let running = match busy {
            true => Some(
                sandbox
                    .spawn(Command::new("sleep").arg("100").cwd("/"))
                    .await,
            ),
            false => None,
        };
        let child = fork(&sandbox).await;
        drop(running);
        let look = "cat /tmp /etc/passwd; readlink /home /opt /workspace; ls /etc.old/hosts; \
            stat -c %a / /var; ls -d /dev/null /proc/self /usr/bin; grep -c overlay /proc/mounts";
        let look = Command::shell(look).cwd("/");
        let expected = "file\nmine\n/\n/proc/self\n/nowhere\n/etc.old/hosts\n751\n0\n/dev/null\n\
            /proc/self\n/usr/bin\n1\n";
        assert_eq!(
            run(&child, look.clone()).await.stdout.to_string_lossy(),
            expected
        );
        assert_eq!(run(&sandbox, look).await.stdout.to_string_lossy(), expected);
        // Its workdir is a link to nowhere.
        let error = child
            .exec(Command::new("true"))
            .await
            .expect_err("no workdir");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        child.close().await.expect("close");
    }
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn what_the_guest_closed_to_itself_is_forked_too() {
    for (busy, root) in [(false, "755"), (true, "755"), (false, "000"), (true, "000")] {
        let sandbox = support::default().await;
        let script = format!(
            "mkdir -p a/b/c w x; echo deep > a/b/c/f; echo none > none; echo write > write; \
             python3 -c 'import os; os.setxattr(\"none\", \"user.kept\", b\"yes\")'; \
             touch w/f x/f; chmod 200 write; chmod 000 none a/b/c a; chmod 200 w; chmod 100 x; chmod {root} /"
        );
        sh(&sandbox, &script).await;
        let running = match busy {
            true if root == "755" => Some(sandbox.spawn(Command::new("sleep").arg("100")).await),
            // With a closed root nothing can be started; something has to be running before.
            _ => None,
        };
        let child = fork(&sandbox).await;
        let look = "stat -c %a none write a w x; chmod 700 a w x; stat -c %a a/b a/b/c; \
            chmod 700 a/b/c; cat a/b/c/f; ls w x; chmod 600 none write; cat none write; \
            python3 -c 'import os; print(os.getxattr(\"none\", \"user.kept\"))'";
        let expected = "0\n200\n0\n200\n100\n755\n0\ndeep\nw:\nf\n\nx:\nf\nnone\nwrite\nb'yes'\n";
        assert_eq!(
            sh(&child, look).await,
            expected,
            "busy: {busy}, root: {root}"
        );
        drop(running);
        if root == "755" {
            assert_eq!(
                sh(&sandbox, look).await,
                expected,
                "the parent, busy: {busy}"
            );
        }
        close([sandbox, child]).await;
    }
}

#[tokio::test]
async fn a_directory_from_before_a_fork_can_be_renamed() {
    let sandbox = support::default().await;
    sh(
        &sandbox,
        "mkdir -p d/a/b d/empty; echo one > d/one; ln d/one d/a/two; ln -s ../one d/a/link; \
         chmod 640 d/one; chmod 750 d/a/b; touch -d @1000000000 d/a d/empty; \
         mkdir full void; touch full/x; mkdir closed; mkdir -m 000 closed/in",
    )
    .await;
    let child = fork(&sandbox).await;
    let rename = async |from: &str, to: &str, replace: bool| {
        let options = match replace {
            true => RenameOptions::new().replace(true),
            false => RenameOptions::new(),
        };
        child.rename(&from.into(), &to.into(), options).await
    };
    for (from, to, replace) in [("d", "/tmp/moved", false), ("/tmp/moved", "void", true)] {
        rename(from, to, replace).await.expect("it is moved");
        let look = format!(
            "cd {to}; find . -printf '%P %y %m %l\\n' | sort; cat one a/two; \
            stat -c %Y a empty; test ! -e /workspace/{from} && ls -A /tmp /workspace"
        );
        let said = sh(&child, &look).await;
        let expected = " d 755 \na d 755 \na/b d 750 \na/link l 777 ../one\na/two f 640 \n\
            empty d 755 \none f 640 \none\none\n1000000000\n1000000000\n";
        assert!(said.starts_with(expected), "{said}");
        assert!(!said.contains("sandbox-move"), "{said}");
    }
    // It is an ordinary directory afterwards, and the parent has its own.
    sh(
        &child,
        "echo two > void/a/new && mv void again && test ! -e void",
    )
    .await;
    assert_eq!(sh(&sandbox, "cat d/a/two; ls void").await, "one\n");
    let later = fork(&child).await;
    assert_eq!(sh(&later, "cat again/a/new").await, "two\n");
    // What can't be is an error that leaves everything as it was.
    let child = later;
    for (from, to, replace, kind) in [
        ("full", "again", false, ErrorKind::AlreadyExists),
        ("full", "again", true, ErrorKind::DirectoryNotEmpty),
        ("full", "full/below", false, ErrorKind::InvalidInput),
        ("full", "/dev/shm/full", false, ErrorKind::InvalidInput),
        ("closed", "open", false, ErrorKind::PermissionDenied),
    ] {
        let replaced = match replace {
            true => RenameOptions::new().replace(true),
            false => RenameOptions::new(),
        };
        let error = child
            .rename(&from.into(), &to.into(), replaced)
            .await
            .expect_err(to);
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_eq!(
        sh(&child, "ls -A . full").await,
        ".:\nagain\nclosed\nfull\n\nfull:\nx\n"
    );
    close([sandbox, child]).await;
}

#[tokio::test]
async fn a_huge_file_of_holes_is_copied_as_holes() {
    let sandbox = support::default().await;
    sh(
        &sandbox,
        "truncate -s 1T huge; printf end >> huge; truncate -s 3T huge; \
        printf x | dd of=huge bs=1 seek=1M conv=notrunc 2>/dev/null",
    )
    .await;
    let running = sandbox
        .spawn(Command::new("sleep").arg("100"))
        .await
        .expect("started");
    let child = fork(&sandbox).await;
    let look = "stat -c %s huge; test $(stat -c %b huge) -lt 1000 && echo sparse; \
        dd if=huge bs=1 skip=1M count=1 2>/dev/null; tail -c +1099511627777 huge | head -c 3";
    assert_eq!(sh(&child, look).await, "3298534883328\nsparse\nxend");
    drop(running);
    close([sandbox, child]).await;
}

/// Keeps what is lost, like memory files and System V objects, if the parent is started again.
#[tokio::test]
async fn an_idle_parent_keeps_its_message_queues() {
    let parent = support::default().await;
    // Made by its name in the filesystem of queues.
    sh(&parent, "touch /dev/mqueue/kept; echo x > written").await;
    let child = fork(&parent).await;
    assert_eq!(sh(&parent, "ls /dev/mqueue").await, "kept\n");
    assert_eq!(sh(&child, "ls /dev/mqueue; cat written").await, "x\n");
    close([parent, child]).await;
}
