//! From a volume's settings to a client that has mounted it, at the start and whenever the cluster has
//! given the last one up.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::calls::Kind;
use super::clients::Registered;
use super::keyring::{self, Key};
use super::library;
use super::mount::Mount;
use super::shared::Shared;
use crate::fs::Errno;
use crate::sync::lock;
use crate::volume;

/// How long a mount may take.
const MOUNT_TIMEOUT_S: u32 = 30;
/// Between two tries to mount again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long calls under way may take to end when the process does.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// The file system cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Library(#[from] library::Error),
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    #[error("libcephfs cannot read {path}: {errno}")]
    Conf { path: PathBuf, errno: Errno },
    #[error("libcephfs does not take {option} = {value:?}: {errno}")]
    Option {
        option: String,
        value: String,
        errno: Errno,
    },
    #[error("[ceph.options] may not set {0}: it has a place of its own in volume.toml")]
    Reserved(String),
    #[error("libcephfs cannot begin: {0}")]
    Begin(Errno),
    #[error("cannot mount {path} of {fs} as client.{user}: {errno}; {}", hint(*errno))]
    Mount {
        path: PathBuf,
        fs: String,
        user: String,
        errno: Errno,
    },
}

/// What to look at.
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => "is there such a file system and path? see ceph fs ls",
        Errno::PERM | Errno::ACCESS => "does its key let it? see ceph auth get",
        Errno::TIMEDOUT => "do the monitors answer, and is a metadata server active? see ceph -s",
        Errno::STALE => "the session's guest knows another directory: start the guest anew",
        _ => "see ceph -s",
    }
}

/// Options that settings or the engine itself decide.
const RESERVED: [&str; 12] = [
    "key",
    "keyring",
    "keyfile",
    "mon_host",
    "client_mountpoint",
    "client_permissions",
    "fuse_default_permissions",
    "client_acl_type",
    "client_oc",
    "client_mount_timeout",
    "rados_osd_op_timeout",
    "rados_mon_op_timeout",
];

/// Parts of the client that keep a log of their own.
const DEBUG: [&str; 14] = [
    "asok",
    "auth",
    "client",
    "context",
    "filer",
    "finisher",
    "mgrc",
    "monc",
    "ms",
    "objectcacher",
    "objecter",
    "striper",
    "throttle",
    "timer",
];

/// Makes clients of one volume.
pub struct Connector {
    settings: volume::Cephfs,
    registered: Registered,
    /// Never mounted: has the settings, read when the process could still open files.
    configured: Mount,
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Option {
        option: "a setting".into(),
        value: text.into(),
        errno: Errno::INVAL,
    })
}

impl Connector {
    /// Reads what needs paths: the library, `ceph.conf` and the keyring. `clients` is the folder of the
    /// volume's clients.
    pub fn prepare(
        settings: &volume::Cephfs,
        clients: Option<OwnedFd>,
    ) -> Result<Connector, Error> {
        let key = settings.keyring.as_deref();
        let key = key
            .map(|path| keyring::read(path, &settings.user))
            .transpose()?;
        Ok(Connector {
            settings: settings.clone(),
            configured: configure(settings, key)?,
            registered: Registered::new(clients),
        })
    }

    /// Mounts the volume, once what dead clients of this host held is free.
    pub fn connect(&mut self) -> Result<Arc<Mount>, Error> {
        for dead in self.registered.dead() {
            let reclaimer = self.configured.another().map_err(Error::Begin)?;
            match c_string(&dead.uuid.to_string()).map(|uuid| reclaimer.reclaim(&uuid))? {
                Ok(true) => log::info!("what client {} held, which has died, is free", dead.uuid),
                Ok(false) => {}
                Err(errno) => {
                    log::warn!(
                        "what dead client {} held stays so for a while: {errno}",
                        dead.uuid
                    );
                    continue;
                }
            }
            self.registered.bury(&dead);
        }
        let mount = self.configured.another().map_err(Error::Begin)?;
        let settings = &self.settings;
        let failed = |errno| self.failed(errno);
        let uuid = c_string(&self.registered.uuid.to_string())?;
        let fs = settings.fs.as_deref().map(c_string).transpose()?;
        let path = CString::new(settings.path.as_os_str().as_bytes()).unwrap_or_default();
        mount.init(&uuid, fs.as_deref()).map_err(failed)?;
        mount.mount(&path).map_err(failed)?;
        Ok(Arc::new(mount))
    }

    /// How long a request may wait.
    pub fn timeout(&self) -> Option<Duration> {
        let seconds = self.settings.timeout_s;
        seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }

