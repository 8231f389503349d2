//! The toolchains that agents use work inside a sandbox, filter and all.
//!
//! A missing tool is a failure: `.ci/run` installs every one of them.
#![cfg(target_os = "linux")]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers too"
)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use sandbox_core::{FileBatch, Mount, Sandbox, SandboxSpec};

/// A sandbox with these programs' own directories mounted where they lie outside `/usr`.
async fn sandbox_with(path: &str, mounts: &[PathBuf]) -> Arc<dyn Sandbox> {
    let mut spec = SandboxSpec::new();
    for dir in mounts {
        let guest = dir.to_str().expect("a UTF-8 path");
        spec = spec.mount(Mount::read_only(dir, guest));
    }
    if !path.is_empty() {
        spec = spec.env("PATH", format!("{path}:/usr/local/bin:/usr/bin:/bin"));
    }
    support::create(spec).await
}

async fn works(files: FileBatch, script: &str, expected: &str) {
    let sandbox = sandbox_with("", &[]).await;
    sandbox.write_files(files).await.expect("files");
    let output = support::sh(&sandbox, script).await;
    assert!(output.contains(expected), "{output}");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn sh_pipes_and_redirects() {
    works(
        FileBatch::new(),
        "printf 'b\\na\\n' | sort > s && cat s && mkfifo f",
        "a\nb",
    )
    .await;
}

#[tokio::test]
async fn python3_threads_and_subprocesses() {
    let program = "import threading, subprocess, hashlib, json\n\
        t = threading.Thread(target=lambda: print('thread')); t.start(); t.join()\n\
        print(subprocess.run(['echo', 'child'], capture_output=True, text=True).stdout)\n\
        print(json.dumps({'a': hashlib.sha256(b'x').hexdigest()[:4]}))\n";
    works(
        FileBatch::new().file("a.py", program),
        "/usr/bin/python3 a.py",
        "{\"a\": \"2d71\"}",
    )
    .await;
}

#[tokio::test]
async fn a_file_is_renamed_and_linked_from_one_directory_to_another() {
    // Not by mv, which copies where a rename fails.
    let program = "import os\nos.makedirs('a'); os.makedirs('b')\nopen('a/x', 'w').close()\n\
        os.link('a/x', 'b/y'); os.rename('a/x', 'b/x'); print(sorted(os.listdir('b')))\n";
    works(
        FileBatch::new().file("a.py", program),
        "/usr/bin/python3 a.py",
        "['x', 'y']",
    )
    .await;
}

#[tokio::test]
async fn gcc_compiles_and_links() {
    let program = "#include <stdio.h>\nint main(void) { puts(\"compiled\"); return 0; }\n";
    works(
        FileBatch::new().file("a.c", program),
        "gcc -O1 -o a a.c && ./a",
        "compiled",
    )
    .await;
}

#[tokio::test]
async fn make_runs_in_parallel() {
    let makefile = "all: a b c\n\ta=1; echo made\n%:\n\techo $@ > $@\n";
    works(
        FileBatch::new().file("Makefile", makefile),
        "make -j4",
        "made",
    )
    .await;
}

#[tokio::test]
async fn git_commits_and_clones() {
    let script = "git init -q r && cd r && git config user.email a@b && git config user.name a && \
        echo 1 > f && git add f && git commit -qm first && cd .. && git clone -q r c && \
        git -C c log --oneline";
    works(FileBatch::new(), script, "first").await;
}

#[tokio::test]
async fn node_and_npm_run() {
    works(FileBatch::new(), "node -e 'console.log(6*7)'", "42").await;
    let package =
        r#"{"name":"p","version":"1.0.0","scripts":{"hi":"node -e \"console.log(1+1)\""}}"#;
    works(
        FileBatch::new().file("package.json", package),
        "npm run -s hi",
        "2",
    )
    .await;
}

#[tokio::test]
async fn java_compiles_and_runs() {
    let program = "public class A { public static void main(String[] a) { \
        System.out.println(\"java \" + java.util.stream.IntStream.range(0, 100).parallel().sum()); } }";
    works(
        FileBatch::new().file("A.java", program),
        "java A.java",
        "java 4950",
    )
    .await;
}

#[tokio::test]
async fn go_builds_and_runs() {
    let root = std::process::Command::new("go")
        .args(["env", "GOROOT"])
        .output();
    let root = root.expect("go is installed").stdout;
    let root = PathBuf::from(String::from_utf8(root).expect("UTF-8").trim());
    let mounts: Vec<_> = (!root.starts_with("/usr"))
        .then(|| root.clone())
        .into_iter()
        .collect();
    let sandbox = sandbox_with(&format!("{}/bin", root.display()), &mounts).await;
    let files = FileBatch::new()
        .file("go.mod", "module a\n\ngo 1.19\n")
        .file("a.go", "package main\n\nimport \"fmt\"\n\nfunc main() { c := make(chan int); go func() { c <- 7 }(); fmt.Println(\"go\", <-c) }\n");
    sandbox.write_files(files).await.expect("files");
    assert_eq!(support::sh(&sandbox, "go run .").await, "go 7\n");
    sandbox.close().await.expect("close");
}

#[tokio::test]
async fn cargo_builds_and_tests() {
    let sysroot = std::process::Command::new("rustc")
        .args(["--print", "sysroot"])
        .output();
    let sysroot = sysroot.expect("rustc is installed").stdout;
    let sysroot = PathBuf::from(String::from_utf8(sysroot).expect("UTF-8").trim());
    let mounts: Vec<_> = (!sysroot.starts_with("/usr"))
        .then(|| sysroot.clone())
        .into_iter()
        .collect();
    let sandbox = sandbox_with(&format!("{}/bin", sysroot.display()), &mounts).await;
    let files = FileBatch::new()
        .file(
            "Cargo.toml",
            "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
        )
        .file(
            "src/lib.rs",
            "#[test]\nfn two() { assert_eq!(1 + 1, 2); }\n",
        );
    sandbox.write_files(files).await.expect("files");
    let output = support::sh(&sandbox, "cargo test --offline -q").await;
    assert!(output.contains("1 passed"), "{output}");
    sandbox.close().await.expect("close");
}
