//! PostgreSQL with fsync and checksums on: initdb, pgbench, a crash of the database, its recovery.

use crate::support::{Bench, Config, MINUTES_15, MINUTES_5};
use guest_tests::vm::Engine;

on_every_volume! {
    #[ignore = "takes minutes"]
    initdb_and_pgbench,
}

const INITDB: &str = "\
ln -s /usr/lib/postgresql/15/bin/* /usr/local/bin/ &&
install -d -o postgres -g postgres -m 700 /mnt/pg &&
su postgres -c 'initdb --pgdata=/mnt/pg --data-checksums --no-locale --auth=trust' &&
printf '%s\\n' 'fsync = on' 'full_page_writes = on' \"unix_socket_directories = '/tmp'\" \\
    \"listen_addresses = ''\" 'max_wal_size = 64MB' 'checkpoint_timeout = 30s' >>/mnt/pg/postgresql.conf
";
const START: &str =
    "su postgres -c 'pg_ctl --pgdata=/mnt/pg --log=/tmp/pg.log --timeout=300 --wait start'";
/// Everything that a transaction of pgbench adds up is added up the same everywhere.
const CONSISTENT: &str = "\
su postgres -c \"psql -h /tmp -At -c '
    select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history),
           (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history),
           (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history),
           (select count(*) from pgbench_history) > 0'\"
";

fn initdb_and_pgbench(engine: Engine) {
    let Some(bench) = Bench::start(&Config::with_programs(engine)) else {
        return;
    };
    bench.run("initdb", INITDB, MINUTES_15);
    bench.run("start", START, MINUTES_5);
    bench.run(
        "pgbench",
        "su postgres -c 'pgbench -h /tmp --initialize --quiet --scale=2 &&
            pgbench -h /tmp --client=4 --time=60' 2>&1",
        MINUTES_15,
    );
    assert_eq!(bench.run("add up", CONSISTENT, MINUTES_5), "t|t|t|t");
    bench.run(
        "the database crashes under load",
        "su postgres -c 'pgbench -h /tmp --no-vacuum --client=4 --time=120' >/tmp/load.log 2>&1 &
        sleep 15; kill -9 $(head -1 /mnt/pg/postmaster.pid); wait; sleep 5
        ! su postgres -c 'psql -h /tmp -c \"select 1\"' 2>/dev/null",
        MINUTES_5,
    );
    bench.run("it recovers", START, MINUTES_5);
    assert_eq!(bench.run("add up again", CONSISTENT, MINUTES_5), "t|t|t|t");
    bench.run(
        "stop, and check all checksums",
        "su postgres -c 'pg_ctl --pgdata=/mnt/pg --wait --timeout=300 stop && pg_checksums --check --pgdata=/mnt/pg'",
        MINUTES_5,
    );
    bench.finish();
}
