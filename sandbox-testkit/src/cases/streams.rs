//! Output and input of commands.
//!
//! Invariant: truncation is checked by exact counts, never by "less than all".

use std::time::Duration;

use bytes::Bytes;
use sandbox_core::{Command, DEFAULT_OUTPUT_LIMIT, ExitStatus, SandboxExt as _};

use super::tools::text;
use crate::kit::{Context, Verdict, cases, ensure, ensure_eq};

cases! { "streams":
    stdout_and_stderr_are_apart [Exec],
    output_has_exactly_what_was_written [Exec],
    no_output_is_empty_output [Exec],
    broken_utf8_is_kept_as_bytes [Exec],
    multibyte_text_survives_chunks [Exec],
    ten_mebibytes_come_back [Exec],
    both_streams_flooding_do_not_block [Exec],
    output_at_the_limit_is_not_truncated [Exec],
    output_beyond_the_limit_is_truncated_and_counted [Exec],
    the_limits_of_the_streams_are_their_own [Exec],
    a_limit_of_zero_keeps_nothing_and_counts [Exec],
    the_default_limit_holds [Exec],
    a_flood_beyond_the_limit_ends [Exec],
    stdin_is_empty_by_default [Exec],
    stdin_text_arrives [Exec],
    stdin_binary_arrives [Exec],
    an_empty_stdin_is_end_of_file [Exec],
    fifty_mebibytes_of_stdin_arrive [Exec],
    a_program_may_leave_its_stdin_unread [Exec],
    a_program_may_leave_early [Exec],
    stdin_and_stdout_flow_at_the_same_time [Exec],
    a_program_may_close_its_stdout [Exec],
    the_standard_streams_can_be_opened_by_name [Exec],
}

/// Bytes of so many values over and over; as iterators they take seconds in a debug build.
pub(super) fn pattern(values: usize, length: usize) -> Vec<u8> {
    let once: Vec<u8> = (0..=u8::MAX).take(values).collect();
    let mut all = once.repeat(length.div_ceil(values));
    all.truncate(length);
    all
}

async fn stdout_and_stderr_are_apart(cx: Context) -> Verdict {
    let script = "printf o1; printf e1 >&2; printf o2; printf e2 >&2";
    let output = cx.sandbox.sh(script).await?;
    ensure_eq!(output.stdout.bytes, "o1o2", "stdout");
    ensure_eq!(output.stderr.bytes, "e1e2", "stderr");
    Ok(())
}

async fn output_has_exactly_what_was_written(cx: Context) -> Verdict {
    for (format, written) in [
        ("a", "a"),
        ("a\\n", "a\n"),
        ("\\n\\n", "\n\n"),
        ("  a  ", "  a  "),
        ("a\\r\\n", "a\r\n"),
        ("a\\000b", "a\0b"),
    ] {
        let output = cx.sandbox.exec(Command::new("printf").arg(format)).await?;
        ensure_eq!(output.stdout.bytes, written, "stdout of {format}");
        ensure_eq!(output.stdout.total, written.len() as u64, "its total");
    }
    Ok(())
}

async fn no_output_is_empty_output(cx: Context) -> Verdict {
    let output = cx.sandbox.exec(Command::new("true")).await?;
    for stream in [&output.stdout, &output.stderr] {
        ensure_eq!(stream.bytes.len(), 0, "bytes");
        ensure_eq!(stream.total, 0, "the total");
        ensure!(!stream.is_truncated(), "nothing is truncated");
    }
    Ok(())
}

async fn broken_utf8_is_kept_as_bytes(cx: Context) -> Verdict {
    let script = "printf '\\377\\376\\303\\050\\000\\200'; printf '\\355\\240\\200' >&2";
    let output = cx.sandbox.sh(script).await?;
    ensure_eq!(
        output.stdout.bytes,
        &b"\xff\xfe\xc3\x28\x00\x80"[..],
        "stdout"
    );
    ensure_eq!(output.stderr.bytes, &b"\xed\xa0\x80"[..], "stderr");
    Ok(())
}

