//! Azure Container Apps as a backend of `sandbox`.
//!
//! It must never run a command twice for one call.
