//! A real Ceph cluster for tests, through `qemu-scripts/ceph-dev.sh`.
//!
//! Tests that only use a cluster share [`Cluster::shared`]; those that hurt one have their own,
//! by [`Cluster::start`]. Both are none where this machine has no Ceph: the test is skipped, and says
//! so. Everything else panics where it cannot do what it is for: in a test, that is the failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::suites;

/// Names the folder of a cluster that runs already, for all processes of a test run.
pub const SHARED: &str = "PFS_CEPH";

/// What `ceph-dev.sh` runs.
const PROGRAMS: [&str; 6] = [
    "ceph",
    "ceph-mon",
    "ceph-mgr",
    "ceph-osd",
    "ceph-mds",
    "ceph-fuse",
];

/// A cluster. One of its own ends when it is dropped, and when this process does.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    is_own: bool,
}

/// A client's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The client's name, without `client.`.
    pub client: String,
    /// The file that has the key.
    pub keyring: PathBuf,
    /// The directory of the file system that it is for.
    pub path: String,
}

impl Cluster {
    /// The one that `PFS_CEPH` names, else one of this process. None, with the reason printed, where
    /// there can be none.
    pub fn shared() -> Option<&'static Cluster> {
        static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
        // A static is never dropped: this one ends with the process.
        CLUSTER.get_or_init(Cluster::named_or_started).as_ref()
    }

    fn named_or_started() -> Option<Cluster> {
        let Some(dir) = std::env::var_os(SHARED) else {
            return Cluster::start(&[]);
        };
        let dir = fs::canonicalize(&dir).unwrap_or_else(|e| panic!("{SHARED}={dir:?}: {e}"));
        Some(Cluster { dir, is_own: false })
    }

    /// A new one, with these options of `ceph-dev.sh up`. None, with the reason printed, where there
    /// can be none.
    pub fn start(options: &[&str]) -> Option<Cluster> {
        if let Err(reason) = available() {
            suites::skip(&reason);
            return None;
        }
        let dir = tempfile::Builder::new().prefix("pfs-ceph-").tempdir();
        let cluster = Cluster {
            // The script removes it, also where this process cannot.
            dir: dir.expect("a temporary folder").keep(),
            is_own: true,
        };
        cluster.up(options);
        Some(cluster)
    }

    /// Brings it up, with these options of `ceph-dev.sh up`; it may run already.
    pub fn up(&self, options: &[&str]) {
        let pid = std::process::id().to_string();
        self.script("up", &[&["--until-pid", &pid], options].concat());
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its configuration, which also says where the administrator's key is.
    pub fn conf(&self) -> PathBuf {
        self.dir.join("ceph.conf")
    }

    /// The administrator's key.
    pub fn keyring(&self) -> PathBuf {
        self.dir.join("keyring")
    }

    /// Whether all is up, and what is said about each daemon.
    pub fn status(&self) -> (bool, String) {
        let output = self.try_script("status", &[]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said)
    }

    /// Waits until all is up and every object has all its copies.
    pub fn wait(&self) {
        self.script("wait", &[]);
    }

    /// Ends it; what was not in memory stays.
    pub fn down(&self) {
        self.script("down", &[]);
    }

    /// Kills a daemon: `osd.0`, `mds.a`, `mon.a`, `mgr.a`.
    pub fn kill(&self, daemon: &str) {
        self.script("kill", &[daemon]);
    }

    /// Starts a daemon again that was killed.
    pub fn start_daemon(&self, daemon: &str) {
        self.script("start", &[daemon]);
    }

    /// Makes a daemon hang.
    pub fn stop(&self, daemon: &str) {
        self.script("stop", &[daemon]);
    }

    /// Ends a [`stop`](Self::stop).
    pub fn cont(&self, daemon: &str) {
        self.script("cont", &[daemon]);
    }

    /// A fresh directory at the root of the file system.
    pub fn new_path(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Processes share the cluster, and their ids come again.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ns = now.expect("a time after 1970").as_nanos();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/test-{}-{now_ns:x}-{count}", std::process::id());
        self.script("mkdir", &[&path, "755"]);
        path
    }

    /// Removes a directory with all that is in it.
    pub fn remove(&self, path: &str) {
        self.script("rm", &[path]);
    }

    /// A key for what is below `path`.
    pub fn client(&self, name: &str, path: &str) -> Key {
        Key::parse(&self.script("client", &[name, path]))
    }

    /// A subvolume with a RADOS namespace and a key of its own.
    pub fn subvolume(&self, name: &str) -> Key {
        Key::parse(&self.script("subvolume", &[name]))
    }

    /// Mounts a directory by Ceph's own client, as the administrator.
    pub fn mount(&self, path: &str) -> Mount {
        self.mount_with(path, &[])
    }

    /// The same, with more options of `ceph-dev.sh mount`.
    pub fn mount_with(&self, path: &str, options: &[&str]) -> Mount {
        let mount = self.try_mount_with(path, options);
        mount.unwrap_or_else(|said| panic!("{path} cannot be mounted: {said}"))
    }

    /// The same; what was said where it cannot be mounted.
    pub fn try_mount_with(&self, path: &str, options: &[&str]) -> Result<Mount, String> {
        // Goes with the cluster, if not before.
        let places = self.dir.join("mnt");
        fs::create_dir_all(&places).expect("a folder in the cluster's");
        let mountpoint = TempDir::new_in(places).expect("a temporary folder");
        let mount = Mount {
            cluster: self.dir.clone(),
            // Never removed with what is in it: that would be the file system's.
            mountpoint: mountpoint.keep(),
        };
        let mountpoint = mount.mountpoint.to_str();
        let mountpoint = mountpoint.expect("temporary folders are UTF-8");
        let args = [&[mountpoint, "--path", path], options].concat();
        let output = self.try_script("mount", &args);
        match output.status.success() {
            true => Ok(mount),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Runs a command of `ceph-dev.sh` on this cluster, which must succeed; what it printed.
    pub fn script(&self, command: &str, args: &[&str]) -> String {
        let output = self.try_script(command, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command} {args:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command of `ceph-dev.sh` on this cluster.
    pub fn try_script(&self, command: &str, args: &[&str]) -> Output {
        run(&self.dir, command, args)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.is_own {
            return;
        }
        if std::thread::panicking() {
            eprintln!("--- the cluster ---\n{}---", self.status().1);
        }
        let output = self.try_script("down", &["--purge"]);
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

impl Key {
    /// The NAME=VALUE lines of the script.
    fn parse(printed: &str) -> Key {
        let value = |name: &str| {
            let mut pairs = printed.lines().filter_map(|line| line.split_once('='));
            let found = pairs.find(|(key, _)| *key == name);
            found
                .unwrap_or_else(|| panic!("no {name} in {printed:?}"))
                .1
        };
        Key {
            client: value("CLIENT").to_owned(),
            keyring: value("KEYRING").into(),
            path: value("PATH").to_owned(),
        }
    }
}

/// A mount by Ceph's own client, until it is dropped.
#[derive(Debug)]
pub struct Mount {
    cluster: PathBuf,
    mountpoint: PathBuf,
}

impl Mount {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// A path in it.
    pub fn join(&self, path: &str) -> PathBuf {
        self.mountpoint.join(path)
    }

    /// Whether anything is mounted there.
    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.mountpoint)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mountpoint = self.mountpoint.to_str();
        let mountpoint = mountpoint.expect("temporary folders are UTF-8");
        if self.is_mounted() {
            let gone = |args: &[&str]| run(&self.cluster, "umount", args).status.success();
            // By force, what was not written yet is lost.
            if !gone(&[mountpoint]) && !gone(&[mountpoint, "--force"]) {
                eprintln!("{mountpoint} stays mounted");
            }
        }
        let _ = fs::remove_dir(&self.mountpoint);
    }
}

/// Whether anything is mounted on a directory. The file system is not asked: it might not answer.
pub fn is_mounted(place: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc(5)");
    let place = place.to_str().expect("temporary folders are UTF-8");
    let mut places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    places.any(|mounted| mounted == place)
}

fn run(dir: &Path, command: &str, args: &[&str]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../qemu-scripts/ceph-dev.sh");
    let mut script = Command::new(script);
    script.arg(command).arg("--dir").arg(dir).args(args);
    let output = script.stdin(Stdio::null()).output();
    output.expect("bash and the whole source tree")
}

/// Why there can be no cluster here. Nothing is installed for a test.
fn available() -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|p| !installed(p)).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(format!("not installed: {missing}; guest-tests/run.sh does"));
    }
    let fuse = fs::File::options().read(true).write(true).open("/dev/fuse");
    fuse.map_err(|e| format!("no mount of Ceph's own client here: /dev/fuse: {e}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_the_script_prints() {
        let key = Key::parse("CLIENT=a\nKEYRING=/d/client.a.keyring\nPATH=/x=y\n");
        assert_eq!(key.client, "a");
        assert_eq!(key.keyring, Path::new("/d/client.a.keyring"));
        assert_eq!(key.path, "/x=y");
    }

    #[test]
    fn a_mount_is_seen() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/self")));
    }
}
