//! Calls that may take so long and no longer: `timeout_s` of a volume.
//!
//! A call to a server that is away cannot be ended, only its request: that is answered `ETIMEDOUT`, and
//! what the call brings later is given back. So the call must not touch the requester's memory, which is
//! lent until the answer: data goes through a buffer of its own.

use std::sync::{Arc, Mutex};

use libc::iovec;

use super::shared::Shared;
use crate::fs::{Answer, Errno, Reply, Slices};
use crate::sync::lock;

/// A reply that is given by the call, or by the clock.
pub struct Pending<T>(Arc<Mutex<Option<Reply<T>>>>);

impl<T> Clone for Pending<T> {
    fn clone(&self) -> Pending<T> {
        Pending(self.0.clone())
    }
}

impl<T: Into<Answer>> Pending<T> {
    pub fn new(reply: Reply<T>) -> Pending<T> {
        Pending(Arc::new(Mutex::new(Some(reply))))
    }

    /// The reply, if nobody has given it.
    pub fn take(&self) -> Option<Reply<T>> {
        lock(&self.0).take()
    }

    /// The time is up; answers whether that was the request's end.
    pub fn expire(&self) -> bool {
        let reply = self.take();
        let is_late = reply.is_some();
        if let Some(reply) = reply {
            reply.err(Errno::TIMEDOUT);
        }
        is_late
    }
}

impl Shared {
    /// Gives back what a request took that was answered before it had it.
    pub fn give_back(&self, answer: Answer) {
        match answer {
            Answer::Entry(entry) => self.nodes.forget(entry.node, 1),
            Answer::Created(created) => {
                self.close(created.opened.handle);
                self.nodes.forget(created.entry.node, 1);
            }
            Answer::Opened(opened) => self.close(opened.handle),
            Answer::Dir(list) => {
                let nodes = list.iter().filter_map(|item| Some(item.entry?.node));
                nodes.for_each(|node| self.nodes.forget(node, 1));
            }
            _ => {}
        }
    }

    fn close(&self, handle: crate::fs::Handle) {
        // It is one or the other.
        drop((self.files.remove(handle), self.dirs.remove(handle)));
    }
}

/// Data of a request: the requester's memory, or a copy for a call that may outlive its request.
pub enum Buf {
    Lent(Slices),
    Own(Vec<u8>),
}

impl Buf {
    /// What is to be written; `limited` as the call is.
    pub fn to_write(slices: Slices, limited: bool) -> Buf {
        if !limited {
            return Buf::Lent(slices);
        }
        let mut own = vec![0; slices.len() as usize];
        slices.copy_to(&mut own);
        Buf::Own(own)
    }

    pub fn len(&self) -> u64 {
        match self {
            Buf::Lent(slices) => slices.len(),
            Buf::Own(own) => own.len() as u64,
        }
    }

    /// What is left of it from `start` on.
    pub fn parts(&self, start: u64) -> Vec<iovec> {
        match self {
            Buf::Lent(slices) => slices.parts(start, slices.len()).collect(),
            Buf::Own(own) => {
                let rest = &own[start as usize..];
                vec![iovec {
                    iov_base: rest.as_ptr().cast_mut().cast(),
                    iov_len: rest.len(),
                }]
            }
        }
    }

    /// Whether it is these bytes.
    pub fn holds(&self, data: &[u8]) -> bool {
        match self {
            Buf::Lent(slices) => slices.holds(data),
            Buf::Own(own) => own == data,
        }
    }
}
