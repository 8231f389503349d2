//! A test that runs in a process of its own, whose temporary directory is new and must be empty
//! afterwards. Test programs of several crates share this file.

/// Runs an ignored test of this program, which prints `passed: ` at its end.
pub(crate) fn is_empty_after(test: &str) {
    let tmp = tempfile::tempdir().expect("a directory");
    let output = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env("TMPDIR", tmp.path())
        .output()
        .expect("it ran");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("passed: "),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let left: Vec<_> = std::fs::read_dir(tmp.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(left.is_empty(), "{} entries are left: {left:?}", left.len());
}
