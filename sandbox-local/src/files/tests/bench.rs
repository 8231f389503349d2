//! How much a batch costs against plain writes into the same directory. For a release build:
//! `cargo test --release -p sandbox-local -- --ignored --nocapture batch_against_plain_writes`.

use std::fs;
use std::time::Instant;

use sandbox_core::FileBatch;

use super::Fixture;

#[test]
#[ignore = "a measurement; needs a release build and a quiet machine"]
fn batch_against_plain_writes() {
    const FILES: usize = 1000;
    let content = vec![b'x'; 1024];
    for (label, fresh) in [
        ("into an existing directory", false),
        ("into a new one", true),
    ] {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..15 {
            let f = Fixture::new();
            for (kind, times) in times.iter_mut().enumerate() {
                let dir = format!("d{round}-{kind}");
                if !fresh {
                    fs::create_dir(f.root(&dir)).unwrap();
                }
                let batch = (0..FILES).fold(FileBatch::new(), |batch, n| {
                    batch.file(format!("{dir}/{n}"), content.clone())
                });
                let started = Instant::now();
                match kind {
                    0 => {
                        let _ = fs::create_dir(f.root(&dir));
                        for n in 0..FILES {
                            fs::write(f.root(&format!("{dir}/{n}")), &content).unwrap();
                        }
                    }
                    1 => f.write(batch).unwrap(),
                    _ => {
                        f.write(batch.clone()).unwrap();
                        times.push(started.elapsed());
                        let again = Instant::now();
                        f.write(batch).unwrap();
                        println!("  replacing: {:?}", again.elapsed());
                        continue;
                    }
                }
                times.push(started.elapsed());
            }
        }
        let median = times.map(|mut times| {
            times.sort();
            times[times.len() / 2]
        });
        println!(
            "{label}: plain {:?}, batch {:?} ({:.2})",
            median[0],
            median[1],
            median[1].as_secs_f64() / median[0].as_secs_f64()
        );
    }
}
