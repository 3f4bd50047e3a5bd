//! Requests about the session, the file system as a whole, and those that have no reply.

use pfs_core::fs::{Errno, NodeId, Result};
use vm_memory::ByteValued;

use super::Bytes;
use crate::fuse::abi::{
    init::INIT_EXT, AccessIn, BatchForgetIn, ForgetIn, ForgetOne, InitIn, InitIn2, InterruptIn,
    SyncfsIn,
};
use crate::fuse::init::Init;
use crate::fuse::opcodes::Opcode;

/// A request that is about no open file.
#[derive(Debug)]
pub enum Whole<'a> {
    Init(Init),
    Destroy,
    Forget { node: NodeId, count: u64 },
    BatchForget(Forgets<'a>),
    Interrupt { unique: u64 },
    Statfs,
    Access { mask: u32 },
    Syncfs,
}

/// The nodes and counts of a BATCH_FORGET.
#[derive(Clone, Debug)]
pub struct Forgets<'a>(&'a [u8]);

impl Iterator for Forgets<'_> {
    type Item = (NodeId, u64);

    fn next(&mut self) -> Option<(NodeId, u64)> {
        let (first, rest) = self.0.split_at_checked(size_of::<ForgetOne>())?;
        self.0 = rest;
        let mut one = ForgetOne::default();
        one.as_mut_slice().copy_from_slice(first);
        Some((NodeId(one.nodeid), one.nlookup))
    }
}

pub(super) fn decode<'a>(code: Opcode, node: NodeId, body: &mut Bytes<'a>) -> Result<Whole<'a>> {
    let request = match code {
        // The only structure that newer guests send longer.
        Opcode::Init => return init(body).map(Whole::Init),
        Opcode::Destroy => Whole::Destroy,
        Opcode::Forget => {
            let forget: ForgetIn = body.take()?;
            Whole::Forget {
                node,
                count: forget.nlookup,
            }
        }
        Opcode::BatchForget => {
            let batch: BatchForgetIn = body.take()?;
            let bytes = u64::from(batch.count) * size_of::<ForgetOne>() as u64;
            let bytes = usize::try_from(bytes).map_err(|_| Errno::INVAL)?;
            Whole::BatchForget(Forgets(body.split(bytes)?))
        }
        Opcode::Interrupt => {
            let interrupt: InterruptIn = body.take()?;
            Whole::Interrupt {
                unique: interrupt.unique,
            }
        }
        Opcode::Statfs => Whole::Statfs,
        Opcode::Access => {
            let access: AccessIn = body.take()?;
            let known = (libc::R_OK | libc::W_OK | libc::X_OK) as u32;
            if access.mask & !known != 0 {
                return Err(Errno::INVAL);
            }
            Whole::Access { mask: access.mask }
        }
        Opcode::Syncfs => {
            let _: SyncfsIn = body.take()?;
            Whole::Syncfs
        }
        _ => return Err(Errno::NOSYS),
    };
    body.end()?;
    Ok(request)
}

fn init(body: &mut Bytes<'_>) -> Result<Init> {
    let first: InitIn = body.take()?;
    let mut flags = u64::from(first.flags);
    if flags & INIT_EXT != 0 && first.major == crate::fuse::abi::MAJOR {
        let second: InitIn2 = body.take()?;
        flags |= u64::from(second.flags2) << 32;
    }
    Ok(Init {
        major: first.major,
        minor: first.minor,
        max_readahead: first.max_readahead,
        flags,
    })
}
