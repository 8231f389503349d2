//! Batches: all of it or none of it.
//!
//! Invariant: each refusal comes with the proof that nothing of the batch is there, not even a
//! parent that it would have needed.

use sandbox_core::{
    Access, ErrorKind, FileBatch, FileKind, Mode, Mount, Operation, SandboxExt as _,
};

use crate::kit::{Context, Verdict, cases, ensure, ensure_eq, refused, refused_at};

cases! { "batch":
    a_batch_writes_all_its_files,
    an_empty_batch_does_nothing,
    a_thousand_files_in_one_batch,
    an_existing_file_fails_the_whole_batch,
    a_directory_in_the_way_fails_the_whole_batch,
    a_file_as_parent_fails_the_whole_batch,
    an_invalid_path_fails_the_whole_batch,
    the_same_path_twice_is_refused,
    a_file_below_another_is_refused,
    a_trailing_slash_is_refused,
    a_read_only_place_fails_the_whole_batch [Mounts],
    a_forbidden_place_fails_the_whole_batch [Exec, FilePermissions],
    a_link_at_the_name_is_replaced_not_followed [Exec, Symlinks],
    a_link_among_the_parents_is_followed [Exec, Symlinks],
    modes_of_a_batch_are_kept [Modes],
    a_program_written_with_mode_755_runs [Exec, Modes],
    concurrent_batches_do_not_mix,
    two_creations_of_one_name_have_one_winner,
    a_dropped_batch_is_whole_or_absent,
}

/// Checks that nothing of the batch is there.
async fn nothing_of_it(cx: &Context) -> Verdict {
    for path in ["first", "new", "new/dir", "new/dir/file", "last"] {
        ensure!(
            !cx.sandbox.exists(path).await?,
            "the batch failed and left {path}"
        );
    }
    // Staging leaves nothing either.
    let names = cx.sandbox.list(".").await?;
    ensure!(
        names.len() <= 2,
        "the failed batch left something: {names:?}"
    );
    Ok(())
}

/// A batch with something bad between good ones.
fn around(bad: FileBatch) -> FileBatch {
    let mut batch = FileBatch::new()
        .file("first", "1")
        .file("new/dir/file", "2");
    for file in bad.files() {
        let added = batch.push(&file.path, file.content.clone());
        added.mode = file.mode;
        added.write_mode = file.write_mode;
    }
    batch.file("last", "3")
}

async fn a_batch_writes_all_its_files(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("a", "1")
        .file("d/b", "2")
        .file("d/e/c", "3")
        .new_file(cx.at("absolute"), "4");
    cx.sandbox.write_files(batch).await?;
    for (path, text) in [("a", "1"), ("d/b", "2"), ("d/e/c", "3"), ("absolute", "4")] {
        let read = cx.sandbox.read_to_string(path).await?;
        ensure_eq!(read, text, "the content of {path}");
    }
    ensure_eq!(
        cx.sandbox.list(".").await?.len(),
        3,
        "entries, and no staging"
    );
    Ok(())
}

async fn an_empty_batch_does_nothing(cx: Context) -> Verdict {
    cx.sandbox.write_files(FileBatch::new()).await?;
    ensure_eq!(cx.sandbox.list(".").await?.len(), 0, "entries");
    Ok(())
}

async fn a_thousand_files_in_one_batch(cx: Context) -> Verdict {
    let mut batch = FileBatch::new();
    for index in 0..1000 {
        batch.push(format!("d{}/f{index}", index % 10), index.to_string());
    }
    cx.sandbox.write_files(batch).await?;
    for dir in 0..10 {
        let entries = cx.sandbox.list(format!("d{dir}")).await?;
        ensure_eq!(entries.len(), 100, "entries of d{dir}");
    }
    ensure_eq!(
        cx.sandbox.read_to_string("d9/f999").await?,
        "999",
        "the last"
    );
    Ok(())
}

async fn an_existing_file_fails_the_whole_batch(cx: Context) -> Verdict {
    cx.sandbox.write("there", "old").await?;
    let batch = around(FileBatch::new().new_file("there", "new"));
    let done = cx.sandbox.write_files(batch).await;
    let kind = ErrorKind::AlreadyExists;
    refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, "there")?;
    ensure_eq!(
        cx.sandbox.read_to_string("there").await?,
        "old",
        "the old file"
    );
    nothing_of_it(&cx).await
}

async fn a_directory_in_the_way_fails_the_whole_batch(cx: Context) -> Verdict {
    cx.sandbox.write("dir/inside", "old").await?;
    let done = cx
        .sandbox
        .write_files(around(FileBatch::new().file("dir", "new")))
        .await;
    let kind = ErrorKind::IsADirectory;
    refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, "dir")?;
    let kept = cx.sandbox.read_to_string("dir/inside").await?;
    ensure_eq!(kept, "old", "what was in the directory");
    nothing_of_it(&cx).await
}

