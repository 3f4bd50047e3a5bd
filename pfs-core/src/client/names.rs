//! Finding, listing, making and removing by path.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{components, Client, Doing, Error, Node};
use crate::fs::{Attr, DirList, Errno, Handle, Make, Name, NodeId, XattrName};

/// Room for the entries of one `readdir`, in bytes.
const DIR_ROOM_BYTES: usize = 64 << 10;
/// What an entry costs of it besides its name, in bytes.
const DIR_HEADER_BYTES: usize = 24;

/// One entry of a directory, `.` and `..` left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirItem {
    pub name: CString,
    pub ino: u64,
    /// File type as in `d_type` of `getdents64(2)`.
    pub kind: u8,
}

impl DirItem {
    /// The name as a part of a path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.name.to_bytes()))
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == libc::DT_DIR
    }
}

/// Hears of every step of a long call.
pub type Progress<'a> = &'a mut dyn FnMut(&Path);

/// Makes an [`Error::Fs`] of an errno.
pub(super) fn failed(doing: Doing, path: &Path) -> impl FnOnce(Errno) -> Error + '_ {
    move |errno| Error::Fs {
        doing,
        path: path.into(),
        errno,
    }
}

/// The name in a component that [`components`] has checked.
pub(super) fn checked(name: &CStr) -> &Name {
    Name::new(name).expect("components are checked names")
}

impl Client {
    /// Finds the node at `path`.
    pub fn lookup_path(&mut self, path: &Path) -> Result<Node, Error> {
        let found = components(path.as_os_str().as_bytes())
            .and_then(|parts| self.walk(&parts))
            .map_err(failed(Doing::Find, path));
        found
    }

    fn walk(&mut self, parts: &[CString]) -> Result<Node, Errno> {
        let mut node = self.root()?;
        for part in parts {
            node = self.lookup(node.id, checked(part))?;
        }
        Ok(node)
    }

    /// The directory that `path` lies in, and its name there; `None` for the root.
    pub(super) fn parent(&mut self, path: &Path) -> Result<Option<(Node, CString)>, Errno> {
        let mut parts = components(path.as_os_str().as_bytes())?;
        match parts.pop() {
            Some(name) => Ok(Some((self.walk(&parts)?, name))),
            None => Ok(None),
        }
    }

    /// Attributes of the node at `path`.
    pub fn stat(&mut self, path: &Path) -> Result<Attr, Error> {
        Ok(self.lookup_path(path)?.attr)
    }

    /// The entries of the directory at `path`, in the engine's order.
    pub fn read_dir(&mut self, path: &Path) -> Result<Vec<DirItem>, Error> {
        let node = self.lookup_path(path)?;
        self.read_dir_node(node.id)
            .map_err(failed(Doing::List, path))
    }

    /// The entries of directory `node`, in the engine's order.
    pub fn read_dir_node(&mut self, node: NodeId) -> Result<Vec<DirItem>, Errno> {
        let handle = self.call(|fs, req, reply| fs.opendir(req, node, reply))?;
        let items = self.read_dir_handle(handle.handle);
        let released = self.call(|fs, req, reply| fs.releasedir(req, handle.handle, reply));
        let items = items?;
        released.map(|()| items)
    }

    fn read_dir_handle(&mut self, handle: Handle) -> Result<Vec<DirItem>, Errno> {
        let mut items = Vec::new();
        let (mut list, mut offset) = (DirList::default(), 0);
        loop {
            list.clear(DIR_ROOM_BYTES, DIR_HEADER_BYTES);
            list =
                self.call(|fs, req, reply| fs.readdir(req, handle, offset, false, list, reply))?;
            if list.is_empty() {
                return Ok(items);
            }
            for entry in list.iter() {
                offset = entry.cookie;
                if !matches!(entry.name, b"." | b"..") {
                    items.push(DirItem {
                        name: CString::new(entry.name).map_err(|_| Errno::IO)?,
                        ino: entry.ino,
                        kind: entry.kind,
                    });
                }
            }
        }
    }

    /// The target of the symbolic link at `path`.
    pub fn read_link(&mut self, path: &Path) -> Result<Vec<u8>, Error> {
        let node = self.lookup_path(path)?;
        self.call(|fs, req, reply| fs.readlink(req, node.id, reply))
            .map_err(failed(Doing::Read, path))
    }

    /// The value of attribute `name` of the node at `path`.
    pub fn get_xattr(&mut self, path: &Path, name: &XattrName) -> Result<Vec<u8>, Error> {
        let node = self.lookup_path(path)?;
        self.call(|fs, req, reply| fs.getxattr(req, node.id, name, reply))
            .map_err(failed(Doing::GetXattr, path))
    }

