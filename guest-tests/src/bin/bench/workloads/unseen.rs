//! Lookups of files that the daemon has never seen, since another client of the storage made them.

use std::fs;
use std::io;
use std::path::Path;

use guest_tests::ring::fuse::abi::{EntryOut, ROOT_ID};
use guest_tests::ring::fuse::{ops, Answer, Client, Error, Pump};

use super::Workload;
use crate::ceph::{CephFuse, Place};
use crate::floor::files::FilesFloor;
use crate::floor::Floor;
use crate::workloads::files::Files;
use crate::workloads::steps::Step;

/// Each of so many files once, in a directory that is new in each slice.
pub struct Unseen {
    files: u32,
    slices: u32,
    dir: u64,
    next: u32,
    found: Vec<u64>,
}

impl Unseen {
    pub fn new(files: u32) -> Unseen {
        Unseen {
            files,
            slices: 0,
            dir: 0,
            next: 0,
            found: Vec::new(),
        }
    }

    fn forget(&mut self, client: &mut Client) -> Result<(), Error> {
        for node in self.found.drain(..) {
            client.forget(node, 1)?;
        }
        client.drain_hiprio()
    }
}

/// Makes `count` files in a new directory of what the daemon serves, by another client.
fn make_files(folder: &Path, dir: &str, count: u32) -> io::Result<()> {
    let mountpoint = folder.join("other");
    // Unmounted at the end: nothing is held by the other client when the files are looked up.
    let mount = match Place::load(folder)? {
        Some(place) => {
            fs::create_dir_all(&mountpoint)?;
            Some(CephFuse::mount(&place, &mountpoint).map_err(io::Error::other)?)
        }
        None => None,
    };
    let root = match mount {
        Some(_) => mountpoint,
        None => folder.join("volume"),
    };
    let dir = root.join(dir);
    fs::create_dir(&dir)?;
    (0..count).try_for_each(|file| fs::write(dir.join(name(file)), ""))
}

fn name(file: u32) -> String {
    format!("unseen-{file}")
}

impl Workload for Unseen {
    fn prepare(&mut self, _: &mut Client, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn before(&mut self, client: &mut Client, folder: &Path) -> Result<(), Error> {
        let dir = format!("unseen-{}", self.slices);
        make_files(folder, &dir, self.files).map_err(Error::Wait)?;
        self.dir = client.lookup(ROOT_ID, &dir)?.nodeid;
        self.slices += 1;
        self.next = 0;
        Ok(())
    }

    fn start(&mut self, pump: &mut Pump<'_>, slot: usize) -> Result<(), Error> {
        if self.next == self.files {
            return Ok(());
        }
        self.next += 1;
        pump.send(slot, &ops::lookup(self.dir, name(self.next - 1).as_bytes()))
    }

    fn answered(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<Option<u64>, Error> {
        let answer = answer.success()?;
        let entry: EntryOut = pump.decode(answer)?;
        self.found.push(entry.nodeid);
        Ok(Some(1))
    }

    fn after(&mut self, client: &mut Client) -> Result<(), Error> {
        self.found.push(self.dir);
        self.forget(client)
    }

    fn floor(&self) -> Box<dyn Floor> {
        Box::new(FilesFloor::new(
            &[Step::Lookup],
            Files::Any(self.files),
            0,
            1,
        ))
    }
}
