//! The service: one session of one guest, shared by all workers.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pfs_core::fs::{Answer, Errno, FileSystem, IntentLog, NodeId, Result, Ticket};
use pfs_core::io::Io;
use pfs_core::session::{InitRecord, SessionStore};
use vm_memory::ByteValued;

use super::abi::{self, InHeader, IN_HEADER_BYTES, OUT_HEADER_BYTES};
use super::config::{Caching, ServiceConfig};
use super::decode::{body_len, decode, Raw, Request, Whole};
use super::dispatch::Call;
use super::init::{negotiate, Init, Negotiated};
use super::interrupts::{Interrupts, Source};
use super::opcodes::{self, Op, Opcode, Replay, Room};
use super::pending::Pending;
use super::reply::{self, NoRoom, Shape};
use crate::chain::{Chain, Cursor};

/// Bodies up to this size are copied to the stack: every structure with two names of the longest
/// sort. Longer ones are symlinks' targets and xattrs.
const INLINE_BODY_BYTES: usize = 640;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// Its answer comes through the mailbox of the [`Io`]; perhaps it is there already.
    Later,
    /// It is answered: so many bytes were written to [`Chain::writable`].
    Replied(u32),
    /// It has no reply; the chain is done with.
    NoReply,
}

/// What was found again of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    pub nodes: u64,
    pub handles: u64,
}

/// A session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the session speaks FUSE {major}.{minor}, which this version does not")]
    Version { major: u32, minor: u32 },
    #[error("the engine cannot find the session's nodes and handles again: {0}")]
    Engine(#[source] Errno),
}

/// Serves FUSE requests from an engine.
pub struct Service {
    fs: Arc<dyn FileSystem>,
    store: Arc<SessionStore>,
    config: ServiceConfig,
    caching: Caching,
    /// A session was negotiated and not ended.
    ready: AtomicBool,
    /// Most data of one READ or WRITE in this session.
    max_write: AtomicU32,
    /// The session's flags (`FUSE_*` of INIT).
    flags: AtomicU64,
    interrupts: Arc<Interrupts>,
    /// Held while a session begins or ends.
    session: Mutex<()>,
}

impl Service {
    /// A service that waits for an INIT.
    pub fn new(
        fs: Arc<dyn FileSystem>,
        store: Arc<SessionStore>,
        mut config: ServiceConfig,
    ) -> Service {
        config.posix_locks &= fs.keeps_locks();
        config.flock &= fs.keeps_locks();
        Service {
            fs,
            store,
            caching: Caching::new(&config),
            config,
            ready: AtomicBool::new(false),
            max_write: AtomicU32::new(0),
            flags: AtomicU64::new(0),
            interrupts: Arc::default(),
            session: Mutex::new(()),
        }
    }

    /// The second way into a session: goes on with the one that the store's records describe.
    /// `None` where none had begun; the guest's INIT is then still to come.
    pub fn restore(&self) -> std::result::Result<Option<Restored>, RestoreError> {
        let _session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = self.store.init() else {
            return Ok(None);
        };
        let (major, minor) = (record.major, record.minor);
        if major != abi::MAJOR || minor > abi::MINOR {
            return Err(RestoreError::Version { major, minor });
        }
        let (nodes, handles) = self.fs.restore().map_err(RestoreError::Engine)?;
        self.take_up(&record);
        Ok(Some(Restored { nodes, handles }))
    }

    /// A queue of `size` descriptors, by which requests will come; `hiprio` for the urgent ones.
    pub fn source(&self, hiprio: bool, size: u16, indirect: bool) -> Arc<Source> {
        self.interrupts.source(hiprio, size, indirect)
    }

    /// Decodes a request and hands it to the engine.
    ///
    /// After [`Submitted::Later`], `pending` must stay where it is, and `chain` as it is, until
    /// the ticket's answer was given to [`Service::answer`]. The engine records an intent in
    /// `intent` where the opcode table says so.
    pub fn submit(
        &self,
        io: &mut Io,
        ticket: Ticket,
        chain: &Chain,
        pending: &mut Pending,
        intent: Option<&dyn IntentLog>,
        source: &Arc<Source>,
    ) -> Submitted {
        let mut reader = chain.reader();
        let mut head = InHeader::default();
        let got = reader.read(head.as_mut_slice());
        pending.begin(head.unique, head.opcode, chain.writable_len());
        let received = match got {
            IN_HEADER_BYTES => {
                self.receive(io, ticket, &head, reader, chain, pending, intent, source)
            }
            _ => Err(Errno::INVAL),
        };
        received.unwrap_or_else(|errno| refuse(&head, pending, chain, errno))
    }

