//! Paths: bytes, relative to the workdir, never above the root.
//!
//! Invariant: every odd name makes the whole round through write, list, read, metadata and remove.

use sandbox_core::{Command, ErrorKind, GuestPath, Operation, RemoveOptions, SandboxExt as _};

use crate::kit::{Context, HostDir, Verdict, cases, ensure, ensure_eq, refused_at};

cases! { "paths":
    relative_paths_start_at_the_workdir,
    dot_dot_is_lexical,
    dot_dot_never_leaves_the_root,
    repeated_slashes_and_dots_change_nothing,
    an_empty_path_is_refused_everywhere,
    a_nul_byte_is_refused_everywhere,
    a_path_beyond_path_max_is_refused,
    odd_names_make_the_round,
    a_name_of_255_bytes_makes_the_round,
    a_name_of_256_bytes_is_refused,
    names_that_are_not_utf8_make_the_round [NonUtf8Names],
    names_that_are_not_utf8_are_the_same_in_exec [Exec, NonUtf8Names],
    composed_and_decomposed_names_are_two,
    upper_and_lower_case_are_two,
    an_absolute_link_stays_in_the_sandbox [Exec, Symlinks],
    a_link_up_stays_in_the_sandbox [Exec, Symlinks],
    nothing_of_the_host_is_at_its_host_path,
}

/// Writes, lists, reads, describes and removes a file of this name.
async fn round(cx: &Context, name: &[u8]) -> Verdict {
    let shown = name.escape_ascii();
    let path = GuestPath::from("odd").join(name);
    cx.sandbox.write(&path, name.to_vec()).await?;
    let listed = cx.sandbox.list("odd").await?;
    ensure!(
        listed.iter().any(|entry| entry.path.as_bytes() == name),
        "\"{shown}\" is not listed: {listed:?}"
    );
    let read = cx.sandbox.read(&path).await?;
    ensure_eq!(read, name, "the content of \"{shown}\"");
    let size = cx.sandbox.stat(&path).await?.size;
    ensure_eq!(size, name.len() as u64, "the size of \"{shown}\"");
    cx.sandbox.remove(&path, RemoveOptions::new()).await?;
    ensure!(
        !cx.sandbox.exists(&path).await?,
        "\"{shown}\" was not removed"
    );
    Ok(())
}

async fn relative_paths_start_at_the_workdir(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let text = cx.sandbox.read_to_string(cx.at("f")).await?;
    ensure_eq!(text, "x", "the file at its absolute path");
    ensure!(
        cx.sandbox.info().workdir.is_absolute(),
        "the workdir is relative"
    );
    Ok(())
}

async fn dot_dot_is_lexical(cx: Context) -> Verdict {
    cx.sandbox.write("d/../f", "x").await?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "x", "the file");
    ensure!(!cx.sandbox.exists("d").await?, "d was created");
    cx.sandbox.write("g", "y").await?;
    let text = cx.sandbox.read_to_string("no/such/../../g").await?;
    ensure_eq!(text, "y", "a file behind directories that are not there");
    Ok(())
}

async fn dot_dot_never_leaves_the_root(cx: Context) -> Verdict {
    let up = "../".repeat(40);
    let name = format!("{up}{}", cx.at("f").to_string().trim_start_matches('/'));
    cx.sandbox.write(name.as_str(), "x").await?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "x", "the file");
    let root = cx.sandbox.list(up.as_str()).await?;
    let same = cx.sandbox.list("/").await?;
    let names = |entries: &[sandbox_core::DirEntry]| {
        entries
            .iter()
            .map(|entry| entry.path.clone())
            .collect::<Vec<_>>()
    };
    ensure_eq!(names(&root), names(&same), "what is above the root");
    Ok(())
}

async fn repeated_slashes_and_dots_change_nothing(cx: Context) -> Verdict {
    cx.sandbox.write(".//d///./f", "x").await?;
    ensure_eq!(cx.sandbox.read_to_string("d/f").await?, "x", "the file");
    let absolute = format!("//{}", cx.at("d/./f"));
    let text = cx.sandbox.read_to_string(absolute.as_str()).await?;
    ensure_eq!(text, "x", "the file at {absolute}");
    Ok(())
}

