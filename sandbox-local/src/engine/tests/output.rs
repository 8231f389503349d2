//! Exits, arguments, failures: what a caller gets told about a process.

use super::*;

#[tokio::test]
async fn streams_are_apart_and_exact() {
    let engine = engine().await;
    let done = run(
        &engine,
        shell("printf 'out\\000\\377'; printf 'err\\001' >&2; exit 7"),
    )
    .await;
    assert_eq!(done.out, b"out\0\xff");
    assert_eq!(done.err, b"err\x01");
    assert_eq!((done.exit.code, done.exit.signal), (Some(7), None));
}

#[tokio::test]
async fn a_signal_is_not_an_exit_code() {
    let engine = engine().await;
    let done = run(&engine, shell("kill -TERM $$; exit 3")).await;
    assert_eq!(
        (done.exit.code, done.exit.signal),
        (None, Some(libc::SIGTERM))
    );
    assert_eq!(run(&engine, shell("exit 255")).await.exit.code, Some(255));
}

#[tokio::test]
async fn resource_use_is_told() {
    let engine = engine().await;
    let done = run(
        &engine,
        shell("i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"),
    )
    .await;
    assert!(
        done.exit.user + done.exit.system > Duration::from_millis(5),
        "{:?}",
        done.exit
    );
    assert!(done.exit.peak_kib > 100, "{:?}", done.exit);
}

#[tokio::test]
async fn arguments_and_environment_arrive_verbatim() {
    let engine = engine().await;
    let odd: &[&[u8]] = &[
        b"",
        b" ",
        b"a\nb",
        b"\xff\xfe",
        b"$HOME `id` \"'",
        b"-rf",
        b"*",
    ];
    let mut wanted = request(&["printf", "[%s]"]);
    wanted.argv.extend(odd.iter().map(|arg| arg.to_vec()));
    let expected: Vec<u8> = odd
        .iter()
        .flat_map(|arg| [b"[", *arg, b"]"].concat())
        .collect();
    assert_eq!(run(&engine, wanted).await.out, expected);

    let mut wanted = request(&["env"]);
    wanted.env = vec![b"A=1\xff".to_vec(), b"B=x y\nz".to_vec()];
    assert_eq!(run(&engine, wanted).await.out, b"A=1\xff\nB=x y\nz\n");
}

#[tokio::test]
async fn a_megabyte_of_arguments_passes_and_more_is_refused_by_kind() {
    let engine = engine().await;
    let mut wanted = shell("printf '%s ' $#; printf %s \"$*\" | wc -c");
    wanted.argv.extend((0..10_000).map(|_| vec![b'x'; 100]));
    let done = run(&engine, wanted).await;
    assert_eq!(
        String::from_utf8_lossy(&done.out)
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["10000", "1009999"]
    );

    let mut wanted = shell(":");
    wanted.argv.extend((0..70_000).map(|_| vec![b'x'; 100]));
    let running = engine.spawn(wanted).await.unwrap();
    let failure = within(running.exit).await.unwrap_err();
    let ExitError::NotStarted(failure) = failure else {
        panic!("{failure:?}")
    };
    assert_eq!(failure.kind, FailureKind::ArgumentsTooLong);

    let mut wanted = shell(":");
    wanted.argv.push(vec![b'x'; 9 << 20]);
    assert!(matches!(
        engine.spawn(wanted).await,
        Err(SpawnError::TooLarge { .. })
    ));
    let mut wanted = shell(":");
    wanted.argv.push(b"a\0b".to_vec());
    assert!(matches!(
        engine.spawn(wanted).await,
        Err(SpawnError::Nul("argument"))
    ));
    assert_eq!(run(&engine, shell("exit 4")).await.exit.code, Some(4));
}

