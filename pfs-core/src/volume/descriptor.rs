//! `volume.toml`: pure data, read strictly.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, CWD};
use rustix::io::Errno;
use serde::Deserialize;
use uuid::Uuid;

use super::error::Impossible;
use super::size::Size;
use super::{Error, Limits};
use crate::layout::{Layout, STRIPE_COUNT_MAX};

/// The format of `volume.toml` that this code reads and writes.
pub const FORMAT: u32 = 2;
/// Most bytes of a file that can stay in its inode.
pub const MDT_SIZE_MAX_BYTES: u64 = 16 << 20;
/// `mdt_size` is a multiple of this, in bytes.
pub const MDT_SIZE_STEP_BYTES: u64 = 4096;
/// Longest descriptor that is read, in bytes: thousands of targets fit.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// What a `volume.toml` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// `None` for a plain directory, which has no descriptor.
    pub uuid: Option<Uuid>,
    /// Of what a tree of files serves; of nothing else.
    pub ownership: Ownership,
    pub engine: Engine,
}

/// Where owners, modes and types of files are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ownership {
    /// In the host's inodes: they are the host's own.
    #[default]
    Native,
    /// In hidden attributes: on the host all is the volume's owner's, and plain.
    Mapped,
}

/// An engine and what it needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    Striped(Striped),
    Posix {
        /// The directory to serve; relative to the volume's folder.
        path: PathBuf,
    },
    Cephfs(Cephfs),
    Null,
}

/// Where the CephFS of a `cephfs` volume is, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cephfs {
    /// A `ceph.conf`; relative to the volume's folder.
    pub conf: Option<PathBuf>,
    /// Addresses of monitors, in `ceph.conf`'s words, where they are not in one.
    pub mon_host: Option<String>,
    /// Who mounts it, without `client.`.
    pub user: String,
    /// A keyring with that user's key; relative to the volume's folder. `None` where the cluster asks
    /// for none, or `ceph.conf` names one.
    pub keyring: Option<PathBuf>,
    /// The file system; `None` for the cluster's default one.
    pub fs: Option<String>,
    /// The directory to serve, an absolute path in the file system.
    pub path: PathBuf,
    /// Whether the client caches data.
    pub client_oc: bool,
    /// After so many seconds without the cluster's answer a request fails; it waits where there is none.
    pub timeout_s: Option<u32>,
    /// Other options of the client, in `ceph.conf`'s words.
    pub options: BTreeMap<String, String>,
}

/// What a `striped` volume consists of. Paths are relative to the volume's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Striped {
    /// The metadata directory: the namespace and what goes with it.
    pub meta: PathBuf,
    /// The targets, by index.
    pub targets: Vec<PathBuf>,
    /// The layout of new files.
    pub layout: Layout,
    /// Bytes at the start of a file that stay in its inode.
    pub mdt_size_bytes: u64,
    pub limits: Limits,
}

impl Engine {
    /// The engine's name in `volume.toml`.
    pub fn name(&self) -> &'static str {
        match self {
            Engine::Striped(_) => "striped",
            Engine::Posix { .. } => "posix",
            Engine::Cephfs(_) => "cephfs",
            Engine::Null => "null",
        }
    }
}

impl Cephfs {
    /// Checks what the types do not say.
    pub fn check(&self) -> Result<(), Impossible> {
        if self.conf.is_none() && self.mon_host.is_none() {
            return Err(Impossible::NoMonitor);
        }
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if !self.path.is_absolute() || !self.path.components().all(is_plain) {
            return Err(Impossible::CephPath);
        }
        if self.timeout_s == Some(0) {
            return Err(Impossible::Timeout);
        }
        Ok(())
    }
}

impl Striped {
    /// Checks what the types do not say.
    pub fn check(&self) -> Result<(), Impossible> {
        let (count, targets) = (self.layout.stripe_count(), self.targets.len());
        if targets == 0 {
            return Err(Impossible::NoTarget);
        }
        let max = STRIPE_COUNT_MAX as usize;
        if targets > max {
            return Err(Impossible::TooManyTargets { targets, max });
        }
        if count as usize > targets {
            return Err(Impossible::TooFewTargets { count, targets });
        }
        let mdt_size = self.mdt_size_bytes;
        if mdt_size % MDT_SIZE_STEP_BYTES != 0 || mdt_size > MDT_SIZE_MAX_BYTES {
            return Err(Impossible::MdtSize(mdt_size));
        }
        self.limits.check()
    }
}

