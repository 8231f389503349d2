//! The pure parts of the model's programs: formats, sets, conditions.
//!
//! Invariant: no waiting and no state here.

use super::run::Sh;
use crate::model::tree::Kind;

/// A number, with `k` and `M` as `dd` takes them.
pub(super) fn number(text: Option<impl AsRef<[u8]>>) -> Option<u64> {
    let text = text?;
    let text = std::str::from_utf8(text.as_ref()).ok()?;
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// One character of a format or set, after any backslash; how long it was.
fn escaped(text: &[u8]) -> (u8, usize) {
    match text {
        [b'\\', b'n', ..] => (b'\n', 2),
        [b'\\', b't', ..] => (b'\t', 2),
        [b'\\', b'r', ..] => (b'\r', 2),
        [b'\\', b'0'..=b'7', ..] => {
            let digits = text[1..].iter().take(3);
            let digits: Vec<u8> = digits
                .take_while(|b| (b'0'..=b'7').contains(b))
                .copied()
                .collect();
            let value = digits
                .iter()
                .fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            (value as u8, 1 + digits.len())
        }
        [b'\\', byte, ..] => (*byte, 2),
        [byte, ..] => (*byte, 1),
        [] => (0, 0),
    }
}

/// Output of `printf`.
pub(super) fn printf(args: &[Vec<u8>]) -> Vec<u8> {
    let Some((format, mut args)) = args.split_first() else {
        return Vec::new();
    };
    let mut out = Vec::new();
    loop {
        let before = args.len();
        let mut rest = format.as_slice();
        while !rest.is_empty() {
            match rest {
                [b'%', b'%', ..] => {
                    out.push(b'%');
                    rest = &rest[2..];
                }
                [b'%', b's' | b'd', ..] => {
                    if let Some((arg, others)) = args.split_first() {
                        out.extend_from_slice(arg);
                        args = others;
                    }
                    rest = &rest[2..];
                }
                _ => {
                    let (byte, length) = escaped(rest);
                    out.push(byte);
                    rest = &rest[length..];
                }
            }
        }
        if args.is_empty() || args.len() == before {
            return out;
        }
    }
}

/// The characters of a set of `tr`.
pub(super) fn set(mut text: &[u8]) -> Vec<u8> {
    let mut set = Vec::new();
    while !text.is_empty() {
        let (byte, length) = escaped(text);
        text = &text[length..];
        if let [b'-', end, ..] = text {
            set.extend(byte..=*end);
            text = &text[2..];
        } else {
            set.push(byte);
        }
    }
    set
}

impl Sh {
    /// Whether a condition of `test` holds.
    pub(super) fn test(&self, args: &[Vec<u8>]) -> bool {
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let integer = |text: &[u8]| std::str::from_utf8(text).ok()?.trim().parse::<i64>().ok();
        match args.as_slice() {
            [] => false,
            [b"!", ..] => {
                let rest: Vec<Vec<u8>> = args[1..].iter().map(|arg| arg.to_vec()).collect();
                !self.test(&rest)
            }
            [text] => !text.is_empty(),
            [b"-n", text] => !text.is_empty(),
            [b"-z", text] => text.is_empty(),
            [op, path] => {
                let path = self.path(path);
                let Ok(node) = self.core.tree().get(&path, *op != b"-L") else {
                    return false;
                };
                match (*op, &node.kind) {
                    (b"-e", _) | (b"-f", Kind::File(_)) | (b"-d", Kind::Dir(_)) => true,
                    (b"-L", Kind::Link(_)) | (b"-p", Kind::Fifo) => true,
                    (b"-s", Kind::File(content)) => !content.is_empty(),
                    (b"-r", _) => node.allows(4),
                    (b"-w", _) => node.allows(2),
                    (b"-x", _) => node.allows(1),
                    _ => false,
                }
            }
            [a, b"=", b] => a == b,
            [a, b"!=", b] => a != b,
            [a, op, b] => match (integer(a), integer(b), *op) {
                (Some(a), Some(b), b"-eq") => a == b,
                (Some(a), Some(b), b"-ne") => a != b,
                (Some(a), Some(b), b"-lt") => a < b,
                (Some(a), Some(b), b"-le") => a <= b,
                (Some(a), Some(b), b"-gt") => a > b,
                (Some(a), Some(b), b"-ge") => a >= b,
                _ => false,
            },
            _ => false,
        }
    }
}