async fn a_file_as_parent_fails_the_whole_batch(cx: Context) -> Verdict {
    cx.sandbox.write("file", "old").await?;
    let done = cx
        .sandbox
        .write_files(around(FileBatch::new().file("file/below", "new")))
        .await;
    let kind = ErrorKind::NotADirectory;
    refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, "file/below")?;
    ensure_eq!(cx.sandbox.read_to_string("file").await?, "old", "the file");
    nothing_of_it(&cx).await
}

async fn an_invalid_path_fails_the_whole_batch(cx: Context) -> Verdict {
    for path in ["", "a\0b", "/"] {
        let done = cx
            .sandbox
            .write_files(around(FileBatch::new().file(path, "x")))
            .await;
        let kind = ErrorKind::InvalidInput;
        refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, path)?;
        nothing_of_it(&cx).await?;
    }
    Ok(())
}

async fn the_same_path_twice_is_refused(cx: Context) -> Verdict {
    let twice = cx.at("twice");
    let batch = around(FileBatch::new().file("twice", "1").file(twice, "2"));
    let done = cx.sandbox.write_files(batch).await;
    let kind = ErrorKind::InvalidInput;
    refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, "twice")?;
    nothing_of_it(&cx).await
}

async fn a_file_below_another_is_refused(cx: Context) -> Verdict {
    let batch = around(FileBatch::new().file("a", "1").file("a/b", "2"));
    let done = cx.sandbox.write_files(batch).await;
    let kind = ErrorKind::InvalidInput;
    refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, "a/b")?;
    nothing_of_it(&cx).await
}

async fn a_trailing_slash_is_refused(cx: Context) -> Verdict {
    let done = cx
        .sandbox
        .write_files(around(FileBatch::new().file("a/", "x")))
        .await;
    let kind = ErrorKind::InvalidInput;
    refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, "a/")?;
    nothing_of_it(&cx).await
}

async fn a_read_only_place_fails_the_whole_batch(cx: Context) -> Verdict {
    let host = cx.shared_dir()?;
    let there = host.path().join("there");
    std::fs::write(&there, "host")?;
    // The directory is open to every user of the host, so that only the mount can refuse the write.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&there, open)?;
    let mount = Mount::read_only(host.path(), "/mnt/ro");
    ensure_eq!(mount.access, Access::ReadOnly, "the mount");
    let sandbox = cx.create(cx.fixture.spec().mount(mount)).await?;
    let read = sandbox.read_to_string("/mnt/ro/there").await?;
    ensure_eq!(read, "host", "what is mounted");
    for path in ["/mnt/ro/there", "/mnt/ro/new"] {
        let batch = FileBatch::new().file("first", "1").file(path, "x");
        let done = sandbox.write_files(batch).await;
        let kind = ErrorKind::ReadOnly;
        refused_at(done, &sandbox, Operation::WriteFiles, kind, path)?;
        ensure!(
            !sandbox.exists("first").await?,
            "the batch left its first file"
        );
    }
    let kept = std::fs::read_to_string(host.path().join("there"))?;
    ensure_eq!(kept, "host", "the host's file");
    Ok(())
}

async fn a_forbidden_place_fails_the_whole_batch(cx: Context) -> Verdict {
    cx.sandbox.write("closed/there", "old").await?;
    cx.sh("chmod 555 closed").await?;
    let uid = cx.sh("id -u").await?;
    if uid.stdout.to_string_lossy().trim() == "0" {
        // Root may write anywhere: then the batch has to work.
        let batch = around(FileBatch::new().file("closed/new", "x"));
        return Ok(cx.sandbox.write_files(batch).await?);
    }
    let batch = around(FileBatch::new().file("closed/new", "x"));
    let done = cx.sandbox.write_files(batch).await;
    cx.sh("chmod 755 closed").await?;
    let kind = ErrorKind::PermissionDenied;
    refused(done, &cx.sandbox, Operation::WriteFiles, kind)?;
    nothing_of_it(&cx).await
}

