//! Writing, reading, removing, renaming.
//!
//! Invariant: what is checked is the content that comes back, never only that a call succeeded.

use std::time::Duration;

use bytes::Bytes;
use sandbox_core::{
    Capability, CreateDirOptions, ErrorKind, FileBatch, FileKind, GuestPath, Mode, Operation,
    ReadOptions, RemoveOptions, RenameOptions, SandboxExt as _,
};

use crate::kit::{Cx, Verdict, cases, ensure, ensure_eq, refused, refused_at};

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
    a_batch_read_while_written_is_whole,
    remove_takes_a_file_away,
    removing_a_missing_path_is_not_found,
    removing_a_full_directory_needs_to_be_asked_for,
    removing_a_link_leaves_its_target [Exec, Symlinks],
    removing_takes_names_literally,
    removing_the_root_is_refused,
    rename_moves_a_file,
    rename_moves_a_directory_with_its_content,
    rename_does_not_replace_unasked,
    rename_replaces_when_asked,
    rename_of_a_missing_path_is_not_found,
    rename_of_a_directory_into_itself_is_refused,
    create_dir_makes_parents_and_may_find_it_there,
    create_dir_exclusive_is_exclusive,
    create_dir_over_a_file_is_refused,
    create_dir_below_a_file_is_refused,
    create_dir_sets_the_mode [Modes],
    metadata_tells_size_kind_and_time,
    metadata_of_a_link_is_the_links_own [Exec, Symlinks],
    a_file_the_user_may_not_write_is_refused [Exec, FilePermissions],
    a_file_the_user_may_not_read_is_refused [Exec, FilePermissions],
    exec_and_the_file_api_see_the_same [Exec],
}

/// Writes and reads back.
async fn round_trip(cx: &Cx, name: &str, content: impl Into<Bytes>) -> Verdict {
    let content = content.into();
    cx.sandbox.write(name, content.clone()).await?;
    let read = cx.sandbox.read(name).await?;
    ensure_eq!(read.len(), content.len(), "the length of {name}");
    ensure!(read == content, "the content of {name} changed");
    Ok(())
}

async fn text_comes_back_with_its_newlines(cx: Cx) -> Verdict {
    round_trip(&cx, "a.txt", "one\ntwo\r\n\n three ").await?;
    round_trip(&cx, "emoji.txt", "grüße 🦀 日本語\n").await
}

async fn binary_comes_back_byte_for_byte(cx: Cx) -> Verdict {
    round_trip(&cx, "b", &b"\x00\xff\xfe\xc3\x28\x00\n"[..]).await
}

async fn all_byte_values_come_back(cx: Cx) -> Verdict {
    let bytes: Vec<u8> = (0..=255).cycle().take(256 * 257).collect();
    round_trip(&cx, "bytes", bytes).await
}

async fn an_empty_file_is_a_file(cx: Cx) -> Verdict {
    round_trip(&cx, "empty", "").await?;
    let metadata = cx.sandbox.metadata(&"empty".into()).await?;
    ensure!(metadata.is_file(), "an empty file is {:?}", metadata.kind);
    ensure_eq!(metadata.size, 0, "its size");
    Ok(())
}

