//! `pfsctl volume set`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::str::FromStr;

use pfs_core::engine::striped::set_limits;
use pfs_core::volume::size::{self, Size};
use pfs_core::volume::Limits;

use crate::{check, interrupt, Failure};

/// Set the limits of a striped volume
///
/// They hold at once for every VM that has it mounted. What is not given stays as it is. A limit
/// below what is used removes nothing: nothing more can be made or grow until enough is removed.
/// The first limit of a volume that has none needs that no daemon serves it.
#[derive(clap::Args)]
pub struct Args {
    /// The volume
    path: PathBuf,
    /// Most bytes of all files together, or "none"; a sparse file counts at its full length
    #[arg(long, value_name = "SIZE", required_unless_present = "inodes")]
    capacity: Option<Limit>,
    /// Most files, directories and links, a number that may have K or M, or "none"
    #[arg(long, value_name = "N")]
    inodes: Option<Limit>,
}

/// A limit as people write it: a number with or without a unit, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(Option<u64>);

impl Limit {
    /// The number, if it is one.
    pub fn get(self) -> Option<u64> {
        self.0
    }
}

/// Not a limit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoLimit {
    #[error("0 would let nothing be made: say \"none\" for no limit")]
    Zero,
    #[error(transparent)]
    Size(#[from] size::Error),
}

impl FromStr for Limit {
    type Err = NoLimit;

    fn from_str(text: &str) -> Result<Limit, NoLimit> {
        if text == "none" {
            return Ok(Limit(None));
        }
        match text.parse::<Size>()?.0 {
            0 => Err(NoLimit::Zero),
            number => Ok(Limit(Some(number))),
        }
    }
}

/// Runs the command.
pub fn set(args: &Args) -> Result<(), Failure> {
    interrupt::prepare();
    let change = |now: Limits| Limits {
        capacity_bytes: args.capacity.map_or(now.capacity_bytes, Limit::get),
        inodes: args.inodes.map_or(now.inodes, Limit::get),
    };
    let bar = check::bar()?;
    let limits = set_limits(&args.path, change, &mut |at| {
        check::advance(&bar, at);
        match interrupt::is_interrupted() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    bar.finish_and_clear();
    println!("{}", told(&limits));
    Ok(())
}

/// Limits for a reader.
pub fn told(limits: &Limits) -> String {
    let text =
        |limit: Option<u64>| limit.map_or("none".to_owned(), |limit| Size(limit).to_string());
    format!(
        "capacity {}, inodes {}",
        text(limits.capacity_bytes),
        text(limits.inodes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_or_none() {
        assert_eq!("10G".parse::<Limit>().unwrap(), Limit(Some(10 << 30)));
        assert_eq!("1M".parse::<Limit>().unwrap(), Limit(Some(1 << 20)));
        assert_eq!("none".parse::<Limit>().unwrap(), Limit(None));
        for bad in ["0", "0G", "", "None", "-1", "10P"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad:?}");
        }
        let some = Limits {
            capacity_bytes: Some(3 << 30),
            inodes: None,
        };
        assert_eq!(told(&some), "capacity 3G, inodes none");
    }
}
