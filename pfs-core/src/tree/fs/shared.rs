//! What requests share: the tree, the engine's data, and what the session has open.

use std::sync::Arc;

use crate::fs::*;
use crate::handles::Handles;
use crate::locks::Locks;
use crate::tree::dirs::OpenDir;
use crate::tree::version::Version;
use crate::tree::{FileData, Inode, Opening, Tree};

/// What requests that go on in the blocking pool take with them.
pub(super) struct Shared<D: FileData> {
    pub(super) tree: Tree,
    pub(super) data: D,
    pub(super) files: Handles<OpenFile<D::File>>,
    pub(super) dirs: Handles<OpenDir>,
    pub(super) locks: Arc<Locks>,
}

/// What is behind a file's handle.
pub(super) struct OpenFile<F> {
    /// Held, so that what is known of its changes is.
    pub(super) inode: Arc<Inode>,
    pub(super) flags: i32,
    /// What the file was at the open, where that is certain.
    pub(super) version: Option<Version>,
    pub(super) file: Arc<F>,
}

impl<F> OpenFile<F> {
    fn is_writable(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}

impl<D: FileData> Shared<D> {
    /// Runs `job` on the blocking pool and answers with its result.
    pub(super) fn blocking<T: Into<Answer> + Send + 'static>(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        reply: Reply<T>,
        job: impl FnOnce(&Shared<D>) -> Result<T> + Send + 'static,
    ) {
        let shared = self.clone();
        req.io.blocking(move || reply.send(job(&shared)));
    }

    /// Runs `job` here if it will not block, else on the pool.
    pub(super) fn run<T: Into<Answer> + Send + 'static>(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        at_once: bool,
        reply: Reply<T>,
        job: impl FnOnce(&Shared<D>) -> Result<T> + Send + 'static,
    ) {
        if at_once {
            reply.send(job(self));
        } else {
            self.blocking(req, reply, job);
        }
    }

    /// The open file behind `handle`.
    pub(super) fn open_file(&self, handle: Handle) -> Result<Arc<OpenFile<D::File>>> {
        self.files.get(handle, |node, flags| {
            let inode = self.tree.inode(node)?;
            let flags = flags & !libc::O_TRUNC;
            let fd = self.tree.reopen(&inode, self.data.open_flags(flags))?;
            let opening = Opening {
                fd: fd.into(),
                flags,
                named_at: None,
            };
            let file = Arc::new(self.data.open(&self.tree, &inode, opening)?);
            // What the process before this one did with it is not known.
            inode.assume_written();
            Ok(OpenFile {
                inode,
                flags,
                version: None,
                file,
            })
        })
    }

    pub(super) fn file(&self, handle: Handle) -> Result<Arc<D::File>> {
        self.open_file(handle).map(|open| open.file.clone())
    }

    /// The file behind a handle of `at.node`, if it was not opened for the contrary of what it
    /// is wanted for: the engine's own descriptors may be able to do more.
    pub(super) fn open_at(&self, at: &At, unwanted: i32) -> Result<Arc<OpenFile<D::File>>> {
        let open = self.open_file(at.handle)?;
        if open.inode.node != at.node || open.flags & libc::O_ACCMODE == unwanted {
            return Err(Errno::BADF);
        }
        Ok(open)
    }

    /// The file to read at `at`.
    pub(super) fn readable(&self, at: &At) -> Result<Arc<D::File>> {
        self.open_at(at, libc::O_WRONLY)
            .map(|open| open.file.clone())
    }

    /// The file to write at `at`, which begins; `reply` ends it.
    pub(super) fn begin_write<T: Into<Answer>>(
        &self,
        at: &At,
        reply: Reply<T>,
    ) -> Option<(Arc<D::File>, Reply<T>)> {
        match self.open_at(at, libc::O_RDONLY) {
            Ok(open) => {
                open.inode.begin_write();
                Some((open.file.clone(), reply.watched(open.inode.clone())))
            }
            Err(errno) => {
                reply.err(errno);
                None
            }
        }
    }

    /// A descriptor of the handle is closed.
    pub(super) fn closing(&self, open: &OpenFile<D::File>) {
        if let Some(version) = &open.version {
            open.inode.confirm(version);
        }
        if !open.is_writable() {
            return;
        }
        if let Err(errno) = self.tree.settle(&open.inode) {
            log::debug!("node {}: its change time stays: {errno}", open.inode.node.0);
        }
    }

    pub(super) fn dir(&self, handle: Handle) -> Result<Arc<OpenDir>> {
        self.dirs.get(handle, |node, _| self.tree.open_dir(node))
    }

    pub(super) fn attr(&self, inode: &Inode) -> Result<Attr> {
        let mut attr = self.tree.attr(inode)?;
        self.data.complete_attr(&self.tree, inode.node, &mut attr);
        Ok(attr)
    }

    pub(super) fn complete(&self, entry: Result<Entry>) -> Result<Entry> {
        let mut entry = entry?;
        self.data
            .complete_attr(&self.tree, entry.node, &mut entry.attr);
        Ok(entry)
    }
}