    #[allow(clippy::too_many_arguments)] // `submit`'s, with the header read.
    fn receive(
        &self,
        io: &mut Io,
        ticket: Ticket,
        head: &InHeader,
        mut reader: Cursor<'_>,
        chain: &Chain,
        pending: &mut Pending,
        intent: Option<&dyn IntentLog>,
        source: &Arc<Source>,
    ) -> Result<Submitted> {
        let op = opcodes::find(head.opcode).ok_or(Errno::NOSYS)?;
        log::trace!("{} of node {:#x}", op.code.name(), head.nodeid);
        pending.no_reply = op.room == Room::NoReply;
        self.admit(op, pending.room, source.hiprio)?;

        let len = chain.readable_len();
        if u64::from(head.len) != len {
            return Err(Errno::INVAL);
        }
        let rest = len.saturating_sub(IN_HEADER_BYTES as u64);
        let copied = body_len(op, rest)?;
        let (mut inline, mut heap) = (
            [const { MaybeUninit::uninit() }; INLINE_BODY_BYTES],
            Vec::new(),
        );
        let body = match inline.get_mut(..copied) {
            Some(body) => reader.read_uninit(body),
            None => {
                reader.read_to_vec(&mut heap, copied);
                heap.as_slice()
            }
        };
        let flags = self.flags.load(Ordering::Relaxed);
        let request = decode(&Raw {
            op,
            head,
            body,
            payload_len: rest.saturating_sub(copied as u64),
            max_write: self.max_write.load(Ordering::Relaxed),
            flags,
        })?;

        if let Request::Whole(whole) = &request {
            if let Some(submitted) = self.serve_own(whole, pending, chain)? {
                return Ok(submitted);
            }
        }
        let owns = op.code.makes_nodes();
        let caller = self.config.ids.caller(head.uid, head.gid, head.pid, owns)?;
        let call = Call {
            fs: &*self.fs,
            config: &self.config,
            caching: &self.caching,
            flags,
            io,
            ticket,
            caller,
            node: NodeId(head.nodeid),
            unique: head.unique,
            source,
            intent: intent.filter(|_| op.replay == Replay::Intent),
            chain,
            pending,
            payload: reader,
        };
        call.dispatch(&request)?;
        Ok(Submitted::Later)
    }

    /// Whether such a request is let in at all.
    fn admit(&self, op: &Op, room: u64, hiprio: bool) -> Result<()> {
        if let Some(refused) = op.refused {
            log::debug!("refused {}: {}", op.code.name(), refused.why);
            return Err(refused.errno);
        }
        if hiprio && !op.code.is_hiprio() {
            return Err(Errno::INVAL);
        }
        // As libfuse has it.
        if op.code != Opcode::Init && !self.ready.load(Ordering::Acquire) {
            return Err(Errno::IO);
        }
        // Checked now, so that what a request takes (a lookup, a handle) can always be delivered.
        let needed = match op.room {
            Room::NoReply => 0,
            Room::Exact(bytes) => OUT_HEADER_BYTES + bytes,
            Room::AsAsked => OUT_HEADER_BYTES,
        };
        if room < needed as u64 {
            return Err(Errno::INVAL);
        }
        if op.mutates && self.config.readonly {
            return Err(Errno::ROFS);
        }
        Ok(())
    }

    /// Serves what concerns the session, and what has no reply; `None` for all else.
    fn serve_own(
        &self,
        request: &Whole<'_>,
        pending: &Pending,
        chain: &Chain,
    ) -> Result<Option<Submitted>> {
        match request {
            Whole::Init(init) => self.init(init, pending, chain).map(Some),
            Whole::Destroy => {
                self.end_session();
                let len = reply::encode(
                    &pending.reply_to(chain),
                    Shape::Empty,
                    &Answer::Nothing,
                    &self.caching,
                );
                Ok(Some(Submitted::Replied(len.unwrap_or(0))))
            }
            Whole::Forget { node, count } => {
                self.fs.forget(*node, *count);
                Ok(Some(Submitted::NoReply))
            }
            Whole::BatchForget(forgets) => {
                forgets
                    .clone()
                    .for_each(|(node, count)| self.fs.forget(node, count));
                Ok(Some(Submitted::NoReply))
            }
            // What does not wait is answered as if it were not interrupted, which is allowed.
            Whole::Interrupt { unique } => {
                self.interrupts.interrupt(*unique);
                Ok(Some(Submitted::NoReply))
            }
            Whole::Statfs | Whole::Access { .. } | Whole::Syncfs => Ok(None),
        }
    }

