//! `qemu-scripts/ceph-dev.sh`: clusters that start, are hurt, and leave nothing behind.

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;
use std::thread;
use std::time::Duration;

use guest_tests::ceph::{is_mounted, Cluster};
use guest_tests::fixture::Noise;
use support::{all_processes_of, ceph, eventually, fsid, objects, processes_of, state_of, Sleeper};

#[test]
fn two_clusters_run_side_by_side() {
    let (Some(one), Some(two)) = (Cluster::start(&[]), Cluster::start(&["--osds", "2"])) else {
        return;
    };
    for (cluster, daemons) in [(&one, 6), (&two, 5)] {
        let (is_up, said) = cluster.status();
        assert!(is_up, "{said}");
        assert_eq!(processes_of(cluster.dir()).len(), daemons, "{said}");
        assert!(said.contains("HEALTH_OK"), "{said}");
    }
    assert_ne!(fsid(&one), fsid(&two));
    drop(one);
    let (is_up, said) = two.status();
    assert!(is_up, "{said}");
}

#[test]
fn up_again_changes_nothing() {
    let Some(cluster) = Cluster::start(&["--fs", "scratch"]) else {
        return;
    };
    let before = (fsid(&cluster), processes_of(cluster.dir()));
    cluster.up(&[]);
    assert_eq!((fsid(&cluster), processes_of(cluster.dir())), before);
    let output = cluster.try_script("up", &["--osds", "5"]);
    assert!(!output.status.success());
    assert_eq!(processes_of(cluster.dir()), before.1);
    let said = ceph(&cluster, &["fs", "ls"]);
    assert!(said.contains("name: scratch"), "{said}");
}

#[test]
fn what_one_mount_writes_another_reads() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let path = cluster.new_path();
    let (writer, reader) = (cluster.mount(&path), cluster.mount(&path));
    let bytes = Noise::new(1).bytes(5 << 20);
    fs::write(writer.join("file"), &bytes).unwrap();
    assert!(fs::read(reader.join("file")).unwrap() == bytes);
    let file = fs::File::options().write(true).open(reader.join("file"));
    file.unwrap().write_all_at(b"other", 1 << 20).unwrap();
    let found = fs::read(writer.join("file")).unwrap();
    assert_eq!(&found[1 << 20..][..5], b"other");
    // The directory is the root of both: what is beside it is not seen.
    assert_eq!(fs::read_dir(writer.path()).unwrap().count(), 1);
    let root = cluster.mount("/");
    assert!(root.join(&path[1..]).join("file").is_file());
    drop((writer, reader));
    cluster.remove(&path);
    assert!(!root.join(&path[1..]).exists());
}

#[test]
fn osds_that_are_killed_come_back_with_what_they_had() {
    let Some(cluster) = Cluster::start(&[]) else {
        return;
    };
    cluster.wait();
    let mount = cluster.mount("/");
    let mut noise = Noise::new(2);
    let mut files = Vec::new();
    let mut write = |name: &str, files: &mut Vec<(String, Vec<u8>)>| {
        let bytes = noise.bytes(300_000);
        let file = fs::File::create(mount.join(name)).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_all().unwrap();
        files.push((name.to_owned(), bytes));
    };
    (0..20).for_each(|n| write(&format!("before-{n}"), &mut files));
    // One after the other: at the end no OSD has what it was first written to.
    for osd in ["osd.0", "osd.1", "osd.2"] {
        cluster.kill(osd);
        let (is_up, said) = cluster.status();
        assert!(!is_up, "{said}");
        assert!(state_of(&said, osd).contains("down"), "{said}");
        write(&format!("without-{osd}"), &mut files);
        cluster.start_daemon(osd);
        cluster.wait();
    }
    drop(mount);
    let mount = cluster.mount("/");
    for (name, bytes) in &files {
        assert!(&fs::read(mount.join(name)).unwrap() == bytes, "{name}");
    }
}

#[test]
fn names_wait_for_an_mds_that_hangs_and_for_one_that_was_killed() {
    let Some(cluster) = Cluster::start(&["--osds", "2"]) else {
        return;
    };
    let mount = cluster.mount("/");
    for (n, (hurt, mend)) in [("stop", "cont"), ("kill", "start")].iter().enumerate() {
        cluster.script(hurt, &["mds.a"]);
        let (is_up, said) = cluster.status();
        assert!(!is_up, "{said}");
        let place = mount.join(&format!("{n}"));
        let made = thread::spawn(move || fs::create_dir(place));
        thread::sleep(Duration::from_millis(300));
        assert!(!made.is_finished(), "made by nobody");
        cluster.script(mend, &["mds.a"]);
        made.join().unwrap().unwrap();
        cluster.wait();
    }
}

#[test]
fn a_monitor_that_is_dead_is_told_of_and_comes_back() {
    let Some(cluster) = Cluster::start(&["--osds", "2"]) else {
        return;
    };
    cluster.kill("mon.a");
    let (is_up, said) = cluster.status();
    assert!(!is_up, "{said}");
    assert!(state_of(&said, "mon.a").contains("down"), "{said}");
    // The others say for themselves that they live.
    assert!(state_of(&said, "mds.a").contains("up:active"), "{said}");
    cluster.start_daemon("mon.a");
    cluster.wait();
    assert!(cluster.status().0);
}