/// The keys that say how to read the rest.
#[derive(Deserialize)]
struct Head {
    format: i64,
    engine: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StripedFile {
    #[serde(rename = "format")]
    _format: i64,
    #[serde(rename = "engine")]
    _engine: String,
    uuid: Uuid,
    #[serde(default)]
    ownership: Ownership,
    #[serde(default = "default_meta")]
    meta: PathBuf,
    layout: LayoutTable,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(rename = "target")]
    targets: Vec<TargetTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutTable {
    stripe_unit: Size,
    stripe_count: u32,
    mdt_size: Size,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    capacity: Option<Size>,
    inodes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PosixFile {
    #[serde(rename = "format")]
    _format: i64,
    #[serde(rename = "engine")]
    _engine: String,
    uuid: Uuid,
    #[serde(default)]
    ownership: Ownership,
    path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CephfsFile {
    #[serde(rename = "format")]
    _format: i64,
    #[serde(rename = "engine")]
    _engine: String,
    uuid: Uuid,
    ceph: CephTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CephTable {
    conf: Option<PathBuf>,
    mon_host: Option<String>,
    user: String,
    keyring: Option<PathBuf>,
    fs: Option<String>,
    path: PathBuf,
    #[serde(default)]
    client_oc: bool,
    timeout_s: Option<u32>,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NullFile {
    #[serde(rename = "format")]
    _format: i64,
    #[serde(rename = "engine")]
    _engine: String,
    uuid: Uuid,
}

fn default_meta() -> PathBuf {
    "meta".into()
}

impl Descriptor {
    /// A plain directory as a volume of itself.
    pub fn plain(path: &Path) -> Descriptor {
        Descriptor {
            uuid: None,
            ownership: Ownership::Native,
            engine: Engine::Posix { path: path.into() },
        }
    }

    /// Reads the descriptor in file `path`.
    pub fn read(path: &Path) -> Result<Descriptor, Error> {
        Descriptor::parse(&read_text(CWD, path, path)?, path)
    }

    /// Reads a descriptor from `text`; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Descriptor, Error> {
        let head: Head = parse(text, path)?;
        let file = || path.to_owned();
        match head.format {
            found if found > i64::from(FORMAT) => {
                return Err(Error::NewerFormat {
                    path: file(),
                    found,
                    ours: FORMAT,
                })
            }
            found if found < 1 => {
                return Err(Error::NoSuchFormat {
                    path: file(),
                    found,
                })
            }
            found if found < i64::from(FORMAT) => {
                return Err(Error::OlderFormat {
                    path: file(),
                    found,
                })
            }
            _ => {}
        }
        let (uuid, ownership, engine) = match head.engine.as_str() {
            "striped" => striped(parse(text, path)?, path)?,
            "posix" => {
                let file: PosixFile = parse(text, path)?;
                let engine = Engine::Posix { path: file.path };
                (file.uuid, file.ownership, engine)
            }
            "null" => {
                let file: NullFile = parse(text, path)?;
                (file.uuid, Ownership::Native, Engine::Null)
            }
            "cephfs" => cephfs(parse(text, path)?, path)?,
            _ => {
                return Err(Error::NoSuchEngine {
                    path: file(),
                    engine: head.engine,
                })
            }
        };
        Ok(Descriptor {
            uuid: Some(uuid),
            ownership,
            engine,
        })
    }

    /// The descriptor as the text of a `volume.toml`.
    pub fn to_toml(&self) -> String {
        let mut text = format!("format = {FORMAT}\nengine = \"{}\"\n", self.engine.name());
        if let Some(uuid) = self.uuid {
            let _ = writeln!(text, "uuid = \"{uuid}\"");
        }
        if self.ownership == Ownership::Mapped {
            text.push_str("ownership = \"mapped\"\n");
        }
        match &self.engine {
            Engine::Striped(striped) => {
                let layout = &striped.layout;
                let _ = write!(
                    text,
                    "meta = {}\n\n[layout]\nstripe_unit = \"{}\"\nstripe_count = {}\n\
                     mdt_size = \"{}\"\n",
                    quote(&striped.meta),
                    Size(layout.stripe_unit_bytes()),
                    layout.stripe_count(),
                    Size(striped.mdt_size_bytes),
                );
                text.push_str(&limits_table(&striped.limits));
                for target in &striped.targets {
                    let _ = write!(text, "\n[[target]]\npath = {}\n", quote(target));
                }
            }
            Engine::Posix { path } => {
                let _ = writeln!(text, "path = {}", quote(path));
            }
            Engine::Cephfs(cephfs) => text.push_str(&ceph_table(cephfs)),
            Engine::Null => {}
        }
        text
    }
}

fn striped(file: StripedFile, path: &Path) -> Result<(Uuid, Ownership, Engine), Error> {
    let table = file.layout;
    let layout = Layout::new(table.stripe_unit.0, table.stripe_count, 0);
    let striped = Striped {
        meta: file.meta,
        targets: file.targets.into_iter().map(|table| table.path).collect(),
        layout: layout.map_err(|source| Error::Layout {
            path: path.into(),
            source,
        })?,
        mdt_size_bytes: table.mdt_size.0,
        limits: Limits {
            capacity_bytes: file.limits.capacity.map(|size| size.0),
            inodes: file.limits.inodes,
        },
    };
    striped.check().map_err(|source| Error::Values {
        path: path.into(),
        source,
    })?;
    Ok((file.uuid, file.ownership, Engine::Striped(striped)))
}

fn cephfs(file: CephfsFile, path: &Path) -> Result<(Uuid, Ownership, Engine), Error> {
    let table = file.ceph;
    let cephfs = Cephfs {
        conf: table.conf,
        mon_host: table.mon_host,
        user: table.user,
        keyring: table.keyring,
        fs: table.fs,
        path: table.path,
        client_oc: table.client_oc,
        timeout_s: table.timeout_s,
        options: table.options,
    };
    cephfs.check().map_err(|source| Error::Values {
        path: path.into(),
        source,
    })?;
    Ok((file.uuid, Ownership::Native, Engine::Cephfs(cephfs)))
}

/// The tables that say where a CephFS is.
fn ceph_table(cephfs: &Cephfs) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let mut lines = vec!["\n[ceph]".to_owned()];
    let mut put = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name} = {value}")));
    };
    put("conf", cephfs.conf.as_deref().map(quote));
    put("mon_host", cephfs.mon_host.as_deref().map(text));
    put("user", Some(text(&cephfs.user)));
    put("keyring", cephfs.keyring.as_deref().map(quote));
    put("fs", cephfs.fs.as_deref().map(text));
    put("path", Some(quote(&cephfs.path)));
    put("client_oc", cephfs.client_oc.then(|| "true".to_owned()));
    put(
        "timeout_s",
        cephfs.timeout_s.map(|seconds| seconds.to_string()),
    );
    if !cephfs.options.is_empty() {
        lines.push("\n[ceph.options]".to_owned());
        let options = cephfs.options.iter();
        lines.extend(options.map(|(name, value)| format!("{} = {}", text(name), text(value))));
    }
    lines.join("\n") + "\n"
}

/// The table of limits, where there are any.
pub(super) fn limits_table(limits: &Limits) -> String {
    if !limits.any() {
        return String::new();
    }
    let mut text = "\n[limits]\n".to_owned();
    if let Some(bytes) = limits.capacity_bytes {
        let _ = writeln!(text, "capacity = \"{}\"", Size(bytes));
    }
    if let Some(inodes) = limits.inodes {
        let _ = writeln!(text, "inodes = {inodes}");
    }
    text
}

/// A path as a TOML string.
fn quote(path: &Path) -> String {
    toml::Value::String(path.to_string_lossy().into_owned()).to_string()
}

/// Reads a small text file, `name` in `dir`, that others may have put there: follows no symbolic
/// link (which could make another volume's descriptor ours), never blocks, never takes more than
/// [`FILE_MAX_BYTES`]. `path` is for messages.
pub(crate) fn read_text(dir: impl AsFd, name: &Path, path: &Path) -> Result<String, Error> {
    let not = |why| Error::NotADescriptor {
        path: path.into(),
        why,
    };
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::LOOP => not("it is a symbolic link"),
            errno => Error::io("open", path, errno),
        })?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| Error::io("look at", path, errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(not("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::io("read", path, source))?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(not("it is too long"));
    }
    String::from_utf8(bytes).map_err(|_| not("it is not text"))
}

/// Parses TOML; an error names the file, the line and what stands there.
pub(crate) fn parse<T: for<'de> Deserialize<'de>>(text: &str, path: &Path) -> Result<T, Error> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = &text.as_bytes()[..at];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        Error::Syntax {
            path: path.into(),
            line,
            text: text.lines().nth(line - 1).unwrap_or("").trim().to_owned(),
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        }
    })
}
