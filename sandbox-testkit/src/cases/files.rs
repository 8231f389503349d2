//! Writing, reading, removing, renaming.
//!
//! Invariant: what is checked is the content that comes back, never only that a call succeeded.

use std::time::Duration;

use bytes::Bytes;
use sandbox_core::{
    Capability, ErrorKind, FileBatch, FileKind, Mode, Operation, ReadOptions, SandboxExt as _,
};

use crate::kit::{Context, Verdict, cases, ensure, ensure_eq, refused, refused_at};

cases! { "files":
    text_comes_back_with_its_newlines,
    binary_comes_back_byte_for_byte,
    all_byte_values_come_back,
    an_empty_file_is_a_file,
    fifty_mebibytes_come_back,
    many_small_writes_all_arrive,
    missing_parents_are_created,
    replacing_takes_the_new_content_only,
    replacing_keeps_the_mode [Modes],
    a_mode_is_kept [Modes],
    the_default_modes_are_644_and_755 [Modes],
    setuid_is_refused,
    reading_a_missing_file_names_it,
    reading_a_directory_is_refused,
    reading_below_a_file_is_refused,
    reading_beyond_the_limit_states_it,
    reading_at_the_limit_works,
    reading_a_fifo_is_refused_at_once [Exec],
    reading_a_link_gives_its_target [Exec, Symlinks],
    what_is_no_file_is_not_written_to [Exec],
    what_the_kernel_makes_up_is_read_whole_or_refused [Exec],
    a_batch_read_while_written_is_whole,
    a_file_the_user_may_not_write_is_refused [Exec, FilePermissions],
    a_file_the_user_may_not_read_is_refused [Exec, FilePermissions],
    exec_and_the_file_api_see_the_same [Exec],
}

/// Writes and reads back.
async fn round_trip(cx: &Context, name: &str, content: impl Into<Bytes>) -> Verdict {
    let content = content.into();
    cx.sandbox.write(name, content.clone()).await?;
    let read = cx.sandbox.read(name).await?;
    ensure_eq!(read.len(), content.len(), "the length of {name}");
    ensure!(read == content, "the content of {name} changed");
    Ok(())
}

async fn text_comes_back_with_its_newlines(cx: Context) -> Verdict {
    round_trip(&cx, "a.txt", "one\ntwo\r\n\n three ").await?;
    round_trip(&cx, "emoji.txt", "grüße 🦀 日本語\n").await
}

async fn binary_comes_back_byte_for_byte(cx: Context) -> Verdict {
    round_trip(&cx, "b", &b"\x00\xff\xfe\xc3\x28\x00\n"[..]).await
}

async fn all_byte_values_come_back(cx: Context) -> Verdict {
    let bytes: Vec<u8> = (0..=255).cycle().take(256 * 257).collect();
    round_trip(&cx, "bytes", bytes).await
}

async fn an_empty_file_is_a_file(cx: Context) -> Verdict {
    round_trip(&cx, "empty", "").await?;
    let metadata = cx.sandbox.stat("empty").await?;
    ensure!(metadata.is_file(), "an empty file is {:?}", metadata.kind);
    ensure_eq!(metadata.size, 0, "its size");
    Ok(())
}

async fn fifty_mebibytes_come_back(cx: Context) -> Verdict {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let block: Vec<u8> = (0..1 << 20).map(|_| next()).collect();
    let mut content = Vec::with_capacity(50 << 20);
    for index in 0..50_u8 {
        content.extend_from_slice(&block);
        // No two blocks are the same, so that none can stand for another.
        let start = content.len() - block.len();
        content[start] = index;
    }
    round_trip(&cx, "big", content).await
}

async fn many_small_writes_all_arrive(cx: Context) -> Verdict {
    for index in 0..100 {
        cx.sandbox
            .write(format!("many/{index}"), index.to_string())
            .await?;
    }
    ensure_eq!(cx.sandbox.list("many").await?.len(), 100, "entries");
    for index in [0, 42, 99] {
        let text = cx.sandbox.read_to_string(format!("many/{index}")).await?;
        ensure_eq!(text, index.to_string(), "the content of many/{index}");
    }
    Ok(())
}

async fn missing_parents_are_created(cx: Context) -> Verdict {
    round_trip(&cx, "a/b/c/d", "deep").await?;
    let metadata = cx.sandbox.stat("a/b").await?;
    ensure!(metadata.is_dir(), "a parent is {:?}", metadata.kind);
    Ok(())
}

async fn replacing_takes_the_new_content_only(cx: Context) -> Verdict {
    round_trip(&cx, "f", "a long first content").await?;
    round_trip(&cx, "f", "short").await
}

async fn replacing_keeps_the_mode(cx: Context) -> Verdict {
    let sandbox = &cx.sandbox;
    let batch = FileBatch::new().file_with_mode("f", "1", Mode::new(0o750));
    sandbox.write_files(batch).await?;
    sandbox.write("f", "2").await?;
    let mode = sandbox.stat("f").await?.mode;
    ensure_eq!(mode, Mode::new(0o750), "the mode of a replaced file");
    Ok(())
}

