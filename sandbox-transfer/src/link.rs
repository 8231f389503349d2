//! Which symbolic links may leave a sandbox.
//!
//! Invariant: the answer holds whatever other entries are, or become after the export: it must
//! never depend on what a name in a link's target is at the moment.

/// Gives the reason why a link at `path` (relative to the exported directory) could lead out of
/// that directory, or `None` if it cannot.
///
/// Only `..` at the start of a target is followed, as far as the link is deep. A `..` after a name
/// counts as leading out even where the name is a directory now: were it a link, what the `..`
/// names would depend on where that link leads. So `ln -s . d/d` followed by
/// `ln -s d/d/../../etc e` is refused although its words stay inside. With `..` only at the
/// start, each link ends in the tree if all others do.
///
/// ```
/// use sandbox_transfer::leads_out;
///
/// assert_eq!(leads_out(b"a/link", b"../b"), None);
/// assert!(leads_out(b"a/link", b"../../b").is_some());
/// assert!(leads_out(b"a/link", b"c/../b").is_some());
/// assert!(leads_out(b"a/link", b"/etc/hostname").is_some());
/// ```
pub fn leads_out(path: &[u8], target: &[u8]) -> Option<&'static str> {
    if target.is_empty() {
        return Some("a link without a target");
    }
    if target.contains(&0) {
        return Some("a link whose target is not a path");
    }
    if target.first() == Some(&b'/') {
        return Some("an absolute link");
    }
    // A host that has them reads a backslash as a separator and a colon as a drive.
    if cfg!(windows) && target.iter().any(|b| matches!(b, b'\\' | b':')) {
        return Some("a link out of the directory");
    }
    let mut above = path.iter().filter(|b| **b == b'/').count();
    let mut named = false;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if named || above == 0 => return Some("a link out of the directory"),
            b".." => above -= 1,
            _ => named = true,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::leads_out;

    #[test]
    fn only_links_that_stay_below_whatever_the_others_are_do_not_lead_out() {
        for (path, target, out) in [
            ("l", "a/b", false),
            ("l", ".", false),
            ("l", "", true),
            ("l", "a\0b", true),
            ("l", "..", true),
            ("l", "./../x", true),
            ("d/l", "..", false),
            ("d/l", "../x/y", false),
            ("d/l", "../..", true),
            ("d/e/l", "up/../..", true),
            ("d/l", "a/../b", true),
            ("d/l", ".././x", false),
            ("d/l", "..//../x", true),
            ("l", "/etc/passwd", true),
            ("l", "//etc/passwd", true),
            ("l", "a//b/./c", false),
            ("l", "..a", false),
            ("d/e", "d/d/d/../../../../etc/hostname", true),
        ] {
            assert_eq!(
                leads_out(path.as_bytes(), target.as_bytes()).is_some(),
                out,
                "{path} -> {target}"
            );
        }
    }
}
