//! Counting inodes before they are made.

use crate::fs::Result;

/// Who says whether there may be another inode.
pub trait Budget: Send + Sync {
    /// An inode of `bytes` is about to be made: an error where there may be no more.
    fn charge_inode(&self, bytes: u64) -> Result<()>;

    /// One that was charged, and has `bytes`, is gone, or was not made.
    fn release_inode(&self, bytes: u64);

    /// How often somebody began to remove the inode `ino`, or another that is counted with it.
    fn purges(&self, _ino: u64) -> u64 {
        0
    }

    /// How often anybody began to remove any. Counted before [`purges`](Self::purges) is.
    fn purges_in_all(&self) -> u64 {
        0
    }
}

/// Any number of inodes.
pub struct Unlimited;

impl Budget for Unlimited {
    fn charge_inode(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn release_inode(&self, _: u64) {}
}

/// An inode that is charged: given back on drop, unless it was made.
pub(super) struct Charge<'a>(Option<(&'a dyn Budget, u64)>);

impl<'a> Charge<'a> {
    pub fn none() -> Charge<'a> {
        Charge(None)
    }

    pub fn take(budget: &'a dyn Budget, bytes: u64) -> Result<Charge<'a>> {
        budget.charge_inode(bytes)?;
        Ok(Charge(Some((budget, bytes))))
    }

    /// The inode was made.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if let Some((budget, bytes)) = self.0 {
            budget.release_inode(bytes);
        }
    }
}
