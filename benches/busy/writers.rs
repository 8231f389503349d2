//! Programs beside the sandboxes that keep the journal of a filesystem at work: each makes a file,
//! writes it, syncs it, renames it and removes it, over and over.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::support::Outcome;

/// They end when this is dropped, without being waited for.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::io::Result<u64>>>,
}

impl Writers {
    pub(crate) fn start(dir: &Path, count: usize) -> Outcome<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for writer in 0..count {
            let dir = dir.join(writer.to_string());
            fs::create_dir_all(&dir)?;
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || {
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (new, old) = (dir.join("new"), dir.join("old"));
                    let mut file = fs::File::create(&new)?;
                    file.write_all(&[b'x'; 4096])?;
                    file.sync_all()?;
                    fs::rename(&new, &old)?;
                    fs::remove_file(&old)?;
                    written += 1;
                }
                Ok(written)
            }));
        }
        Ok(Self { stop, threads })
    }

    /// Ends them and says how many files they have written.
    pub(crate) fn stop(mut self) -> Outcome<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        for thread in self.threads.drain(..) {
            written += thread.join().map_err(|_| "a writer died")??;
        }
        Ok(written)
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