    /// Begins a session. A second INIT without a DESTROY comes from a guest that was rebooted
    /// without its devices: what the first left behind is forgotten.
    fn init(&self, init: &Init, pending: &Pending, chain: &Chain) -> Result<Submitted> {
        let (record, out) = match negotiate(init, &self.config)? {
            Negotiated::Session(record, out) => (Some(record), out),
            Negotiated::AskAgain(out) => (None, out),
        };
        if let Some(record) = record {
            let _session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            self.ready.store(false, Ordering::Release);
            self.store.set_init(None);
            self.fs.reset();
            self.interrupts.reset();
            self.store.set_init(Some(record));
            self.take_up(&record);
            log::info!(
                "session begins: FUSE {}.{}, flags {:#x}, {} KiB requests",
                record.major,
                record.minor,
                record.flags,
                record.max_write >> 10
            );
        }
        let len = pending.reply_to(chain).value(&out);
        Ok(Submitted::Replied(len.unwrap_or(0)))
    }

    /// Serves as was negotiated.
    fn take_up(&self, record: &InitRecord) {
        self.max_write.store(record.max_write, Ordering::Relaxed);
        self.flags.store(record.flags, Ordering::Relaxed);
        self.ready.store(true, Ordering::Release);
    }

    fn end_session(&self) {
        let _session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        self.ready.store(false, Ordering::Release);
        self.store.set_init(None);
        self.fs.reset();
        log::info!("session ends");
    }

    /// Writes the reply of a request that was submitted; answers its length. The result is of no
    /// use then.
    pub fn answer(&self, pending: &mut Pending, chain: &Chain, result: &mut Result<Answer>) -> u32 {
        let to = pending.reply_to(chain);
        if let Err(errno) = self.to_guest_ids(pending, result) {
            *result = Err(errno);
        }
        match result {
            Err(errno) => match (pending.shape, *errno, self.caching.negative) {
                (Shape::Lookup, Errno::NOENT, Some(valid)) => {
                    let sent = reply::encode_negative(&to, valid);
                    sent.unwrap_or_else(|NoRoom| to.error(*errno))
                }
                _ => to.error(*errno),
            },
            Ok(Answer::Dir(list)) => {
                let plus = pending.shape == Shape::List { plus: true };
                let lost = |node| self.fs.forget(node, 1);
                let len = reply::encode_list(&to, plus, list, &self.caching, lost);
                pending.list = std::mem::take(list);
                len
            }
            Ok(answer) => {
                reply::encode(&to, pending.shape, answer, &self.caching).unwrap_or_else(|NoRoom| {
                    self.give_back(answer);
                    to.error(Errno::IO)
                })
            }
        }
    }

    /// Makes users and groups in the answer those that the guest sees.
    fn to_guest_ids(&self, pending: &Pending, result: &mut Result<Answer>) -> Result<()> {
        let ids = &self.config.ids;
        match result {
            _ if ids.is_identity() => {}
            Ok(Answer::Entry(entry)) => ids.attr(&mut entry.attr),
            Ok(Answer::Created(created)) => ids.attr(&mut created.entry.attr),
            Ok(Answer::Attr(attr)) => ids.attr(attr),
            Ok(Answer::Dir(list)) => list.complete(|_, attr| ids.attr(attr)),
            Ok(Answer::Bytes(value)) if pending.acl => ids.acl_to_guest(value)?,
            _ => {}
        }
        Ok(())
    }

    /// Gives back what an answer took that cannot be delivered. `admit` made sure of the room, so
    /// only an engine that answers what it was not asked gets here.
    fn give_back(&self, answer: &Answer) {
        log::error!("an answer could not be delivered: {answer:?}");
        match answer {
            Answer::Entry(entry) => self.fs.forget(entry.node, 1),
            Answer::Created(created) => self.fs.forget(created.entry.node, 1),
            _ => {}
        }
    }
}

/// Answers an error before the engine was asked.
fn refuse(head: &InHeader, pending: &Pending, chain: &Chain, errno: Errno) -> Submitted {
    log::debug!(
        "request {} of opcode {} on node {}: {errno}",
        head.unique,
        head.opcode,
        head.nodeid
    );
    let to = pending.reply_to(chain);
    match pending.no_reply || !to.is_possible() {
        true => Submitted::NoReply,
        false => Submitted::Replied(to.error(errno)),
    }
}
