//! Sandboxes from an image: the second start beside a default sandbox, and the first unpacking
//! beside `tar`.

use std::cell::Cell;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::Command as HostCommand;
use std::sync::Arc;

use sandbox::local::{LocalConfig, LocalProvider, LocalStore};
use sandbox::{Command, ImportOptions, Provider, SandboxSpec, Source};
use sandbox_oci::{ImageConfig, Layout, NewImage};

use crate::bench::{Bench, exec};
use crate::support::measure::{Case, timed};
use crate::support::{Outcome, host};

pub(crate) fn all(bench: &mut Bench) -> Outcome<()> {
    let scratch = host::scratch()?;
    let tree = scratch.path().join("tree");
    fs::create_dir_all(tree.join("bin"))?;
    fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    std::os::unix::fs::symlink("busybox", tree.join("bin/true"))?;
    for copy in 0..bench.effort.pick(1, 20, 60) {
        for package in ["sandbox-core", "sandbox-local", "sandbox-testkit"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(package);
            let to = tree.join(format!("{package}-{copy}"));
            host::run(HostCommand::new("cp").arg("-a").arg(from).arg(to))?;
        }
    }
    let mut archive = tempfile::tempfile()?;
    sandbox_transfer::pack(&tree, &ImportOptions::new(), &archive, u64::MAX)?;
    archive.rewind()?;
    let layout = Layout::open(scratch.path().join("image"))?;
    let in_use = layout.use_blobs()?;
    let mut writer = layout.write_blob(&in_use)?;
    std::io::copy(&mut archive, &mut writer)?;
    writer.flush()?;
    let blob = writer.finish()?;
    let layer = layout.dir().join("blobs/sha256").join(blob.digest.hex());
    layout.save(
        "it",
        NewImage::new(ImageConfig::default(), vec![blob]),
        &in_use,
    )?;
    let reference = format!("oci:{}:it", layout.dir().display());

    let place = Cell::new(0_u64);
    let next = || {
        place.set(place.get() + 1);
        scratch.path().join(place.get().to_string())
    };
    let cases = vec![
        Case::new("tar x", || {
            let to = next();
            fs::create_dir(&to)?;
            let mut tar = HostCommand::new("tar");
            tar.arg("-xzf").arg(&layer).arg("-C").arg(&to);
            let time = timed(|| host::run(&mut tar))?;
            fs::remove_dir_all(to)?;
            Ok(time)
        }),
        Case::new("unpack, digests compared", || {
            let to = next();
            let store = LocalStore::open(&LocalConfig::default().images_dir(&to))?;
            let time = timed(|| Ok(store.unpack_image(&reference).map(drop)?))?;
            // What gets it onto the disk marks it when that is done, once.
            fs::remove_dir_all(&to).or_else(|_| fs::remove_dir_all(&to))?;
            Ok(time)
        }),
    ];
    bench.compare("first unpacking of an image", cases)?;

    let runtime = Arc::clone(&bench.runtime);
    let config = LocalConfig::default().images_dir(scratch.path().join("cache"));
    let provider = LocalProvider::new(config)?;
    let image = SandboxSpec::new().source(Source::Image(reference));
    let start = |spec: &SandboxSpec| {
        let mut made = None;
        let time = timed(|| {
            runtime.block_on(async {
                let sandbox = made.insert(provider.create(spec.clone()).await?);
                exec(sandbox, Command::new("/bin/true")).await
            })?;
            Ok(())
        })?;
        if let Some(sandbox) = made {
            runtime.block_on(sandbox.close())?;
        }
        Ok(time)
    };
    start(&image)?;
    let cases = vec![
        Case::new("of the host's programs", || start(&SandboxSpec::new())),
        Case::new("of an image", || start(&image)),
    ];
    bench.compare("create, exec true, second start", cases)
}
