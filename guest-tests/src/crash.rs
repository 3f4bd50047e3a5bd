//! Deaths of the daemon at places of the test's choice: debug builds die where `PFS_CRASH_AT` says.

/// Places in the life of every request.
pub const POINTS: [&str; 6] = [
    "before_pop",
    "after_pop",
    "after_answer",
    "after_execute",
    "before_add_used",
    "after_add_used",
];

/// Whether the daemon under test dies when told; where it does not, says that the test is skipped.
pub fn dies_when_told() -> bool {
    if !cfg!(debug_assertions) {
        eprintln!("skipped: a release build has no crash points");
    }
    cfg!(debug_assertions)
}
