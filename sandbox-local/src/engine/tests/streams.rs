//! Standard input and output under load, early ends and late ones.

use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn input_arrives_and_ends() {
    let engine = engine().await;
    let mut wanted = request(&["cat"]);
    wanted.stdin = Stdin::Piped;
    let mut running = engine.spawn(wanted).await.unwrap();
    let mut stdin = running.stdin.take().unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| i as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let done = within(finish(running)).await.unwrap();
    writer.await.unwrap();
    assert!(done.out == expected);

    let done = run(&engine, request(&["cat"])).await;
    assert_eq!(done.out, b"", "no input is an empty one");

    let mut wanted = request(&["cat"]);
    let file = memory_with(b"from a file");
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
    wanted.stdin = Stdin::Given(file);
    assert_eq!(run(&engine, wanted).await.out, b"from a file");
}

#[tokio::test]
async fn input_nobody_reads_is_a_broken_pipe() {
    let engine = engine().await;
    let mut wanted = shell("exec <&-; echo closed; exec sleep 1000");
    wanted.stdin = Stdin::Piped;
    let mut running = engine.spawn(wanted).await.unwrap();
    let mut stdin = running.stdin.take().unwrap();
    assert_eq!(within(read_line(&mut running.stdout)).await, "closed");
    let error = within(stdin.write_all(&[0; 100_000])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_hundred_megabytes_pass_in_bounded_memory() {
    let engine = engine().await;
    let wanted = shell("head -c 100000000 /dev/zero; echo end >&2");
    let mut running = engine.spawn(wanted).await.unwrap();
    let mut buffer = vec![1_u8; 65536];
    let mut total = 0;
    loop {
        let len = within(running.stdout.read(&mut buffer)).await.unwrap();
        if len == 0 {
            break;
        }
        assert!(buffer[..len].iter().all(|byte| *byte == 0));
        total += len;
    }
    assert_eq!(total, 100_000_000);
    assert_eq!(
        read_all(running.stderr.as_mut().expect("pipes")).await,
        b"end\n"
    );
    assert_eq!(within(running.exit).await.unwrap().code, Some(0));
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_does_not_hold_the_reader() {
    let engine = engine().await;
    let mark = unique();
    let wanted = shell(&format!("sleep {mark} & echo main; echo error >&2"));
    let running = engine.spawn(wanted).await.unwrap();
    let done = within(finish(running)).await.unwrap();
    assert_eq!(
        (&done.out[..], &done.err[..]),
        (&b"main\n"[..], &b"error\n"[..])
    );
    until("the grandchild does live", || processes_with(&mark) == 1).await;
}

#[tokio::test]
async fn a_grandchild_that_fills_the_pipe_for_ever_does_not_either() {
    let engine = engine().await;
    let running = engine
        .spawn(shell("yes & sleep 0.05; exit 3"))
        .await
        .unwrap();
    let done = within(finish(running)).await.unwrap();
    assert_eq!(done.exit.code, Some(3));
}

#[tokio::test]
async fn what_was_written_before_the_end_is_read_after_it() {
    let engine = engine().await;
    let mut running = engine
        .spawn(shell("head -c 60000 /dev/zero; echo e >&2"))
        .await
        .unwrap();
    let exit = within(&mut running.exit).await.unwrap();
    assert_eq!(exit.code, Some(0));
    assert_eq!(read_all(&mut running.stdout).await.len(), 60000);
    assert_eq!(
        read_all(running.stderr.as_mut().expect("pipes")).await,
        b"e\n"
    );
    assert_eq!(within(running.exit).await.unwrap(), exit);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once() {
    let engine = std::sync::Arc::new(engine().await);
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let mut wanted = shell(&format!("read line; echo $line {i}; exit {}", i % 256));
                wanted.stdin = Stdin::Piped;
                wanted.confirm = i % 2 == 0;
                let mut running = engine.spawn(wanted).await.unwrap();
                running
                    .stdin
                    .take()
                    .unwrap()
                    .write_all(b"got\n")
                    .await
                    .unwrap();
                let done = within(finish(running)).await.unwrap();
                assert_eq!(done.out, format!("got {i}\n").as_bytes());
                assert_eq!(done.exit.code, Some(i % 256));
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(engine.is_idle().await.unwrap());
}

#[tokio::test]
async fn more_than_the_table_holds_are_forgotten_in_turn() {
    let engine = engine().await;
    for _ in 0..2200 {
        let running = engine.spawn(request(&["true"])).await.unwrap();
        assert_eq!(within(running.exit).await.unwrap().code, Some(0));
    }
}