async fn failure(engine: &Engine, mut request: SpawnRequest, confirm: bool) -> FailureKind {
    request.confirm = confirm;
    match engine.spawn(request).await {
        Err(SpawnError::Failed(failure)) if confirm => failure.kind,
        Ok(running) if !confirm => match within(finish(running)).await.map(|done| done.exit) {
            Err(ExitError::NotStarted(failure)) => failure.kind,
            other => panic!("{other:?}"),
        },
        Ok(_) => panic!("it started"),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let engine = engine().await;
    let directory = std::env::temp_dir().join(format!("engine-{}", unique()));
    std::fs::create_dir(&directory).unwrap();
    let garbage = directory.join("garbage");
    std::fs::write(&garbage, b"\x7fELF but not really").unwrap();
    use std::os::unix::fs::PermissionsExt;
    let path = |name: &str| directory.join(name).to_str().unwrap().as_bytes().to_vec();
    for confirm in [false, true] {
        let set_mode = |mode| {
            std::fs::set_permissions(&garbage, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let kind = failure(&engine, request(&["no-such-program"]), confirm).await;
        assert_eq!(kind, FailureKind::NotFound);

        let mut wanted = request(&["true"]);
        wanted.cwd = path("missing");
        assert_eq!(failure(&engine, wanted, confirm).await, FailureKind::Cwd);

        set_mode(0o644);
        let mut wanted = request(&["true"]);
        // Not executable wins over not found, wherever it stands.
        wanted.candidates = vec![path("missing"), path("garbage"), path("missing too")];
        assert_eq!(
            failure(&engine, wanted, confirm).await,
            FailureKind::NotExecutable
        );

        set_mode(0o755);
        let mut wanted = request(&["true"]);
        wanted.candidates = vec![path("garbage")];
        assert_eq!(
            failure(&engine, wanted, confirm).await,
            FailureKind::BadFormat
        );
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn the_first_existing_candidate_runs() {
    let engine = engine().await;
    let mut wanted = shell("echo yes");
    wanted.candidates.insert(0, b"/nowhere/sh".to_vec());
    wanted.candidates.insert(1, b"/etc/passwd/sh".to_vec());
    wanted.confirm = true;
    assert_eq!(run(&engine, wanted).await.out, b"yes\n");
}

#[tokio::test]
async fn a_program_can_be_handed_over() {
    let engine = engine().await;
    let program = std::fs::File::open("/bin/echo").unwrap();
    let mut wanted = request(&["echo", "handed over"]);
    wanted.candidates.clear();
    wanted.program = Some(program.into());
    assert_eq!(run(&engine, wanted).await.out, b"handed over\n");
}

#[tokio::test]
async fn nothing_of_the_host_is_inherited() {
    let engine = engine().await;
    // A descriptor that is not close-on-exec must not reach a guest either.
    let kept = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).unwrap();
    let fresh = super::engine().await;
    for engine in [&engine, &fresh] {
        // The shell's own glob opens one descriptor: the directory.
        let done = run(engine, request(&["ls", "/proc/self/fd"])).await;
        assert_eq!(done.out, b"0\n1\n2\n3\n", "3 is ls reading the directory");
        let mut bare = shell("ulimit -c; umask; pwd; cat /proc/self/environ; cat /proc/self/stat");
        bare.env.clear();
        let text = String::from_utf8(run(engine, bare).await.out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(&lines[1..3], ["0022", "/"]);
        let status = run(engine, request(&["cat", "/proc/self/status"]))
            .await
            .out;
        let status = String::from_utf8(status).unwrap();
        for line in [
            "SigBlk:\t0000000000000000",
            "SigIgn:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.contains(line), "{line} in {status}");
        }
        let agent = run(
            engine,
            shell("cat /proc/1/environ; ls /proc/1/fd; readlink /proc/1/exe"),
        )
        .await;
        assert_eq!(agent.out, b"", "the agent shows nothing");
    }
    drop(kept);
    if is_root() {
        // Three for the signals, the socket, its proc mount, /dev/null, the host's pidfd.
        let fds = std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).unwrap();
        assert_eq!(fds.count(), 7, "nothing of the host is in the agent");
    }
}