async fn a_link_at_the_name_is_replaced_not_followed(cx: Context) -> Verdict {
    cx.sandbox.write("target", "kept").await?;
    cx.sh("ln -s target link; ln -s nowhere dangling").await?;
    for name in ["link", "dangling"] {
        cx.sandbox.write(name, "new").await?;
        let kind = cx.sandbox.stat(name).await?.kind;
        ensure_eq!(kind, FileKind::File, "what stands at {name}");
        ensure_eq!(cx.sandbox.read_to_string(name).await?, "new", "its content");
    }
    let kept = cx.sandbox.read_to_string("target").await?;
    ensure_eq!(kept, "kept", "what the link pointed to");
    ensure!(
        !cx.sandbox.exists("nowhere").await?,
        "the dangling link was followed"
    );
    Ok(())
}

async fn a_link_among_the_parents_is_followed(cx: Context) -> Verdict {
    cx.sh("mkdir real && ln -s real link").await?;
    cx.sandbox.write("link/sub/f", "x").await?;
    let text = cx.sandbox.read_to_string("real/sub/f").await?;
    ensure_eq!(text, "x", "the file behind the link");
    let kind = cx.sandbox.stat("link").await?.kind;
    ensure_eq!(kind, FileKind::Symlink, "the link itself");
    Ok(())
}

async fn modes_of_a_batch_are_kept(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file_with_mode("a", "", Mode::new(0o600))
        .file_with_mode("b", "", Mode::new(0o755))
        .file("c", "");
    cx.sandbox.write_files(batch).await?;
    for (path, bits) in [("a", 0o600), ("b", 0o755), ("c", 0o644)] {
        let mode = cx.sandbox.stat(path).await?.mode;
        ensure_eq!(mode, Mode::new(bits), "the mode of {path}");
    }
    Ok(())
}

async fn a_program_written_with_mode_755_runs(cx: Context) -> Verdict {
    let script = "#!/bin/sh\nprintf 'ran %s' \"$1\"\n";
    let batch = FileBatch::new().file_with_mode("run.sh", script, Mode::EXECUTABLE);
    cx.sandbox.write_files(batch).await?;
    let output = cx.sh("./run.sh well").await?;
    ensure_eq!(output.stdout.to_string_lossy(), "ran well", "its output");
    Ok(())
}

async fn concurrent_batches_do_not_mix(cx: Context) -> Verdict {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let sandbox = cx.sandbox.clone();
        writers.spawn(async move {
            for round in 0..10 {
                let text = format!("{writer}-{round}");
                let batch = FileBatch::new()
                    .file("shared/a", text.clone())
                    .file("shared/b", text.clone())
                    .file(format!("own/{writer}/{round}"), text);
                sandbox.write_files(batch).await?;
            }
            Ok::<(), sandbox_core::Error>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    for writer in 0..4 {
        let entries = cx.sandbox.list(format!("own/{writer}")).await?;
        ensure_eq!(entries.len(), 10, "files of writer {writer}");
    }
    let a = cx.sandbox.read_to_string("shared/a").await?;
    ensure!(a.len() == 3, "the last content is of one batch: {a:?}");
    Ok(())
}

async fn two_creations_of_one_name_have_one_winner(cx: Context) -> Verdict {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let sandbox = cx.sandbox.clone();
        writers.spawn(async move {
            let batch = FileBatch::new().new_file("lock", writer.to_string());
            sandbox.write_files(batch).await
        });
    }
    let mut winners = 0;
    while let Some(done) = writers.join_next().await {
        match done? {
            Ok(()) => winners += 1,
            refusal => drop(refused_at(
                refusal,
                &cx.sandbox,
                Operation::WriteFiles,
                ErrorKind::AlreadyExists,
                "lock",
            )?),
        }
    }
    ensure_eq!(winners, 1, "how many created the file");
    Ok(())
}

async fn a_dropped_batch_is_whole_or_absent(cx: Context) -> Verdict {
    for round in 0..10_u64 {
        let dir = format!("round{round}");
        let mut batch = FileBatch::new();
        for index in 0..50 {
            batch.push(format!("{dir}/f{index}"), vec![b'x'; 10_000]);
        }
        let limit = std::time::Duration::from_micros(round * 300);
        // Dropped in the middle, or done: both are right.
        let _ = tokio::time::timeout(limit, cx.sandbox.write_files(batch)).await;
        // If putting in place had begun it is finished; the next write comes after it.
        cx.sandbox.write("fence", "x").await?;
        let mut counts = Vec::new();
        for _ in 0..400 {
            let count = match cx.sandbox.list(dir.as_str()).await {
                Ok(entries) => entries.len(),
                Err(error) if error.kind() == ErrorKind::NotFound => 0,
                Err(error) => return Err(error.into()),
            };
            counts.push(count);
            if count == 0 || count == 50 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let last = counts.last().copied().unwrap_or(0);
        ensure!(
            last == 0 || last == 50,
            "a dropped batch left {counts:?} of 50 files"
        );
    }
    Ok(())
}
