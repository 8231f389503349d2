//! Finding the program of a command, so that a missing one is told before anything is started.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sandbox::backend::command_not_found;
use sandbox::{EnvValue, Error, ErrorKind, GuestPath, MetadataOptions, Operation, Result};
use sandbox_transfer::GuestTree;
use tokio::process::Command as HostCommand;

type Variables = BTreeMap<Vec<u8>, EnvValue>;

/// Looks a command's program up as the guest would, and puts its path in place of its name.
pub(crate) fn find(
    tree: &GuestTree,
    cwd: &GuestPath,
    env: &Variables,
    mut argv: Vec<Vec<u8>>,
    op: Operation,
) -> Result<Vec<Vec<u8>>> {
    let name = argv.first().cloned().unwrap_or_default();
    let missing = |kind, why: &'static str| {
        Err(Error::new(kind, op)
            .with_message(why)
            .with_path(GuestPath::new(name.clone())))
    };
    let dirs: Vec<GuestPath> = match name.contains(&b'/') {
        true => vec![cwd.clone()],
        false => {
            let path = env.get(&b"PATH"[..]).map(|path| path.value.expose());
            let dirs = path.unwrap_or_default().split(|b| *b == b':');
            dirs.filter_map(|dir| GuestPath::new(dir).resolve(cwd, op).ok())
                .collect()
        }
    };
    let mut seen = false;
    for dir in dirs {
        let candidate = GuestPath::new(name.clone()).resolve(&dir, op)?;
        match is_executable(tree, &candidate) {
            Some(true) => {
                if let Some(program) = argv.first_mut() {
                    *program = candidate.as_bytes().to_vec();
                }
                return Ok(argv);
            }
            Some(false) => seen = true,
            None => {}
        }
    }
    match seen {
        true => missing(ErrorKind::NotExecutable, "the program may not be executed"),
        false => Err(command_not_found(op, &name, "the program was not found")),
    }
}

/// Whether there is something to execute; `None` if there is nothing. What the guest has of the
/// host's `/usr` is looked up there.
fn is_executable(tree: &GuestTree, path: &GuestPath) -> Option<bool> {
    let host = ["/usr/", "/bin/", "/sbin/"];
    if host
        .iter()
        .any(|dir| path.as_bytes().starts_with(dir.as_bytes()))
    {
        let found = std::fs::metadata(Path::new(OsStr::from_bytes(path.as_bytes()))).ok()?;
        return Some(found.is_file() && found.permissions().mode() & 0o111 != 0);
    }
    let follow = MetadataOptions::new().follow(true);
    let found = tree.metadata(path, &follow).ok()?;
    Some(found.is_file() && found.mode.bits() & 0o111 != 0)
}

/// Gives a command of the host this environment and no other. As the launcher's own it does not
/// show among its arguments, which every user of the host may read.
pub(crate) fn set_env(host: &mut HostCommand, env: &Variables) {
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let env = env
        .iter()
        .map(|(name, variable)| (text(name), text(variable.value.expose())));
    host.env_clear().envs(env);
}
