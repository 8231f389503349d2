//! Query texts. They are short and of constant depth: every operation starts at an id.
//!
//! Invariant: what the caller gave enters a query as an escaped string, never as syntax.

use std::fmt::Write as _;

/// A text as a GraphQL string.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || c == '\u{7f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A script run by the guest's shell, with `below` selected on the container after it.
///
/// Nesting is switched off by name: what a default is may change. The engine's own init stays, so
/// that whatever the script leaves dies with it.
pub(crate) fn run(script: &str, nonce: &str, below: &str) -> String {
    format!(
        "withExec(args: [\"/bin/sh\", \"-s\", {}], stdin: {}, expect: ANY, \
         experimentalPrivilegedNesting: false) {{ {below} }}",
        string(nonce),
        string(script)
    )
}

/// A staged directory of the host, mounted around what is selected on the container then.
///
/// `owner` is a further argument, or empty: imports belong to root otherwise.
pub(crate) fn staged(directory: &str, owner: &str, below: &str) -> String {
    let source = string(directory);
    format!("withMountedDirectory(path: \"{STAGE}\", source: {source}{owner}) {{ {below} }}")
}

/// The script of a staged directory, run with the directory mounted.
pub(crate) fn run_staged(directory: &str, owner: &str, nonce: &str, below: &str) -> String {
    let run = format!(
        "withExec(args: [\"/bin/sh\", \"{STAGE}/run.sh\", {}], expect: ANY, \
         experimentalPrivilegedNesting: false) {{ {below} }}",
        string(nonce)
    );
    staged(directory, owner, &run)
}

/// Path at which a staged directory is mounted for the one command that uses it.
pub(crate) const STAGE: &str = "/.sandbox-stage";

/// The new container without the staged directory.
pub(crate) const UNSTAGE: &str = "stdout withoutMount(path: \"/.sandbox-stage\") { id }";

/// Path at which a spawned command finds its input and its signals.
pub(crate) const CONTROL: &str = "/.sandbox-control";

/// A volume that the containers which mount it at the same time share, mounted at [`CONTROL`] around
/// what is selected on the container then.
pub(crate) fn controlled(volume: &str, owner: &str, below: &str) -> String {
    let volume = string(volume);
    format!(
        "withMountedCache(path: \"{CONTROL}\", cache: {volume}, sharing: SHARED{owner}) {{ {below} }}"
    )
}

/// The id of a volume with this name.
pub(crate) fn cache_volume(key: &str) -> String {
    format!("query {{ cacheVolume(key: {}) {{ id }} }}", string(key))
}

/// Something selected on the container that an id names.
pub(crate) fn on_container(id: &str, below: &str) -> String {
    format!(
        "query {{ node(id: {}) {{ ... on Container {{ {below} }} }} }}",
        string(id)
    )
}

/// The id of a directory of the host, read anew.
pub(crate) fn host_directory(path: &str) -> String {
    format!(
        "query {{ host {{ directory(path: {}, noCache: true) {{ id }} }} }}",
        string(path)
    )
}

/// The id of a file of the host, read anew.
pub(crate) fn host_file(path: &str) -> String {
    format!(
        "query {{ host {{ file(path: {}, noCache: true) {{ id }} }} }}",
        string(path)
    )
}

/// Something selected on the service that an id names.
pub(crate) fn on_service(id: &str, below: &str) -> String {
    format!(
        "query {{ node(id: {}) {{ ... on Service {{ {below} }} }} }}",
        string(id)
    )
}

/// The text of the first field of this name, at any depth.
pub(crate) fn find<'a>(data: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    let object = data.as_object()?;
    if let Some(found) = object.get(name) {
        return found.as_str();
    }
    object.values().find_map(|value| find(value, name))
}

/// Whether this user of a container is root, for whom owners need not be set.
pub(crate) fn is_root(user: &str) -> bool {
    let name = user.split(':').next().unwrap_or_default();
    matches!(name, "" | "root" | "0")
}

/// The owner argument of what is mounted for a user.
pub(crate) fn owner(user: &str) -> String {
    match is_root(user) {
        true => String::new(),
        false => format!(", owner: {}", string(user)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_can_not_leave_their_quotes() {
        assert_eq!(string("a\"b\\c\n\u{1}"), "\"a\\\"b\\\\c\\n\\u0001\"");
    }
}