async fn fifty_mebibytes_come_back(cx: Cx) -> Verdict {
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

async fn many_small_writes_all_arrive(cx: Cx) -> Verdict {
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

async fn missing_parents_are_created(cx: Cx) -> Verdict {
    round_trip(&cx, "a/b/c/d", "deep").await?;
    let metadata = cx.sandbox.metadata(&"a/b".into()).await?;
    ensure!(metadata.is_dir(), "a parent is {:?}", metadata.kind);
    Ok(())
}

async fn replacing_takes_the_new_content_only(cx: Cx) -> Verdict {
    round_trip(&cx, "f", "a long first content").await?;
    round_trip(&cx, "f", "short").await
}

async fn replacing_keeps_the_mode(cx: Cx) -> Verdict {
    let sandbox = &cx.sandbox;
    let batch = FileBatch::new().file_with_mode("f", "1", Mode::new(0o750));
    sandbox.write_files(batch).await?;
    sandbox.write("f", "2").await?;
    let mode = sandbox.metadata(&"f".into()).await?.mode;
    ensure_eq!(mode, Mode::new(0o750), "the mode of a replaced file");
    Ok(())
}

async fn a_mode_is_kept(cx: Cx) -> Verdict {
    for bits in [0o600, 0o640, 0o666, 0o711, 0o777] {
        let batch = FileBatch::new().file_with_mode("f", "x", Mode::new(bits));
        cx.sandbox.write_files(batch).await?;
        let mode = cx.sandbox.metadata(&"f".into()).await?.mode;
        ensure_eq!(mode, Mode::new(bits), "the mode, whatever the umask");
    }
    Ok(())
}

async fn the_default_modes_are_644_and_755(cx: Cx) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let file = cx.sandbox.metadata(&"d/f".into()).await?.mode;
    ensure_eq!(file, Mode::FILE, "the mode of a file");
    let parent = cx.sandbox.metadata(&"d".into()).await?.mode;
    ensure_eq!(parent, Mode::EXECUTABLE, "the mode of a parent");
    Ok(())
}

async fn setuid_is_refused(cx: Cx) -> Verdict {
    let batch = FileBatch::new().file_with_mode("f", "x", Mode::new(0o4755));
    let kind = ErrorKind::InvalidInput;
    let done = cx.sandbox.write_files(batch).await;
    refused_at(done, &cx.sandbox, Operation::WriteFiles, kind, "f")?;
    ensure!(!cx.sandbox.exists("f").await?, "the file is there");
    Ok(())
}

async fn reading_a_missing_file_names_it(cx: Cx) -> Verdict {
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

async fn reading_a_directory_is_refused(cx: Cx) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let kind = ErrorKind::IsADirectory;
    for path in ["d", ".", "/"] {
        let read = cx.sandbox.read(path).await;
        refused_at(read, &cx.sandbox, Operation::ReadFile, kind, path)?;
    }
    Ok(())
}

async fn reading_below_a_file_is_refused(cx: Cx) -> Verdict {
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

async fn reading_beyond_the_limit_states_it(cx: Cx) -> Verdict {
    cx.sandbox.write("f", vec![b'x'; 1001]).await?;
    let options = ReadOptions::default().with_limit(1000);
    let read = cx.sandbox.read_file(&"f".into(), options).await;
    let kind = ErrorKind::LimitExceeded;
    let error = refused_at(read, &cx.sandbox, Operation::ReadFile, kind, "f")?;
    ensure!(
        error.to_string().contains("1000"),
        "the error does not state the limit: {error}"
    );
    Ok(())
}

async fn reading_at_the_limit_works(cx: Cx) -> Verdict {
    cx.sandbox.write("f", vec![b'x'; 1000]).await?;
    let options = ReadOptions::default().with_limit(1000);
    let read = cx.sandbox.read_file(&"f".into(), options).await?;
    ensure_eq!(read.len(), 1000, "the length");
    Ok(())
}

async fn reading_a_fifo_is_refused_at_once(cx: Cx) -> Verdict {
    cx.sh("mkfifo pipe").await?;
    let listed = cx.sandbox.metadata(&"pipe".into()).await?;
    ensure_eq!(listed.kind, FileKind::Fifo, "what mkfifo made");
    let read = tokio::time::timeout(Duration::from_secs(2), cx.sandbox.read("pipe")).await;
    let Ok(read) = read else {
        return Err(crate::kit::Failed::new("reading a FIFO hangs"));
    };
    let kind = ErrorKind::NotARegularFile;
    refused_at(read, &cx.sandbox, Operation::ReadFile, kind, "pipe").map(drop)
}

async fn reading_a_link_gives_its_target(cx: Cx) -> Verdict {
    cx.sandbox.write("d/target", "content").await?;
    cx.sh("ln -s d/target link && ln -s d dirlink").await?;
    for path in ["link", "dirlink/target"] {
        let text = cx.sandbox.read_to_string(path).await?;
        ensure_eq!(text, "content", "the content through {path}");
    }
    Ok(())
}

async fn a_batch_read_while_written_is_whole(cx: Cx) -> Verdict {
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

async fn remove_takes_a_file_away(cx: Cx) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("f", "x").await?;
    sandbox.write("g", "x").await?;
    sandbox
        .remove(&"f".into(), RemoveOptions::default())
        .await?;
    ensure!(!sandbox.exists("f").await?, "f is still there");
    ensure!(sandbox.exists("g").await?, "g is gone too");
    sandbox.write("d/sub/f", "x").await?;
    sandbox.remove_all("d").await?;
    ensure!(!sandbox.exists("d").await?, "d is still there");
    sandbox
        .create_dir(&"e".into(), CreateDirOptions::default())
        .await?;
    sandbox
        .remove(&"e".into(), RemoveOptions::default())
        .await?;
    ensure!(!sandbox.exists("e").await?, "e is still there");
    Ok(())
}

async fn removing_a_missing_path_is_not_found(cx: Cx) -> Verdict {
    for options in [
        RemoveOptions::default(),
        RemoveOptions::default().recursive(),
    ] {
        let done = cx.sandbox.remove(&"nope".into(), options).await;
        let kind = ErrorKind::NotFound;
        refused_at(done, &cx.sandbox, Operation::Remove, kind, "nope")?;
    }
    Ok(())
}

async fn removing_a_full_directory_needs_to_be_asked_for(cx: Cx) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let done = cx
        .sandbox
        .remove(&"d".into(), RemoveOptions::default())
        .await;
    let kind = ErrorKind::DirectoryNotEmpty;
    refused_at(done, &cx.sandbox, Operation::Remove, kind, "d")?;
    ensure_eq!(
        cx.sandbox.read_to_string("d/f").await?,
        "x",
        "the file in it"
    );
    Ok(())
}

async fn removing_a_link_leaves_its_target(cx: Cx) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    cx.sh("ln -s d link").await?;
    cx.sandbox.remove_all("link").await?;
    ensure!(!cx.sandbox.exists("link").await?, "the link is still there");
    let kept = cx.sandbox.read_to_string("d/f").await?;
    ensure_eq!(kept, "x", "what the link pointed to");
    Ok(())
}

