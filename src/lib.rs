//! One trait for running untrusted code: on a laptop, in a container engine, in a cloud.
