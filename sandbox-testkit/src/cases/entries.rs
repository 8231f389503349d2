//! Entries as such: describing, removing, renaming, creating directories.
//!
//! Invariant: what was there before and must stay is looked at after every refusal.

use std::time::Duration;

use sandbox_core::{
    CreateDirOptions, ErrorKind, FileKind, GuestPath, MetadataOptions, Mode, Operation,
    RemoveOptions, RenameOptions, SandboxExt as _,
};

use crate::kit::{Context, Verdict, cases, ensure, ensure_eq, refused, refused_at};

cases! { "files":
    remove_takes_a_file_away,
    removing_a_missing_path_is_not_found,
    removing_a_missing_path_may_be_accepted,
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
    metadata_tells_the_owner_as_the_guest_sees_it [Exec],
    metadata_of_a_link_is_the_links_own [Exec, Symlinks],
    metadata_follows_links_when_asked [Exec, Symlinks],
}

async fn removing_a_missing_path_may_be_accepted(cx: Context) -> Verdict {
    let options = RemoveOptions::new().ignore_missing(true);
    cx.sandbox.remove(&"none".into(), options.clone()).await?;
    cx.sandbox.create_dir_all("d").await?;
    cx.sandbox.write("d/f", "x").await?;
    let full = cx.sandbox.remove(&"d".into(), options).await;
    let kind = full.map_err(|error| error.kind());
    ensure_eq!(kind, Err(ErrorKind::DirectoryNotEmpty), "a full directory");
    Ok(())
}

async fn remove_takes_a_file_away(cx: Context) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("f", "x").await?;
    sandbox.write("g", "x").await?;
    sandbox.remove(&"f".into(), RemoveOptions::new()).await?;
    ensure!(!sandbox.exists("f").await?, "f is still there");
    ensure!(sandbox.exists("g").await?, "g is gone too");
    sandbox.write("d/sub/f", "x").await?;
    sandbox.remove_all("d").await?;
    ensure!(!sandbox.exists("d").await?, "d is still there");
    sandbox.create_dir_all("e").await?;
    sandbox.remove(&"e".into(), RemoveOptions::new()).await?;
    ensure!(!sandbox.exists("e").await?, "e is still there");
    Ok(())
}

async fn removing_a_missing_path_is_not_found(cx: Context) -> Verdict {
    for options in [RemoveOptions::new(), RemoveOptions::new().recursive(true)] {
        let done = cx.sandbox.remove(&"nope".into(), options).await;
        let kind = ErrorKind::NotFound;
        refused_at(done, &cx.sandbox, Operation::Remove, kind, "nope")?;
    }
    Ok(())
}

async fn removing_a_full_directory_needs_to_be_asked_for(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let done = cx.sandbox.remove(&"d".into(), RemoveOptions::new()).await;
    let kind = ErrorKind::DirectoryNotEmpty;
    refused_at(done, &cx.sandbox, Operation::Remove, kind, "d")?;
    ensure_eq!(
        cx.sandbox.read_to_string("d/f").await?,
        "x",
        "the file in it"
    );
    Ok(())
}

async fn removing_a_link_leaves_its_target(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    cx.sh("ln -s d link").await?;
    cx.sandbox.remove_all("link").await?;
    ensure!(!cx.sandbox.exists("link").await?, "the link is still there");
    let kept = cx.sandbox.read_to_string("d/f").await?;
    ensure_eq!(kept, "x", "what the link pointed to");
    Ok(())
}

async fn removing_takes_names_literally(cx: Context) -> Verdict {
    let names = ["*", "a", "-rf", "?", "[ab]", "$HOME", "`id`", "a b"];
    for name in names {
        cx.sandbox.write(GuestPath::from(name), name).await?;
    }
    cx.sandbox.remove(&"*".into(), RemoveOptions::new()).await?;
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

async fn removing_the_root_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    for path in ["/", "/..", "/./"] {
        let options = RemoveOptions::new().recursive(true);
        let done = cx.sandbox.remove(&path.into(), options).await;
        let kind = ErrorKind::InvalidInput;
        refused(done, &cx.sandbox, Operation::Remove, kind)?;
    }
    ensure!(cx.sandbox.exists("f").await?, "something was removed");
    Ok(())
}

