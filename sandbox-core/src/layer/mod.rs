//! Middleware for any sandbox.
