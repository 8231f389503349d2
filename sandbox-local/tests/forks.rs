//! Forks of sandboxes in every state that a guest can bring them into.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::sync::Arc;

use sandbox_core::{
    Command, ErrorKind, FileBatch, ForkOptions, GuestPath, ReadOptions, Resources, Sandbox,
    SandboxSpec,
};
use support::{run, sh, until};

async fn fork(sandbox: &Arc<dyn Sandbox>) -> Arc<dyn Sandbox> {
    sandbox.fork(ForkOptions::default()).await.expect("a fork")
}

async fn read(sandbox: &Arc<dyn Sandbox>, path: &str) -> Vec<u8> {
    let path = GuestPath::from(path);
    sandbox
        .read_file(&path, ReadOptions::default())
        .await
        .expect("it can be read")
        .to_vec()
}

async fn close(sandboxes: impl IntoIterator<Item = Arc<dyn Sandbox>>) {
    for sandbox in sandboxes {
        sandbox.close().await.expect("close");
    }
}

/// Prints everything that a guest can have changed, whatever its mode: kind, mode, content. It
/// opens up directories as it goes, so it is the last thing to do.
const TREE: &str = r"
import hashlib, os, stat
def show(path):
    found = os.lstat(path)
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        print(f'{path} {mode:o} {os.listxattr(path, follow_symlinks=False)}')
        os.chmod(path, mode | 0o700)
        for name in sorted(os.listdir(path)):
            show(path + '/' + name)
    elif stat.S_ISREG(found.st_mode):
        os.chmod(path, mode | 0o400)
        with open(path, 'rb') as file:
            print(f'{path} {mode:o} {hashlib.sha256(file.read()).hexdigest()[:12]}')
        os.chmod(path, mode)
    elif stat.S_ISLNK(found.st_mode):
        print(f'{path} -> {os.readlink(path)}')
    else:
        print(f'{path} {found.st_mode:o}')
for top in ['/workspace', '/home', '/tmp', '/etc', '/opt', '/var']:
    if os.path.lexists(top): show(top)
";

async fn tree(sandbox: &Arc<dyn Sandbox>) -> String {
    let show = Command::new("/usr/bin/python3")
        .arg("-c")
        .arg(TREE)
        .cwd("/");
    let output = run(sandbox, show).await;
    assert!(output.success(), "{}", output.stderr.to_string_lossy());
    output.stdout.to_string_lossy().into_owned()
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
    until("it serves", async || {
        sandbox.metadata(&"answer".into()).await.ok()
    })
    .await;
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

/// Pseudo-random numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn path(&mut self) -> String {
        let tops = [
            "/workspace",
            "/home/sandbox",
            "/tmp",
            "/opt",
            "/etc",
            "/workspace/a/b",
        ];
        let top = tops[self.roll(6) as usize];
        let names = ["a", "b", "c", "a/b", "b/c", "a/b/c", "e"];
        format!("{top}/{}", names[self.roll(7) as usize])
    }

    /// One change. A file with several names is only removed: writing it would show, as documented,
    /// that a fork separated them.
    fn change(&mut self) -> String {
        let (path, other) = (self.path(), self.path());
        match self.roll(14) {
            0..=2 => format!("mkdir -p $(dirname {path}); rm -f {path}; echo {path} > {path}"),
            3..=4 => format!("mkdir -p {path}; echo x > {path}/$RANDOM_NAME"),
            5..=6 => format!("rm -rf {path}"),
            7 => format!("rm -rf {path}; mkdir -p {path}; echo new > {path}/only"),
            8 => format!("[ -d {path} ] && rm -rf {path} && echo was a directory > {path}"),
            9 => format!("ln -sfn {other} {path}"),
            10 => format!(
                "[ -f {other} ] && [ ! -L {other} ] && ln {other} {path}.h && chmod 640 {path}.h"
            ),
            11 => format!("mv -T {other} {path}"),
            12 => format!(
                "[ ! -L {path} ] && chmod {} {path}",
                ["000", "400", "555", "2700", "1777"][self.roll(5) as usize]
            ),
            _ => format!("mkfifo {path}.fifo; rmdir {other}"),
        }
    }

    fn script(&mut self) -> String {
        let number = self.roll(1000);
        let changes: Vec<String> = (0..4).map(|_| self.change()).collect();
        format!(
            "exec 2>/dev/null; RANDOM_NAME=n{number}\n{}\ntrue",
            changes.join("\n")
        )
    }
}

/// Makes the same changes once with a fork after each and once without any, and compares.
async fn chain(seed: u64, forks: usize, spec: SandboxSpec, busy: bool) {
    let mut sandbox = support::create(spec.clone()).await;
    let control = support::create(spec).await;
    let mut dice = Dice(seed);
    for _ in 0..forks {
        let script = dice.script();
        let script = Command::shell(script).cwd("/");
        tokio::join!(run(&sandbox, script.clone()), run(&control, script));
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
        sandbox.close().await.expect("close");
        sandbox = child;
    }
    let (found, expected) = (tree(&sandbox).await, tree(&control).await);
    let (found, expected): (Vec<_>, Vec<_>) = (found.lines().collect(), expected.lines().collect());
    let wrong: Vec<_> = found
        .iter()
        .filter(|line| !expected.contains(line))
        .collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(|line| !found.contains(line))
        .collect();
    assert!(
        wrong.is_empty() && missing.is_empty(),
        "seed {seed}: {wrong:#?} instead of {missing:#?}"
    );
    assert!(expected.len() > 50, "the comparison compares something");
    close([sandbox, control]).await;
}

