//! One hook around every call: what a layer implements instead of twenty methods.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use super::{Answer, Call};
use crate::{Command, Process, Result, Sandbox};

/// A boxed future that can be sent.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes the call once, each time that it is called.
pub type Attempt<'a, T> = &'a (dyn Fn() -> BoxFuture<'a, Result<T>> + Send + Sync);

/// A layer that does something around every call, to a sandbox or to a provider.
///
/// Given `&self` and the call, it may refuse it, wait, make it, make it again, and look at the
/// result. The sandboxes that a call gives out (`create`, `attach`, `fork`) come out with the layer
/// around them. An expiry does not pass through it; a layer sees it as the error of the next one.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use sandbox_core::{Result, layer::{Answer, Around, Attempt, Call}};
///
/// /// Counts calls.
/// #[derive(Clone, Debug, Default)]
/// struct Count(Arc<AtomicU64>);
///
/// impl Around for Count {
///     async fn around<T: Answer>(&self, _: Call<'_>, attempt: Attempt<'_, T>) -> Result<T> {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         attempt().await
///     }
/// }
/// ```
pub trait Around: Clone + Debug + Send + Sync + 'static {
    /// Makes the call. [`close`](Sandbox::close) and [`destroy`](crate::Provider::destroy) come through
    /// here as well: a layer should never keep them from the backend.
    ///
    /// The future is dropped when the caller drops the call; what it holds is then freed.
    fn around<T: Answer>(
        &self,
        call: Call<'_>,
        attempt: Attempt<'_, T>,
    ) -> impl Future<Output = Result<T>> + Send;

    /// Changes a command before it is run. The default leaves it alone.
    fn command(&self, sandbox: &dyn Sandbox, command: Command) -> Command {
        let _ = sandbox;
        command
    }

    /// Wraps a process after it was started by this call. The default leaves it alone.
    fn process(&self, call: Call<'_>, process: Process) -> Process {
        let _ = call;
        process
    }
}
