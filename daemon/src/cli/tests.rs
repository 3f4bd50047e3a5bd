use super::*;

fn serve(args: &[&str]) -> Options {
    let args = std::iter::once("pfs-virtiofsd").chain(args.iter().copied());
    match parse(args.map(OsString::from)) {
        Ok(Action::Serve(options)) => *options,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(args: &[&str], words: &[&str]) {
    let all = std::iter::once("pfs-virtiofsd").chain(args.iter().copied());
    let error = parse(all.map(OsString::from)).expect_err("must be refused");
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string().replace('\n', " ");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn todays_dialect() {
    let options = serve(&[
        "--fd=30",
        "--shared-dir",
        "/srv/vol",
        "--cache",
        "always",
        "--sandbox",
        "chroot",
        "--xattr",
        "--thread-pool-size=8",
        "--readonly",
        "--rlimit-nofile=4096",
        "--log-level",
        "debug",
    ]);
    assert_eq!(
        options,
        Options {
            shared_dir: "/srv/vol".into(),
            socket: Socket::Fd(30),
            tag: None,
            cache: CachePolicy::Always,
            writeback: false,
            entry_timeout: None,
            attr_timeout: None,
            xattr: true,
            posix_acl: true,
            ids: Ids::default(),
            readonly: true,
            posix_lock: true,
            flock: true,
            sandbox: Sandbox::Chroot,
            thread_pool_size: Some(8),
            poll_limit: Duration::from_micros(20),
            rlimit_nofile: Some(4096),
            log_level: LevelFilter::Debug,
            state_fd: None,
            inflight_fd: None,
        }
    );
}

#[test]
fn the_usual_command_line() {
    let options = serve(&[
        "--socket-path=/run/s",
        "--socket-group",
        "kvm",
        "--shared-dir=v",
        "--tag=pfs",
    ]);
    assert_eq!(
        options.socket,
        Socket::Path {
            path: "/run/s".into(),
            group: Some("kvm".into())
        }
    );
    assert_eq!(options.tag.as_deref(), Some("pfs"));
    assert_eq!(
        (options.cache, options.sandbox, options.log_level),
        (CachePolicy::Auto, Sandbox::Namespace, LevelFilter::Info)
    );
    assert!(options.xattr && options.posix_acl && !options.readonly);
}

/// The words of libvirt 9.0, as it was seen to start the daemon.
#[test]
fn the_older_dialect() {
    let options = serve(&[
        "--fd=30",
        "-o",
        "source=/srv/vol,cache=none,sandbox=chroot,xattr,no_flock,no_posix_lock",
        "--thread-pool-size=2",
    ]);
    assert_eq!(options.shared_dir, PathBuf::from("/srv/vol"));
    assert_eq!(options.socket, Socket::Fd(30));
    assert_eq!(options.cache, CachePolicy::Never);
    assert_eq!(options.sandbox, Sandbox::Chroot);
    assert!(options.xattr);
    assert!(!options.flock && !options.posix_lock);
    let options = serve(&[
        "--fd=3",
        "-osource=/a",
        "-o",
        "cache=always,xattr,no_xattr,loglevel=err",
        "-f",
    ]);
    assert_eq!(options.cache, CachePolicy::Always);
    assert_eq!(options.log_level, LevelFilter::Error);
    assert!(!options.xattr && !options.posix_acl);
    assert_eq!(
        serve(&["--fd=3", "-osource=a", "-d"]).log_level,
        LevelFilter::Debug
    );
}

#[test]
fn what_the_guest_may_keep() {
    let base = ["--fd=3", "--shared-dir=/v"];
    let with = |options: &[&str]| serve(&[&base[..], options].concat());
    assert!(with(&["--writeback"]).writeback);
    assert!(with(&["--cache=always", "-owriteback"]).writeback);
    assert!(!with(&["-owriteback,no_writeback"]).writeback);
    let times = |options: Options| (options.entry_timeout, options.attr_timeout);
    let second = Some(Duration::from_secs(1));
    let half = Some(Duration::from_millis(500));
    assert_eq!(times(with(&[])), (None, None));
    let both = ["--entry-timeout=1", "--attr-timeout", "0.5"];
    assert_eq!(times(with(&both)), (second, half));
    assert_eq!(times(with(&["-otimeout=1"])), (second, second));
    for cache in ["never", "metadata", "none"] {
        let cache = format!("--cache={cache}");
        let all = [base[0], base[1], &cache, "--writeback"];
        refused(&all, &["--writeback needs --cache auto or always"]);
    }
    for bad in ["--entry-timeout=-1", "--attr-timeout=1s", "-otimeout=x"] {
        refused(&[base[0], base[1], bad], &["timeout", "second"]);
    }
}

#[test]
fn attributes_are_on_unless_they_are_turned_off() {
    for (options, xattr, posix_acl) in [
        (&[][..], true, true),
        (&["--xattr", "--posix-acl"], true, true),
        (&["--no-posix-acl"], true, false),
        (&["--no-xattr"], false, false),
        (&["--no-xattr", "--xattr"], true, true),
        (&["--xattr", "--no-xattr"], false, false),
        (&["--posix-acl", "--no-posix-acl"], true, false),
        (&["-o", "no_posix_acl"], true, false),
        (&["-o", "no_xattr"], false, false),
        (&["-o", "no_posix_acl,posix_acl"], true, true),
    ] {
        let options = serve(&[&["--fd=3", "--shared-dir=v"], options].concat());
        assert_eq!((options.xattr, options.posix_acl), (xattr, posix_acl));
    }
    let both = ["--fd=3", "--shared-dir=v", "--no-xattr", "--posix-acl"];
    refused(&both, &["--posix-acl", "cannot be used with", "--no-xattr"]);
}

#[test]
fn users_and_groups_are_translated() {
    let base = ["--fd=3", "--shared-dir=/v"];
    let rules = [
        "--translate-uid=map:0:1000:1",
        "--translate-uid",
        "forbid-guest,1,99",
    ];
    let options = serve(&[&base[..], &rules, &["--translate-gid=squash-guest:0:5:9"]].concat());
    assert!(!options.ids.is_identity());
    for (option, words) in [
        (
            "--translate-uid=map:0:1",
            &["--translate-uid", "TYPE:SOURCE:TARGET"][..],
        ),
        ("--translate-gid=swap:0:1:1", &["swap", "squash-guest"]),
    ] {
        refused(&[base[0], base[1], option], words);
    }
    let twice = ["--translate-uid=map:0:1:5", "--translate-uid=guest:4:9:1"];
    refused(&[&base[..], &twice].concat(), &["guest:4:9:1", "overlaps"]);
}

#[test]
fn locks_hold_for_all_unless_told_otherwise() {
    let both = |args: &[&str]| {
        let options = serve(&[&["--fd=3", "--shared-dir=/v"], args].concat());
        (options.posix_lock, options.flock)
    };
    assert_eq!(both(&[]), (true, true));
    assert_eq!(both(&["--posix-lock", "--flock"]), (true, true));
    assert_eq!(both(&["--no-posix-lock"]), (false, true));
    assert_eq!(both(&["--no-flock", "--no-posix-lock"]), (false, false));
    assert_eq!(both(&["--no-flock", "--flock"]), (true, true), "the last");
    assert_eq!(both(&["-oflock,posix_lock"]), (true, true));
    assert_eq!(both(&["-oflock,no_flock,no_posix_lock"]), (false, false));
}

#[test]
fn capabilities_need_nothing_else() {
    let args = ["pfs-virtiofsd", "--print-capabilities"].map(OsString::from);
    assert_eq!(parse(args).unwrap(), Action::PrintCapabilities);
    assert!(CAPABILITIES.contains("\"separate-options\""));
}

#[test]
fn what_we_do_not_have_is_refused_by_name() {
    let base = ["--fd=3", "--shared-dir=/v"];
    for (option, words) in [
        ("--uid-map=:0:1:1:", &["--uid-map is not supported"][..]),
        ("--seccomp=kill", &["--seccomp is not supported", "none"]),
        (
            "--inode-file-handles=never",
            &["--inode-file-handles", "prefer"],
        ),
        (
            "--migration-mode=find-paths",
            &["--migration-mode", "migration"],
        ),
        ("--allow-direct-io", &["--allow-direct-io is not supported"]),
        ("--no-such-option", &["--no-such-option"]),
        ("--cache=sometimes", &["--cache", "sometimes", "never"]),
        ("--sandbox=moat", &["--sandbox", "moat", "chroot"]),
        ("--log-level=loud", &["--log-level", "loud"]),
        (
            "-oxattrmap=:map::user.:",
            &["\"-o xattrmap\" is not supported"],
        ),
        ("-ocache=warm", &["-o cache=warm", "never"]),
        ("-oallow_root", &["\"-o allow_root\" is not an option"]),
    ] {
        refused(&[base[0], base[1], option], words);
    }
}

#[test]
fn incomplete_or_contradictory_command_lines_are_refused() {
    refused(&["--fd=3"], &["--shared-dir"]);
    refused(&["--shared-dir=/v"], &["--socket-path", "--fd"]);
    refused(
        &["--shared-dir=/v", "--fd=3", "--socket-path=s"],
        &["--fd", "--socket-path"],
    );
    refused(
        &["--shared-dir=/v", "--fd=3", "--socket-group=g"],
        &["--socket-group", "--fd"],
    );
    refused(&["--shared-dir=/v", "--fd=x"], &["--fd", "x"]);
}

#[test]
fn what_is_so_anyway_is_accepted() {
    serve(&[
        "--fd=3",
        "--shared-dir=/v",
        "--seccomp=none",
        "--inode-file-handles=prefer",
        "--killpriv-v2",
        "--no-announce-submounts",
        "-o",
        "no_writeback,readdirplus,no_posix_acl",
    ]);
}

#[test]
fn the_command_is_well_formed() {
    Args::command().debug_assert();
}