#[test]
fn bluestore_keeps_its_data() {
    let Some(cluster) = Cluster::start(&["--store", "bluestore", "--osds", "2"]) else {
        return;
    };
    let before = fsid(&cluster);
    let mount = cluster.mount("/");
    fs::write(mount.join("file"), "still here").unwrap();
    cluster.down();
    assert!(!mount.is_mounted());
    assert!(processes_of(cluster.dir()).is_empty());
    cluster.up(&[]);
    assert_eq!(fsid(&cluster), before);
    let mount = cluster.mount("/");
    let found = fs::read_to_string(mount.join("file")).unwrap();
    assert_eq!(found, "still here");
}

#[test]
fn down_leaves_nothing() {
    let Some(cluster) = Cluster::start(&["--osds", "2"]) else {
        return;
    };
    let mount = cluster.mount("/");
    let busy = fs::File::create(mount.join("open")).unwrap();
    let before = processes_of(cluster.dir());
    assert_eq!(before.len(), 6, "5 daemons and ceph-fuse: {before:?}");
    // One that hangs cannot hold it up.
    cluster.stop("osd.0");
    cluster.script("down", &["--purge"]);
    drop(busy);
    assert!(!is_mounted(mount.path()));
    let left = all_processes_of(cluster.dir());
    assert!(left.is_empty(), "{left:?}");
    assert!(!cluster.dir().exists());
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    assert!(!sockets.contains(cluster.dir().to_str().unwrap()));
    // That there is nothing to end is no failure.
    cluster.down();
}

#[test]
fn a_cluster_ends_with_the_process_that_it_is_tied_to() {
    let Some(cluster) = Cluster::start(&["--osds", "2"]) else {
        return;
    };
    let mut owner = Sleeper::start();
    let pid = owner.0.id().to_string();
    cluster.script("up", &["--until-pid", &pid]);
    assert!(cluster.status().0);
    // Until it is waited for, it is a zombie.
    owner.0.kill().unwrap();
    eventually("the cluster goes", || !cluster.dir().exists());
    eventually("so does who saw to it", || {
        all_processes_of(cluster.dir()).is_empty()
    });
}

#[test]
fn a_process_that_only_has_the_id_is_left_alone() {
    let Some(cluster) = Cluster::start(&["--osds", "2"]) else {
        return;
    };
    let mut stranger = Sleeper::start();
    cluster.kill("osd.1");
    // As if the id had come again.
    let record = fs::read_to_string(cluster.dir().join("run/osd.0.pid")).unwrap();
    let (_, start) = record.split_once(' ').unwrap();
    let record = format!("{} {start}", stranger.0.id());
    fs::write(cluster.dir().join("run/osd.1.pid"), record).unwrap();
    assert!(!cluster.try_script("kill", &["osd.1"]).status.success());
    cluster.script("down", &["--purge"]);
    assert!(stranger.0.try_wait().unwrap().is_none());
}

#[test]
fn a_folder_of_others_is_refused() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), "").unwrap();
    for command in [&["up"][..], &["down", "--purge"], &["status"]] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../qemu-scripts/ceph-dev.sh");
        let mut script = Command::new(script);
        let output = script.args(command).arg("--dir").arg(folder.path());
        let output = output.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("another --dir"));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let (is_up, said) = cluster.status();
    assert!(is_up, "{said}");
}

#[test]
fn a_mount_in_use_goes_by_force() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let path = cluster.new_path();
    let mount = cluster.mount(&path);
    let open = fs::File::create(mount.join("file")).unwrap();
    let mountpoint = mount.path().to_str().unwrap();
    assert!(!cluster.try_script("umount", &[mountpoint]).status.success());
    assert!(mount.is_mounted());
    cluster.script("umount", &[mountpoint, "--force"]);
    assert!(!mount.is_mounted());
    drop(open);
    // Its client has left in good order, and holds nobody up.
    cluster.remove(&path);
}

#[test]
fn a_clients_key_is_for_its_path() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let path = cluster.new_path();
    let key = cluster.client(&path[1..], &path);
    assert_eq!(key.path, path);
    let mode = fs::metadata(&key.keyring).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let admin = cluster.mount(&path);
    let mount = cluster.mount_with(&path, &["--as", &key.client]);
    fs::write(mount.join("file"), "hello").unwrap();
    let found = fs::read_to_string(admin.join("file")).unwrap();
    assert_eq!(found, "hello");
    let root = cluster.try_mount_with("/", &["--as", &key.client]);
    assert!(root.unwrap_err().contains("cannot mount"));
}

#[test]
fn a_subvolumes_key_reads_no_others_objects() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let name = cluster.new_path()[1..].to_owned();
    let tenants = ["a", "b"].map(|tenant| cluster.subvolume(&format!("{name}-{tenant}")));
    for key in &tenants {
        let mount = cluster.mount_with(&key.path, &["--as", &key.client]);
        fs::write(mount.join("file"), "secret").unwrap();
    }
    let [a, b] = &tenants;
    assert!(objects(cluster, a, a).is_some_and(|found| !found.is_empty()));
    assert_eq!(objects(cluster, a, b), None);
    let other = cluster.try_mount_with(&b.path, &["--as", &a.client]);
    assert!(other.is_err());
}
