//! `pfsctl layout get` and `pfsctl layout set`.

use std::path::PathBuf;

use pfs_core::client::Error;
use pfs_core::fs::{Errno, XattrName};
use pfs_core::volume::size::Size;

use crate::{open, Failure};

/// Show the layout of a file, or the one that new files in a directory get
#[derive(clap::Args)]
pub struct GetArgs {
    /// The volume
    volume: PathBuf,
    /// The file or directory in the volume
    path: PathBuf,
}

/// Set the layout of an empty file, or the one for what is made in a directory from now on
///
/// New directories take it from the one they are made in. What is not given stays as it is.
#[derive(clap::Args)]
pub struct SetArgs {
    /// The volume
    volume: PathBuf,
    /// The file or directory in the volume
    path: PathBuf,
    /// Bytes on one target before the next one's turn
    #[arg(
        long,
        value_name = "SIZE",
        required_unless_present_any = ["stripe_count", "mdt_size", "inherit"]
    )]
    stripe_unit: Option<Size>,
    /// Targets that a file is spread over
    #[arg(long, value_name = "N")]
    stripe_count: Option<u32>,
    /// Bytes at the start of a file that stay with its metadata
    #[arg(long, value_name = "SIZE")]
    mdt_size: Option<Size>,
    /// For a directory: take the layout of the one above it, or the volume's at the root
    #[arg(long, conflicts_with_all = ["stripe_unit", "stripe_count", "mdt_size"])]
    inherit: bool,
}

/// The attribute that is a whole layout.
fn attribute() -> Result<&'static XattrName, Errno> {
    XattrName::new(c"user.pfs.layout")
}

/// Runs `layout get`.
pub fn get(args: &GetArgs) -> Result<(), Failure> {
    let mut client = open::client(&args.volume)?;
    let value = client
        .get_xattr(&args.path, attribute()?)
        .map_err(explained)?;
    println!("{}", String::from_utf8_lossy(&value));
    Ok(())
}

/// Runs `layout set`.
pub fn set(args: &SetArgs) -> Result<(), Failure> {
    let mut client = open::client(&args.volume)?;
    if args.inherit {
        let removed = client.remove_xattr(&args.path, attribute()?);
        return removed.map_err(|error| match error.errno() {
            Some(Errno::INVAL) => "--inherit is for directories only".into(),
            _ => explained(error),
        });
    }
    let fields = [
        ("stripe_unit", args.stripe_unit.map(|size| size.0)),
        ("stripe_count", args.stripe_count.map(u64::from)),
        ("mdt_size", args.mdt_size.map(|size| size.0)),
    ];
    let words = fields
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    let value = words.collect::<Vec<_>>().join(" ");
    client
        .set_xattr(&args.path, attribute()?, value.as_bytes())
        .map_err(explained)
}

/// What an errno means here.
fn explained(error: Error) -> Failure {
    let why = match error.errno() {
        Some(Errno::INVAL) => {
            "no such layout: stripe units are multiples of 4K up to 1G, mdt sizes up to 16M, and a \
             stripe count is at most the number of targets"
        }
        Some(Errno::BUSY) => {
            "a file's layout can be set while it is empty, never had striped bytes, and no VM has \
             it open"
        }
        Some(Errno::NODATA) => "only files and directories of a striped volume have a layout",
        Some(Errno::OPNOTSUPP) => "only a striped volume has layouts",
        Some(Errno::PERM) => "only its owner and root may set it",
        _ => return error.into(),
    };
    format!("{error}: {why}").into()
}
