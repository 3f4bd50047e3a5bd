//! The system calls of a mail server's work.

use std::path::Path;

use rustix::io::Errno;

use super::steps::Bare;
use super::Floor;
use crate::workloads::postmark::{Mailbox, FILES_PER_SLOT};

/// See the [module](self).
pub struct PostmarkFloor {
    mailbox: Mailbox,
    data_len: usize,
    bare: Option<Bare>,
}

impl PostmarkFloor {
    pub fn new(data_len: usize) -> PostmarkFloor {
        PostmarkFloor {
            mailbox: Mailbox::new(0, 1),
            data_len,
            bare: None,
        }
    }
}

impl Floor for PostmarkFloor {
    fn prepare(&mut self, folder: &Path) -> Result<(), Errno> {
        let bare = self.bare.insert(Bare::new(folder, self.data_len)?);
        for _ in 0..FILES_PER_SLOT {
            let job = self.mailbox.create();
            self.mailbox.done(bare.run(job, None)?);
        }
        Ok(())
    }

    fn operation(&mut self) -> Result<u64, Errno> {
        let bare = self.bare.as_mut().ok_or(Errno::BADF)?;
        let job = self.mailbox.pick();
        self.mailbox.done(bare.run(job, None)?);
        Ok(1)
    }
}