async fn multibyte_text_survives_chunks(cx: Context) -> Verdict {
    // Each of the three bytes of a character in a write of its own.
    let script = "for i in 1 2 3; do printf '\\342'; sleep 0.05; printf '\\202'; sleep 0.05; \
                  printf '\\254'; done";
    let output = cx.sandbox.sh(script).await?;
    ensure_eq!(text(&output), "€€€", "stdout");
    let long = "日本語".repeat(40_000);
    cx.sandbox.write("long", long.clone()).await?;
    let output = cx.sandbox.exec(Command::new("cat").arg("long")).await?;
    ensure!(
        output.stdout.bytes == long,
        "a long text changed on its way"
    );
    Ok(())
}

async fn ten_mebibytes_come_back(cx: Context) -> Verdict {
    let content = pattern(251, 10 << 20);
    cx.sandbox.write("big", content.clone()).await?;
    let output = cx.sandbox.exec(Command::new("cat").arg("big")).await?;
    ensure_eq!(output.stdout.total, 10 << 20, "the total");
    ensure!(
        output.stdout.bytes == content,
        "the content changed on its way"
    );
    Ok(())
}

async fn both_streams_flooding_do_not_block(cx: Context) -> Verdict {
    let script = "yes out | head -c 3000000 & yes err | head -c 3000000 >&2; wait";
    let command = Command::shell(script).timeout(Duration::from_secs(120));
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.total, 3_000_000, "stdout");
    ensure_eq!(output.stderr.total, 3_000_000, "stderr");
    ensure!(
        output.stdout.bytes.starts_with(b"out\nout\n"),
        "stdout has other bytes"
    );
    ensure!(
        output.stderr.bytes.starts_with(b"err\nerr\n"),
        "stderr has other bytes"
    );
    Ok(())
}

async fn output_at_the_limit_is_not_truncated(cx: Context) -> Verdict {
    let command = Command::new("printf").arg("12345").output_limit(5);
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.bytes, "12345", "stdout");
    ensure_eq!(output.stdout.total, 5, "the total");
    ensure!(!output.stdout.is_truncated(), "it is marked as truncated");
    Ok(())
}

async fn output_beyond_the_limit_is_truncated_and_counted(cx: Context) -> Verdict {
    let script = "printf 123456; printf abcdefg >&2; exit 4";
    let output = cx
        .sandbox
        .exec(Command::shell(script).output_limit(5))
        .await?;
    ensure_eq!(output.stdout.bytes, "12345", "the first bytes of stdout");
    ensure_eq!(output.stdout.total, 6, "the total of stdout");
    ensure!(
        output.stdout.is_truncated(),
        "stdout is not marked as truncated"
    );
    ensure_eq!(output.stderr.bytes, "abcde", "the first bytes of stderr");
    ensure_eq!(output.stderr.total, 7, "the total of stderr");
    ensure!(
        output.stderr.is_truncated(),
        "stderr is not marked as truncated"
    );
    ensure_eq!(output.status, ExitStatus::Code(4), "the status");
    Ok(())
}

async fn the_limits_of_the_streams_are_their_own(cx: Context) -> Verdict {
    let mut command = Command::shell("printf 123456; printf abcdefg >&2");
    command.stdout_limit = 2;
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.bytes, "12", "stdout");
    ensure_eq!(output.stderr.bytes, "abcdefg", "stderr");
    ensure!(
        output.stdout.is_truncated(),
        "stdout is not marked as truncated"
    );
    ensure!(
        !output.stderr.is_truncated(),
        "stderr is marked as truncated"
    );
    Ok(())
}

async fn a_limit_of_zero_keeps_nothing_and_counts(cx: Context) -> Verdict {
    let command = Command::new("printf").arg("12345").output_limit(0);
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.bytes.len(), 0, "bytes");
    ensure_eq!(output.stdout.total, 5, "the total");
    ensure!(
        output.stdout.is_truncated(),
        "it is not marked as truncated"
    );
    Ok(())
}

async fn the_default_limit_holds(cx: Context) -> Verdict {
    let size = DEFAULT_OUTPUT_LIMIT + 1000;
    let script = format!("yes | head -c {size}");
    let output = cx.sandbox.sh(script).await?;
    let kept = output.stdout.bytes.len() as u64;
    ensure_eq!(kept, DEFAULT_OUTPUT_LIMIT, "what is kept");
    ensure_eq!(output.stdout.total, size, "the total");
    Ok(())
}

