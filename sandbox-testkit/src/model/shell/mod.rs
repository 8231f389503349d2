//! A tiny shell and the programs that the kit's cases use, as tasks of the host's runtime.
//!
//! Invariant: nothing here starts a process, opens a file of the host or reads its environment.

mod builtins;
mod expand;
mod io;
mod lex;
mod parse;
pub(crate) mod pipe;
mod programs;
mod run;
mod start;
mod text;

pub(crate) use start::start;
