//! The repository: into the sandbox as a clone of one revision, out of it as a branch or a patch.
//!
//! The host must never run a hook of a repository, look at a worktree that a guest wrote, or take a
//! name of a branch from a guest. What a guest made reaches the host's git as one bundle, whose
//! objects are checked.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sandbox_core::{Command, ImportOptions, Output, ReadOptions, Sandbox, SandboxExt as _};

use crate::{Error, ErrorKind, Result};

/// Directory of the repository in a sandbox.
pub(crate) const WORKSPACE: &str = "/workspace";
/// The ref under which a revision travels.
const BASE: &str = "refs/heads/base";
/// Largest bundle and patch that are taken out of a sandbox, in bytes.
const LARGEST: u64 = 256 << 20;
/// Time that git has for one step.
const STEP: Duration = Duration::from_secs(300);

/// A repository of the host, and the revision that an environment starts from.
///
/// ```
/// use sandbox_coding::Repository;
/// let repository = Repository::new("/home/me/project").revision("main").depth(50);
/// # let _ = repository;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repository {
    /// Directory of the repository on the host.
    pub path: PathBuf,
    /// The revision, as `git rev-parse` takes it. Default: `HEAD`. Changes that are not committed are
    /// not in it.
    pub revision: String,
    /// Number of commits of its history that come with it. Default: all.
    pub depth: Option<u32>,
}

impl Repository {
    /// `HEAD` of the repository in this directory, with its history.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            revision: "HEAD".to_owned(),
            depth: None,
        }
    }

    /// Starts from this revision.
    #[must_use]
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// Takes only the last commits of its history along.
    #[must_use]
    pub fn depth(mut self, commits: u32) -> Self {
        self.depth = Some(commits);
        self
    }
}

/// A branch that was saved to a repository of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedBranch {
    /// The name of the branch.
    pub branch: String,
    /// The commit that it is at.
    pub commit: String,
    /// Number of commits by which it is ahead of the revision that the environment started from.
    pub commits: u64,
}

/// Checks the name of a branch, more strictly than `git check-ref-format` does.
pub(crate) fn check_branch(name: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let part = |part: &str| {
        part.bytes().all(fits)
            && !part.is_empty()
            && !part.starts_with(['.', '-'])
            && !part.ends_with('.')
            && !part.ends_with(".lock")
            && !part.contains("..")
    };
    if name.len() <= 200 && name.split('/').all(part) {
        return Ok(());
    }
    let shown: String = name.chars().take(201).collect();
    Err(
        Error::invalid(format!("{shown:?} can't be the name of a branch")).with_hint(
            "use ASCII letters, digits, hyphens, underscores, dots, and slashes between such parts",
        ),
    )
}

fn git(arguments: &[&OsStr]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("git");
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
    ] {
        command.env_remove(name);
    }
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "gc.auto=0",
            "-c",
            "maintenance.auto=false",
        ])
        .args([
            "-c",
            "uploadpack.allowAnySHA1InWant=true",
            "-c",
            "transfer.fsckObjects=true",
        ])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs git on the host; gives its standard output.
