//! One file as a stream.
//!
//! Invariant: what is read back is compared byte by byte, through another call than the one that
//! wrote it.

use sandbox_core::{
    ErrorKind, Mode, OpenReadOptions, OpenWriteOptions, Operation, SandboxExt as _, WriteMode,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::streams::pattern;
use crate::kit::{Context, Failed, Verdict, cases, ensure, ensure_eq, refused, refused_at};

cases! { "file_streams":
    a_file_is_read_in_parts [FileStreams],
    a_reader_tells_the_size_and_the_time [FileStreams],
    a_range_beyond_the_end_is_empty [FileStreams],
    what_is_written_appears_at_the_commit [FileStreams],
    a_dropped_writer_leaves_nothing [FileStreams],
    megabytes_go_in_and_out [FileStreams],
    a_writer_replaces_a_file_at_once [FileStreams],
    the_mode_of_what_is_replaced_is_kept [FileStreams, Modes],
    a_mode_is_given [FileStreams, Modes],
    missing_parents_are_created [FileStreams],
    a_file_that_must_be_new_is_refused [FileStreams],
    a_directory_is_refused [FileStreams],
    a_missing_file_is_named [FileStreams],
    a_fifo_is_refused [FileStreams, Exec],
    a_link_is_followed_for_reading [FileStreams, Exec, Symlinks],
    a_closed_sandbox_opens_nothing [FileStreams],
    close_ends_a_writer [FileStreams],
    a_fork_beside_a_writer_has_the_file_whole_or_not_at_all [FileStreams, Fork],
}

async fn read(cx: &Context, path: &str, options: OpenReadOptions) -> Verdict<Vec<u8>> {
    let mut reader = cx.sandbox.open_read(&path.into(), options).await?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

async fn a_file_is_read_in_parts(cx: Context) -> Verdict {
    cx.sandbox.write("f", "0123456789").await?;
    let whole = OpenReadOptions::new();
    ensure_eq!(
        read(&cx, "f", whole.clone()).await?,
        b"0123456789",
        "the whole"
    );
    ensure_eq!(
        read(&cx, "f", whole.clone().offset(4)).await?,
        b"456789",
        "from 4"
    );
    ensure_eq!(
        read(&cx, "f", whole.clone().length(3)).await?,
        b"012",
        "up to 3"
    );
    ensure_eq!(
        read(&cx, "f", whole.offset(4).length(3)).await?,
        b"456",
        "three from 4"
    );
    Ok(())
}

async fn a_reader_tells_the_size_and_the_time(cx: Context) -> Verdict {
    cx.sandbox.write("f", "0123456789").await?;
    let options = OpenReadOptions::new().offset(5);
    let reader = cx.sandbox.open_read(&"f".into(), options).await?;
    ensure_eq!(reader.size, 10, "the size");
    let known = cx.sandbox.stat("f").await?.modified;
    ensure_eq!(reader.modified, known, "the time");
    Ok(())
}

async fn a_range_beyond_the_end_is_empty(cx: Context) -> Verdict {
    cx.sandbox.write("f", "0123456789").await?;
    for offset in [10, 11, u64::MAX] {
        let options = OpenReadOptions::new().offset(offset).length(u64::MAX);
        ensure_eq!(read(&cx, "f", options).await?, b"", "from {offset}");
    }
    let options = OpenReadOptions::new().length(0);
    ensure_eq!(read(&cx, "f", options).await?, b"", "nothing");
    Ok(())
}

async fn what_is_written_appears_at_the_commit(cx: Context) -> Verdict {
    let mut writer = cx
        .sandbox
        .open_write(&"f".into(), OpenWriteOptions::new())
        .await?;
    writer.write_all(b"one ").await?;
    writer.write_all(b"two").await?;
    writer.flush().await?;
    // Shutting down is no commit.
    writer.shutdown().await?;
    ensure!(!cx.sandbox.exists("f").await?, "a part is there");
    writer.commit().await?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "one two", "the file");
    ensure_eq!(cx.sandbox.list(".").await?.len(), 1, "entries");
    let writer = cx
        .sandbox
        .open_write(&"empty".into(), OpenWriteOptions::new())
        .await?;
    writer.commit().await?;
    ensure_eq!(
        cx.sandbox.read_to_string("empty").await?,
        "",
        "an empty file"
    );
    Ok(())
}

async fn a_dropped_writer_leaves_nothing(cx: Context) -> Verdict {
    cx.sandbox.write("old", "old").await?;
    for path in ["new", "old", "a/b/new"] {
        let mut writer = cx
            .sandbox
            .open_write(&path.into(), OpenWriteOptions::new())
            .await?;
        writer.write_all(&[b'x'; 100_000]).await?;
        drop(writer);
    }
    for path in ["new", "a"] {
        ensure!(!cx.sandbox.exists(path).await?, "{path} is there");
    }
    crate::kit::eventually("what was staged is gone", || async {
        Ok(cx.sandbox.list(".").await?.len() == 1)
    })
    .await?;
    ensure_eq!(
        cx.sandbox.read_to_string("old").await?,
        "old",
        "the old file"
    );
    Ok(())
}

async fn megabytes_go_in_and_out(cx: Context) -> Verdict {
    let bytes = pattern(251, 20 << 20);
    let mut writer = cx
        .sandbox
        .open_write(&"big".into(), OpenWriteOptions::new())
        .await?;
    writer.write_all(&bytes).await?;
    writer.commit().await?;
    ensure!(
        read(&cx, "big", OpenReadOptions::new()).await? == bytes,
        "other bytes"
    );
    let options = OpenReadOptions::new().offset(7 << 20).length(1 << 20);
    let part = read(&cx, "big", options).await?;
    ensure!(part == bytes[7 << 20..8 << 20], "other bytes in a part");
    Ok(())
}

async fn a_writer_replaces_a_file_at_once(cx: Context) -> Verdict {
    cx.sandbox.write("f", "old").await?;
    let mut old = cx
        .sandbox
        .open_read(&"f".into(), OpenReadOptions::new())
        .await?;
    let mut writer = cx
        .sandbox
        .open_write(&"f".into(), OpenWriteOptions::new())
        .await?;
    writer.write_all(b"new").await?;
    ensure_eq!(
        cx.sandbox.read_to_string("f").await?,
        "old",
        "before the commit"
    );
    writer.commit().await?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "new", "after it");
    // What was opened before is the old file.
    let mut bytes = Vec::new();
    old.read_to_end(&mut bytes).await?;
    ensure_eq!(bytes, b"old", "the file that was opened");
    Ok(())
}

