//! Test suites of others, and programs that ask much of a file system, in real guests: each on
//! every kind of volume. Those that take long are ignored; `guest-tests/run.sh --full` runs them.
//!
//! To see what another virtiofs daemon makes of one: `PFS_VIRTIOFSD=virtiofsd cargo nextest run
//! -E 'test(pjdfstest::posix)'`.

/// Makes a test of each function for each kind of volume.
macro_rules! on_every_volume {
    ($($(#[$attribute:meta])* $test:ident,)*) => {
        on_every_volume!(@ striped Striped $($(#[$attribute])* $test,)*);
        on_every_volume!(@ mapped Mapped $($(#[$attribute])* $test,)*);
        on_every_volume!(@ posix Posix $($(#[$attribute])* $test,)*);
    };
    (@ $module:ident $engine:ident $($(#[$attribute:meta])* $test:ident,)*) => {
        mod $module {
            $(#[test] $(#[$attribute])* fn $test() {
                super::$test(guest_tests::vm::Engine::$engine);
            })*
        }
    };
}

mod crate_build;
mod dbench;
mod fio;
mod fsx;
mod git;
mod pjdfstest;
mod postgres;
mod sqlite;
mod stress_ng;
mod support;