async fn removing_takes_names_literally(cx: Cx) -> Verdict {
    let names = ["*", "a", "-rf", "?", "[ab]", "$HOME", "`id`", "a b"];
    for name in names {
        cx.sandbox.write(GuestPath::from(name), name).await?;
    }
    cx.sandbox
        .remove(&"*".into(), RemoveOptions::default())
        .await?;
    cx.sandbox.remove_all("[ab]").await?;
    let left: Vec<String> = cx
        .sandbox
        .list(".")
        .await?
        .iter()
        .map(|entry| entry.path.to_string())
        .collect();
    for name in ["a", "-rf", "?", "$HOME", "`id`", "a b"] {
        ensure!(
            left.iter().any(|left| left == name),
            "{name} is gone: {left:?}"
        );
    }
    ensure!(!left.iter().any(|left| left == "*"), "* is still there");
    Ok(())
}

async fn removing_the_root_is_refused(cx: Cx) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    for path in ["/", "/..", "/./"] {
        let options = RemoveOptions::default().recursive();
        let done = cx.sandbox.remove(&path.into(), options).await;
        let kind = ErrorKind::InvalidInput;
        refused(done, &cx.sandbox, Operation::Remove, kind)?;
    }
    ensure!(cx.sandbox.exists("f").await?, "something was removed");
    Ok(())
}

