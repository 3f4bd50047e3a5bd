//! Daemons on a CephFS: ours, and virtiofsd over a ceph-fuse mount of the same cluster.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;

/// How long a mount may take.
const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// Where a backend's folder says which directory of which cluster it is.
const NOTE: &str = "place";

/// A directory of a cluster's file system, for one daemon.
#[derive(Debug, Clone)]
pub struct Place {
    /// The cluster's folder, of `qemu-scripts/ceph-dev.sh`.
    pub cluster: PathBuf,
    /// The directory.
    pub path: String,
}

impl Place {
    /// A new directory of that name.
    pub fn new(cluster: &Path, name: &str) -> Result<Place, Error> {
        let place = Place {
            cluster: cluster.to_owned(),
            path: format!("/bench/{name}"),
        };
        let script = script();
        let mut command = Command::new(&script);
        command
            .args(["mkdir", &place.path, "755", "--dir"])
            .arg(cluster);
        let output = command.output().map_err(Error::file("run", &script))?;
        match output.status.success() {
            true => Ok(place),
            false => Err(Error::Volume(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )),
        }
    }

    /// Writes it down in a backend's folder.
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        let file = folder.join(NOTE);
        let text = format!("{}\n{}", self.cluster.display(), self.path);
        fs::write(&file, text).map_err(Error::file("write", &file))
    }

    /// The one in a backend's folder, where what it serves is a CephFS.
    pub fn load(folder: &Path) -> std::io::Result<Option<Place>> {
        let text = match fs::read_to_string(folder.join(NOTE)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let place = text.split_once('\n').map(|(cluster, path)| Place {
            cluster: cluster.into(),
            path: path.to_owned(),
        });
        Ok(place)
    }

    fn file(&self, name: &str) -> String {
        self.cluster.join(name).display().to_string()
    }

    /// What `pfsctl volume create` is told.
    pub fn volume_options(&self) -> Vec<String> {
        let options = [
            "--engine",
            "cephfs",
            "--user",
            "admin",
            "--fs-path",
            &self.path,
        ];
        let conf = ["--conf".to_owned(), self.file("ceph.conf")];
        let keyring = ["--keyring".to_owned(), self.file("keyring")];
        [&options.map(str::to_owned)[..], &conf, &keyring].concat()
    }
}

/// Beside this source, unless the environment says otherwise.
fn script() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../qemu-scripts/ceph-dev.sh");
    std::env::var_os("PFS_CEPH_DEV").map_or(beside.into(), PathBuf::from)
}

/// A ceph-fuse mount, until it is dropped.
#[derive(Debug)]
pub struct CephFuse {
    mountpoint: PathBuf,
    process: Child,
}

impl CephFuse {
    /// Mounts `place` on a directory that is there.
    pub fn mount(place: &Place, mountpoint: &Path) -> Result<CephFuse, Error> {
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
        let before = device(mountpoint).map_err(Error::file("look at", mountpoint))?;
        let mut command = Command::new("ceph-fuse");
        command
            .args(["-f", "-n", "client.admin", "-c", &place.file("ceph.conf")])
            .args(["-k", &place.file("keyring"), "-r", &place.path])
            .arg(mountpoint)
            .args(["--admin-socket=", "--log-file="])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command
            .spawn()
            .map_err(Error::file("run", "ceph-fuse".as_ref()))?;
        let mut mount = CephFuse {
            mountpoint: mountpoint.to_owned(),
            process,
        };
        let limit = Instant::now() + MOUNT_LIMIT;
        while !device(mountpoint).is_ok_and(|device| device != before) {
            let ended = mount
                .process
                .try_wait()
                .is_ok_and(|status| status.is_some());
            if ended || Instant::now() > limit {
                return Err(Error::CephFuse(place.path.clone()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(mount)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for CephFuse {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.mountpoint).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(&self.mountpoint)
                .status();
            let _ = self.process.kill();
        }
        // It ends when it is unmounted.
        let _ = self.process.wait();
    }
}
