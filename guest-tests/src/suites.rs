//! What the suites of crates.io are told, in guests as over the bridge; and what is said where
//! something that a test needs cannot be had.

/// All that fsx can do on Linux. The file spans all targets several times, and an operation up to
/// four stripe units.
pub const FSX: &str = "\
flen = 1048576
[opsize]
max = 262144
[weights]
close_open = 1
read = 10
write = 10
mapread = 10
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 3
sendfile = 3
posix_fadvise = 1
copy_file_range = 3
";

/// Every feature that a Linux file system can have, for pjdfstest. The tool's own template leaves some out.
pub const PJDFSTEST: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
";

/// Says that a test is skipped. It has proved nothing: where all must run (`PFS_SUITES=required`), that
/// is a failure.
pub fn skip(reason: &str) {
    let required = std::env::var("PFS_SUITES").is_ok_and(|value| value == "required");
    assert!(!required, "PFS_SUITES=required, but: {reason}");
    crate::vm::print_skip(reason);
}
