//! The bounded pool of threads for calls that can only block.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Threads for blocking calls, shared by all workers. Idle threads end by themselves.
pub struct Pool {
    /// Only its blocking pool is used: no future runs in it.
    runtime: Option<Runtime>,
}

impl Pool {
    /// A pool of at most `threads_max` threads.
    pub fn new(threads_max: usize) -> std::io::Result<Arc<Pool>> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(threads_max)
            .thread_keep_alive(Duration::from_secs(5))
            .thread_name("pfs-blocking")
            .build()?;
        Ok(Arc::new(Pool {
            runtime: Some(runtime),
        }))
    }

    /// Runs `job` as soon as a thread is free.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn_blocking(job);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A job may hang in a dead storage server: do not wait for it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
