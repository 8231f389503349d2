//! A program in a container image, with the progress of fetching and unpacking it.
//!
//! `cargo run --example images --features registry -- [REFERENCE [PROGRAM [ARGUMENT]...]]`
//!
//! Without a reference it makes a small image of the host's busybox, which must be static.
#![allow(clippy::print_stdout)] // An example talks to its user.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sandbox::local::{ImageEvent, ImageProgress, LocalConfig, LocalProvider};
use sandbox::{Command, ImportOptions, Provider, SandboxSpec};
use sandbox_oci::{ImageConfig, Layout, NewImage};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A bar for each layer that is fetched or unpacked.
#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    known: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn new() -> Self {
        Self {
            // Nothing is drawn where standard error is not a terminal.
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            known: Mutex::default(),
        }
    }

    /// Shows how far one step is.
    fn step(&self, what: String, done: u64, total: u64) {
        // Every change is a single call: a panic elsewhere leaves it whole.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = known.entry(what).or_insert_with_key(|what| {
            let style = ProgressStyle::with_template(
                "{msg:32} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}",
            );
            let bar = ProgressBar::new(total).with_message(what.clone());
            let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.all.add(bar)
        });
        if bar.is_finished() {
            return;
        }
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
        }
    }
}

impl ImageProgress for Bars {
    fn event(&self, _: &str, event: &ImageEvent) {
        match event {
            ImageEvent::Fetching { blob, done, total } => {
                self.step(format!("fetching {:.12}", blob.hex()), *done, *total);
            }
            ImageEvent::Unpacking {
                layer,
                layers,
                done,
                total,
            } => self.step(
                format!("unpacking layer {layer} of {layers}"),
                *done,
                *total,
            ),
            ImageEvent::Ready {
                layer,
                layers,
                cached,
            } => {
                let how = if *cached { "was there" } else { "is ready" };
                // Above the bars; where there is no terminal, as it is.
                let line = format!("layer {layer} of {layers} {how}");
                if self.all.is_hidden() {
                    println!("{line}");
                } else {
                    // What can't be shown changes nothing.
                    let _ = self.all.println(line);
                }
            }
            // More kinds may come.
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let place = tempfile::tempdir()?;
    let mut words = std::env::args().skip(1);
    let reference = words.next();
    let mut config = LocalConfig::default().image_progress(Arc::new(Bars::new()));
    let (reference, command) = match reference {
        Some(reference) => {
            let program = words.next().unwrap_or_else(|| "/bin/sh".into());
            (reference, Command::new(program).args(words))
        }
        None => {
            // Its cache goes with it.
            config = config.images_dir(place.path().join("cache"));
            let script = "echo \"$GREETING from $(cat /etc/motd)\"; ls /bin";
            (
                small_image(place.path())?,
                Command::new("sh").args(["-c", script]),
            )
        }
    };
    let provider = LocalProvider::new(config)?;
    // The second finds every layer unpacked.
    for _ in 0..2 {
        let spec = SandboxSpec::new().image(reference.as_str());
        let sandbox = provider.create(spec).await?;
        let output = sandbox.exec(command.clone()).await?;
        print!("{}", output.stdout.to_string_lossy());
        sandbox.close().await?;
    }
    Ok(())
}

/// Writes an image with one layer in the OCI layout; gives its reference.
fn small_image(place: &Path) -> Outcome<String> {
    let tree = place.join("tree");
    fs::create_dir_all(tree.join("bin"))?;
    fs::create_dir_all(tree.join("etc"))?;
    fs::copy("/bin/busybox", tree.join("bin/busybox"))
        .map_err(|error| format!("the host's /bin/busybox (Debian: busybox-static): {error}"))?;
    for program in ["cat", "ls", "sh"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(program))?;
    }
    fs::write(tree.join("etc/motd"), "a small image\n")?;

    let mut archive = tempfile::tempfile()?;
    sandbox_transfer::pack(&tree, &ImportOptions::new(), &archive, u64::MAX)?;
    archive.rewind()?;
    let layout = Layout::open(place.join("image"))?;
    let in_use = layout.use_blobs()?;
    let mut writer = layout.write_blob(&in_use)?;
    std::io::copy(&mut archive, &mut writer)?;
    writer.flush()?;
    let layer = writer.finish()?;
    let mut config = ImageConfig::default();
    config.env = vec!["PATH=/bin".into(), "GREETING=hello".into()];
    layout.save("small", NewImage::new(config, vec![layer]), &in_use)?;
    Ok(format!("oci:{}:small", layout.dir().display()))
}
