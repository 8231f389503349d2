//! A call sees the effects of every call that returned before it started.
//!
//! Each step is checked at once, without a wait that would hide a late effect.

use sandbox_core::{GuestPath, RenameOptions, SandboxExt as _};

use crate::kit::{Context, Verdict, cases, ensure, ensure_eq};

cases! { "order":
    a_call_sees_what_returned_before_it,
    another_task_sees_what_returned_before_it,
}

async fn a_call_sees_what_returned_before_it(cx: Context) -> Verdict {
    let (a, b) = (GuestPath::from("a"), GuestPath::from("b"));
    for round in 0..5 {
        let content = round.to_string();
        cx.sandbox.write("a", content.clone()).await?;
        ensure!(cx.sandbox.exists("a").await?, "the file that was written");
        let read = cx.sandbox.read_to_string("a").await?;
        ensure_eq!(read, content, "the content that was written");
        let options = RenameOptions::new();
        cx.sandbox.rename(&a, &b, options).await?;
        ensure!(!cx.sandbox.exists("a").await?, "the name that was left");
        let read = cx.sandbox.read_to_string("b").await?;
        ensure_eq!(read, content, "the content under the new name");
        cx.sandbox.remove_all("b").await?;
        ensure!(!cx.sandbox.exists("b").await?, "the file that was removed");
    }
    Ok(())
}

async fn another_task_sees_what_returned_before_it(cx: Context) -> Verdict {
    for round in 0..5 {
        let content = round.to_string();
        cx.sandbox.write("f", content.clone()).await?;
        let sandbox = cx.sandbox.clone();
        let read = tokio::spawn(async move { sandbox.read_to_string("f").await }).await??;
        ensure_eq!(read, content, "the content as another task reads it");
    }
    Ok(())
}
