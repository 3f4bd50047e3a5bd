//! Attributes, extended ones too, and the whole volume's.

use guest_tests::ring::fuse::abi::{SetattrIn, SetattrValid as Valid, ROOT_ID};
use guest_tests::ring::fuse::Errno;

use crate::posix::{Id, Inode, Time, When};
use crate::step::{Op, Pick};
use crate::world::{ensure, Checked, World};

const XATTRS: [&[u8]; 3] = [b"user.a", b"user.longer", b"user.\xff"];

impl World {
    pub fn attributes(&mut self, client: usize, op: &Op) -> Checked {
        match *op {
            Op::StatFs => return self.statfs(client),
            Op::SyncFs => {
                self.note(client, "syncfs");
                return Ok(self.guests[client].fs().syncfs(ROOT_ID)?);
            }
            _ => {}
        }
        // The mode of a link cannot be changed.
        let wanted = |inode: &Inode| match op {
            Op::Chmod { .. } => !matches!(inode.kind, crate::posix::Kind::Link(_)),
            _ => true,
        };
        let pick = match op {
            Op::Chmod { node, .. } | Op::Chown { node, .. } | Op::SetTimes { node, .. } => node,
            Op::SetXattr { node, .. } | Op::GetXattr { node, .. } => node,
            Op::RemoveXattr { node, .. } | Op::ListXattrs(node) => node,
            _ => return Ok(()),
        };
        let Some(id) = self.pick_node(client, *pick, wanted) else {
            return Ok(());
        };
        self.ask_as(client, false);
        self.touched.push(id);
        match *op {
            Op::Chmod { mode, .. } => self.chmod(client, id, u32::from(mode)),
            Op::Chown { uid, gid, .. } => self.chown(client, id, uid, gid),
            Op::SetTimes {
                access,
                modify,
                now,
                ..
            } => self.set_times(client, id, (access, modify), now),
            Op::SetXattr {
                name, len, flags, ..
            } => self.set_xattr(client, id, name, len, i32::from(flags)),
            Op::GetXattr { name, .. } => self.get_xattr(client, id, name),
            Op::RemoveXattr { name, .. } => self.remove_xattr(client, id, name),
            _ => self.list_xattrs(client, id),
        }
    }

    fn set(&mut self, client: usize, id: Id, set: &SetattrIn) -> Checked {
        let nodeid = self.guests[client].nodeid(id);
        let answer = self.guests[client].fs().setattr(nodeid, set)?;
        self.compare_attr(client, id, &answer.attr)
    }

    fn chmod(&mut self, client: usize, id: Id, mode: u32) -> Checked {
        self.note(client, format!("chmod {id} {mode:o}"));
        let inode = self.tree.get_mut(id);
        inode.mode = mode;
        inode.times.change.set();
        let set = SetattrIn {
            valid: Valid::MODE.bits(),
            mode: inode.kind.format() | mode,
            ..SetattrIn::default()
        };
        self.set(client, id, &set)
    }

    fn chown(&mut self, client: usize, id: Id, uid: Option<u8>, gid: Option<u8>) -> Checked {
        let [uid, gid] = [uid, gid].map(|id| id.map(|id| 1000 * u32::from(id)));
        if !self.is_root || uid.or(gid).is_none() {
            return Ok(());
        }
        self.note(client, format!("chown {id} {uid:?} {gid:?}"));
        self.tree.chown(id, uid, gid);
        let valid = |id: Option<u32>, valid: Valid| id.map_or(0, |_| valid.bits());
        let set = SetattrIn {
            valid: valid(uid, Valid::UID) | valid(gid, Valid::GID),
            uid: uid.unwrap_or(0),
            gid: gid.unwrap_or(0),
            ..SetattrIn::default()
        };
        self.set(client, id, &set)
    }

