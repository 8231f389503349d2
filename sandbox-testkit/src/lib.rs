//! The conformance kit for implementations of `Sandbox`.
