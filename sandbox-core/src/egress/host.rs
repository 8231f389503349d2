//! Names of hosts, and the patterns that a rule is for.
//!
//! Invariant: a text that programs could take for an address is refused as a name.

use std::fmt;

/// The names that a rule is for. Names are compared without regard to case and to one dot at the
/// end; a name outside of ASCII is written in its `xn--` form.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum HostPattern {
    /// Exactly this name.
    Exact(String),
    /// Every name below this one, at any depth, and not the name itself.
    Subdomains(String),
    /// The name and every name below it.
    ApexAndSubdomains(String),
}

impl HostPattern {
    /// The name as it was written, without what the pattern adds.
    pub fn name(&self) -> &str {
        match self {
            Self::Exact(name) | Self::Subdomains(name) | Self::ApexAndSubdomains(name) => name,
        }
    }

    /// Whether it is for this name.
    ///
    /// ```
    /// use sandbox_core::HostPattern;
    /// let below = HostPattern::Subdomains("example.com".into());
    /// assert!(below.matches("api.Example.com."));
    /// assert!(!below.matches("example.com"));
    /// assert!(!below.matches("evilexample.com"));
    /// ```
    pub fn matches(&self, name: &str) -> bool {
        let (name, own) = (without_dot(name), without_dot(self.name()));
        let is_below = || {
            let Some(cut) = name.len().checked_sub(own.len()).filter(|cut| *cut > 1) else {
                return false;
            };
            let ends = name.get(cut..).is_some_and(|end| same(end, own));
            ends && name.as_bytes().get(cut - 1) == Some(&b'.')
        };
        match self {
            Self::Exact(_) => same(name, own),
            Self::Subdomains(_) => is_below(),
            Self::ApexAndSubdomains(_) => same(name, own) || is_below(),
        }
    }

    /// Exact names before domains, longer domains before shorter ones.
    pub(super) fn rank(&self) -> (bool, usize) {
        (
            matches!(self, Self::Exact(_)),
            without_dot(self.name()).len(),
        )
    }

    /// Whether both are of the same kind and for the same name, so that neither is more specific.
    pub(super) fn is_level_with(&self, other: &Self) -> bool {
        let exact = |pattern: &Self| matches!(pattern, Self::Exact(_));
        exact(self) == exact(other) && same(without_dot(self.name()), without_dot(other.name()))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Subdomains(name) => write!(f, "subdomains of {name}"),
            Self::ApexAndSubdomains(name) => write!(f, "{name} and its subdomains"),
        }
    }
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

pub(super) fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// The longest name, without the dot at its end (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Why a text can't be the name of a host, with what to write instead.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let told = |why: &str| Err(format!("{name:?} can't be the name of a host: {why}"));
    let bare = without_dot(name);
    if bare.is_empty() {
        return told("it is empty");
    }
    if bare.len() > LONGEST_NAME {
        return told("it has more than 253 characters");
    }
    if bare.contains('*') {
        return told(
            "patterns have no `*`; `subdomains` is for the names below one, `apex-and-subdomains` \
             for those and the name itself",
        );
    }
    if bare.contains("://") || bare.contains('/') || bare.contains('@') || bare.contains(':') {
        return told("write the bare name, without scheme, user, port or path; a rule has `ports`");
    }
    if !bare.is_ascii() {
        return told("write it in its ASCII form, which begins with xn--");
    }
    for label in bare.split('.') {
        let fits = (1..=LONGEST_LABEL).contains(&label.len());
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !fits || !label.bytes().all(valid) || label.starts_with('-') || label.ends_with('-') {
            return told(
                "between dots there are one to 63 letters, digits, hyphens and underscores",
            );
        }
    }
    if is_number(bare) {
        return told("rules are for names; an address is never reached by itself");
    }
    Ok(())
}

/// Whether programs take a name for an IPv4 address: its last label is a number (the "ends in a
/// number" check of the URL standard).
fn is_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// A host name in the one form that names are compared in: lower case, without the dot at its end.
/// `None` for what can't be one: an address, a name outside of ASCII, one that is too long.
///
/// ```
/// use sandbox_core::canonical_host;
/// assert_eq!(canonical_host("API.Example.com.").as_deref(), Some("api.example.com"));
/// assert_eq!(canonical_host("0x7f.1"), None);
/// assert_eq!(canonical_host("allowed.test@evil"), None);
/// ```
pub fn canonical_host(name: &str) -> Option<String> {
    check_name(name).ok()?;
    Some(without_dot(name).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_and_what_is_below_it_at_a_dot_match() {
        let apex = HostPattern::ApexAndSubdomains("allowed.test".into());
        let below = HostPattern::Subdomains("allowed.test".into());
        let exact = HostPattern::Exact("Allowed.Test.".into());
        for (name, by) in [
            ("allowed.test", [true, false, true]),
            ("ALLOWED.test.", [true, false, true]),
            ("a.allowed.test", [true, true, false]),
            ("a.b.allowed.test.", [true, true, false]),
            (".allowed.test", [false, false, false]),
            ("evilallowed.test", [false, false, false]),
            ("allowed.test.evil", [false, false, false]),
            ("allowed.test..", [false, false, false]),
            ("test", [false, false, false]),
            ("", [false, false, false]),
        ] {
            let found = [&apex, &below, &exact].map(|pattern| pattern.matches(name));
            assert_eq!(found, by, "{name}");
        }
    }

    #[test]
    fn what_is_no_host_name_has_no_canonical_form() {
        for name in [
            "",
            ".",
            "a..b",
            "-a.test",
            "a-.test",
            "1.2.3.4",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "a.0x1",
            "::1",
            "[::1]",
            "allowed.test:80",
            "allowed.test%00.evil",
            "allowed.test@evil",
            "allowed.test\0.evil",
            "b\u{fc}cher.test",
            "\u{430}llowed.test",
            "*.test",
            &"a".repeat(64),
            &"a.".repeat(127),
            &format!("{}a", "a.".repeat(127)),
        ] {
            assert_eq!(
                canonical_host(name).filter(|name| name.len() > 253 || name.contains("..")),
                None,
                "{name}"
            );
            if !name.starts_with("a.a.") {
                assert_eq!(canonical_host(name), None, "{name}");
            }
        }
        assert_eq!(canonical_host("X_1.Test.").as_deref(), Some("x_1.test"));
        assert_eq!(
            canonical_host("xn--bcher-kva.test").as_deref(),
            Some("xn--bcher-kva.test")
        );
    }
}
