//! The file system as a whole. INIT, DESTROY and what has no reply never come here: they are the
//! service's own.

use pfs_core::fs::{Errno, Result};

use super::Call;
use crate::fuse::decode::Whole;
use crate::fuse::reply::Shape;

impl Call<'_> {
    pub(super) fn whole(mut self, request: &Whole<'_>) -> Result<()> {
        let (fs, node) = (self.fs, self.node);
        match *request {
            Whole::Statfs => {
                let reply = self.reply(Shape::StatFs);
                fs.statfs(&mut self.req(), node, reply);
            }
            Whole::Access { mask } => {
                if self.config.readonly && mask & libc::W_OK as u32 != 0 {
                    return Err(Errno::ROFS);
                }
                let reply = self.reply(Shape::Empty);
                fs.access(&mut self.req(), node, mask, reply);
            }
            Whole::Syncfs => {
                let reply = self.reply(Shape::Empty);
                fs.syncfs(&mut self.req(), node, reply);
            }
            Whole::Init(_)
            | Whole::Destroy
            | Whole::Forget { .. }
            | Whole::BatchForget(_)
            | Whole::Interrupt { .. } => return Err(Errno::NOSYS),
        }
        Ok(())
    }
}