async fn a_mode_is_kept(cx: Context) -> Verdict {
    for bits in [0o600, 0o640, 0o666, 0o711, 0o777] {
        let batch = FileBatch::new().file_with_mode("f", "x", Mode::new(bits));
        cx.sandbox.write_files(batch).await?;
        let mode = cx.sandbox.stat("f").await?.mode;
        ensure_eq!(mode, Mode::new(bits), "the mode, whatever the umask");
    }
    Ok(())
}

async fn the_default_modes_are_644_and_755(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let file = cx.sandbox.stat("d/f").await?.mode;
    ensure_eq!(file, Mode::FILE, "the mode of a file");
    let parent = cx.sandbox.stat("d").await?.mode;
    ensure_eq!(parent, Mode::EXECUTABLE, "the mode of a parent");
    Ok(())
}

async fn setuid_is_refused(cx: Context) -> Verdict {
    let batch = FileBatch::new().file_with_mode("f", "x", Mode::new(0o4755));
    let kind = ErrorKind::InvalidInput;
    let done = cx.sandbox.write_files(batch).await;
    refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, "f")?;
    ensure!(!cx.sandbox.exists("f").await?, "the file is there");
    Ok(())
}

async fn reading_a_missing_file_names_it(cx: Context) -> Verdict {
    for path in ["nope", "no/such/dir/file", "/no-such-root-entry"] {
        let read = cx.sandbox.read(path).await;
        let error = refused_at(
            read,
            &cx.sandbox,
            Operation::ReadFile,
            ErrorKind::NotFound,
            path,
        )?;
        ensure!(
            !error.is_retryable(),
            "a missing file is not worth retrying"
        );
    }
    Ok(())
}

async fn reading_a_directory_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let kind = ErrorKind::IsADirectory;
    for path in ["d", ".", "/"] {
        let read = cx.sandbox.read(path).await;
        refused_at(read, &cx.sandbox, Operation::ReadFile, kind, path)?;
    }
    Ok(())
}

async fn reading_below_a_file_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let read = cx.sandbox.read("f/g").await;
    // The trait does not list it for reading; Linux says ENOTDIR, and NotFound is as true.
    match read {
        Err(error) if error.kind() == ErrorKind::NotADirectory => refused_at::<()>(
            Err(error),
            &cx.sandbox,
            Operation::ReadFile,
            ErrorKind::NotADirectory,
            "f/g",
        ),
        other => refused_at(
            other,
            &cx.sandbox,
            Operation::ReadFile,
            ErrorKind::NotFound,
            "f/g",
        ),
    }
    .map(drop)
}

async fn reading_beyond_the_limit_states_it(cx: Context) -> Verdict {
    cx.sandbox.write("f", vec![b'x'; 1001]).await?;
    let options = ReadOptions::new().limit(1000);
    let read = cx.sandbox.read_file(&"f".into(), options).await;
    let kind = ErrorKind::LimitExceeded;
    let error = refused_at(read, &cx.sandbox, Operation::ReadFile, kind, "f")?;
    ensure!(
        error.to_string().contains("1000"),
        "the error does not state the limit: {error}"
    );
    Ok(())
}

async fn reading_at_the_limit_works(cx: Context) -> Verdict {
    cx.sandbox.write("f", vec![b'x'; 1000]).await?;
    let options = ReadOptions::new().limit(1000);
    let read = cx.sandbox.read_file(&"f".into(), options).await?;
    ensure_eq!(read.len(), 1000, "the length");
    Ok(())
}

async fn reading_a_fifo_is_refused_at_once(cx: Context) -> Verdict {
    cx.sh("mkfifo pipe").await?;
    let listed = cx.sandbox.stat("pipe").await?;
    ensure_eq!(listed.kind, FileKind::Fifo, "what mkfifo made");
    let read = tokio::time::timeout(Duration::from_secs(120), cx.sandbox.read("pipe")).await;
    let Ok(read) = read else {
        return Err(crate::kit::Failed::new("reading a FIFO hangs"));
    };
    let kind = ErrorKind::NotARegularFile;
    refused_at(read, &cx.sandbox, Operation::ReadFile, kind, "pipe").map(drop)
}

async fn reading_a_link_gives_its_target(cx: Context) -> Verdict {
    cx.sandbox.write("d/target", "content").await?;
    cx.sh("ln -s d/target link && ln -s d dirlink").await?;
    for path in ["link", "dirlink/target"] {
        let text = cx.sandbox.read_to_string(path).await?;
        ensure_eq!(text, "content", "the content through {path}");
    }
    Ok(())
}

