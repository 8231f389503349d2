//! Inputs for functions that read what a stranger wrote: kept ones, and changes of them at random.
//!
//! A function under test takes bytes and must not panic; whatever else must hold it asserts itself.
//! A fuzzer that searches by coverage can call the same function.
//!
//! Must never lose an input that failed: it is printed in full.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// The number of seconds for each function, in place of a fixed number of inputs.
const SECONDS: &str = "SANDBOX_FUZZ_SECONDS";
/// A directory that gets the kept inputs as files, a directory below it for each function: the
/// corpus that such a fuzzer starts from.
const CORPUS: &str = "SANDBOX_FUZZ_CORPUS";
/// Inputs that are tried otherwise.
const ROUNDS: u32 = 3000;
/// The longest input that is made.
const LONGEST: usize = 8192;

/// Tries a function with kept inputs and with changes of them.
///
/// Without settings the same inputs each time, in some milliseconds. With `SANDBOX_FUZZ_SECONDS`
/// set, different ones each time for so many seconds. With `SANDBOX_FUZZ_CORPUS` set, the kept
/// inputs are also written below that directory.
///
/// ```
/// sandbox_testkit::fuzz::attack("number", &[b"17", b"-1"], |bytes| {
///     if let Ok(text) = std::str::from_utf8(bytes) {
///         let _ = text.parse::<i32>();
///     }
/// });
/// ```
///
/// # Panics
/// If the function does, after printing the input.
#[allow(
    clippy::print_stderr,
    reason = "an input that is not told can't be tried again"
)]
pub fn attack(name: &str, kept: &[&[u8]], target: impl Fn(&[u8])) {
    let try_it = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            eprintln!("{name} fails with the input b\"{}\"", input.escape_ascii());
            resume_unwind(panic);
        }
    };
    if let Some(corpus) = std::env::var_os(CORPUS) {
        let dir = std::path::Path::new(&corpus).join(name);
        let written = std::fs::create_dir_all(&dir).and_then(|()| {
            let mut all = kept.iter().enumerate();
            all.try_for_each(|(n, input)| std::fs::write(dir.join(format!("kept-{n}")), input))
        });
        if let Err(error) = written {
            eprintln!("{name}: the corpus can't be written: {error}");
        }
    }
    kept.iter().for_each(|input| try_it(input));
    let seconds = std::env::var(SECONDS).ok();
    let seconds: Option<u64> = seconds.and_then(|seconds| seconds.parse().ok());
    let (seed, end) = match seconds {
        Some(seconds) => {
            let end = Instant::now() + Duration::from_secs(seconds);
            (u64::from(std::process::id()) << 32 | 1, Some(end))
        }
        None => (0x9e37_79b9_7f4a_7c15, None),
    };
    let mut random = Random(seed);
    let mut rounds = 0_u64;
    while end.map_or(rounds < ROUNDS.into(), |end| Instant::now() < end) {
        let mut input = random.one_of(kept).unwrap_or_default().to_vec();
        for _ in 0..=random.below(4) {
            change(&mut input, kept, &mut random);
        }
        input.truncate(LONGEST);
        try_it(&input);
        rounds += 1;
    }
    if end.is_some() {
        eprintln!("{name}: {rounds} inputs from the seed {seed}");
    }
}

/// Changes an input in one place.
fn change(input: &mut Vec<u8>, kept: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let rest = input.len() - at;
    match random.below(9) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..at + random.below(rest + 1))),
        2 => {
            let byte = random.byte();
            input.insert(at, byte);
        }
        3 if rest > 0 => input[at] ^= 1 << random.below(8),
        4 if rest > 0 => input[at] = random.byte(),
        // Numbers at which arithmetic goes wrong, as bytes and as text.
        5 => {
            const NUMBERS: [u64; 8] = [
                0,
                1,
                0x7f,
                0x7fff_ffff,
                0xffff_ffff,
                1 << 63,
                u64::MAX - 7,
                u64::MAX,
            ];
            let number = NUMBERS[random.below(NUMBERS.len())];
            let bytes = match random.below(3) {
                0 => number.to_ne_bytes()[..1 << random.below(4)].to_vec(),
                1 => number.to_be_bytes()[8 - (1 << random.below(4))..].to_vec(),
                _ => number.to_string().into_bytes(),
            };
            let end = (at + bytes.len()).min(input.len());
            input.splice(at..end, bytes);
        }
        6 => {
            let part = input[at..at + random.below(rest + 1)].to_vec();
            let copies = 1 + random.below(4);
            let many = part.repeat(copies);
            input.splice(at..at, many);
        }
        _ => {
            let other = random.one_of(kept).unwrap_or_default();
            let from = random.below(other.len() + 1);
            let end = from + random.below(other.len() - from + 1);
            input.splice(at..at, other[from..end].iter().copied());
        }
    }
}

/// xorshift64: what is needed here is that it comes again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below another one, which is not zero.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        const TELLING: &[u8] = b"\0\n\r/.:\"'{}[],=%&\\-0919 \xff\x80";
        match self.below(2) {
            0 => TELLING[self.below(TELLING.len())],
            _ => self.next() as u8,
        }
    }

    fn one_of<'a>(&mut self, of: &[&'a [u8]]) -> Option<&'a [u8]> {
        match of.len() {
            0 => None,
            len => Some(of[self.below(len)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::attack;

    #[test]
    fn a_function_that_fails_for_some_bytes_is_found_out() {
        let fragile = |bytes: &[u8]| {
            assert!(!bytes.windows(3).any(|three| three == b"{{{"), "fragile");
        };
        let found = std::panic::catch_unwind(|| attack("fragile", &[b"{\"a\":{}}"], fragile));
        assert!(found.is_err());
    }
}
