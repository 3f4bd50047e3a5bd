//! What a tenant's key reaches: its subvolume, and not another's objects, even past CephFS.

use std::path::Path;
use std::process::{Command, Output};

use guest_tests::ceph::{Cluster, Key};
use guest_tests::fixture::{pfsctl, try_pfsctl};
use tempfile::TempDir;

const POOL: &str = "cephfs_data";
const SECRET: &[u8] = b"what only tenant B may read";

/// `rados`, as a client of its own.
fn rados(cluster: &Cluster, key: &Key, args: &[&str]) -> Output {
    Command::new("rados")
        .arg("-c")
        .arg(cluster.conf())
        .args(["-n", &format!("client.{}", key.client), "-k"])
        .arg(&key.keyring)
        .args(["-p", POOL])
        .args(args)
        .output()
        .expect("rados")
}

/// A volume of what `key` is for.
fn volume(cluster: &Cluster, key: &Key, path: &str, at: &Path) -> Output {
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (conf, keyring) = (text(&cluster.conf()), text(&key.keyring));
    let at = text(at);
    let command = [
        "volume", "create", &at, "--engine", "cephfs", "--conf", &conf,
    ];
    let user = [
        "--user",
        &key.client,
        "--keyring",
        &keyring,
        "--fs-path",
        path,
    ];
    try_pfsctl(&[&command[..], &user].concat())
}

/// Puts the secret into a volume of `key`; answers the RADOS namespace and name of its object.
fn put_secret(cluster: &Cluster, dir: &TempDir, key: &Key) -> (String, String) {
    let (folder, file) = (dir.path().join(&key.client), dir.path().join("secret"));
    std::fs::write(&file, SECRET).unwrap();
    let made = volume(cluster, key, &key.path, &folder);
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    pfsctl(&["put", &text(&folder), "/secret", &text(&file)]);
    let admin = Key {
        client: "admin".to_owned(),
        keyring: cluster.keyring(),
        path: "/".to_owned(),
    };
    let listed = rados(cluster, &admin, &["--all", "ls"]).stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    for line in listed.lines() {
        // "NAMESPACE\tOBJECT", as `rados --all ls` prints it.
        let (namespace, object) = line.split_once('\t').unwrap_or(("", line));
        let read = rados(cluster, &admin, &["-N", namespace, "get", object, "-"]);
        if read.stdout == SECRET {
            return (namespace.to_owned(), object.to_owned());
        }
    }
    panic!("no object has the secret:\n{listed}");
}

#[test]
fn an_isolated_tenants_objects_are_its_own() {
    let Some(cluster) = Cluster::start(&[]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (cluster.subvolume("a"), cluster.subvolume("b"));
    let (namespace, object) = put_secret(&cluster, &dir, &b);
    let get = ["-N", &namespace, "get", &object, "-"];
    assert_eq!(
        rados(&cluster, &b, &get).stdout,
        SECRET,
        "its own key reads it"
    );
    let refused = rados(&cluster, &a, &get);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.stdout.is_empty() && said.contains("not permitted"),
        "{said}"
    );
    assert!(rados(&cluster, &a, &["-N", &namespace, "ls"])
        .stdout
        .is_empty());
    // Nor does it by way of CephFS.
    for path in ["/", "/volumes", b.path.as_str()] {
        let made = volume(&cluster, &a, path, &dir.path().join("other"));
        assert!(!made.status.success(), "{path}");
        assert!(!dir.path().join("other").exists());
    }
}

#[test]
fn a_key_for_a_path_alone_is_no_isolation() {
    let Some(cluster) = Cluster::start(&[]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let paths = [cluster.new_path(), cluster.new_path()];
    let (a, b) = (
        cluster.client("a", &paths[0]),
        cluster.client("b", &paths[1]),
    );
    let (namespace, object) = put_secret(&cluster, &dir, &b);
    let read = rados(&cluster, &a, &["-N", &namespace, "get", &object, "-"]);
    assert_eq!(
        read.stdout, SECRET,
        "if Ceph has changed that, docs/ceph.md is to be changed"
    );
    let made = volume(&cluster, &a, &paths[0], &dir.path().join("a-volume"));
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(said.contains("may read the objects of others"), "{said}");
}
