//! Waiting for a lock: a thread that sleeps until it has it, since who keeps the locks alone knows
//! whose turn it is.

use std::sync::{mpsc, Arc, Once};

use super::{warn_once, Owner, Request, WAITS_MAX};
use crate::fs::{Cancel, Errno, Reply, Result};
use crate::sync::lock;

/// Stack of a waiting thread, in bytes: it makes a few system calls.
const STACK_BYTES: usize = 128 << 10;

impl Owner {
    /// Answers `request` when it has its lock, or `cancel` ends the wait.
    pub fn wait(self, request: Request, cancel: Arc<Cancel>, reply: Reply<()>) {
        let begun = {
            let mut table = lock(&self.locks.table);
            match table.waiting() < WAITS_MAX {
                true => table.begin_wait(&request, cancel.clone()),
                false => Err(Errno::NOLCK),
            }
        };
        let id = match begun {
            Ok(id) => id,
            Err(errno) => return reply.err(errno),
        };
        // What the thread works on is sent to it, so that it is still here where there is none.
        let (give, take) = mpsc::sync_channel::<(Owner, Arc<Cancel>, Reply<()>)>(1);
        let spawned = std::thread::Builder::new()
            .name("lock-wait".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let Ok((owner, cancel, reply)) = take.recv() else {
                    return;
                };
                let result = owner.wait_here(&request, &cancel);
                lock(&owner.locks.table).end_wait(id);
                // Let go before the answer: the requester may look at what is left of it.
                drop((owner, cancel));
                reply.send(result);
            });
        match spawned {
            // The thread is there to take it.
            Ok(_) => drop(give.send((self, cancel, reply))),
            Err(error) => {
                static SAID: Once = Once::new();
                let what =
                    format_args!("cannot wait for a lock: {error}; is the process limit reached?");
                warn_once(&SAID, what);
                lock(&self.locks.table).end_wait(id);
                reply.err(Errno::NOLCK);
            }
        }
    }

    fn wait_here(&self, request: &Request, cancel: &Cancel) -> Result<()> {
        loop {
            self.file.file.wait(request, cancel)?;
            // Another request of the same owner may have changed the same bytes since: asked once
            // more, in turn with those, so that the table tells what is so.
            match self.set_now(request) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
    }
}
