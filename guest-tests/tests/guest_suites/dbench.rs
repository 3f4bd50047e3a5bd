//! dbench: what a file server's clients do, several at once.

use crate::support::{Bench, Config, MINUTES_5};
use guest_tests::vm::Engine;

on_every_volume! {
    #[ignore = "takes minutes"]
    four_clients,
}

fn four_clients(engine: Engine) {
    let Some(bench) = Bench::start(&Config::with_programs(engine)) else {
        return;
    };
    let log = bench.run("4 clients", "dbench -D /mnt -t 60 4 2>&1", MINUTES_5);
    // An operation that comes out otherwise than in the recording is an error in its log.
    assert!(!log.contains("ERROR"), "{log}");
    let throughput = log.lines().find(|line| line.starts_with("Throughput"));
    eprintln!("      {}", throughput.unwrap_or_else(|| panic!("{log}")));
    bench.finish();
}
