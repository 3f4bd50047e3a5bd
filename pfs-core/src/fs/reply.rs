//! How an answer travels back to the worker that asked.
//!
//! A [`Reply`] is completed at once or later, from any thread. Completed on the worker's own
//! thread it is one push to a list there: no box, no lock. From another thread it goes through
//! the worker's [`Mailbox`], which wakes it. Dropped unanswered, it answers `EIO`.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::event::{eventfd, EventfdFlags};

use super::{Attr, Created, DirList, Entry, Errno, Lock, Opened, StatFs};
use crate::io::Io;
use crate::sync::lock;

/// Names a request among those of its worker; chosen by the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What a request can be answered.
#[derive(Debug)]
pub enum Answer {
    Nothing,
    Entry(Entry),
    Attr(Attr),
    Opened(Opened),
    Created(Created),
    /// Bytes read, written or copied.
    Count(u32),
    /// A file offset.
    Offset(u64),
    Bytes(Vec<u8>),
    Dir(DirList),
    StatFs(StatFs),
    Lock(Lock),
}

macro_rules! answers {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for Answer {
            fn from(value: $from) -> Answer {
                Answer::$variant(value)
            }
        })*
    };
}

answers! {
    Entry => Entry, Attr => Attr, Opened => Opened, Created => Created, u32 => Count,
    u64 => Offset, Vec<u8> => Bytes, DirList => Dir, StatFs => StatFs, Lock => Lock,
}

impl From<()> for Answer {
    fn from((): ()) -> Answer {
        Answer::Nothing
    }
}

/// An answered request.
#[derive(Debug)]
pub struct Done {
    pub ticket: Ticket,
    pub result: super::Result<Answer>,
}

/// Work that another thread hands to the worker.
type Task = Box<dyn FnOnce(&mut Io) + Send>;

#[derive(Default)]
struct Post {
    done: Vec<Done>,
    tasks: Vec<Task>,
}

/// Where answers and work from other threads wait for their worker.
pub struct Mailbox {
    id: u64,
    post: Mutex<Post>,
    /// Something is in `post`, or on its way there.
    full: AtomicBool,
    wake: OwnedFd,
}

/// The answers that a worker's own thread has given and not yet collected.
struct Own {
    mailbox: u64,
    done: Vec<Done>,
}

thread_local! {
    static OWN: RefCell<Own> = const { RefCell::new(Own { mailbox: 0, done: Vec::new() }) };
}

thread_local! {
    /// Where this thread [gathers](gather): mailboxes whose workers are to be woken.
    static GATHERED: RefCell<Option<Vec<Arc<Mailbox>>>> = const { RefCell::new(None) };
}

/// Workers that have answers and were not woken for them: they find them by themselves if they look.
#[derive(Default)]
#[must_use = "a worker may sleep until it is woken"]
pub struct Gathered(Vec<Arc<Mailbox>>);

/// Runs `job`; what it answers reaches workers at once, but they are not woken for it. So one that
/// makes a row of short calls wakes a worker once for all of them.
pub fn gather<T>(job: impl FnOnce() -> T) -> (T, Gathered) {
    /// Also where the job panics.
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            GATHERED.set(None);
        }
    }
    GATHERED.set(Some(Vec::new()));
    let ends = Ends;
    let result = job();
    let gathered = GATHERED.take().unwrap_or_default();
    drop(ends);
    (result, Gathered(gathered))
}

impl Gathered {
    /// Adds what another row left.
    pub fn add(&mut self, other: Gathered) {
        self.0.extend(other.0);
    }

    /// Whether nobody is to be woken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Wakes them.
    pub fn wake(self) {
        self.0.iter().for_each(|mailbox| mailbox.ring());
    }
}

static NEXT_MAILBOX: AtomicU64 = AtomicU64::new(1);

impl Mailbox {
    /// A mailbox for the calling thread, which becomes the one that answers without a lock.
    pub(crate) fn for_this_thread() -> std::io::Result<Arc<Mailbox>> {
        let id = NEXT_MAILBOX.fetch_add(1, Ordering::Relaxed);
        // Answers to an earlier mailbox of this thread that nobody collected have no reader left.
        OWN.with_borrow_mut(|own| {
            own.mailbox = id;
            own.done.clear();
        });
        Ok(Arc::new(Mailbox {
            id,
            post: Mutex::default(),
            full: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        }))
    }

    /// Becomes readable when something has come in.
    pub(crate) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// In its callers: an answer is large, and made where it will lie.
    #[inline]
    fn deliver(self: &Arc<Self>, done: Done) {
        match OWN.with_borrow(|own| own.mailbox == self.id) {
            true => OWN.with_borrow_mut(|own| own.done.push(done)),
            false => self.deliver_from_afar(done),
        }
    }

    fn deliver_from_afar(self: &Arc<Self>, done: Done) {
        lock(&self.post).done.push(done);
        if self.full.swap(true, Ordering::AcqRel) {
            return;
        }
        let later = GATHERED.with_borrow_mut(|gathered| match gathered {
            Some(list) => {
                list.push(self.clone());
                true
            }
            None => false,
        });
        if !later {
            self.ring();
        }
    }

    /// Hands `task` to the worker, from any thread.
    pub fn run(&self, task: impl FnOnce(&mut Io) + Send + 'static) {
        self.post(|post| post.tasks.push(Box::new(task)));
    }