async fn on_host(arguments: &[&OsStr]) -> Result<String> {
    let failed = |why: String| Error::new(ErrorKind::Git, format!("git on the host: {why}"));
    let output = match tokio::time::timeout(STEP, git(arguments).output()).await {
        Ok(output) => {
            output.map_err(|error| failed("it can't be run".into()).with_source(error))?
        }
        Err(_) => return Err(failed(format!("it did not end within {STEP:?}"))),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(failed(last_line(&output.stderr)))
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("it failed without a word")
        .chars()
        .take(500)
        .collect()
}

/// Runs git in the sandbox's repository.
async fn in_guest(sandbox: &dyn Sandbox, arguments: &[&str]) -> Result<Output> {
    let command = Command::new("git")
        .args(arguments)
        .cwd(WORKSPACE)
        .timeout(STEP);
    let output = sandbox.exec(command).await?;
    if output.success() {
        return Ok(output);
    }
    let said = last_line(&output.stderr.bytes);
    Err(Error::new(
        ErrorKind::Git,
        format!("git in the sandbox: {said:?}"),
    ))
}

fn text(output: &Output) -> String {
    output.stdout.to_string_lossy().trim().to_owned()
}

/// The arguments of git for a repository.
fn of<'a>(repository: &'a Path, arguments: &[&'a str]) -> Vec<&'a OsStr> {
    let mut all = vec![OsStr::new("-C"), repository.as_os_str()];
    all.extend(arguments.iter().map(|argument| OsStr::new(*argument)));
    all
}

/// Makes a repository without a worktree, a hook or a configuration.
async fn init(bare: &Path) -> Result<()> {
    let mut arguments = ["init", "--quiet", "--bare", "--template="]
        .map(OsStr::new)
        .to_vec();
    arguments.push(bare.as_os_str());
    on_host(&arguments).await.map(drop)
}

/// A path as git takes it for a repository that is spoken to by the protocol.
fn file_url(path: &Path) -> OsString {
    let mut url = OsString::from("file://");
    match path.to_str() {
        Some(path) => url.push(path.replace('%', "%25")),
        None => url.push(path),
    }
    url
}

/// A revision that is ready to be brought into a sandbox.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) commit: String,
    place: tempfile::TempDir,
}

impl Prepared {
    fn bare(&self) -> PathBuf {
        self.place.path().join("repository")
    }
}

/// Reads a revision of the host's repository: into a repository of its own, with neither the host's
/// configuration nor its hooks.
pub(crate) async fn prepare(repository: &Repository) -> Result<Prepared> {
    let path = tokio::fs::canonicalize(&repository.path)
        .await
        .map_err(|error| {
            let shown = repository.path.display();
            Error::invalid(format!("the repository {shown} can't be read: {error}"))
        })?;
    let revision = format!("{}^{{commit}}", repository.revision);
    let ask = [
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        &*revision,
    ];
    let commit = on_host(&of(&path, &ask)).await.map_err(|error| {
        Error::invalid(format!(
            "the repository {1} has no revision {0:?}",
            repository.revision,
            path.display()
        ))
        .with_source(error)
    })?;

    let place = tempfile::tempdir().map_err(|error| {
        Error::new(ErrorKind::Git, "no temporary directory can be had").with_source(error)
    })?;
    let prepared = Prepared { commit, place };
    let bare = prepared.bare();
    init(&bare).await?;
    let depth = repository
        .depth
        .map(|commits| format!("--depth={}", commits.max(1)));
    let wanted = format!("{}:{BASE}", prepared.commit);
    let url = file_url(&path);
    let mut arguments = of(&bare, &["fetch", "--quiet", "--no-tags"]);
    arguments.extend(depth.as_deref().map(OsStr::new));
    arguments.extend([&*url, OsStr::new(&wanted)]);
    on_host(&arguments).await?;
    Ok(prepared)
}

/// Puts a revision into the sandbox on a branch.
pub(crate) async fn bring(sandbox: &dyn Sandbox, prepared: &Prepared, branch: &str) -> Result<()> {
    let inside = format!("{WORKSPACE}/.git");
    sandbox.create_dir_all(WORKSPACE).await?;
    sandbox
        .import_dir(
            &prepared.bare(),
            &inside.as_str().into(),
            ImportOptions::new(),
        )
        .await?;
    for arguments in [
        &["config", "core.bare", "false"][..],
        &["config", "user.name", "agent"],
        &["config", "user.email", "agent@localhost"],
        &["checkout", "--quiet", "-B", branch, BASE],
    ] {
        in_guest(sandbox, arguments).await?;
    }
    Ok(())
}

/// The difference between the revision and what is there now, as `git apply` takes it.
pub(crate) async fn patch(sandbox: &dyn Sandbox, base: &str) -> Result<bytes::Bytes> {
    in_guest(sandbox, &["add", "--all"]).await?;
    let arguments = [
        "diff",
        "--cached",
        "--binary",
        "--full-index",
        "--no-ext-diff",
        base,
        "--",
    ];
    let command = Command::new("git")
        .args(arguments)
        .cwd(WORKSPACE)
        .stdout_limit(LARGEST)
        .timeout(STEP);
    let output = sandbox.exec(command).await?;
    if !output.success() {
        let said = last_line(&output.stderr.bytes);
        return Err(Error::new(
            ErrorKind::Git,
            format!("git in the sandbox: {said:?}"),
        ));
    }
    if output.stdout.is_truncated() {
        return Err(Error::new(
            ErrorKind::Git,
            format!("the patch has more than {LARGEST} bytes"),
        ));
    }
    Ok(output.stdout.bytes)
}

/// Commits everything that is not committed.
pub(crate) async fn commit(sandbox: &dyn Sandbox, message: &str) -> Result<bool> {
    in_guest(sandbox, &["add", "--all"]).await?;
    let changed = in_guest(sandbox, &["status", "--porcelain", "--untracked-files=no"]).await?;
    if changed.stdout.bytes.is_empty() {
        return Ok(false);
    }
    let message = format!("--message={message}");
    in_guest(sandbox, &["commit", "--quiet", "--no-verify", &message]).await?;
    Ok(true)
}

/// Brings the branch of a sandbox to a repository of the host; `None` if it has nothing new.
pub(crate) async fn save(
    sandbox: &dyn Sandbox,
    to: &Path,
    base: &str,
    branch: &str,
) -> Result<Option<SavedBranch>> {
    let full = format!("refs/heads/{branch}");
    let range = format!("{base}..{full}");
    let count = in_guest(sandbox, &["rev-list", "--count", &range, "--"]).await?;
    let commits: u64 = text(&count).parse().map_err(|_| {
        Error::new(
            ErrorKind::Git,
            "git in the sandbox gave no number of commits",
        )
    })?;
    if commits == 0 {
        return Ok(None);
    }
    let bundle = format!("{WORKSPACE}/.git/sandbox-result.bundle");
    let not = format!("^{base}");
    in_guest(
        sandbox,
        &["bundle", "create", "--quiet", &bundle, &not, &full],
    )
    .await?;
    let bytes = sandbox
        .read_file(&bundle.as_str().into(), ReadOptions::new().limit(LARGEST))
        .await?;
    sandbox.remove_all(bundle.as_str()).await?;
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Git, "the result can't be kept on the host").with_source(error)
    };
    // First into a repository of its own that only borrows the host's objects; from there by the
    // protocol that checks every object (git did not check those of a bundle before 2.46).
    let place = tempfile::tempdir().map_err(failed)?;
    let (bundle, aside) = (place.path().join("bundle"), place.path().join("repository"));
    tokio::fs::write(&bundle, &bytes).await.map_err(failed)?;
    init(&aside).await?;
    let ask = [
        "rev-parse",
        "--path-format=absolute",
        "--git-path",
        "objects",
    ];
    let objects = on_host(&of(to, &ask)).await?;
    let info = aside.join("objects/info");
    tokio::fs::create_dir_all(&info).await.map_err(failed)?;
    tokio::fs::write(info.join("alternates"), format!("{objects}\n"))
        .await
        .map_err(failed)?;
    let fetch = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
    let mut arguments = of(&aside, &fetch);
    let result = format!("{full}:{BASE}");
    arguments.extend([bundle.as_os_str(), OsStr::new(&result)]);
    on_host(&arguments).await?;
    // Not forced: a branch that has gone on elsewhere stays as it is.
    let wanted = format!("{BASE}:{full}");
    let url = file_url(&aside);
    let mut arguments = of(to, &fetch);
    arguments.extend([
        OsStr::new("--no-recurse-submodules"),
        &url,
        OsStr::new(&wanted),
    ]);
    on_host(&arguments).await?;
    let ask = ["rev-parse", "--verify", "--end-of-options", &*full];
    Ok(Some(SavedBranch {
        branch: branch.to_owned(),
        commit: on_host(&of(to, &ask)).await?,
        commits,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_branch_is_nothing_else() {
        for name in ["main", "agent/01k9zq4c2v8r5d3m7n6p0t1xye", "a.b/c-d_e"] {
            assert!(check_branch(name).is_ok(), "{name}");
        }
        for name in [
            "", "-x", "a/-x", "/a", "a/", "a//b", "..", "a..b", "a/.b", "a.lock", "a.", "a b",
            "a:b", "a~1", "a^", "a?", "a*", "a[", "a\\b", "a@{0}", "$(x)", "a;b", "ä", "a\0",
        ] {
            assert!(check_branch(name).is_err(), "{name}");
        }
    }
}
