//! Environments in real sandboxes: a repository goes in, a branch and a patch come out.
#![cfg(target_os = "linux")]
#![allow(clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use sandbox_coding::{
    EnvironmentRequest, Environments, ErrorKind, ModelAccess, Presets, Repository,
};
use sandbox_core::{Mount, SandboxExt as _, SandboxSpec};
use sandbox_local::{LocalConfig, LocalProvider};
use sandbox_sessions::{Sessions, SessionsConfig, ShutdownOptions, Status, Tenant};
use sandbox_testkit::Scratch;

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["-c", "user.name=t", "-c", "user.email=t@localhost"])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with two commits, a hook and a configuration that no sandbox may see.
fn repository(place: &Path) -> std::path::PathBuf {
    let path = place.join("project");
    std::fs::create_dir(&path).unwrap();
    git(&path, &["init", "--quiet", "--initial-branch=main"]);
    for (content, message) in [("one\n", "First"), ("two\n", "Second")] {
        std::fs::write(path.join("file.txt"), content).unwrap();
        git(&path, &["add", "--all"]);
        git(&path, &["commit", "--quiet", "--message", message]);
    }
    git(
        &path,
        &["config", "http.extraHeader", "Authorization: very-secret"],
    );
    let hook = path.join(".git/hooks/reference-transaction");
    std::fs::write(
        &hook,
        format!("#!/bin/sh\ntouch {}/hook-ran\n", place.display()),
    )
    .unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn environments(place: &Path, presets: Presets) -> Environments {
    let config = LocalConfig::default().state_dir(place.join("state"));
    let provider = Arc::new(LocalProvider::new(config).unwrap());
    let sessions = Sessions::open(provider, SessionsConfig::new())
        .await
        .unwrap();
    Environments::new(sessions, presets)
}

const SCRIPTED: &str = r#"
title = "Scripted"
tools = ["git"]
command = ["sh"]
"#;

#[tokio::test]
async fn a_branch_and_a_patch_come_out_and_nothing_else_changes() {
    let place = Scratch::new().unwrap();
    let project = repository(place.path());
    let presets = Presets::new().with("scripted", SCRIPTED).unwrap();
    let environments = environments(place.path(), presets).await;
    let acme = Tenant::new("acme").unwrap();
    let request = EnvironmentRequest::new("scripted")
        .repository(Repository::new(&project))
        .branch("fix/one");
    let environment = environments
        .create_environment(&acme, request.clone())
        .await
        .unwrap();
    let sandbox = environment.session().sandbox();
    let seen = sandbox
        .sh("git log --oneline | wc -l; cat .git/config; ls .git/hooks")
        .await
        .unwrap();
    let seen = seen.stdout.to_string_lossy().into_owned();
    assert!(
        seen.starts_with('2') && !seen.contains("very-secret"),
        "{seen}"
    );
    assert!(!seen.contains("reference-transaction"), "{seen}");
    assert_eq!(environment.patch().await.unwrap(), "");
    assert_eq!(environment.save_branch(&project).await.unwrap(), None);

    // The prompt is the script; this one commits once, and leaves something uncommitted.
    let script = "echo three > file.txt; git commit -qam 'Third'; printf '\\0\\1' > new.bin";
    let run = environments
        .spawn_agent(&acme, environment.id(), script)
        .await
        .unwrap();
    assert!(run.wait().await.unwrap().status.success());
    let patch = environment.patch().await.unwrap();
    let again = environments
        .get_environment(&acme, environment.id())
        .await
        .unwrap();
    assert!(again.commit("What was left").await.unwrap());
    assert!(!again.commit("Nothing").await.unwrap());
    let saved = again.save_branch(&project).await.unwrap().unwrap();
    assert_eq!((&*saved.branch, saved.commits), ("fix/one", 2));
    assert_eq!(git(&project, &["rev-parse", "fix/one"]), saved.commit);
    assert_eq!(git(&project, &["show", "fix/one:file.txt"]), "three");
    assert_eq!(
        git(&project, &["rev-parse", "--abbrev-ref", "HEAD"]),
        "main"
    );
    assert_eq!(git(&project, &["status", "--porcelain"]), "");
    assert!(!place.path().join("hook-ran").exists(), "a hook ran");

    let file = place.path().join("patch");
    std::fs::write(&file, &patch).unwrap();
    git(&project, &["apply", "--index", file.to_str().unwrap()]);
    assert_eq!(std::fs::read(project.join("new.bin")).unwrap(), [0, 1]);

    // The branch has gone on elsewhere: what is there stays.
    git(&project, &["branch", "--force", "fix/one", "main"]);
    git(&project, &["commit", "--quiet", "--message", "Elsewhere"]);
    git(&project, &["branch", "--force", "fix/one", "main"]);
    let kept = git(&project, &["rev-parse", "fix/one"]);
    assert_eq!(
        again.save_branch(&project).await.unwrap_err().kind(),
        ErrorKind::Git
    );
    assert_eq!(git(&project, &["rev-parse", "fix/one"]), kept);
    environments
        .sessions()
        .shutdown(ShutdownOptions::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_hostile_agent_reaches_nothing_of_the_hosts_by_its_repository() {
    let place = Scratch::new().unwrap();
    let project = repository(place.path());
    let presets = Presets::new().with("scripted", SCRIPTED).unwrap();
    let environments = environments(place.path(), presets).await;
    let acme = Tenant::new("acme").unwrap();
    let request = EnvironmentRequest::new("scripted")
        .repository(Repository::new(&project).depth(1))
        .branch("agent/x");
    let environment = environments
        .create_environment(&acme, request)
        .await
        .unwrap();
    let main = git(&project, &["rev-parse", "main"]);
    // A tree with `.git` in it, which a checkout on the host would make: the objects are checked.
    let script = "set -e
        blob=$(echo '[core] fsmonitor = touch /tmp/x' | git hash-object -w --stdin)
        inner=$(printf '100644 blob %s\\tconfig\\n' $blob | git mktree)
        tree=$(printf '040000 tree %s\\t.git\\n' $inner | git mktree --missing)
        commit=$(git commit-tree -p HEAD -m x $tree)
        git update-ref refs/heads/agent/x $commit
        git update-ref refs/heads/main $commit";
    let run = environments
        .spawn_agent(&acme, environment.id(), script)
        .await
        .unwrap();
    let exit = run.wait().await.unwrap();
    assert!(exit.status.success(), "{}", exit.errors);
    let error = environment.save_branch(&project).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Git, "{error}");
    let branches = git(&project, &["branch", "--list", "--format=%(refname:short)"]);
    assert_eq!(branches, "main");
    assert_eq!(git(&project, &["rev-parse", "main"]), main);
    environments
        .sessions()
        .shutdown(ShutdownOptions::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_agent_is_installed_once_and_found_by_the_environments_that_follow() {
    let place = Scratch::new().unwrap();
    let presets = Presets::new()
        .with(
            "made",
            r##"
            title = 'Made'
            setup = ['mkdir -p "$HOME/.local/bin" && printf "#!/bin/sh\nread x; echo said \$x to \$(cat ~/where)\n" > "$HOME/.local/bin/made" && chmod +x "$HOME/.local/bin/made"']
            configure = ['echo "$MADE_URL" > "$HOME/where"']
            command = ['made']
            model = { host = 'made.example', header = 'x-key', url = 'MADE_URL', key = 'MADE_KEY' }
            "##,
        )
        .unwrap()
        .with("broken", "title = 'Broken'\nsetup = ['echo no such package >&2; exit 3']\ncommand = ['x']")
        .unwrap()
        .with("unset", "title = 'Unset'\nconfigure = ['echo no such setting >&2; exit 3']\ncommand = ['x']")
        .unwrap();
    let environments = environments(place.path(), presets).await;
    let acme = Tenant::new("acme").unwrap();
    // Installed once, configured in each.
    for url in ["http://one", "http://two"] {
        let request = EnvironmentRequest::new("made").model(ModelAccess::Url(url.into()));
        let made = environments.create_environment(&acme, request).await;
        let environment = made.unwrap();
        let mut run = environments
            .spawn_agent(&acme, environment.id(), "hello\n")
            .await
            .unwrap();
        let line = run.next_line().await.unwrap().unwrap();
        assert_eq!(line.text, format!("said hello to {url}"));
        assert!(run.wait().await.unwrap().status.success());
    }
    for (agent, said) in [("broken", "no such package"), ("unset", "no such setting")] {
        let broken = environments
            .create_environment(&acme, EnvironmentRequest::new(agent))
            .await;
        let error = broken.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Setup);
        assert!(error.to_string().contains(said), "{error}");
    }
    assert_eq!(environments.list(&acme).len(), 2);
    environments
        .sessions()
        .shutdown(ShutdownOptions::new())
        .await
        .unwrap();
}

/// An agent as its registry has it, in the directory of its name below the one that `SANDBOX_AGENTS` names,
/// against a model that is a script: `tests/published_agents.sh` installs it and runs this.
async fn published_agent_changes_a_file(name: &str, program: &str, needs: &[&str]) {
    let installed = Path::new(&std::env::var("SANDBOX_AGENTS").unwrap()).join(name);
    let place = Scratch::new().unwrap();
    let project = repository(place.path());
    // The built-in preset, with the program where it is mounted.
    let mut presets: toml::Table = toml::from_str(include_str!("../src/presets.toml")).unwrap();
    let mut preset = presets.remove(name).unwrap();
    let path = preset["model"].get("path").and_then(|path| path.as_str());
    let model = format!("http://127.0.0.1:8765{}", path.unwrap_or_default());
    let tells = preset.get("stream").is_some();
    let table = preset.as_table_mut().unwrap();
    for name in ["setup", "setup-hosts", "image"] {
        table.remove(name);
    }
    table["command"][0] = installed.join(program).to_str().unwrap().into();
    table["tools"] = needs.to_vec().into();
    let presets = Presets::new()
        .with(name, &toml::to_string(&preset).unwrap())
        .unwrap();
    let environments = environments(place.path(), presets).await;
    let acme = Tenant::new("acme").unwrap();
    let at = installed.to_str().unwrap().to_owned();
    let request = EnvironmentRequest::new(name)
        .repository(Repository::new(&project))
        .model(ModelAccess::Url(model))
        .spec(SandboxSpec::new().mount(Mount::read_only(&installed, at)));
    let environment = environments
        .create_environment(&acme, request)
        .await
        .unwrap();
    let sandbox = environment.session().sandbox();
    // The model: it asks for a file to be written, and is content when that was done.
    sandbox
        .write("/tmp/model.js", include_str!("model.js"))
        .await
        .unwrap();
    let model = sandbox_core::Command::new("node")
        .arg("/tmp/model.js")
        .stdin_piped();
    let server = sandbox.spawn(model).await.unwrap();
    let options = sandbox_core::PortWaitOptions::new().server(server.wait());
    sandbox.wait_for_port(8765, options).await.unwrap();

    let prompt = "--please write hello into hello.txt";
    let mut run = environments
        .spawn_agent(&acme, environment.id(), prompt)
        .await
        .unwrap();
    let mut statuses = Vec::new();
    while let Some(line) = run.next_line().await.unwrap() {
        println!(
            "{:?} {}",
            line.status,
            line.text.chars().take(200).collect::<String>()
        );
        statuses.extend(line.status);
    }
    let exit = run.wait().await.unwrap();
    assert!(exit.status.success(), "{} {}", exit.status, exit.errors);
    for status in [Status::Thinking, Status::Working] {
        assert_eq!(statuses.contains(&status), tells, "{statuses:?}");
    }
    assert!(!statuses.contains(&Status::Error), "{statuses:?}");
    environment.commit("By the agent").await.unwrap();
    let saved = environment.save_branch(&project).await.unwrap().unwrap();
    // The file, and nothing of the agent's own.
    assert_eq!(
        git(&project, &["diff", "--name-only", "main", &saved.branch]),
        "hello.txt"
    );
    assert_eq!(
        git(&project, &["show", &format!("{}:hello.txt", saved.branch)]),
        "hello"
    );
    environments
        .sessions()
        .shutdown(ShutdownOptions::new())
        .await
        .unwrap();
}

macro_rules! published_agents {
    ($($name:ident: $program:literal, $needs:expr;)+) => {
        mod published {
            $(
                #[tokio::test]
                #[ignore = "needs the agent's program: tests/published_agents.sh"]
                async fn $name() {
                    super::published_agent_changes_a_file(stringify!($name), $program, &$needs).await;
                }
            )+
        }
    };
}

published_agents! {
    claude: "node_modules/.bin/claude", ["git", "node"];
    codex: "node_modules/.bin/codex", ["git", "node"];
    gemini: "node_modules/.bin/gemini", ["git", "node"];
    opencode: "node_modules/.bin/opencode", ["git", "node"];
    aider: "bin/aider", ["git", "node", "python3"];
}