async fn commit(cx: &Context, path: &str, options: OpenWriteOptions) -> Verdict {
    let mut writer = cx.sandbox.open_write(&path.into(), options).await?;
    writer.write_all(b"x").await?;
    Ok(writer.commit().await?)
}

async fn the_mode_of_what_is_replaced_is_kept(cx: Context) -> Verdict {
    let batch = sandbox_core::FileBatch::new().file_with_mode("f", "old", Mode::new(0o750));
    cx.sandbox.write_files(batch).await?;
    commit(&cx, "f", OpenWriteOptions::new()).await?;
    ensure_eq!(
        cx.sandbox.stat("f").await?.mode,
        Mode::new(0o750),
        "the mode"
    );
    commit(&cx, "new", OpenWriteOptions::new()).await?;
    ensure_eq!(
        cx.sandbox.stat("new").await?.mode,
        Mode::FILE,
        "the default"
    );
    Ok(())
}

async fn a_mode_is_given(cx: Context) -> Verdict {
    // Also one that its owner may not write.
    for mode in [0o755, 0o444, 0o600] {
        let path = format!("f{mode:o}");
        let options = OpenWriteOptions::new().mode(Mode::new(mode));
        commit(&cx, &path, options).await?;
        ensure_eq!(
            cx.sandbox.stat(&*path).await?.mode,
            Mode::new(mode),
            "the mode"
        );
        ensure_eq!(cx.sandbox.read_to_string(&*path).await?, "x", "the content");
    }
    Ok(())
}

async fn missing_parents_are_created(cx: Context) -> Verdict {
    commit(&cx, "a/b/c/f", OpenWriteOptions::new()).await?;
    ensure_eq!(cx.sandbox.read_to_string("a/b/c/f").await?, "x", "the file");
    Ok(())
}

async fn a_file_that_must_be_new_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("f", "old").await?;
    let new = OpenWriteOptions::new().write_mode(WriteMode::CreateNew);
    let path = "f".into();
    let written = match cx.sandbox.open_write(&path, new.clone()).await {
        Ok(writer) => writer.commit().await,
        Err(error) => Err(error),
    };
    let kind = ErrorKind::AlreadyExists;
    refused_at(written, &cx.sandbox, Operation::OpenWrite, kind, &path)?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "old", "the old file");
    commit(&cx, "new", new).await
}

