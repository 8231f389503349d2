//! Listing directories.
//!
//! Invariant: order, kinds and names are checked exactly.

use sandbox_core::{
    CreateDirOptions, ErrorKind, FileBatch, FileKind, GuestPath, ListOptions, Operation,
    SandboxExt as _,
};

use crate::kit::{Context, Verdict, cases, ensure, ensure_eq, refused, refused_at};

cases! { "listing":
    an_empty_directory_lists_nothing,
    entries_are_sorted_by_bytes,
    recursive_lists_what_is_below,
    plain_does_not_descend,
    five_thousand_entries_are_listed,
    a_limit_is_an_error_not_a_cut,
    a_listing_at_the_limit_works,
    kinds_are_told_apart [Exec, Symlinks],
    links_are_listed_not_followed [Exec, Symlinks],
    a_link_to_a_directory_is_listed_through [Exec, Symlinks],
    a_link_loop_ends [Exec, Symlinks],
    a_trailing_slash_changes_nothing,
    a_missing_directory_is_not_found,
    a_file_is_not_a_directory,
    hidden_files_are_listed,
    sizes_and_modes_are_those_of_metadata [Modes],
    the_root_is_listed,
}

async fn names(cx: &Context, path: &str, options: ListOptions) -> Verdict<Vec<String>> {
    let entries = cx.sandbox.list_dir(&path.into(), options).await?;
    Ok(entries.iter().map(|entry| entry.path.to_string()).collect())
}

async fn an_empty_directory_lists_nothing(cx: Context) -> Verdict {
    let options = CreateDirOptions::new();
    cx.sandbox.create_dir(&"d".into(), options).await?;
    let found = names(&cx, "d", ListOptions::new()).await?;
    ensure_eq!(found.len(), 0, "entries");
    Ok(())
}

async fn entries_are_sorted_by_bytes(cx: Context) -> Verdict {
    let mut batch = FileBatch::new();
    for name in ["b", "a", "B", "a-b", "ab", "ä", "10", "9", "_"] {
        batch.push(format!("d/{name}"), "");
    }
    cx.sandbox.write_files(batch).await?;
    let found = names(&cx, "d", ListOptions::new()).await?;
    let expected = ["10", "9", "B", "_", "a", "a-b", "ab", "b", "ä"];
    ensure_eq!(found, expected, "the order");
    Ok(())
}

async fn recursive_lists_what_is_below(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("d/a/x", "1")
        .file("d/a-b", "2")
        .file("d/a/sub/y", "3");
    cx.sandbox.write_files(batch).await?;
    let found = names(&cx, "d", ListOptions::new().recursive(true)).await?;
    let expected = ["a", "a-b", "a/sub", "a/sub/y", "a/x"];
    ensure_eq!(
        found,
        expected,
        "paths relative to what was listed, by bytes"
    );
    Ok(())
}

async fn plain_does_not_descend(cx: Context) -> Verdict {
    cx.sandbox.write("d/a/x", "1").await?;
    let found = names(&cx, "d", ListOptions::new()).await?;
    ensure_eq!(found, ["a"], "entries");
    Ok(())
}

async fn five_thousand_entries_are_listed(cx: Context) -> Verdict {
    let mut batch = FileBatch::new();
    for index in 0..5000 {
        batch.push(format!("d/file-with-a-longer-name-{index:05}"), "");
    }
    cx.sandbox.write_files(batch).await?;
    let found = names(&cx, "d", ListOptions::new()).await?;
    ensure_eq!(found.len(), 5000, "entries");
    ensure!(found.is_sorted(), "they are not sorted");
    let last = found.last().map(String::as_str);
    ensure_eq!(last, Some("file-with-a-longer-name-04999"), "the last");
    Ok(())
}

async fn ten(cx: &Context) -> Verdict {
    let mut batch = FileBatch::new();
    for index in 0..10 {
        batch.push(format!("d/{index}"), "");
    }
    Ok(cx.sandbox.write_files(batch).await?)
}

async fn a_limit_is_an_error_not_a_cut(cx: Context) -> Verdict {
    ten(&cx).await?;
    for options in [ListOptions::new(), ListOptions::new().recursive(true)] {
        let listed = cx.sandbox.list_dir(&"d".into(), options.limit(9)).await;
        let kind = ErrorKind::LimitExceeded;
        let error = refused_at(listed, &cx.sandbox, Operation::ListDir, kind, "d")?;
        ensure!(
            error.to_string().contains('9'),
            "the error does not state the limit: {error}"
        );
    }
    Ok(())
}

async fn a_listing_at_the_limit_works(cx: Context) -> Verdict {
    ten(&cx).await?;
    let found = names(&cx, "d", ListOptions::new().limit(10)).await?;
    ensure_eq!(found.len(), 10, "entries");
    Ok(())
}

