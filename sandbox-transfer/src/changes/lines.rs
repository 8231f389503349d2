//! Differences of texts by lines, in the form that patches have.
//!
//! It must take bounded time for any input: the texts are written by untrusted code. `imara-diff`
//! gives up on a minimal difference where that is hard, as git does.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, InternedInput};

/// Lines around a change.
const CONTEXT: usize = 3;

/// The hunks between two texts, each line with its sign.
pub(super) fn unified(before: &[u8], after: &[u8]) -> Vec<u8> {
    let input = InternedInput::new(before, after);
    let mut diff = Diff::compute(Algorithm::Histogram, &input);
    diff.postprocess_no_heuristic(&input);
    let old: Vec<&[u8]> = input
        .before
        .iter()
        .map(|line| input.interner[*line])
        .collect();
    let new: Vec<&[u8]> = input
        .after
        .iter()
        .map(|line| input.interner[*line])
        .collect();
    let mut out = Vec::new();
    let mut group: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    for hunk in diff.hunks() {
        let change = (
            hunk.before.start as usize..hunk.before.end as usize,
            hunk.after.start as usize..hunk.after.end as usize,
        );
        let is_far = group
            .last()
            .is_some_and(|(last, _)| change.0.start - last.end > 2 * CONTEXT);
        if is_far {
            write_hunk(&mut out, &group, &old, &new);
            group.clear();
        }
        group.push(change);
    }
    write_hunk(&mut out, &group, &old, &new);
    out
}

fn write_hunk(
    out: &mut Vec<u8>,
    group: &[(Range<usize>, Range<usize>)],
    old: &[&[u8]],
    new: &[&[u8]],
) {
    let (Some((first, first_new)), Some((last, last_new))) = (group.first(), group.last()) else {
        return;
    };
    let lead = first.start.min(CONTEXT);
    let trail = (old.len() - last.end).min(CONTEXT);
    let before = first.start - lead..last.end + trail;
    let after = first_new.start - lead..last_new.end + trail;
    let header = format!("@@ -{} +{} @@\n", position(&before), position(&after));
    out.extend_from_slice(header.as_bytes());
    let mut at = before.start;
    for (removed, added) in group {
        lines(out, b' ', old.get(at..removed.start));
        lines(out, b'-', old.get(removed.clone()));
        lines(out, b'+', new.get(added.clone()));
        at = removed.end;
    }
    lines(out, b' ', old.get(at..before.end));
}

/// Start and length as the header of a hunk has them.
fn position(range: &Range<usize>) -> String {
    match range.len() {
        0 => format!("{},0", range.start),
        1 => (range.start + 1).to_string(),
        length => format!("{},{length}", range.start + 1),
    }
}

fn lines(out: &mut Vec<u8>, sign: u8, lines: Option<&[&[u8]]>) {
    for line in lines.unwrap_or_default() {
        out.push(sign);
        out.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            out.extend_from_slice(b"\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unified;

    fn text(before: &str, after: &str) -> String {
        String::from_utf8(unified(before.as_bytes(), after.as_bytes())).unwrap()
    }

    #[test]
    fn hunks_are_as_diff_writes_them() {
        assert_eq!(text("a\n", "b\n"), "@@ -1 +1 @@\n-a\n+b\n");
        assert_eq!(text("", "a\nb\n"), "@@ -0,0 +1,2 @@\n+a\n+b\n");
        assert_eq!(text("a\n", ""), "@@ -1 +0,0 @@\n-a\n");
        assert_eq!(
            text("a\nb", "a\nc"),
            "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n\\ No newline at end of \
             file\n"
        );
        let many: String = (0..40).map(|n| format!("{n}\n")).collect();
        let other = many.replace("\n5\n", "\nfive\n").replace("\n30\n", "\n");
        let hunks = text(&many, &other);
        assert_eq!(hunks.matches("@@ -").count(), 2, "{hunks}");
        assert!(hunks.contains("@@ -3,7 +3,7 @@"), "{hunks}");
        assert!(hunks.contains("@@ -28,7 +28,6 @@"), "{hunks}");
    }

    /// A difference that is as hard as can be still comes soon, by giving up on the smallest one.
    #[test]
    fn texts_without_a_line_in_common_take_bounded_time() {
        let before: String = (0..20_000_u64)
            .map(|n| format!("a{}\n", n * 7919 % 20_000))
            .collect();
        let after: String = (0..20_000_u64)
            .map(|n| format!("a{}\n", n * 104_729 % 20_001))
            .collect();
        assert!(!text(&before, &after).is_empty());
    }
}
