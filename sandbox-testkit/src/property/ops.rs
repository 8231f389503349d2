//! The operations that sequences are made of.
//!
//! Invariant: few names, so that operations meet: most of what breaks does so on a name that
//! something else has.

use proptest::prelude::*;

/// A file of a batch.
#[derive(Clone, Debug)]
pub struct Write {
    /// Path of the file.
    pub path: &'static str,
    /// Content of the file.
    pub content: String,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Whether it must not exist yet.
    pub new: bool,
}

/// One operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Op {
    /// Writes a batch.
    Write(Vec<Write>),
    /// Reads a file.
    Read(&'static str),
    /// Lists a directory; whether recursively.
    List(&'static str, bool),
    /// Describes an entry.
    Metadata(&'static str),
    /// Removes an entry; whether recursively.
    Remove(&'static str, bool),
    /// Renames; whether replacing.
    Rename(&'static str, &'static str, bool),
    /// Creates a directory; whether with parents.
    CreateDir(&'static str, bool),
    /// Runs `cat`.
    Cat(&'static str),
    /// Appends to a file by a shell.
    Append(&'static str, String),
    /// Runs `rm -rf`.
    Rm(&'static str),
    /// Runs `mv`.
    Mv(&'static str, &'static str),
    /// Makes the one name that is a link point here, if there is none yet.
    Link(&'static str),
    /// Changes the workdir and back.
    Visit(&'static str),
    /// Forks the sandbox that is in use and goes on with the child.
    Fork,
    /// Goes on with another of the open sandboxes.
    Switch(usize),
    /// Closes the sandbox that is in use, unless it is the last.
    Close,
}

const PATHS: &[&str] = &[
    "a", "b", "d", "d/a", "d/e", "d/e/a", "d/e/b", "./d/../b", "no/such", "a/below",
];

/// The name that is made a link. It is never a parent nor renamed: what happens below a dangling
/// link is not in the contract.
pub(super) const LINK: &str = "link";

fn any_path() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => path(), 1 => Just(LINK)]
}

/// Names for programs: to them `..` is not lexical.
fn plain() -> impl Strategy<Value = &'static str> {
    path().prop_map(|path| if path.contains("..") { "b" } else { path })
}

fn two_plain() -> impl Strategy<Value = (&'static str, &'static str)> {
    (plain(), plain()).prop_filter("two names", |(from, to)| from != to)
}

fn path() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(PATHS)
}

fn two() -> impl Strategy<Value = (&'static str, &'static str)> {
    (path(), path()).prop_filter("two names", |(from, to)| {
        from != to && !(from.ends_with('b') && to.ends_with('b'))
    })
}

fn write() -> impl Strategy<Value = Write> {
    let mode = proptest::option::of(proptest::sample::select(&[0o600_u32, 0o644, 0o755][..]));
    (any_path(), "[a-z]{0,12}", mode, any::<bool>()).prop_map(|(path, content, mode, new)| Write {
        path,
        content,
        mode,
        new: new && may_be_new(path),
    })
}

/// New files are asked for on half of the names only, so that batches succeed often enough.
fn may_be_new(path: &str) -> bool {
    path.len() % 2 == 1
}

/// Any operation that the provider has.
pub(super) fn op(exec: bool, fork: bool) -> BoxedStrategy<Op> {
    let mut choices: Vec<(u32, BoxedStrategy<Op>)> = vec![
        (
            6,
            proptest::collection::vec(write(), 1..4)
                .prop_map(Op::Write)
                .boxed(),
        ),
        (2, any_path().prop_map(Op::Read).boxed()),
        (
            1,
            (path(), any::<bool>())
                .prop_map(|(path, recursive)| Op::List(path, recursive))
                .boxed(),
        ),
        (1, any_path().prop_map(Op::Metadata).boxed()),
        (
            2,
            (any_path(), any::<bool>())
                .prop_map(|(path, recursive)| Op::Remove(path, recursive))
                .boxed(),
        ),
        (
            3,
            (two(), any::<bool>())
                .prop_map(|((from, to), replace)| Op::Rename(from, to, replace))
                .boxed(),
        ),
        (
            2,
            (path(), any::<bool>())
                .prop_map(|(path, parents)| Op::CreateDir(path, parents))
                .boxed(),
        ),
        (1, path().prop_map(Op::Visit).boxed()),
    ];
    if exec {
        choices.extend([
            (1, plain().prop_map(Op::Cat).boxed()),
            (1, Just(Op::Cat(LINK)).boxed()),
            (
                2,
                (plain(), "[a-z]{1,8}")
                    .prop_map(|(path, text)| Op::Append(path, text))
                    .boxed(),
            ),
            (1, plain().prop_map(Op::Rm).boxed()),
            (
                1,
                two_plain().prop_map(|(from, to)| Op::Mv(from, to)).boxed(),
            ),
            (1, plain().prop_map(Op::Link).boxed()),
        ]);
    }
    if fork {
        choices.extend([
            (2, Just(Op::Fork).boxed()),
            (2, (0..4_usize).prop_map(Op::Switch).boxed()),
            (1, Just(Op::Close).boxed()),
        ]);
    }
    proptest::strategy::Union::new_weighted(choices).boxed()
}