async fn kinds_are_told_apart(cx: Context) -> Verdict {
    cx.sh("mkdir d && cd d && mkdir dir && mkfifo fifo && ln -s file link && printf x > file")
        .await?;
    let entries = cx.sandbox.list("d").await?;
    let found: Vec<(String, FileKind)> = entries
        .iter()
        .map(|entry| (entry.path.to_string(), entry.metadata.kind))
        .collect();
    let expected = [
        ("dir", FileKind::Directory),
        ("fifo", FileKind::Fifo),
        ("file", FileKind::File),
        ("link", FileKind::Symlink),
    ]
    .map(|(name, kind)| (name.to_owned(), kind));
    ensure_eq!(found, expected, "the kinds");
    Ok(())
}

async fn links_are_listed_not_followed(cx: Context) -> Verdict {
    cx.sandbox.write("elsewhere/secret", "x").await?;
    cx.sh("mkdir d && ln -s ../elsewhere d/link && ln -s nowhere d/dangling")
        .await?;
    let entries = cx
        .sandbox
        .list_dir(&"d".into(), ListOptions::new().recursive(true))
        .await?;
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.path.to_string(), entry.metadata.link_target.clone()))
        .collect();
    let expected = [
        ("dangling".to_owned(), Some(GuestPath::from("nowhere"))),
        ("link".to_owned(), Some(GuestPath::from("../elsewhere"))),
    ];
    ensure_eq!(found, expected, "the links and nothing behind them");
    Ok(())
}

async fn a_link_to_a_directory_is_listed_through(cx: Context) -> Verdict {
    cx.sandbox.write("real/f", "x").await?;
    cx.sh("ln -s real link").await?;
    let found = names(&cx, "link", ListOptions::new()).await?;
    ensure_eq!(found, ["f"], "entries of what the link points to");
    Ok(())
}

async fn a_link_loop_ends(cx: Context) -> Verdict {
    cx.sh("mkdir d && ln -s . d/self && ln -s b a && ln -s a b")
        .await?;
    let found = names(&cx, "d", ListOptions::new().recursive(true)).await?;
    ensure_eq!(
        found,
        ["self"],
        "entries of a directory with a link to itself"
    );
    for (operation, led) in [
        (Operation::ListDir, cx.sandbox.list("a").await.map(drop)),
        (Operation::ReadFile, cx.sandbox.read("a").await.map(drop)),
        (Operation::WriteFiles, cx.sandbox.write("a/f", "x").await),
    ] {
        refused(led, &cx.sandbox, operation, ErrorKind::InvalidInput)?;
    }
    let link = cx.sandbox.stat("a").await?;
    ensure_eq!(link.kind, FileKind::Symlink, "the link itself");
    Ok(())
}

async fn a_trailing_slash_changes_nothing(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    for path in ["d/", "./d//", "d/."] {
        let found = names(&cx, path, ListOptions::new()).await?;
        ensure_eq!(found, ["f"], "entries of {path}");
    }
    Ok(())
}

async fn a_missing_directory_is_not_found(cx: Context) -> Verdict {
    let listed = cx.sandbox.list("nope").await;
    let kind = ErrorKind::NotFound;
    refused_at(listed, &cx.sandbox, Operation::ListDir, kind, "nope").map(drop)
}

async fn a_file_is_not_a_directory(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let kind = ErrorKind::NotADirectory;
    for path in ["f", "f/g"] {
        let listed = cx.sandbox.list(path).await;
        refused_at(listed, &cx.sandbox, Operation::ListDir, kind, path)?;
    }
    Ok(())
}

async fn hidden_files_are_listed(cx: Context) -> Verdict {
    let batch = FileBatch::new()
        .file("d/.git/config", "")
        .file("d/.env", "");
    cx.sandbox.write_files(batch).await?;
    let found = names(&cx, "d", ListOptions::new().recursive(true)).await?;
    ensure_eq!(found, [".env", ".git", ".git/config"], "entries");
    Ok(())
}

async fn sizes_and_modes_are_those_of_metadata(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "12345").await?;
    cx.sandbox.write("d/g/h", "").await?;
    for entry in cx.sandbox.list("d").await? {
        let path = GuestPath::from("d").join(&entry.path);
        let metadata = cx.sandbox.stat(&path).await?;
        ensure_eq!(entry.metadata.kind, metadata.kind, "the kind of {path}");
        ensure_eq!(entry.metadata.mode, metadata.mode, "the mode of {path}");
        if metadata.is_file() {
            ensure_eq!(entry.metadata.size, metadata.size, "the size of {path}");
        }
    }
    Ok(())
}

async fn the_root_is_listed(cx: Context) -> Verdict {
    let found = names(&cx, "/", ListOptions::new()).await?;
    let workdir = cx.sandbox.info().workdir;
    if let Some(first) = workdir.components().next() {
        let first = String::from_utf8_lossy(first);
        ensure!(
            found.iter().any(|name| *name == first),
            "the root does not list {first}: {found:?}"
        );
    }
    Ok(())
}