#[tokio::test]
async fn a_chain_of_120_forks_has_the_tree_that_no_fork_has() {
    chain(1, 120, SandboxSpec::new(), false).await;
}

#[tokio::test]
async fn shapes_of_trees_survive_merging_and_copying() {
    let limited = SandboxSpec::new().with_resources(Resources::none().with_disk(64 << 20));
    tokio::join!(
        chain(2, 52, SandboxSpec::new(), false),
        chain(3, 24, SandboxSpec::new(), true),
        chain(4, 24, limited, false),
    );
}

#[tokio::test]
async fn what_compaction_has_to_keep_is_kept() {
    let mut sandbox = support::default().await;
    // Part of every sandbox's lowest layer.
    let below = "/etc/ld.so.conf.d";
    assert_ne!(sh(&sandbox, &format!("ls {below}")).await, "");
    sh(
        &sandbox,
        "mkdir -p gone kept opaque closed sticky hidden; touch gone/x kept/x opaque/old hidden/x; \
         mkdir closed/d; echo deep > closed/d/f; chmod 1777 sticky; ln -s kept/x link; \
         echo many > one; ln one two; chmod 4711 one",
    )
    .await;
    let step = async |sandbox: Arc<dyn Sandbox>, script: &str| {
        sh(&sandbox, script).await;
        let child = fork(&sandbox).await;
        sandbox.close().await.expect("close");
        child
    };
    sandbox = step(sandbox, "true").await;
    sandbox = step(
        sandbox,
        "rm -rf gone; rm -rf opaque; mkdir opaque; touch opaque/new",
    )
    .await;
    sandbox = step(
        sandbox,
        "rm kept/x link; rm -rf /home/sandbox; touch /etc/made; rm /etc/hosts",
    )
    .await;
    sandbox = step(sandbox, "rm -rf hidden; echo file > hidden").await;
    sandbox = step(
        sandbox,
        &format!("rm -rf {below}; mkdir {below}; touch {below}/first"),
    )
    .await;
    sandbox = step(sandbox, &format!("touch {below}/second")).await;
    sandbox = step(
        sandbox,
        "chmod 000 closed/d/f closed/d; chmod 300 closed; chmod 500 sticky",
    )
    .await;
    for number in 0..60 {
        sandbox = step(sandbox, &format!("echo {number} > number; touch n{number}")).await;
    }
    let script = "ls -A kept opaque; ls -d gone link /home/sandbox /etc/hosts 2>/dev/null; cat hidden; \
        ls n[0-9]* | wc -l; cat number; stat -c '%a %h' one two; stat -c %a closed sticky; \
        cat two; ls /etc/made; chmod 700 closed; stat -c %a closed/d; chmod 700 closed/d; \
        stat -c %a closed/d/f; chmod 400 closed/d/f; cat closed/d/f";
    let expected = "kept:\n\nopaque:\nnew\nfile\n60\n59\n4711 2\n4711 2\n300\n500\nmany\n/etc/made\n\
        0\n0\ndeep\n";
    assert_eq!(sh(&sandbox, script).await, expected);
    assert_eq!(
        sh(&sandbox, &format!("ls {below}")).await,
        "first\nsecond\n"
    );
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn thirty_two_siblings_of_a_deep_chain_at_once() {
    let mut sandbox = support::default().await;
    for number in 0..50 {
        sh(
            &sandbox,
            &format!("echo {number} > f{number}; chmod 000 f{number}; mkdir -m 000 d{number}"),
        )
        .await;
        sandbox = fork(&sandbox).await;
    }
    // All of them have to merge the same layers.
    let forks: Vec<_> = (0..32)
        .map(|number| {
            let parent = sandbox.clone();
            tokio::spawn(async move {
                let child = fork(&parent).await;
                sh(&child, &format!("echo {number} > own")).await;
                fork(&child).await
            })
        })
        .collect();
    for (number, fork) in forks.into_iter().enumerate() {
        let child = fork.await.expect("no panic");
        assert_eq!(
            sh(&child, "cat own; ls -d f* | wc -l").await,
            format!("{number}\n50\n")
        );
        assert_eq!(sh(&child, "stat -c %a f0 f49 d0 d49").await, "0\n0\n0\n0\n");
        child.close().await.expect("close");
    }
    assert!(sandbox.metadata(&"own".into()).await.is_err());
    sandbox.close().await.expect("close");
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
    until("the first batch", async || {
        sandbox.metadata(&"b/y".into()).await.ok()
    })
    .await;
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
