//! Names of files that programs of the host run or obey by themselves.
//!
//! A match must never depend on the case of letters: filesystems fold it.

/// Directories and files that are run or obeyed without being asked for, anywhere in a tree.
const NAMES: &[&str] = &[
    ".git",
    ".hg",
    ".svn",
    ".husky",
    ".githooks",
    ".circleci",
    ".buildkite",
    ".woodpecker",
    ".devcontainer",
    ".vscode",
    ".idea",
    ".zed",
    ".envrc",
    ".mise.toml",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pre-commit-config.yaml",
    ".pre-commit-config.yml",
    ".lefthook.yml",
    "lefthook.yml",
    ".gitmodules",
    ".gitattributes",
    ".gitconfig",
    ".gitlab-ci.yml",
    ".travis.yml",
    ".drone.yml",
    ".cirrus.yml",
    ".appveyor.yml",
    "appveyor.yml",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    "buildspec.yml",
    "cloudbuild.yaml",
    "jenkinsfile",
    ".builds",
    ".build.yml",
    ".tekton",
    ".lefthook.yaml",
    "lefthook.yaml",
    ".yarn",
    ".pnpmfile.cjs",
    ".bazelrc",
    "mise.toml",
    ".mise",
    ".tool-versions",
    ".devcontainer.json",
    ".gdbinit",
    ".lldbinit",
    ".exrc",
    ".nvimrc",
    ".nvim.lua",
    ".vimrc",
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".ssh",
    // Coding agents run the hooks and servers in their settings, and obey their instructions.
    ".claude",
    ".claude.json",
    "claude.md",
    "claude.local.md",
    "agents.md",
    "agents.override.md",
    "gemini.md",
    ".mcp.json",
    ".cursor",
    ".cursorrules",
    ".codex",
    ".gemini",
    ".opencode",
    "opencode.json",
    "opencode.jsonc",
    ".aider.conf.yml",
    ".continue",
    ".windsurf",
    ".windsurfrules",
    ".clinerules",
    ".roo",
    ".kiro",
    ".amazonq",
    ".junie",
];

/// Endings of the names of such files.
const ENDINGS: &[&str] = &[".code-workspace"];

/// Pairs of a directory and an entry of it.
const PAIRS: &[(&str, &str)] = &[
    (".github", "workflows"),
    (".github", "actions"),
    (".github", "copilot-instructions.md"),
    (".github", "instructions"),
    (".config", "mise"),
    (".forgejo", "workflows"),
    (".gitea", "workflows"),
    (".gitlab", "ci"),
    (".cargo", "config"),
    (".cargo", "config.toml"),
];

/// Whether a path is of what runs or is obeyed by itself once it is on a host: hooks and settings
/// of a version control system, CI definitions, settings of editors, shells and debuggers, and the
/// settings and instructions of coding agents.
///
/// The list is of what is common; it can't be complete. A build script or a makefile is not in it:
/// those run when they are asked to.
///
/// ```
/// use sandbox_transfer::changes::is_automation;
/// assert!(is_automation(b".git/hooks/pre-commit"));
/// assert!(is_automation(b"sub/.GitHub/Workflows/ci.yml"));
/// assert!(!is_automation(b"src/git/hooks.rs"));
/// ```
pub fn is_automation(path: &[u8]) -> bool {
    let folded: Vec<String> = path.split(|b| *b == b'/').map(folded).collect();
    let named = |name: &String| {
        NAMES.contains(&name.as_str())
            || name.starts_with("git~")
            || ENDINGS.iter().any(|ending| name.ends_with(ending))
    };
    folded.iter().any(named)
        || folded.windows(2).any(|pair| {
            let is = |(dir, entry): &(&str, &str)| pair[0] == *dir && pair[1] == *entry;
            PAIRS.iter().any(is)
        })
}

/// The name as the most forgiving filesystem has it: without letter case, trailing dots and
/// blanks, and characters that HFS+ passes over.
fn folded(name: &[u8]) -> String {
    let is_ignored = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let text: String = String::from_utf8_lossy(name)
        .chars()
        .filter(|c| !is_ignored(c))
        .flat_map(char::to_lowercase)
        .collect();
    // A colon begins a stream of NTFS's.
    let text = text.split(':').next().unwrap_or_default();
    text.trim_end_matches(['.', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::is_automation;

    #[test]
    fn what_a_filesystem_takes_for_the_name_counts() {
        for (path, expected) in [
            (".git/config", true),
            (".GIT/config", true),
            (".git./config", true),
            (".git /config", true),
            (".g\u{200c}it/config", true),
            (".git::$INDEX_ALLOCATION/config", true),
            ("git~1/config", true),
            ("a/.envrc", true),
            (".github/workflows/x.yml", true),
            (".github/CODEOWNERS", false),
            (".claude/settings.json", true),
            ("sub/CLAUDE.md", true),
            (".mcp.json", true),
            (".cursor/mcp.json", true),
            (".devcontainer.json", true),
            ("app.code-workspace", true),
            (".bashrc", true),
            (".config/mise/config.toml", true),
            (".config/nvim.lua", false),
            ("claude.rs", false),
            (".gitignore", false),
            ("Jenkinsfile", true),
            ("Makefile", false),
            ("git/config", false),
        ] {
            assert_eq!(is_automation(path.as_bytes()), expected, "{path}");
        }
    }
}
