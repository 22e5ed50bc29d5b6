//! The one file of the operator that knows tokio.
//!
//! The operator's tasks are smol tasks, but three of its libraries (rumqttc, bollard, kube) want tokio's timers and
//! sockets around them. async-compat alone would add a thread that does nothing but drive those. Here the main thread
//! does it: [`block_on`] parks in tokio's current-thread reactor and polls our own executor from there, so the whole
//! operator is two threads (this one, and the one async-io always starts), instead of three, or four with
//! `smol::spawn`. Whatever finds itself outside [`block_on`] still works through [`guest`], at the price of
//! async-compat's thread.

use std::future::Future;
use std::io;
use std::sync::LazyLock;

use async_compat::Compat;
use smol::{Executor, Task};
use tokio::runtime::{Builder, Runtime};

/// The operator's tasks. Run by whoever is inside [`block_on`].
static EXECUTOR: Executor<'static> = Executor::new();

/// Tokio's timers and sockets. Never dropped: a task may outlive the call that started it.
static RUNTIME: LazyLock<io::Result<Runtime>> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build());

/// Runs `future` and every task given to [`spawn`] on this thread, until `future` is done.
///
/// # Errors
///
/// When the kernel refuses the reactor its descriptors.
pub fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    let runtime = RUNTIME
        .as_ref()
        .map_err(|error| io::Error::new(error.kind(), "start the tokio reactor"))?;
    Ok(runtime.block_on(EXECUTOR.run(future)))
}

/// Starts a task on the operator's executor. It makes progress while some thread is inside [`block_on`], with tokio's
/// context around it; dropping the [`Task`] ends it.
#[must_use = "a task ends when its handle is dropped"]
pub fn spawn<T, F>(future: F) -> Task<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    EXECUTOR.spawn(future)
}

/// Puts tokio's context around a future (a bollard or kube call) wherever it is polled. Inside [`block_on`] it costs a
/// look at a thread-local; elsewhere it starts async-compat's own reactor thread.
#[must_use = "futures do nothing unless polled"]
pub fn guest<F: Future>(future: F) -> Compat<F> {
    Compat::new(future)
}

/// Lets a library written for tokio read and write one of our streams.
#[must_use = "the stream is moved into the adapter"]
pub fn guest_stream<S>(stream: S) -> Compat<S> {
    Compat::new(stream)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_spawned_task_may_use_smol_and_tokio_timers() {
        let sum = block_on(async {
            let smol_timer = spawn(async {
                smol::Timer::after(Duration::from_millis(1)).await;
                1
            });
            let tokio_timer = spawn(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                2
            });
            smol_timer.await + tokio_timer.await
        });
        assert_eq!(sum.unwrap(), 3);
    }

    #[test]
    fn a_guest_future_works_outside_block_on() {
        smol::block_on(guest(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }));
    }
}
