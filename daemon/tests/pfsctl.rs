//! `pfsctl` as its user sees it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs pfsctl in `dir` with `stdin`.
fn run(dir: &Path, args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pfsctl"))
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_owned();
    let writer = std::thread::spawn(move || {
        // It may end before it has read all.
        let _ = input.write_all(&stdin);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Runs pfsctl, which must succeed; answers what it printed.
#[track_caller]
fn ok(dir: &Path, args: &[&str]) -> String {
    let bytes = ok_bytes(dir, args, b"");
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn ok_bytes(dir: &Path, args: &[&str], stdin: &[u8]) -> Vec<u8> {
    let output = run(dir, args, stdin);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {text}");
    assert!(
        text.is_empty(),
        "{args:?} is silent when all is well: {text}"
    );
    output.stdout
}

/// Runs pfsctl, which must fail with a message that has all of `words`.
#[track_caller]
fn refused(dir: &Path, args: &[&str], words: &[&str]) {
    let output = run(dir, args, b"");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{args:?} must be refused");
    assert!(!text.contains("panicked"), "{text}");
    for word in words {
        assert!(text.contains(word), "{args:?}: {word:?} is not in: {text}");
    }
}

/// Bytes that repeat nowhere near a stripe.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn shown(dir: &Path, volume: &str) -> serde_json::Value {
    serde_json::from_str(&ok(dir, &["volume", "show", volume, "--json"])).unwrap()
}

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| PathBuf::from(entry.unwrap().file_name()))
        .collect();
    names.sort();
    names
}

#[test]
fn a_striped_volume_from_create_to_empty() {
    let temp = temp();
    let dir = temp.path();
    let made = ok(
        dir,
        &[
            "volume",
            "create",
            "v",
            "--targets",
            "3",
            "--stripe-unit",
            "64K",
            "--mdt-size",
            "8K",
        ],
    );
    assert!(
        made.contains("striped volume") && made.contains("3 targets"),
        "{made}"
    );
    let data = noise(3 * 1024 * 1024 + 12345);
    fs::write(dir.join("local"), &data).unwrap();
    fs::set_permissions(dir.join("local"), fs::Permissions::from_mode(0o640)).unwrap();
    ok(dir, &["put", "v", "/big", "local"]);
    assert_eq!(ok_bytes(dir, &["get", "v", "big"], b""), data);
    ok(dir, &["get", "v", "big", "back"]);
    assert_eq!(fs::read(dir.join("back")).unwrap(), data);
    let mode = fs::metadata(dir.join("back")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    let shown = shown(dir, "v");
    assert_eq!(shown["engine"], "striped");
    assert_eq!(shown["layout"]["stripe_unit"], 65536);
    assert_eq!(shown["layout"]["stripe_count"], 3);
    assert_eq!(shown["layout"]["mdt_size"], 8192);
    assert!(shown["capacity_bytes"].as_u64().unwrap() > 0);
    let targets = shown["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 3);
    for target in targets {
        assert_eq!(target["objects"], 1);
        let bytes = target["bytes"].as_u64().unwrap();
        assert!(
            bytes.abs_diff(data.len() as u64 / 3) <= 2 * 65536,
            "{shown}"
        );
    }
    let text = ok(dir, &["volume", "show", "v"]);
    assert!(
        text.contains("stripe unit 64K") && text.contains("targets/2"),
        "{text}"
    );

    ok(dir, &["rm", "v", "big"]);
    for target in self::shown(dir, "v")["targets"].as_array().unwrap() {
        assert_eq!(
            (&target["objects"], &target["bytes"]),
            (&0.into(), &0.into())
        );
    }
}

#[test]
fn sizes_around_every_boundary_come_back() {
    let temp = temp();
    let dir = temp.path();
    ok(
        dir,
        &[
            "volume",
            "create",
            "v",
            "--stripe-unit=4K",
            "--mdt-size=4K",
            "--targets=3",
        ],
    );
    let mdt = 4096;
    for len in [
        0,
        1,
        mdt - 1,
        mdt,
        mdt + 1,
        2 * mdt,
        4 * mdt + 7,
        (1 << 20) - 1,
        (9 << 20) + 1,
    ] {
        let data = noise(len);
        ok_bytes(dir, &["put", "v", "f"], &data);
        let back = ok_bytes(dir, &["get", "v", "f", "-"], b"");
        assert!(back == data, "{len} bytes");
    }
}

#[test]
fn directories_are_listed_and_removed() {
    let temp = temp();
    let dir = temp.path();
    ok(dir, &["volume", "create", "v", "--targets=1"]);
    ok_bytes(dir, &["put", "-p", "v", "/a/b/file"], b"hello");
    ok_bytes(dir, &["put", "v", "/a/z"], b"");
    assert_eq!(ok(dir, &["ls", "v"]), "a\n");
    assert_eq!(ok(dir, &["ls", "v", "a"]), "b\nz\n");
    assert_eq!(ok(dir, &["ls", "v", "/a/z"]), "/a/z\n");
    assert_eq!(
        ok(dir, &["ls", "-R", "v"]),
        "/:\na\n\n/a:\nb\nz\n\n/a/b:\nfile\n"
    );
    let long = ok(dir, &["ls", "-l", "v", "/a/b"]);
    assert!(
        long.starts_with("-rw-") && long.ends_with(" file\n"),
        "{long}"
    );
    assert_eq!(long.split_whitespace().nth(4), Some("5"), "{long}");
    refused(dir, &["rm", "v", "a"], &["a is a directory", "--recursive"]);
    refused(dir, &["rm", "-r", "v", "/"], &["root"]);
    refused(dir, &["rm", "-r", "v", "none"], &["none", "No such file"]);
    ok(dir, &["rm", "-r", "v", "a"]);
    assert_eq!(ok(dir, &["ls", "v"]), "");
}

#[test]
fn a_failed_put_or_get_leaves_nothing() {
    let temp = temp();
    let dir = temp.path();
    ok(dir, &["volume", "create", "v", "--targets=1"]);
    ok_bytes(dir, &["put", "v", "f"], b"first");
    refused(dir, &["put", "v", "f", "none"], &["cannot open none"]);
    refused(dir, &["put", "v", "f", "v"], &["v is a directory"]);
    refused(dir, &["put", "v", "d/f"], &["d/f", "No such file"]);
    refused(dir, &["put", "v", "f/f"], &["Not a directory"]);
    refused(dir, &["put", "v", "/"], &["root"]);
    refused(dir, &["put", "v", "../f"], &["Invalid argument"]);
    // A source that fails in the middle.
    refused(
        dir,
        &["put", "v", "f", "/proc/self/mem"],
        &["cannot read the data"],
    );
    assert_eq!(ok(dir, &["ls", "v"]), "f\n");
    assert_eq!(ok_bytes(dir, &["get", "v", "f"], b""), b"first");

    let before = names(dir);
    refused(dir, &["get", "v", "none", "to"], &["none", "No such file"]);
    refused(dir, &["get", "v", "/", "to"], &["/ is a directory"]);
    refused(dir, &["get", "v", "f", "v"], &["v is a directory"]);
    refused(
        dir,
        &["get", "v", "f", "/dev/full"],
        &["cannot write the data", "No space"],
    );
    assert_eq!(names(dir), before);
    ok(dir, &["get", "v", "f", "/dev/null"]);
}

#[test]
fn posix_null_and_plain_volumes() {
    let temp = temp();
    let dir = temp.path();
    fs::create_dir(dir.join("plain")).unwrap();
    ok(dir, &["volume", "create", "own", "--engine=posix"]);
    fs::create_dir(dir.join("served")).unwrap();
    ok(
        dir,
        &[
            "volume",
            "create",
            "other",
            "--engine=posix",
            "--source",
            "served",
        ],
    );
    let data = noise(2 << 20);
    for (volume, place) in [("plain", "plain"), ("own", "own/data"), ("other", "served")] {
        ok_bytes(dir, &["put", volume, "f"], &data);
        assert!(
            fs::read(dir.join(place).join("f")).unwrap() == data,
            "{volume}"
        );
        assert!(
            ok_bytes(dir, &["get", volume, "f"], b"") == data,
            "{volume}"
        );
        assert_eq!(shown(dir, volume)["engine"], "posix");
    }
    assert!(shown(dir, "plain")["uuid"].is_null());
    ok(dir, &["volume", "create", "null", "--engine=null"]);
    assert_eq!(shown(dir, "null")["engine"], "null");
    ok_bytes(dir, &["put", "null", "f"], &data);
    assert_eq!(ok(dir, &["ls", "null"]), "");
}

#[test]
fn create_refuses() {
    let temp = temp();
    let dir = temp.path();
    ok(dir, &["volume", "create", "v"]);
    for (args, words) in [
        (&["v"][..], &["already holds a volume"][..]),
        (&["n", "--targets=0"], &["at least one target"]),
        (&["n", "--stripe-unit=5"], &["stripe unit of 5"]),
        (&["n", "--stripe-unit=lots"], &["lots", "not a size"]),
        (&["n", "--stripe-count=9"], &["stripe count of 9"]),
        (&["n", "--mdt-size=1"], &["mdt_size of 1"]),
        (&["n", "--targets=2", "--target=t"], &["--target"]),
        (&["n", "--target=v/targets/0"], &["target 0 of volume"]),
        (&["n", "--engine=cephfs"], &["cephfs"]),
        (
            &["n", "--engine=null", "--targets=2"],
            &["--engine striped only"],
        ),
        (&["n", "--source=v"], &["--engine posix only"]),
        (
            &["n", "--engine=posix", "--source=none"],
            &["none is missing"],
        ),
    ] {
        let args = [&["volume", "create"][..], args].concat();
        refused(dir, &args, words);
        assert_eq!(
            names(dir),
            [PathBuf::from("v")],
            "nothing half-made: {args:?}"
        );
    }
    refused(dir, &["volume", "show", "n"], &["no volume at n"]);
    fs::remove_dir_all(dir.join("v/targets/2")).unwrap();
    for args in [
        &["volume", "show", "v"][..],
        &["ls", "v"],
        &["put", "v", "f"],
    ] {
        refused(dir, args, &["target 2 is missing"]);
    }
}

#[test]
fn layouts_are_shown_and_set() {
    let temp = temp();
    let dir = temp.path();
    let create = ["volume", "create", "v", "--targets", "2"];
    ok(dir, &create);
    fs::write(dir.join("local"), noise(300_000)).unwrap();
    ok(dir, &["put", "-p", "v", "/d/before", "local"]);
    let usual = "stripe_unit=1048576 stripe_count=2 mdt_size=65536\n";
    assert_eq!(ok(dir, &["layout", "get", "v", "/d"]), usual);
    let set = ["layout", "set", "v", "/d"];
    let to = |args: &[&'static str]| [&set[..], args].concat();
    ok(dir, &to(&["--stripe-count", "1", "--mdt-size", "0"]));
    ok(dir, &to(&["--stripe-unit", "64K"]));
    let other = "stripe_unit=65536 stripe_count=1 mdt_size=0\n";
    assert_eq!(ok(dir, &["layout", "get", "v", "/d"]), other);
    ok(dir, &["put", "v", "/d/after", "local"]);
    assert_eq!(ok(dir, &["layout", "get", "v", "/d/after"]), other);
    assert_eq!(ok(dir, &["layout", "get", "v", "/d/before"]), usual);
    assert_eq!(
        ok_bytes(dir, &["get", "v", "/d/after"], b""),
        noise(300_000)
    );
    ok(dir, &to(&["--inherit"]));
    assert_eq!(ok(dir, &["layout", "get", "v", "/d"]), usual);

    refused(dir, &set, &["--stripe-unit"]);
    refused(
        dir,
        &to(&["--stripe-count", "3"]),
        &["/d", "number of targets"],
    );
    refused(dir, &to(&["--mdt-size", "1"]), &["multiples of 4K"]);
    let file = ["layout", "set", "v", "/d/after", "--stripe-count", "2"];
    refused(dir, &file, &["empty"]);
    refused(dir, &["layout", "get", "v", "/none"], &["/none"]);
    ok(dir, &["volume", "create", "p", "--engine", "posix"]);
    refused(dir, &["layout", "get", "p", "/"], &["striped volume"]);
    let posix = ["layout", "set", "p", "/", "--stripe-count", "1"];
    refused(dir, &posix, &["striped volume"]);
}

/// Runs `volume check`, whose exit code must be `code`; answers what it printed.
#[track_caller]
fn check(dir: &Path, args: &[&str], code: i32) -> String {
    let args = [&["volume", "check"], args].concat();
    let output = run(dir, &args, b"");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_check_tells_by_its_exit_code() {
    let temp = temp();
    let dir = temp.path();
    ok(dir, &["volume", "create", "v", "--targets", "2"]);
    fs::write(dir.join("local"), noise(300_000)).unwrap();
    ok(dir, &["put", "v", "/a", "local"]);
    ok(dir, &["put", "v", "/b\nc", "local"]);
    assert!(check(dir, &["v"], 0).starts_with("clean: 2 files, 0 directories, 2 objects"));
    fs::remove_file(dir.join("v/meta/namespace/a")).unwrap();
    let found = check(dir, &["v"], 4);
    assert!(
        found.contains("object without a file (can be repaired)"),
        "{found}"
    );
    assert!(found.contains("run with --repair"), "{found}");
    let json: serde_json::Value = serde_json::from_str(&check(dir, &["v", "--json"], 4)).unwrap();
    assert_eq!(json["problems"][0]["kind"], "lost-object");
    assert_eq!(
        (&json["alone"], &json["uncorrected"]),
        (&true.into(), &1.into())
    );
    assert!(check(dir, &["v", "--repair"], 1).contains("1 repaired"));
    check(dir, &["v", "--repair"], 0);

    let inode = dir.join("v/meta/namespace/b\nc");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(inode, "user.pfs.file", b"x", flags).unwrap();
    let found = check(dir, &["v", "--repair"], 4);
    assert!(
        found.contains("/b\\nc: record of"),
        "no name ends a line: {found}"
    );

    check(dir, &["none"], 8);
    check(dir, &[], 16);
    check(dir, &["v", "--what"], 16);
    ok(dir, &["volume", "create", "p", "--engine", "posix"]);
    assert!(check(dir, &["p"], 0).contains("nothing to check"));
    assert_eq!(run(dir, &["volume", "show"], b"").status.code(), Some(2));
    assert_eq!(
        run(dir, &["volume", "check", "--help"], b"").status.code(),
        Some(0)
    );
}

#[test]
fn limits_are_set_and_shown() {
    let temp = temp();
    let dir = temp.path();
    let made = ok(
        dir,
        &[
            "volume",
            "create",
            "v",
            "--capacity",
            "10G",
            "--inodes",
            "1M",
        ],
    );
    assert!(made.contains("capacity 10G, inodes 1M"), "{made}");
    let limits = |volume| shown(dir, volume)["limits"].clone();
    assert_eq!(limits("v")["capacity_bytes"], 10u64 << 30);
    assert_eq!(limits("v")["inodes"], 1 << 20);
    assert_eq!(limits("v")["used_inodes"], 0);
    assert_eq!(shown(dir, "v")["capacity_bytes"], 10u64 << 30);
    assert_eq!(
        ok(dir, &["volume", "set", "v", "--capacity", "20M"]),
        "capacity 20M, inodes 1M\n"
    );
    assert_eq!(limits("v")["capacity_bytes"], 20 << 20);
    assert!(ok(dir, &["volume", "show", "v"]).contains("limits    capacity 20M, inodes 1M; used "));
    assert_eq!(
        ok(
            dir,
            &["volume", "set", "v", "--capacity=none", "--inodes=none"]
        ),
        "capacity none, inodes none\n"
    );
    assert_eq!(limits("v")["used_bytes"], serde_json::Value::Null);
    let text = fs::read_to_string(dir.join("v/volume.toml")).unwrap();
    assert!(!text.contains("limits"), "{text}");

    refused(dir, &["volume", "set", "v"], &["--capacity"]);
    for bad in ["0", "ten", "-5", "16777216T"] {
        refused(dir, &["volume", "set", "v", "--capacity", bad], &[]);
        refused(dir, &["volume", "create", "w", "--inodes", bad], &[]);
    }
    assert!(!dir.join("w").exists());
    ok(dir, &["volume", "create", "p", "--engine", "posix"]);
    let words = ["only a striped volume has limits", "posix"];
    refused(dir, &["volume", "set", "p", "--capacity", "1G"], &words);
    let posix = [
        "volume", "create", "q", "--engine", "posix", "--inodes", "5",
    ];
    refused(dir, &posix, &words);
    assert!(!dir.join("q").exists());
}