async fn a_flood_beyond_the_limit_ends(cx: Context) -> Verdict {
    let command = Command::shell("yes | head -c 30000000; printf end >&2")
        .output_limit(1000)
        .timeout(Duration::from_secs(120));
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.bytes.len(), 1000, "what is kept");
    ensure_eq!(output.stdout.total, 30_000_000, "the total");
    ensure_eq!(output.stderr.bytes, "end", "what came after the flood");
    Ok(())
}

async fn stdin_is_empty_by_default(cx: Context) -> Verdict {
    let command = Command::new("cat").timeout(Duration::from_secs(120));
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.total, 0, "what cat read");
    ensure!(output.success(), "cat ended with {}", output.status);
    Ok(())
}

/// Gives a program bytes and checks that it gives them back.
async fn through_cat(cx: &Context, bytes: impl Into<Bytes>) -> Verdict {
    let bytes = bytes.into();
    let command = Command::new("cat").stdin(bytes.clone());
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.total, bytes.len() as u64, "the length");
    ensure!(
        output.stdout.bytes == bytes,
        "the content changed on its way"
    );
    Ok(())
}

async fn stdin_text_arrives(cx: Context) -> Verdict {
    through_cat(&cx, "one\ntwo\n\nno newline at the end").await
}

async fn stdin_binary_arrives(cx: Context) -> Verdict {
    // An end of text, an end of file of a terminal, an interrupt: bytes like any other.
    through_cat(&cx, &b"\x00\x03\x04\xff\xfe\r\n\x1a\x1b"[..]).await?;
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    through_cat(&cx, bytes).await
}

async fn an_empty_stdin_is_end_of_file(cx: Context) -> Verdict {
    through_cat(&cx, "").await
}

async fn fifty_mebibytes_of_stdin_arrive(cx: Context) -> Verdict {
    let bytes = pattern(251, 50 << 20);
    let command = Command::shell("wc -c").stdin(bytes);
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(
        text(&output).trim(),
        (50 << 20).to_string(),
        "what wc counts"
    );
    Ok(())
}

async fn a_program_may_leave_its_stdin_unread(cx: Context) -> Verdict {
    let command = Command::shell("printf done").stdin(vec![b'x'; 5 << 20]);
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.bytes, "done", "stdout");
    ensure!(output.success(), "it ended with {}", output.status);
    Ok(())
}

async fn a_program_may_leave_early(cx: Context) -> Verdict {
    let command = Command::shell("head -c 3; exit 7").stdin(vec![b'x'; 5 << 20]);
    let output = cx.sandbox.exec(command).await?;
    ensure_eq!(output.stdout.bytes, "xxx", "stdout");
    ensure_eq!(output.status, ExitStatus::Code(7), "the status");
    Ok(())
}

async fn stdin_and_stdout_flow_at_the_same_time(cx: Context) -> Verdict {
    // More than any pipe holds: who writes all before reading any blocks for ever.
    let bytes = pattern(256, 8 << 20);
    through_cat(&cx, bytes).await
}

async fn a_program_may_close_its_stdout(cx: Context) -> Verdict {
    let script = "printf before; exec > /dev/null; printf after; sleep 0.1; printf err >&2; exit 5";
    let output = cx.sandbox.sh(script).await?;
    ensure_eq!(output.stdout.bytes, "before", "stdout");
    ensure_eq!(output.stderr.bytes, "err", "stderr");
    ensure_eq!(output.status, ExitStatus::Code(5), "the status");
    Ok(())
}

async fn the_standard_streams_can_be_opened_by_name(cx: Context) -> Verdict {
    let script = "printf out > /dev/stdout; printf err > /dev/stderr; cat /dev/stdin";
    let output = cx.sandbox.exec(Command::shell(script).stdin("in")).await?;
    ensure_eq!(output.stdout.bytes, "outin", "stdout");
    ensure_eq!(output.stderr.bytes, "err", "stderr");
    ensure_eq!(output.status, ExitStatus::Code(0), "the status");
    Ok(())
}
