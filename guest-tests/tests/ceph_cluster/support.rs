//! Looks at a cluster from outside of it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use guest_tests::ceph::{Cluster, Key};

/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Names of the objects in the subvolume of `whose`, if `key` may see them.
pub fn objects(cluster: &Cluster, key: &Key, whose: &Key) -> Option<String> {
    let mut rados = Command::new("rados");
    rados
        .arg("-c")
        .arg(cluster.conf())
        .arg("-k")
        .arg(&key.keyring);
    rados.args(["-n", &format!("client.{}", key.client)]);
    rados.args(["-N", &format!("fsvolumens_{}", whose.client)]);
    let output = rados.args(["-p", "cephfs_data", "ls"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(said)
}

/// What `ceph` answers.
pub fn ceph(cluster: &Cluster, args: &[&str]) -> String {
    let mut ceph = Command::new("ceph");
    let output = ceph.arg("-c").arg(cluster.conf()).args(args).output();
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Which cluster it is.
pub fn fsid(cluster: &Cluster) -> String {
    ceph(cluster, &["fsid"])
}

/// The line on a daemon in a status.
pub fn state_of<'a>(status: &'a str, daemon: &str) -> &'a str {
    let mut lines = status.lines();
    let line = lines.find(|line| line.starts_with(daemon));
    line.unwrap_or_else(|| panic!("no {daemon} in {status}"))
}

/// Daemons and mounts of this folder's cluster.
pub fn processes_of(dir: &Path) -> Vec<u32> {
    let all = all_processes_of(dir).into_iter();
    let ceph = all.filter(|(_, command)| command.starts_with("ceph-"));
    ceph.map(|(pid, _)| pid).collect()
}

/// Processes that were told of this folder, with their commands.
pub fn all_processes_of(dir: &Path) -> Vec<(u32, String)> {
    let dir = dir.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        if let (Ok(pid), true) = (name.parse(), command.contains(dir)) {
            found.push((pid, command));
        }
    }
    found.sort_unstable();
    found
}

/// Waits until `done` says so.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < TIMEOUT, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A process that is nobody's business.
pub struct Sleeper(pub Child);

impl Sleeper {
    pub fn start() -> Sleeper {
        Sleeper(Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
