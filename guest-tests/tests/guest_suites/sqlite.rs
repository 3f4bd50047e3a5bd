//! SQLite, one database from two guests at once, with a rollback journal and with a write-ahead
//! log; and one guest dies in the middle.
//!
//! With `--cache never`: SQLite trusts that what it reads under its lock is what the last writer
//! wrote, and keeps the file open. A write-ahead log's index is memory that processes share, which
//! those of two VMs cannot, so each takes the database for itself for as long as it has it open
//! (`locking_mode=EXCLUSIVE`); <https://www.sqlite.org/wal.html>, section 8.

use crate::support::{attach, put, Config, MINUTES_15, MINUTES_5, SECONDS_30};
use guest_tests::vm::{Engine, Guest, Steps, Volume};

on_every_volume! {
    #[ignore = "takes minutes"]
    two_guests,
}

const TRANSACTIONS: u32 = 60;

/// worker.py JOURNAL NAME TRANSACTIONS: each transaction counts up one row and adds another.
/// It says which have been committed.
const WORKER: &str = r#"
import random, sqlite3, sys, time
journal, name, transactions = sys.argv[1], sys.argv[2], int(sys.argv[3])
def opened():
    # Two that take the database for themselves get in each other's way: each reads it, and waits
    # for the other to be gone. Who gives up first lets the other pass.
    timeout = random.random() if journal == "wal" else 60
    db = sqlite3.connect("/mnt/db", timeout=timeout, isolation_level=None)
    try:
        if journal == "wal":
            db.execute("pragma locking_mode = exclusive")
        db.execute("pragma synchronous = full")
        assert db.execute("pragma journal_mode = " + journal).fetchone()[0] == journal
    except BaseException:
        db.close()
        raise
    return db
def once(number):
    db = opened() if journal == "wal" else kept
    db.execute("begin immediate")
    try:
        before = db.execute("select n from counter").fetchone()[0]
        db.execute("update counter set n = ?", (before + 1,))
        db.execute("insert into log values (?, ?, ?, randomblob(?))", (name, number, before + 1, random.randrange(20000)))
        db.execute("commit")
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise
    finally:
        if db is not kept:
            db.close()
def patiently(action, *args):
    until = time.monotonic() + 300
    while True:
        try:
            return action(*args)
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(random.random() / 10)
kept = None if journal == "wal" else patiently(opened)
for number in range(transactions):
    patiently(once, number)
    print("committed %d." % number, flush=True)
"#;
const CREATE: &str = "\
sqlite3 /mnt/db 'create table counter (n integer); insert into counter values (0);
    create table log (name text, number integer, n integer unique, data blob, primary key (name, number))'";
/// Alone, as a write-ahead log wants it; the pragma prints its new value.
const CHECK: &str = "\
sqlite3 -cmd 'pragma locking_mode = exclusive' /mnt/db \
    'pragma integrity_check; select n from counter; select count(*), max(n) from log' |
    grep -vx exclusive";

fn two_guests(engine: Engine) {
    let config = Config {
        memory_mib: 1024,
        daemon_args: &["--cache", "never"],
        ..Config::with_programs(engine)
    };
    let steps = Steps::new();
    let volume = steps.step("create a volume", || Ok(Volume::of(engine)?));
    let Some((_first_daemon, first)) = attach(&steps, &volume, &config) else {
        return;
    };
    let Some((_second_daemon, second)) = attach(&steps, &volume, &config) else {
        return;
    };
    for guest in [&first, &second] {
        steps.step("prepare", || put(guest, "/tmp/worker.py", WORKER));
    }
    for journal in ["delete", "truncate", "persist", "wal"] {
        steps.step(&format!("journal_mode={journal}, both at once"), || {
            first.check(CREATE, SECONDS_30)?;
            let start =
                |guest: &Guest, name| guest.start(&work(journal, name, TRANSACTIONS), MINUTES_15);
            let workers = [start(&first, "first")?, start(&second, "second")?];
            for worker in workers {
                let output = worker.wait()?;
                assert_eq!(output.code, 0, "{output}");
            }
            let all = 2 * TRANSACTIONS;
            let whole = format!("ok\n{all}\n{all}|{all}");
            assert_eq!(first.check(CHECK, MINUTES_5)?, whole);
            assert_eq!(second.check(CHECK, MINUTES_5)?, whole);
            first.check("rm /mnt/db*", SECONDS_30)?;
            Ok(())
        });
    }
    steps.step("one guest dies; the other goes on", || {
        first.check(CREATE, SECONDS_30)?;
        let mut dies = first.start(&work("delete", "first", 10_000), MINUTES_15)?;
        let lives = second.start(&work("delete", "second", TRANSACTIONS), MINUTES_15)?;
        dies.wait_for_output("committed 10.")?;
        first.kill();
        let output = lives.wait()?;
        assert_eq!(output.code, 0, "{output}");
        let found = second.check(CHECK, MINUTES_5)?;
        let (ok, counts) = found.split_once('\n').unwrap_or_default();
        let (counter, log) = counts.split_once('\n').unwrap_or_default();
        assert_eq!(ok, "ok", "{found}");
        assert_eq!(log, format!("{counter}|{counter}"), "{found}");
        let kept = second.check(
            "sqlite3 /mnt/db \"select count(*) from log where name = 'first'\"",
            SECONDS_30,
        )?;
        assert!(
            kept.parse::<u32>()? >= 11,
            "{kept} of at least 11 are there"
        );
        Ok(())
    });
    steps.step("power off", || Ok(second.poweroff()?));
}

fn work(journal: &str, name: &str, transactions: u32) -> String {
    format!("python3 /tmp/worker.py {journal} {name} {transactions} 2>&1")
}
