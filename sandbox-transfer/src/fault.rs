//! Failures of the host's filesystem, for tests; outside of this crate's tests it does nothing.
//!
//! Every call that changes the host passes through [`point`], so that a test can let the n-th fail.

#[cfg(not(test))]
pub(crate) fn point() -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(not(test), any(target_os = "linux", target_vendor = "apple")))]
pub(crate) fn exchange() -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use inject::*;

#[cfg(test)]
mod inject {
    use std::cell::Cell;
    use std::io;

    /// Which calls fail.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Failing {
        Never,
        /// The n-th alone.
        Once(u32),
        /// The n-th and all after it, as when the disk has gone.
        From(u32),
    }

    thread_local! {
        static FAILING: Cell<Failing> = const { Cell::new(Failing::Never) };
        static CALLS: Cell<u32> = const { Cell::new(0) };
        static NO_EXCHANGE: Cell<bool> = const { Cell::new(false) };
    }

    /// Lets calls of this thread fail from now on, and says whether exchanging is supported.
    pub(crate) fn set(failing: Failing, exchange: bool) {
        FAILING.set(failing);
        NO_EXCHANGE.set(!exchange);
        CALLS.set(0);
    }

    /// Whether a failure was due since [`set`].
    pub(crate) fn was_due() -> bool {
        match FAILING.get() {
            Failing::Never => false,
            Failing::Once(n) | Failing::From(n) => CALLS.get() > n,
        }
    }

    pub(crate) fn point() -> io::Result<()> {
        let call = CALLS.get();
        CALLS.set(call + 1);
        let fails = match FAILING.get() {
            Failing::Never => false,
            Failing::Once(n) => call == n,
            Failing::From(n) => call >= n,
        };
        if fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(crate) fn exchange() -> io::Result<()> {
        if NO_EXCHANGE.get() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        point()
    }
}