async fn a_directory_is_refused(cx: Context) -> Verdict {
    cx.sandbox.create_dir_all("d").await?;
    let path = "d".into();
    let kind = ErrorKind::IsADirectory;
    let opened = cx.sandbox.open_read(&path, OpenReadOptions::new()).await;
    refused_at(opened, &cx.sandbox, Operation::OpenRead, kind, &path)?;
    let written = match cx.sandbox.open_write(&path, OpenWriteOptions::new()).await {
        Ok(writer) => writer.commit().await,
        Err(error) => Err(error),
    };
    refused_at(written, &cx.sandbox, Operation::OpenWrite, kind, &path)?;
    Ok(())
}

async fn a_missing_file_is_named(cx: Context) -> Verdict {
    let path = "missing".into();
    let opened = cx.sandbox.open_read(&path, OpenReadOptions::new()).await;
    refused_at(
        opened,
        &cx.sandbox,
        Operation::OpenRead,
        ErrorKind::NotFound,
        &path,
    )?;
    Ok(())
}

async fn a_fifo_is_refused(cx: Context) -> Verdict {
    let made = cx.sandbox.sh("mkfifo fifo").await?;
    if !made.success() {
        // A guest without FIFOs has nothing to refuse.
        return Ok(());
    }
    let path = "fifo".into();
    let kind = ErrorKind::NotARegularFile;
    let opened = cx.sandbox.open_read(&path, OpenReadOptions::new()).await;
    refused_at(opened, &cx.sandbox, Operation::OpenRead, kind, &path)?;
    Ok(())
}

async fn a_link_is_followed_for_reading(cx: Context) -> Verdict {
    cx.sandbox.write("f", "content").await?;
    cx.sandbox.sh("ln -s f link").await?;
    ensure_eq!(
        read(&cx, "link", OpenReadOptions::new()).await?,
        b"content",
        "the content"
    );
    Ok(())
}

async fn a_closed_sandbox_opens_nothing(cx: Context) -> Verdict {
    let sandbox = cx.another().await?;
    sandbox.write("f", "x").await?;
    sandbox.close().await?;
    let opened = sandbox.open_read(&"f".into(), OpenReadOptions::new()).await;
    refused(opened, &sandbox, Operation::OpenRead, ErrorKind::Closed)?;
    let opened = sandbox
        .open_write(&"f".into(), OpenWriteOptions::new())
        .await;
    refused(opened, &sandbox, Operation::OpenWrite, ErrorKind::Closed)?;
    Ok(())
}

async fn close_ends_a_writer(cx: Context) -> Verdict {
    let sandbox = cx.another().await?;
    let mut writer = sandbox
        .open_write(&"f".into(), OpenWriteOptions::new())
        .await?;
    writer.write_all(b"x").await?;
    sandbox.close().await?;
    match writer.commit().await {
        Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
        other => Err(Failed::new(format_args!("closed expected, not {other:?}"))),
    }
}

async fn a_fork_beside_a_writer_has_the_file_whole_or_not_at_all(cx: Context) -> Verdict {
    cx.sandbox.write("old", "old").await?;
    let mut writers = Vec::new();
    for name in ["new", "old"] {
        let options = OpenWriteOptions::new();
        let mut writer = cx.sandbox.open_write(&name.into(), options).await?;
        writer.write_all(b"before ").await?;
        writer.flush().await?;
        writers.push(writer);
    }
    let commit = async {
        for mut writer in writers {
            writer.write_all(b"after").await?;
            writer.commit().await?;
        }
        Verdict::Ok(())
    };
    let (child, committed) = tokio::join!(cx.fork(&*cx.sandbox), commit);
    let child = child?;
    committed?;
    for entry in child.list(".").await? {
        let name = entry.path.to_string();
        let found = child.read_to_string(&*name).await?;
        let expected = found == "before after" || (name == "old" && found == "old");
        ensure!(expected, "the fork's {name}: {found:?}");
    }
    ensure!(child.exists("old").await?, "the fork has lost a file");
    for name in ["new", "old"] {
        let found = cx.sandbox.read_to_string(name).await?;
        ensure_eq!(found, "before after", "the parent's {name}");
    }
    Ok(())
}