async fn rename_moves_a_file(cx: Cx) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("a", "content").await?;
    sandbox
        .rename(&"a".into(), &"b".into(), RenameOptions::default())
        .await?;
    ensure!(!sandbox.exists("a").await?, "the old name is still there");
    ensure_eq!(sandbox.read_to_string("b").await?, "content", "the content");
    Ok(())
}

async fn rename_moves_a_directory_with_its_content(cx: Cx) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("d/sub/f", "content").await?;
    let to = cx.at("e");
    sandbox
        .rename(&"d".into(), &to, RenameOptions::default())
        .await?;
    ensure!(!sandbox.exists("d").await?, "the old name is still there");
    let text = sandbox.read_to_string("e/sub/f").await?;
    ensure_eq!(text, "content", "the content");
    Ok(())
}

async fn rename_does_not_replace_unasked(cx: Cx) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("a", "a").await?;
    sandbox.write("b", "b").await?;
    let options = RenameOptions::default();
    let done = sandbox.rename(&"a".into(), &"b".into(), options).await;
    let kind = ErrorKind::AlreadyExists;
    refused_at(done, sandbox, Operation::Rename, kind, "b")?;
    ensure_eq!(sandbox.read_to_string("a").await?, "a", "a");
    ensure_eq!(sandbox.read_to_string("b").await?, "b", "b");
    Ok(())
}

async fn rename_replaces_when_asked(cx: Cx) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("a", "a").await?;
    sandbox.write("b", "b").await?;
    let options = RenameOptions::default().replace();
    sandbox.rename(&"a".into(), &"b".into(), options).await?;
    ensure!(!sandbox.exists("a").await?, "the old name is still there");
    ensure_eq!(sandbox.read_to_string("b").await?, "a", "b");
    Ok(())
}

async fn rename_of_a_missing_path_is_not_found(cx: Cx) -> Verdict {
    let options = RenameOptions::default();
    let done = cx
        .sandbox
        .rename(&"nope".into(), &"b".into(), options)
        .await;
    let kind = ErrorKind::NotFound;
    refused_at(done, &cx.sandbox, Operation::Rename, kind, "nope")?;
    ensure!(!cx.sandbox.exists("b").await?, "the new name is there");
    Ok(())
}

async fn rename_of_a_directory_into_itself_is_refused(cx: Cx) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let options = RenameOptions::default();
    let done = cx.sandbox.rename(&"d".into(), &"d/e".into(), options).await;
    refused(
        done,
        &cx.sandbox,
        Operation::Rename,
        ErrorKind::InvalidInput,
    )?;
    ensure_eq!(
        cx.sandbox.read_to_string("d/f").await?,
        "x",
        "the file in it"
    );
    Ok(())
}

async fn create_dir_makes_parents_and_may_find_it_there(cx: Cx) -> Verdict {
    let sandbox = &cx.sandbox;
    for _ in 0..2 {
        sandbox
            .create_dir(&"a/b/c".into(), CreateDirOptions::default())
            .await?;
        let metadata = sandbox.metadata(&"a/b/c".into()).await?;
        ensure!(metadata.is_dir(), "it is {:?}", metadata.kind);
        sandbox.write("a/b/c/f", "kept").await?;
    }
    Ok(())
}

async fn create_dir_exclusive_is_exclusive(cx: Cx) -> Verdict {
    let sandbox = &cx.sandbox;
    let exclusive = || CreateDirOptions::default().exclusive();
    let done = sandbox.create_dir(&"a/b".into(), exclusive()).await;
    let kind = ErrorKind::NotFound;
    refused_at(done, sandbox, Operation::CreateDir, kind, "a/b")?;
    ensure!(!sandbox.exists("a").await?, "the parent was created");
    sandbox.create_dir(&"a".into(), exclusive()).await?;
    let done = sandbox.create_dir(&"a".into(), exclusive()).await;
    let kind = ErrorKind::AlreadyExists;
    refused_at(done, sandbox, Operation::CreateDir, kind, "a").map(drop)
}

