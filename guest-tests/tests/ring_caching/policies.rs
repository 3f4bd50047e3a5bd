//! What each policy allows.

use guest_tests::ring::fuse::Errno;

use super::*;

const DAY: u64 = 86400;

/// What a guest may keep, in seconds, and the `FOPEN_*` flags of interest.
struct Allowed {
    options: &'static [&'static str],
    file_name: u64,
    dir_name: u64,
    attr: u64,
    file: u32,
    dir: u32,
    negative: bool,
}

const POLICIES: [Allowed; 5] = [
    Allowed {
        options: &["--cache=never"],
        file_name: 0,
        dir_name: 0,
        attr: 0,
        file: DIRECT_IO,
        dir: 0,
        negative: false,
    },
    Allowed {
        options: &["--cache=metadata"],
        file_name: DAY,
        dir_name: DAY,
        attr: DAY,
        file: DIRECT_IO,
        dir: KEEP_CACHE | CACHE_DIR,
        negative: false,
    },
    Allowed {
        options: &["--cache=auto"],
        file_name: 0,
        dir_name: 1,
        attr: 1,
        file: 0,
        dir: 0,
        negative: false,
    },
    Allowed {
        options: &["--cache=auto", "--entry-timeout=5", "--attr-timeout=7"],
        file_name: 5,
        dir_name: 5,
        attr: 7,
        file: 0,
        dir: 0,
        negative: false,
    },
    Allowed {
        options: &["--cache=always"],
        file_name: DAY,
        dir_name: DAY,
        attr: DAY,
        file: KEEP_CACHE,
        dir: KEEP_CACHE | CACHE_DIR,
        negative: true,
    },
];

#[test]
fn each_policy_allows_what_the_table_says() {
    for allowed in POLICIES {
        let volume = Volume::posix();
        let mut vm = vm(&volume, allowed.options);
        let what = allowed.options;
        let fs = vm.fs();
        let (made, handle) = fs.create(ROOT_ID, "f", 0o644, RDWR).unwrap();
        let flags = KEEP_CACHE | DIRECT_IO | CACHE_DIR;
        assert_eq!(handle.open_flags & flags, allowed.file, "{what:?}");
        let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap();
        fs.symlink(ROOT_ID, "s", "f").unwrap();
        for (name, valid) in [
            ("f", allowed.file_name),
            ("s", allowed.file_name),
            ("d", allowed.dir_name),
        ] {
            let entry = fs.lookup(ROOT_ID, name).unwrap();
            assert_eq!(entry.entry_valid, valid, "{name}, {what:?}");
            assert_eq!(entry.attr_valid, allowed.attr, "{name}, {what:?}");
        }
        assert_eq!(made.entry_valid, allowed.file_name, "{what:?}");
        assert_eq!(dir.entry_valid, allowed.dir_name, "{what:?}");
        let attr = fs.getattr(made.nodeid).unwrap();
        assert_eq!(attr.attr_valid, allowed.attr, "{what:?}");
        let opened = fs.opendir(ROOT_ID).unwrap();
        assert_eq!(opened.open_flags & flags, allowed.dir, "{what:?}");
        match fs.lookup(ROOT_ID, "absent") {
            Ok(entry) => {
                assert!(allowed.negative, "{what:?}");
                assert_eq!((entry.nodeid, entry.entry_valid), (0, DAY));
            }
            Err(error) => {
                assert!(error == Errno::NOENT, "{error}");
                assert!(!allowed.negative, "{what:?}");
            }
        }
    }
}

/// With `never`, a second VM sees a change at its next request, whatever it is.
#[test]
fn never_sees_all_at_once() {
    for volume in volumes() {
        let (mut a, mut b) = (
            vm(&volume, &["--cache=never"]),
            vm(&volume, &["--cache=never"]),
        );
        rewrite(a.fs(), "f", b"old");
        let (reader, _) = open(b.fs(), "f", RDONLY);
        let (writer, _) = open(a.fs(), "f", RDWR);
        a.fs().write_all(writer, 0, b"newer").unwrap();
        // Neither closed nor synced.
        assert_eq!(b.fs().fgetattr(reader).unwrap().attr.size, 5);
        assert_eq!(b.fs().read(reader, 0, 10).unwrap(), b"newer");
    }
}

/// Listings with attributes are of no use where each name is looked up again.
#[test]
fn readdirplus_is_taken_where_names_are_kept() {
    use guest_tests::ring::fuse::abi::FsOptions;
    for (options, taken) in [
        (&["--cache=never"][..], false),
        (&["--cache=auto"], false),
        (&["--cache=auto", "--entry-timeout=1"], true),
        (&["--cache=metadata"], true),
        (&["--cache=always"], true),
    ] {
        let volume = Volume::posix();
        let flags = vm(&volume, options).session.flags();
        let bits = FsOptions::DO_READDIRPLUS.bits() | FsOptions::READDIRPLUS_AUTO.bits();
        assert_eq!(flags & bits, if taken { bits } else { 0 }, "{options:?}");
    }
}
