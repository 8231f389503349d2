//! Cost of an exec, against tokio's own in the same run.

use super::*;

/// A program that does nothing, without a C library: the floor.
fn static_program(directory: &Path) -> String {
    let source = directory.join("nothing.c");
    let program = directory.join("nothing");
    let code = if cfg!(target_arch = "x86_64") {
        "void _start(void){__asm__ volatile(\"mov $60,%eax; xor %edi,%edi; syscall\");}"
    } else {
        "void _start(void){__asm__ volatile(\"mov x8,#93; mov x0,#0; svc #0\");}"
    };
    std::fs::write(&source, code).unwrap();
    let done = Command::new("cc")
        .args(["-static", "-nostdlib", "-O1", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(done.success());
    program.to_str().unwrap().to_owned()
}

struct Figures(Vec<f64>);

impl Figures {
    fn at(&mut self, quantile: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[(self.0.len() as f64 * quantile) as usize]
    }
}

#[test]
#[ignore = "measurement"]
fn cost_of_an_exec() {
    let rounds: usize = 600;
    let directory = std::env::temp_dir().join(format!("engine-{}", unique()));
    std::fs::create_dir(&directory).unwrap();
    let nothing = static_program(&directory);
    for threads in ["multi_thread", "current_thread"] {
        let mut builder = match threads {
            "multi_thread" => tokio::runtime::Builder::new_multi_thread(),
            _ => tokio::runtime::Builder::new_current_thread(),
        };
        let runtime = builder.enable_all().build().unwrap();
        for program in [&nothing, "/bin/true"] {
            // Everything in a task, as an application would have it.
            let program = program.to_owned();
            let task = async move {
                let engine = engine().await;
                let mut figures = [(); 3].map(|()| Figures(Vec::new()));
                for _ in 0..rounds {
                    let start = Instant::now();
                    let done = tokio::process::Command::new(&program)
                        .env_clear()
                        .current_dir("/")
                        .stdin(std::process::Stdio::null())
                        .output()
                        .await
                        .unwrap();
                    assert!(done.status.success());
                    figures[0].0.push(start.elapsed().as_secs_f64() * 1e6);
                    for confirm in [false, true] {
                        let wanted = SpawnRequest {
                            candidates: bytes(&[&program]),
                            argv: bytes(&[&program]),
                            cwd: b"/".to_vec(),
                            confirm,
                            ..SpawnRequest::default()
                        };
                        let start = Instant::now();
                        let running = engine.spawn(wanted).await.unwrap();
                        assert_eq!(finish(running).await.unwrap().exit.code, Some(0));
                        let index = 1 + usize::from(confirm);
                        figures[index].0.push(start.elapsed().as_secs_f64() * 1e6);
                    }
                }
                let [mut tokio, mut exec, mut confirmed] = figures;
                println!(
                    "{threads} {program}: tokio {:.0} (p95 {:.0}), exec {:.0} (p95 {:.0}), \
                     confirmed {:.0}; ratio {:.2}, {:.2}",
                    tokio.at(0.5),
                    tokio.at(0.95),
                    exec.at(0.5),
                    exec.at(0.95),
                    confirmed.at(0.5),
                    exec.at(0.5) / tokio.at(0.5),
                    confirmed.at(0.5) / tokio.at(0.5),
                );
            };
            runtime.block_on(async { tokio::spawn(task).await.unwrap() });
        }
        let task = async move {
            let mut starts = Figures(Vec::new());
            let mut firsts = Figures(Vec::new());
            let mut ends = Figures(Vec::new());
            for _ in 0..200 {
                let start = Instant::now();
                let engine = engine().await;
                starts.0.push(start.elapsed().as_secs_f64() * 1e6);
                run(&engine, request(&["true"])).await;
                firsts.0.push(start.elapsed().as_secs_f64() * 1e6);
                let start = Instant::now();
                assert!(engine.killer().shut_down().await);
                ends.0.push(start.elapsed().as_secs_f64() * 1e6);
            }
            println!(
                "{threads} start {:.0}, with first true {:.0}, shutdown {:.0}",
                starts.at(0.5),
                firsts.at(0.5),
                ends.at(0.5)
            );
        };
        runtime.block_on(async { tokio::spawn(task).await.unwrap() });
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