async fn rename_moves_a_file(cx: Context) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("a", "content").await?;
    sandbox.move_to("a", "b").await?;
    ensure!(!sandbox.exists("a").await?, "the old name is still there");
    ensure_eq!(sandbox.read_to_string("b").await?, "content", "the content");
    Ok(())
}

async fn rename_moves_a_directory_with_its_content(cx: Context) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("d/sub/f", "content").await?;
    let to = cx.at("e");
    sandbox.move_to("d", &to).await?;
    ensure!(!sandbox.exists("d").await?, "the old name is still there");
    let text = sandbox.read_to_string("e/sub/f").await?;
    ensure_eq!(text, "content", "the content");
    Ok(())
}

async fn rename_does_not_replace_unasked(cx: Context) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("a", "a").await?;
    sandbox.write("b", "b").await?;
    let options = RenameOptions::new();
    let done = sandbox.rename(&"a".into(), &"b".into(), options).await;
    let kind = ErrorKind::AlreadyExists;
    refused_at(done, sandbox, Operation::Rename, kind, "b")?;
    ensure_eq!(sandbox.read_to_string("a").await?, "a", "a");
    ensure_eq!(sandbox.read_to_string("b").await?, "b", "b");
    Ok(())
}

async fn rename_replaces_when_asked(cx: Context) -> Verdict {
    let sandbox = &cx.sandbox;
    sandbox.write("a", "a").await?;
    sandbox.write("b", "b").await?;
    let options = RenameOptions::new().replace(true);
    sandbox.rename(&"a".into(), &"b".into(), options).await?;
    ensure!(!sandbox.exists("a").await?, "the old name is still there");
    ensure_eq!(sandbox.read_to_string("b").await?, "a", "b");
    Ok(())
}

async fn rename_of_a_missing_path_is_not_found(cx: Context) -> Verdict {
    let options = RenameOptions::new();
    let done = cx
        .sandbox
        .rename(&"nope".into(), &"b".into(), options)
        .await;
    let kind = ErrorKind::NotFound;
    refused_at(done, &cx.sandbox, Operation::Rename, kind, "nope")?;
    ensure!(!cx.sandbox.exists("b").await?, "the new name is there");
    Ok(())
}

async fn rename_of_a_directory_into_itself_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "x").await?;
    let options = RenameOptions::new();
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

async fn create_dir_makes_parents_and_may_find_it_there(cx: Context) -> Verdict {
    let sandbox = &cx.sandbox;
    for _ in 0..2 {
        sandbox.create_dir_all("a/b/c").await?;
        let metadata = sandbox.stat("a/b/c").await?;
        ensure!(metadata.is_dir(), "it is {:?}", metadata.kind);
        sandbox.write("a/b/c/f", "kept").await?;
    }
    Ok(())
}

async fn create_dir_exclusive_is_exclusive(cx: Context) -> Verdict {
    let sandbox = &cx.sandbox;
    let exclusive = || CreateDirOptions::new().recursive(false);
    let done = sandbox.create_dir(&"a/b".into(), exclusive()).await;
    let kind = ErrorKind::NotFound;
    refused_at(done, sandbox, Operation::CreateDir, kind, "a/b")?;
    ensure!(!sandbox.exists("a").await?, "the parent was created");
    sandbox.create_dir(&"a".into(), exclusive()).await?;
    let done = sandbox.create_dir(&"a".into(), exclusive()).await;
    let kind = ErrorKind::AlreadyExists;
    refused_at(done, sandbox, Operation::CreateDir, kind, "a").map(drop)
}

async fn create_dir_over_a_file_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let options = CreateDirOptions::new();
    let done = cx.sandbox.create_dir(&"f".into(), options).await;
    let kind = ErrorKind::AlreadyExists;
    refused_at(done, &cx.sandbox, Operation::CreateDir, kind, "f")?;
    ensure_eq!(cx.sandbox.read_to_string("f").await?, "x", "the file");
    Ok(())
}

async fn create_dir_below_a_file_is_refused(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let options = CreateDirOptions::new();
    let done = cx.sandbox.create_dir(&"f/d".into(), options).await;
    let kind = ErrorKind::NotADirectory;
    refused_at(done, &cx.sandbox, Operation::CreateDir, kind, "f/d").map(drop)
}

