//! Long chains of forks: that merging their layers loses nothing.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::sync::Arc;

use sandbox_core::{Command, Resources, Sandbox, SandboxExt, SandboxSpec};
use support::{close, fork, run, sh};

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

    /// One change. A file with several names (`.h1`, `.h2`) is not written again: that would show,
    /// as documented, that a fork separated them.
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
                "[ -f {other} ] && [ ! -L {other} ] && ln {other} {path}.h1 && \
                 ln {path}.h1 {path}.h2 && rm {other}"
            ),
            // A directory of a lower layer is copied by `mv`, which fails on what is closed in it.
            11 => format!("[ ! -d {other} ] && mv -T {other} {path}"),
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
    let limited = SandboxSpec::new().resources(Resources::new().disk(64 << 20));
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
async fn a_large_layer_below_a_chain_is_not_merged_with_it() {
    let sandbox = support::default().await;
    let script = "mkdir big; cd big; for i in $(seq 2000); do : > $i; done";
    sh(&sandbox, script).await;
    let base = fork(&sandbox).await;
    sh(&base, "echo 0 > small").await;
    // Kept open, and so are its layers: what is merged becomes another link to their files.
    let mut end = fork(&base).await;
    for number in 1..60 {
        sh(&end, &format!("echo {number} > n{number}")).await;
        let next = fork(&end).await;
        end.close().await.expect("close");
        end = next;
    }
    let found = sh(&end, "stat -c %h small big/1 big/2000; ls big n* | wc -l").await;
    assert_eq!(found, "2\n1\n1\n2061\n");
    for sandbox in [sandbox, base, end] {
        sandbox.close().await.expect("close");
    }
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
    assert!(sandbox.stat("own").await.is_err());
    sandbox.close().await.expect("close");
}
