//! A real tree into a sandbox and out of it, against `cp -a`: this workspace's own sources, many
//! times over.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;
use std::sync::Arc;

use sandbox::{ExportOptions, GuestPath, ImportOptions, Sandbox, SandboxExt};

use crate::bench::{Bench, clocked};
use crate::support::measure::{Case, timed};
use crate::support::{Outcome, host};

pub(crate) fn all(bench: &mut Bench) -> Outcome<()> {
    let runtime = Arc::clone(&bench.runtime);
    let sandbox = bench.create()?;
    let scratch = host::scratch()?;
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree)?;
    for copy in 0..bench.effort.pick(1, 4, 8) {
        for package in ["sandbox-core", "sandbox-local", "sandbox-testkit"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(package);
            let to = tree.join(format!("{package}-{copy}"));
            host::run(HostCommand::new("cp").arg("-a").arg(from).arg(to))?;
        }
    }
    let place = Cell::new(0_u64);
    let next = || {
        place.set(place.get() + 1);
        place.get().to_string()
    };
    let cp = || {
        let to = scratch.path().join(next());
        let time = timed(|| host::run(HostCommand::new("cp").arg("-a").arg(&tree).arg(&to)))?;
        fs::remove_dir_all(to)?;
        Ok(time)
    };
    let cases = vec![
        Case::new("cp -a", cp),
        Case::new("import_dir", || {
            let to = next();
            let guest = GuestPath::from(to.as_str());
            let options = ImportOptions::new();
            let time = clocked(&runtime, sandbox.import_dir(&tree, &guest, options))?;
            runtime.block_on(sandbox.remove_all(to))?;
            Ok(time)
        }),
    ];
    bench.compare("import of a source tree", cases)?;
    let inside = GuestPath::from("exported");
    runtime.block_on(sandbox.import(&tree, &inside))?;
    let cases = vec![
        Case::new("cp -a", cp),
        Case::new("export_dir", || {
            let to = scratch.path().join(next());
            let options = ExportOptions::new();
            let time = clocked(&runtime, sandbox.export_dir(&inside, &to, options))?;
            fs::remove_dir_all(to)?;
            Ok(time)
        }),
    ];
    bench.compare("export of a source tree", cases)?;
    bench.close(&sandbox)
}