/// Gives every operation that takes a path an invalid one.
async fn refused_everywhere(cx: &Context, path: &[u8]) -> Verdict {
    const KIND: ErrorKind = ErrorKind::InvalidInput;
    let path = GuestPath::new(path);
    let sandbox = &cx.sandbox;
    let host = cx.host_dir()?;
    sandbox.write("f", "x").await?;
    let read = sandbox.read(&path).await;
    refused_at(read, sandbox, Operation::ReadFile, KIND, &path)?;
    let done = sandbox.write(&path, "x").await;
    refused_at(done, sandbox, Operation::WriteFiles, KIND, &path)?;
    let listed = sandbox.list(&path).await;
    refused_at(listed, sandbox, Operation::ListDir, KIND, &path)?;
    let metadata = sandbox.stat(&path).await;
    refused_at(metadata, sandbox, Operation::Metadata, KIND, &path)?;
    let done = sandbox.remove_all(&path).await;
    refused_at(done, sandbox, Operation::Remove, KIND, &path)?;
    let done = sandbox.create_dir(&path, Default::default()).await;
    refused_at(done, sandbox, Operation::CreateDir, KIND, &path)?;
    let f = GuestPath::from("f");
    let done = sandbox.rename(&path, &f, Default::default()).await;
    refused_at(done, sandbox, Operation::Rename, KIND, &path)?;
    let done = sandbox.rename(&f, &path, Default::default()).await;
    refused_at(done, sandbox, Operation::Rename, KIND, &path)?;
    let done = sandbox.set_workdir(&path).await;
    refused_at(done, sandbox, Operation::SetWorkdir, KIND, &path)?;
    let done = sandbox
        .import_dir(host.path(), &path, Default::default())
        .await;
    refused_at(done, sandbox, Operation::ImportDir, KIND, &path)?;
    let to = host.path().join("out");
    let done = sandbox.export_dir(&path, &to, Default::default()).await;
    refused_at(done, sandbox, Operation::ExportDir, KIND, &path)?;
    ensure!(!to.exists(), "something was exported");
    if cx
        .fixture
        .capabilities()
        .has(sandbox_core::Capability::Exec)
    {
        let done = sandbox.exec(Command::new("true").cwd(&path)).await;
        refused_at(done, sandbox, Operation::Exec, KIND, &path)?;
    }
    ensure_eq!(sandbox.read_to_string("f").await?, "x", "the other file");
    Ok(())
}

async fn an_empty_path_is_refused_everywhere(cx: Context) -> Verdict {
    refused_everywhere(&cx, b"").await
}

async fn a_nul_byte_is_refused_everywhere(cx: Context) -> Verdict {
    refused_everywhere(&cx, b"f\0.txt").await
}

async fn a_path_beyond_path_max_is_refused(cx: Context) -> Verdict {
    refused_everywhere(&cx, "d/".repeat(2100).as_bytes()).await
}

async fn odd_names_make_the_round(cx: Context) -> Verdict {
    for name in [
        " ",
        "a b",
        "'",
        "\"",
        "`id`",
        "$HOME",
        "$(id)",
        "(x)",
        "[x]",
        "{x}",
        "*",
        "?",
        "-",
        "-rf",
        "--help",
        "~",
        "#",
        "%41",
        "\\",
        "a\\b",
        "a:b",
        ";",
        "&",
        "|",
        "<>",
        "!",
        "line\nbreak",
        "\t",
        "\u{7f}",
        "\r",
        "...",
        ".hidden",
        "ünïcödé",
        "🦀",
        "日本",
        "con",
        "nul",
    ] {
        round(&cx, name.as_bytes()).await?;
    }
    Ok(())
}

async fn a_name_of_255_bytes_makes_the_round(cx: Context) -> Verdict {
    round(&cx, &[b'n'; 255]).await
}

async fn a_name_of_256_bytes_is_refused(cx: Context) -> Verdict {
    let name = "n".repeat(256);
    let done = cx.sandbox.write(name.as_str(), "x").await;
    let kind = ErrorKind::InvalidInput;
    refused_at(
        done,
        &cx.sandbox,
        Operation::WriteFiles,
        kind,
        name.as_str(),
    )?;
    ensure_eq!(cx.sandbox.list(".").await?.len(), 0, "entries");
    Ok(())
}