async fn create_dir_over_a_file_is_refused(cx: Cx) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let options = CreateDirOptions::default();
    let done = cx.sandbox.create_dir(&"f".into(), options).await;
    let kind = ErrorKind::AlreadyExists;
    refused_at(done, &cx.sandbox, Operation::CreateDir, kind, "f")?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "x", "the file");
    Ok(())
}

async fn create_dir_below_a_file_is_refused(cx: Cx) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let options = CreateDirOptions::default();
    let done = cx.sandbox.create_dir(&"f/d".into(), options).await;
    let kind = ErrorKind::NotADirectory;
    refused_at(done, &cx.sandbox, Operation::CreateDir, kind, "f/d").map(drop)
}

async fn create_dir_sets_the_mode(cx: Cx) -> Verdict {
    for bits in [0o700, 0o777] {
        let path = GuestPath::from(format!("d{bits}"));
        let options = CreateDirOptions::default().with_mode(Mode::new(bits));
        cx.sandbox.create_dir(&path, options).await?;
        let mode = cx.sandbox.metadata(&path).await?.mode;
        ensure_eq!(mode, Mode::new(bits), "the mode, whatever the umask");
    }
    Ok(())
}

async fn metadata_tells_size_kind_and_time(cx: Cx) -> Verdict {
    cx.sandbox.write("d/f", "12345").await?;
    let file = cx.sandbox.metadata(&"d/f".into()).await?;
    ensure_eq!(file.kind, FileKind::File, "the kind of a file");
    ensure_eq!(file.size, 5, "the size of a file");
    ensure!(file.link_target.is_none(), "a file has a link's target");
    if let Some(modified) = file.modified {
        // The clocks of host and service may differ; they do not differ by a day.
        let day = Duration::from_secs(24 * 3600);
        let off = modified.elapsed().unwrap_or_else(|ahead| ahead.duration());
        ensure!(off < day, "the file was changed {off:?} ago");
    }
    let dir = cx.sandbox.metadata(&"d".into()).await?;
    ensure_eq!(dir.kind, FileKind::Directory, "the kind of a directory");
    let missing = cx.sandbox.metadata(&"nope".into()).await;
    let kind = ErrorKind::NotFound;
    refused_at(missing, &cx.sandbox, Operation::Metadata, kind, "nope")?;
    let below = cx.sandbox.metadata(&"d/f/g".into()).await;
    let kind = ErrorKind::NotADirectory;
    refused_at(below, &cx.sandbox, Operation::Metadata, kind, "d/f/g").map(drop)
}

async fn metadata_of_a_link_is_the_links_own(cx: Cx) -> Verdict {
    cx.sandbox.write("target", "12345678").await?;
    cx.sh("ln -s ./target link && ln -s nowhere dangling")
        .await?;
    for (name, target) in [("link", "./target"), ("dangling", "nowhere")] {
        let link = cx.sandbox.metadata(&name.into()).await?;
        ensure_eq!(link.kind, FileKind::Symlink, "the kind of {name}");
        ensure_eq!(
            link.link_target,
            Some(GuestPath::from(target)),
            "its target"
        );
        ensure_eq!(link.size, target.len() as u64, "its size");
    }
    Ok(())
}

/// Whether the guest's user is root, who may do everything.
async fn is_root(cx: &Cx) -> Verdict<bool> {
    Ok(cx.sh("id -u").await?.stdout.to_string_lossy().trim() == "0")
}

async fn a_file_the_user_may_not_write_is_refused(cx: Cx) -> Verdict {
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

async fn a_file_the_user_may_not_read_is_refused(cx: Cx) -> Verdict {
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

async fn exec_and_the_file_api_see_the_same(cx: Cx) -> Verdict {
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