async fn what_is_no_file_is_not_written_to(cx: Context) -> Verdict {
    cx.sh("mkfifo pipe").await?;
    let written = cx.sandbox.write("pipe", "x").await;
    let kind = ErrorKind::NotARegularFile;
    refused_at(written, &cx.sandbox, Operation::WriteFiles, kind, "pipe")?;
    ensure_eq!(
        cx.sandbox.stat("pipe").await?.kind,
        FileKind::Fifo,
        "what is there now"
    );
    // A guest may have no devices, or they are out of reach, or each is a mount.
    let Ok(before) = cx.sandbox.stat("/dev/null").await else {
        return Ok(());
    };
    let written = cx.sandbox.write("/dev/null", "x").await;
    let refused = written.as_ref().err().map(sandbox_core::Error::kind);
    ensure!(
        matches!(
            refused,
            Some(
                ErrorKind::NotARegularFile
                    | ErrorKind::ReadOnly
                    | ErrorKind::PermissionDenied
                    | ErrorKind::Busy
            )
        ),
        "a file in the place of /dev/null: {written:?}"
    );
    let read = cx.sandbox.read("/dev/null").await;
    refused_at(read, &cx.sandbox, Operation::ReadFile, kind, "/dev/null")?;
    let after = cx.sandbox.stat("/dev/null").await?;
    ensure_eq!(after.kind, before.kind, "the kind of /dev/null");
    Ok(())
}

async fn what_the_kernel_makes_up_is_read_whole_or_refused(cx: Context) -> Verdict {
    // Its size is said to be 0.
    let shown = cx.sandbox.sh("cat /proc/version").await?;
    match cx.sandbox.read("/proc/version").await {
        Ok(read) => ensure_eq!(read, shown.stdout.bytes, "the content"),
        Err(error) => ensure!(
            matches!(
                error.kind(),
                ErrorKind::NotARegularFile | ErrorKind::NotFound | ErrorKind::PermissionDenied
            ),
            "neither its content nor a refusal: {error:?}"
        ),
    }
    Ok(())
}

async fn a_batch_read_while_written_is_whole(cx: Context) -> Verdict {
    let content = |byte: u8| vec![byte; 200_000];
    cx.sandbox.write("f", content(b'0')).await?;
    let sandbox = cx.sandbox.clone();
    let writer = tokio::spawn(async move {
        for byte in *b"123456789abcdefghij" {
            sandbox.write("f", content(byte)).await?;
        }
        Ok::<(), sandbox_core::Error>(())
    });
    let mut reads = 0;
    while !writer.is_finished() || reads < 5 {
        let read = cx.sandbox.read("f").await?;
        reads += 1;
        // A sandbox that never waits must not keep the writer from its turn.
        tokio::task::yield_now().await;
        ensure_eq!(read.len(), 200_000, "the length of a file being replaced");
        ensure!(
            read.iter().all(|byte| *byte == read[0]),
            "a reader saw a part of the old file and a part of the new"
        );
    }
    writer.await??;
    Ok(())
}

/// Whether the guest's user is root, who may do everything.
async fn is_root(cx: &Context) -> Verdict<bool> {
    Ok(cx.sh("id -u").await?.stdout.to_string_lossy().trim() == "0")
}

async fn a_file_the_user_may_not_write_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("f", "old").await?;
    cx.sh("chmod 444 f").await?;
    let done = cx.sandbox.write("f", "new").await;
    if is_root(&cx).await? {
        return Ok(done?);
    }
    let kind = ErrorKind::PermissionDenied;
    refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, "f")?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "old", "the content");
    cx.sh("mkdir d && chmod 555 d").await?;
    let done = cx.sandbox.write("d/f", "new").await;
    let refusal = refused(done, &cx.sandbox, Operation::WriteFiles, kind).map(drop);
    cx.sh("chmod 755 d").await?;
    refusal
}

async fn a_file_the_user_may_not_read_is_refused(cx: Context) -> Verdict {
    ensure!(
        cx.fixture.capabilities().has(Capability::FilePermissions),
        "planned without need"
    );
    cx.sandbox.write("f", "secret").await?;
    cx.sh("chmod 000 f").await?;
    let read = cx.sandbox.read("f").await;
    if is_root(&cx).await? {
        return Ok(read.map(drop)?);
    }
    let kind = ErrorKind::PermissionDenied;
    refused_at(read, &cx.sandbox, Operation::ReadFile, kind, "f").map(drop)
}

async fn exec_and_the_file_api_see_the_same(cx: Context) -> Verdict {
    cx.sandbox.write("from-api", "one\n").await?;
    let output = cx.sh("cat from-api; printf two > from-exec").await?;
    ensure_eq!(output.stdout.to_string_lossy(), "one\n", "what exec reads");
    let text = cx.sandbox.read_to_string("from-exec").await?;
    ensure_eq!(text, "two", "what the file API reads");
    cx.sandbox.write("from-exec", "three").await?;
    let output = cx.sh("cat from-exec; rm from-api").await?;
    ensure_eq!(output.stdout.to_string_lossy(), "three", "what exec reads");
    ensure!(
        !cx.sandbox.exists("from-api").await?,
        "what exec removed is there"
    );
    Ok(())
}