async fn names_that_are_not_utf8_make_the_round(cx: Context) -> Verdict {
    round(&cx, b"\xff\xfe").await?;
    round(&cx, b"caf\xe9").await?;
    round(&cx, b"\xc3\x28").await
}

async fn names_that_are_not_utf8_are_the_same_in_exec(cx: Context) -> Verdict {
    cx.sandbox.write(&b"caf\xe9"[..], "x").await?;
    let command = Command::new("cat").arg(b"caf\xe9");
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.to_string_lossy(), "x", "what cat reads");
    cx.sh(b"printf y > '\xff'").await?;
    let text = cx.sandbox.read_to_string(&b"\xff"[..]).await?;
    ensure_eq!(text, "y", "what the file API reads");
    Ok(())
}

async fn composed_and_decomposed_names_are_two(cx: Context) -> Verdict {
    cx.sandbox.write("\u{e9}", "composed").await?;
    cx.sandbox.write("e\u{301}", "decomposed").await?;
    let text = cx.sandbox.read_to_string("\u{e9}").await?;
    ensure_eq!(text, "composed", "the first file");
    ensure_eq!(cx.sandbox.list(".").await?.len(), 2, "entries");
    Ok(())
}

async fn upper_and_lower_case_are_two(cx: Context) -> Verdict {
    cx.sandbox.write("name", "lower").await?;
    cx.sandbox.write("NAME", "upper").await?;
    let text = cx.sandbox.read_to_string("name").await?;
    ensure_eq!(text, "lower", "the first file");
    ensure_eq!(cx.sandbox.list(".").await?.len(), 2, "entries");
    Ok(())
}

/// A file of the host that no sandbox may read.
fn canary(cx: &Context) -> Verdict<(HostDir, GuestPath)> {
    use std::os::unix::ffi::OsStrExt as _;
    let host = cx.host_dir()?;
    let file = host.path().join("canary");
    std::fs::write(&file, "of the host")?;
    let path = GuestPath::new(file.as_os_str().as_bytes());
    Ok((host, path))
}

async fn never_reads(cx: &Context, path: &GuestPath, what: &str) -> Verdict {
    match cx.sandbox.read(path).await {
        Ok(read) => ensure!(read != "of the host", "{what} reads a file of the host"),
        Err(error) => ensure_eq!(error.kind(), ErrorKind::NotFound, "{what}"),
    }
    Ok(())
}

async fn an_absolute_link_stays_in_the_sandbox(cx: Context) -> Verdict {
    let (_host, path) = canary(&cx)?;
    let target = cx.at("inside");
    cx.sandbox.write("inside", "of the sandbox").await?;
    cx.sh(format!("ln -s {target} link; ln -s {path} out"))
        .await?;
    let text = cx.sandbox.read_to_string("link").await?;
    ensure_eq!(text, "of the sandbox", "what an absolute link leads to");
    never_reads(&cx, &"out".into(), "an absolute link").await
}

async fn a_link_up_stays_in_the_sandbox(cx: Context) -> Verdict {
    let (_host, path) = canary(&cx)?;
    let up = format!("{}{path}", "../".repeat(40));
    let inside = format!("{}{}", "../".repeat(40), cx.at("inside"));
    cx.sandbox.write("inside", "of the sandbox").await?;
    cx.sh(format!("ln -s {up} out; ln -s {inside} link"))
        .await?;
    let text = cx.sandbox.read_to_string("link").await?;
    ensure_eq!(text, "of the sandbox", "what a link up leads to");
    never_reads(&cx, &"out".into(), "a link up").await
}

async fn nothing_of_the_host_is_at_its_host_path(cx: Context) -> Verdict {
    let (host, path) = canary(&cx)?;
    never_reads(&cx, &path, "the same path").await?;
    let up = GuestPath::from(format!("{}{path}", "../".repeat(40)).as_str());
    never_reads(&cx, &up, "the path from above").await?;
    cx.sandbox.write(&path, "of the sandbox").await?;
    let kept = std::fs::read_to_string(host.path().join("canary"))?;
    ensure_eq!(
        kept,
        "of the host",
        "the host's file after a write to its path"
    );
    Ok(())
}