    fn set_times(
        &mut self,
        client: usize,
        id: Id,
        (access, modify): (Option<u32>, Option<u32>),
        now: bool,
    ) -> Checked {
        if access.or(modify).is_none() {
            return Ok(());
        }
        self.note(
            client,
            format!("utimens {id} {access:?} {modify:?} now={now}"),
        );
        // Moments of 2001 and after, to the nanosecond; instead of the first, now.
        let time = |text: u32| Time {
            sec: 1_000_000_000 + i64::from(text >> 2),
            nsec: text % 1_000_000_000,
        };
        let mut set = SetattrIn::default();
        let inode = self.tree.get_mut(id);
        if let Some(access) = access.map(time) {
            if now {
                set.valid |= (Valid::ATIME | Valid::ATIME_NOW).bits();
                inode.times.access.set();
            } else {
                set.valid |= Valid::ATIME.bits();
                (set.atime, set.atimensec) = (access.sec as u64, access.nsec);
                inode.times.access = When::at(access);
            }
        }
        if let Some(modify) = modify.map(time) {
            set.valid |= Valid::MTIME.bits();
            (set.mtime, set.mtimensec) = (modify.sec as u64, modify.nsec);
            inode.times.modify = When::at(modify);
        }
        inode.times.change.set();
        self.set(client, id, &set)
    }

    fn set_xattr(&mut self, client: usize, id: Id, name: Pick, len: u16, flags: i32) -> Checked {
        let value = self.fresh_bytes(usize::from(len));
        self.note(client, format!("setxattr {id} {name} {len} flags {flags}"));
        let name = XATTRS[usize::from(name)];
        let nodeid = self.guests[client].nodeid(id);
        let got = self.guests[client]
            .fs()
            .setxattr(nodeid, name, &value, flags);
        let expected = self.tree.set_xattr(id, name, &value, flags);
        self.same(got, expected).map(drop)
    }

    fn get_xattr(&mut self, client: usize, id: Id, name: Pick) -> Checked {
        self.note(client, format!("getxattr {id} {name}"));
        self.compare_xattr(client, id, XATTRS[usize::from(name)])
    }

    fn compare_xattr(&mut self, client: usize, id: Id, name: &[u8]) -> Checked {
        let nodeid = self.guests[client].nodeid(id);
        let got = self.guests[client].fs().getxattr(nodeid, name);
        let expected = self.tree.xattr(id, name).cloned();
        if let Some((got, expected)) = self.same(got, expected)? {
            ensure!(got == expected, "another value of an xattr");
        }
        Ok(())
    }

    fn remove_xattr(&mut self, client: usize, id: Id, name: Pick) -> Checked {
        self.note(client, format!("removexattr {id} {name}"));
        let name = XATTRS[usize::from(name)];
        let nodeid = self.guests[client].nodeid(id);
        let got = self.guests[client].fs().removexattr(nodeid, name);
        let expected = self.tree.remove_xattr(id, name);
        self.same(got, expected).map(drop)
    }

    fn list_xattrs(&mut self, client: usize, id: Id) -> Checked {
        self.note(client, format!("listxattr {id}"));
        self.compare_xattrs(client, id)
    }

    /// Compares all extended attributes of the user's.
    pub fn compare_xattrs(&mut self, client: usize, id: Id) -> Checked {
        let nodeid = self.guests[client].nodeid(id);
        let list = match self.guests[client].fs().listxattr(nodeid) {
            Err(error) if error == Errno::NODATA => Vec::new(),
            list => list?,
        };
        let mut names: Vec<&[u8]> = list
            .split(|byte| *byte == 0)
            .filter(|name| name.starts_with(b"user."))
            .collect();
        names.sort_unstable();
        let expected: Vec<&[u8]> = self.tree.get(id).xattrs.keys().map(Vec::as_slice).collect();
        ensure!(names == expected, "xattrs {names:?}, not {expected:?}");
        let expected: Vec<Vec<u8>> = expected.into_iter().map(<[u8]>::to_vec).collect();
        for name in expected {
            self.compare_xattr(client, id, &name)?;
        }
        Ok(())
    }

    fn statfs(&mut self, client: usize) -> Checked {
        self.note(client, "statfs");
        let stat = self.guests[client].fs().statfs(ROOT_ID)?;
        let sane = stat.bavail <= stat.bfree && stat.bfree <= stat.blocks && stat.frsize > 0;
        ensure!(
            sane && stat.ffree <= stat.files && stat.namelen == 255,
            "{stat:?}"
        );
        Ok(())
    }
}