    /// Sets attribute `name` of the node at `path`.
    pub fn set_xattr(&mut self, path: &Path, name: &XattrName, value: &[u8]) -> Result<(), Error> {
        let node = self.lookup_path(path)?;
        self.call(|fs, req, reply| fs.setxattr(req, node.id, name, value, 0.into(), reply))
            .map_err(failed(Doing::SetXattr, path))
    }

    /// Removes attribute `name` of the node at `path`.
    pub fn remove_xattr(&mut self, path: &Path, name: &XattrName) -> Result<(), Error> {
        let node = self.lookup_path(path)?;
        self.call(|fs, req, reply| fs.removexattr(req, node.id, name, reply))
            .map_err(failed(Doing::SetXattr, path))
    }

    /// Makes the directory at `path` and those above it that are not there.
    pub fn mkdir_all(&mut self, path: &Path) -> Result<Node, Error> {
        let made = components(path.as_os_str().as_bytes()).and_then(|parts| {
            let mut node = self.root()?;
            for part in &parts {
                node = self.enter_or_make(&node, checked(part))?;
            }
            Ok(node)
        });
        made.map_err(failed(Doing::MakeDir, path))
    }

    fn enter_or_make(&mut self, parent: &Node, name: &Name) -> Result<Node, Errno> {
        let make = Make {
            mode: 0o755,
            umask: 0,
        };
        match self.call(|fs, req, reply| fs.mkdir(req, parent.id, name, &make, reply)) {
            Ok(entry) => Ok(self.node(entry)),
            Err(Errno::EXIST) => match self.lookup(parent.id, name)? {
                node if node.is_dir() => Ok(node),
                _ => Err(Errno::NOTDIR),
            },
            Err(errno) => Err(errno),
        }
    }

    /// Removes the file (or anything but a directory) at `path`.
    pub fn remove(&mut self, path: &Path) -> Result<(), Error> {
        let doing = Doing::Remove;
        let (parent, name) = self
            .parent(path)
            .map_err(failed(doing, path))?
            .ok_or(Error::Root)?;
        let name = checked(&name);
        match self.call(|fs, req, reply| fs.unlink(req, parent.id, name, reply)) {
            Err(Errno::ISDIR) => Err(Error::IsADirectory { path: path.into() }),
            done => done.map_err(failed(doing, path)),
        }
    }

    /// Removes the node at `path` with all below it; `progress` hears of each.
    pub fn remove_tree(&mut self, path: &Path, progress: Progress<'_>) -> Result<(), Error> {
        let doing = Doing::Remove;
        let (parent, name) = self
            .parent(path)
            .map_err(failed(doing, path))?
            .ok_or(Error::Root)?;
        let top = self
            .lookup(parent.id, checked(&name))
            .map_err(failed(doing, path))?;
        if top.is_dir() {
            self.empty_tree(top, path, progress)?;
            self.call(|fs, req, reply| fs.rmdir(req, parent.id, checked(&name), reply))
                .map_err(failed(doing, path))?;
        } else {
            drop(top);
            self.call(|fs, req, reply| fs.unlink(req, parent.id, checked(&name), reply))
                .map_err(failed(doing, path))?;
        }
        progress(path);
        Ok(())
    }

    /// Removes everything below `top`. A stack of its own: trees may be deeper than a thread's.
    fn empty_tree(&mut self, top: Node, path: &Path, progress: Progress<'_>) -> Result<(), Error> {
        struct Level {
            node: Node,
            path: PathBuf,
            items: Vec<DirItem>,
        }
        let items = self
            .read_dir_node(top.id)
            .map_err(failed(Doing::List, path))?;
        let mut levels = vec![Level {
            node: top,
            path: path.into(),
            items,
        }];
        while let Some(level) = levels.last_mut() {
            let Some(item) = level.items.last() else {
                // Empty now: its own name is the last item of the level above.
                let path = std::mem::take(&mut level.path);
                levels.pop();
                if let Some(above) = levels.last_mut() {
                    if let Some(item) = above.items.pop() {
                        let (parent, name) = (above.node.id, checked(&item.name));
                        self.call(|fs, req, reply| fs.rmdir(req, parent, name, reply))
                            .map_err(failed(Doing::Remove, &path))?;
                        progress(&path);
                    }
                }
                continue;
            };
            let (parent, name) = (level.node.id, checked(&item.name));
            let path = level.path.join(item.as_path());
            if item.is_dir() {
                let node = self
                    .lookup(parent, name)
                    .map_err(failed(Doing::Find, &path))?;
                let items = self
                    .read_dir_node(node.id)
                    .map_err(failed(Doing::List, &path))?;
                levels.push(Level { node, path, items });
            } else {
                self.call(|fs, req, reply| fs.unlink(req, parent, name, reply))
                    .map_err(failed(Doing::Remove, &path))?;
                progress(&path);
                level.items.pop();
            }
        }
        Ok(())
    }
}