    /// Wakes the worker without giving it anything.
    pub fn wake(&self) {
        self.post(|_| ());
    }

    fn post(&self, put: impl FnOnce(&mut Post)) {
        put(&mut lock(&self.post));
        if !self.full.swap(true, Ordering::AcqRel) {
            self.ring();
        }
    }

    fn ring(&self) {
        // An eventfd write fails only at 2^64 - 1 pending, where the reader is awake anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Whether another thread has left something.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Takes all answers given so far into `into`; answers the work handed in. To be called on
    /// the mailbox's own thread.
    pub(crate) fn collect(&self, into: &mut Vec<Done>) -> Vec<Task> {
        OWN.with_borrow_mut(|own| {
            match own.mailbox == self.id {
                // Answers are large: the lists change places instead.
                true if into.is_empty() => std::mem::swap(into, &mut own.done),
                true => into.append(&mut own.done),
                false => {}
            }
        });
        if !self.full.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.full.store(false, Ordering::Release);
        let mut post = lock(&self.post);
        into.append(&mut post.done);
        std::mem::take(&mut post.tasks)
    }
}

/// The right and the duty to answer one request.
#[must_use = "a request must be answered"]
pub struct Reply<T> {
    /// `None` once answered.
    to: Option<Arc<Mailbox>>,
    ticket: Ticket,
    watch: Option<Arc<dyn Watch>>,
    answer: PhantomData<fn(T)>,
}

/// Who wants to know when a request is done.
pub trait Watch: Send + Sync {
    /// A request is about to be answered.
    fn answered(&self);
}

impl<T: Into<Answer>> Reply<T> {
    /// A reply that reaches the worker behind `mailbox` as `ticket`.
    pub fn new(mailbox: &Arc<Mailbox>, ticket: Ticket) -> Reply<T> {
        Reply {
            to: Some(mailbox.clone()),
            ticket,
            watch: None,
            answer: PhantomData,
        }
    }

    /// Tells `watch` right before the answer is given.
    pub fn watched(mut self, watch: Arc<dyn Watch>) -> Reply<T> {
        self.watch = Some(watch);
        self
    }

    /// Answers with a value.
    pub fn ok(self, value: T) {
        self.send(Ok(value));
    }

    /// Answers with an error.
    pub fn err(self, errno: Errno) {
        self.send(Err(errno));
    }

    /// Answers with a result.
    #[inline]
    pub fn send(mut self, result: super::Result<T>) {
        self.deliver(result.map(Into::into));
    }
}

impl<T> Reply<T> {
    #[inline]
    fn deliver(&mut self, result: super::Result<Answer>) {
        let Some(mailbox) = self.to.take() else {
            return;
        };
        if let Some(watch) = self.watch.take() {
            watch.answered();
        }
        let ticket = self.ticket;
        mailbox.deliver(Done { ticket, result });
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.deliver(Err(Errno::IO));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(mailbox: &Mailbox) -> Vec<Done> {
        let mut done = Vec::new();
        mailbox.collect(&mut done);
        done
    }

    #[test]
    fn an_answer_on_the_own_thread_is_there_at_once() {
        let mailbox = Mailbox::for_this_thread().unwrap();
        Reply::<u32>::new(&mailbox, Ticket(4)).ok(9);
        let done = collect(&mailbox);
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].ticket, Ticket(4));
        assert!(matches!(done[0].result, Ok(Answer::Count(9))));
        assert!(collect(&mailbox).is_empty());
    }

    #[test]
    fn an_answer_from_another_thread_wakes_the_worker() {
        let mailbox = Mailbox::for_this_thread().unwrap();
        let reply = Reply::<()>::new(&mailbox, Ticket(1));
        std::thread::spawn(move || reply.err(Errno::NOSPC))
            .join()
            .unwrap();
        let mut count = [0; 8];
        rustix::io::read(mailbox.wake_fd(), &mut count).unwrap();
        assert_eq!(
            collect(&mailbox)[0].result.as_ref().unwrap_err(),
            &Errno::NOSPC
        );
    }

    #[test]
    fn what_is_gathered_is_there_at_once_and_wakes_once() {
        let mailbox = Mailbox::for_this_thread().unwrap();
        let replies = [1, 2, 3].map(|ticket| Reply::<()>::new(&mailbox, Ticket(ticket)));
        let gathered = std::thread::spawn(|| gather(|| replies.map(|reply| reply.ok(()))).1);
        let gathered = gathered.join().unwrap();
        let mut count = [0; 8];
        let asleep = rustix::io::read(mailbox.wake_fd(), &mut count);
        assert_eq!(asleep, Err(Errno::AGAIN));
        assert!(mailbox.is_full());
        assert_eq!(gathered.0.len(), 1);
        gathered.wake();
        rustix::io::read(mailbox.wake_fd(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        assert_eq!(collect(&mailbox).len(), 3);
    }

    #[test]
    fn a_dropped_reply_answers_eio() {
        let mailbox = Mailbox::for_this_thread().unwrap();
        drop(Reply::<Attr>::new(&mailbox, Ticket(2)));
        assert_eq!(
            collect(&mailbox)[0].result.as_ref().unwrap_err(),
            &Errno::IO
        );
    }
}