async fn create_dir_sets_the_mode(cx: Context) -> Verdict {
    for bits in [0o700, 0o777] {
        let path = GuestPath::from(format!("d{bits}"));
        let options = CreateDirOptions::new().mode(Mode::new(bits));
        cx.sandbox.create_dir(&path, options).await?;
        let mode = cx.sandbox.stat(&path).await?.mode;
        ensure_eq!(mode, Mode::new(bits), "the mode, whatever the umask");
    }
    Ok(())
}

async fn metadata_tells_size_kind_and_time(cx: Context) -> Verdict {
    cx.sandbox.write("d/f", "12345").await?;
    let file = cx.sandbox.stat("d/f").await?;
    ensure_eq!(file.kind, FileKind::File, "the kind of a file");
    ensure_eq!(file.size, 5, "the size of a file");
    ensure!(file.link_target.is_none(), "a file has a link's target");
    if let Some(modified) = file.modified {
        // The clocks of host and service may differ; they do not differ by a day.
        let day = Duration::from_secs(24 * 3600);
        let off = modified.elapsed().unwrap_or_else(|ahead| ahead.duration());
        ensure!(off < day, "the file was changed {off:?} ago");
    }
    let dir = cx.sandbox.stat("d").await?;
    ensure_eq!(dir.kind, FileKind::Directory, "the kind of a directory");
    let missing = cx.sandbox.stat("nope").await;
    let kind = ErrorKind::NotFound;
    refused_at(missing, &cx.sandbox, Operation::Metadata, kind, "nope")?;
    let below = cx.sandbox.stat("d/f/g").await;
    let kind = ErrorKind::NotADirectory;
    refused_at(below, &cx.sandbox, Operation::Metadata, kind, "d/f/g").map(drop)
}

async fn metadata_tells_the_owner_as_the_guest_sees_it(cx: Context) -> Verdict {
    cx.sandbox.write("f", "x").await?;
    let file = cx.sandbox.stat("f").await?;
    for (id, told) in [("-u", file.uid), ("-g", file.gid)] {
        let output = cx.sandbox.sh(format!("id {id}")).await?;
        if let Some(told) = told {
            let own = output.stdout.to_string_lossy().trim().to_owned();
            ensure_eq!(told.to_string(), own, "the owner against id {id}");
        }
    }
    let listed = cx.sandbox.list(".").await?;
    let listed = listed
        .iter()
        .find(|entry| entry.path == GuestPath::from("f"));
    let owner = listed.map(|entry| (entry.metadata.uid, entry.metadata.gid));
    ensure_eq!(owner, Some((file.uid, file.gid)), "the owner in a listing");
    Ok(())
}

async fn metadata_follows_links_when_asked(cx: Context) -> Verdict {
    cx.sandbox.write("d/target", "12345678").await?;
    cx.sh("ln -s d/target link && ln -s link chain && ln -s d dir && ln -s nowhere dangling")
        .await?;
    let follow = || MetadataOptions::new().follow(true);
    for name in ["link", "chain", "dir/target", "d/target"] {
        let file = cx.sandbox.metadata(&name.into(), follow()).await?;
        ensure_eq!(file.kind, FileKind::File, "the kind of {name}");
        ensure_eq!(file.size, 8, "the size of {name}");
        ensure!(file.link_target.is_none(), "{name} has a link's target");
    }
    let dir = cx.sandbox.metadata(&"dir".into(), follow()).await?;
    ensure_eq!(dir.kind, FileKind::Directory, "the kind of dir");
    let lost = cx.sandbox.metadata(&"dangling".into(), follow()).await;
    let kind = ErrorKind::NotFound;
    refused_at(lost, &cx.sandbox, Operation::Metadata, kind, "dangling").map(drop)
}

async fn metadata_of_a_link_is_the_links_own(cx: Context) -> Verdict {
    cx.sandbox.write("target", "12345678").await?;
    cx.sh("ln -s ./target link && ln -s nowhere dangling")
        .await?;
    for (name, target) in [("link", "./target"), ("dangling", "nowhere")] {
        let link = cx.sandbox.stat(name).await?;
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