    pub fn failed(&self, errno: Errno) -> Error {
        Error::Mount {
            path: self.settings.path.clone(),
            fs: (self.settings.fs.clone()).unwrap_or("the default file system".into()),
            user: self.settings.user.clone(),
            errno,
        }
    }
}

/// A client that has all settings and is not mounted.
fn configure(settings: &volume::Cephfs, key: Option<Key>) -> Result<Mount, Error> {
    let functions = library::functions()?;
    let mount = Mount::new(functions, &c_string(&settings.user)?).map_err(Error::Begin)?;
    if let Some(path) = &settings.conf {
        let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        mount.read_conf(&name).map_err(|errno| Error::Conf {
            path: path.clone(),
            errno,
        })?;
    }
    let set = |option: &str, value: &str| {
        let (name, text) = (c_string(option)?, c_string(value)?);
        mount.set(&name, &text).map_err(|errno| Error::Option {
            option: option.into(),
            value: match option {
                "key" => "(a key)".into(),
                _ => value.into(),
            },
            errno,
        })
    };
    // By default the client writes a line to its memory for each call, for a crash that would not be
    // the guest's to cause: that costs more than many of the calls. [ceph.options] can ask for it.
    for part in DEBUG {
        set(&format!("debug_{part}"), "0/0")?;
    }
    if let Some(hosts) = &settings.mon_host {
        set("mon_host", hosts)?;
    }
    if let Some(Key(key)) = key {
        set("key", &key)?;
    }
    for (option, value) in &settings.options {
        match RESERVED.contains(&option.as_str()) {
            true => return Err(Error::Reserved(option.clone())),
            false => set(option, value)?,
        }
    }
    let bool = |on| if on { "true" } else { "false" };
    for (option, value) in [
        // What a guest's user may do, the guest's kernel has checked.
        ("client_permissions", "false"),
        ("fuse_default_permissions", "true"),
        ("client_acl_type", "posix_acl"),
        ("client_oc", bool(settings.client_oc)),
        // Their files are not the daemon's to write.
        ("admin_socket", ""),
        ("log_file", ""),
        ("log_to_stderr", "false"),
        ("err_to_stderr", "false"),
    ] {
        set(option, value)?;
    }
    set("client_mount_timeout", &MOUNT_TIMEOUT_S.to_string())?;
    if let Some(timeout) = settings.timeout_s {
        set("rados_osd_op_timeout", &timeout.to_string())?;
        set("rados_mon_op_timeout", &timeout.to_string())?;
    }
    Ok(mount)
}

impl Shared {
    /// Mounts the volume for the first time.
    pub fn connect(&self) -> Result<(), Error> {
        self.attach(&mut lock(&self.connector))
    }

    fn attach(&self, connector: &mut Connector) -> Result<(), Error> {
        let mount = connector.connect()?;
        let attached = self.nodes.attach(&mount);
        attached.map_err(|errno| connector.failed(errno))
    }

    /// The cluster has given `lost` up: mounts again, for as long as it takes, finds locks again, and
    /// lets inodes and files be found when they are used. Answers whether there is a client now.
    pub fn connect_again(&self, lost: &Arc<Mount>) -> bool {
        let mut connector = lock(&self.connector);
        let now = self.nodes.mount();
        if now.is_ok_and(|mount| !Arc::ptr_eq(&mount, lost)) {
            // Another thread was first.
            return true;
        }
        log::warn!(
            "the cluster has given up this client, perhaps for not answering: a new one takes over"
        );
        let mut said = false;
        loop {
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            connector.registered.renew();
            match self.attach(&mut connector) {
                Ok(()) => break,
                Err(error) if !said => log::error!("{error}; trying again until it can"),
                Err(_) => {}
            }
            said = true;
            std::thread::sleep(RETRY_PAUSE);
        }
        // Before others find the new client: what they use shall be its own.
        let gone = (self.files.let_go(), self.dirs.let_go(), self.locks.let_go());
        // The lost client may take long to see that it is.
        let lost = lost.clone();
        self.calls.run(Kind::Other, move || {
            drop(gone);
            lost.close();
        });
        self.restore_locks();
        log::info!("the new client has taken over");
        true
    }

    /// Tells the cluster that this client goes.
    pub fn disconnect(&self) {
        self.closed.store(true, Ordering::Release);
        let ended = self.calls.close(CLOSE_LIMIT);
        drop((self.files.let_go(), self.dirs.let_go(), self.locks.let_go()));
        let mount = self.nodes.detach();
        let closed = ended && mount.is_none_or(|mount| mount.close());
        match (closed, self.connector.try_lock()) {
            (true, Ok(connector)) => connector.registered.unregister(),
            _ => {
                log::warn!("calls hang in the cluster: what they hold stays held for a while")
            }
        }
    }
}
