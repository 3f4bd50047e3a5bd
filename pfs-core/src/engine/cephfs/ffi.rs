//! The C declarations of libcephfs that are used here, as its header (`libcephfs.h`, 16.2 and later)
//! has them, and the functions, found in the library when the program runs.

#![allow(non_camel_case_types)]

use std::ffi::{c_char, c_int, c_uint, c_void};

use libc::{dev_t, dirent, flock, iovec, mode_t, off_t, statvfs, timespec};

/// `struct ceph_mount_info`
pub enum ceph_mount_info {}
/// `struct Inode`
pub enum Inode {}
/// `struct Fh`
pub enum Fh {}
/// `struct ceph_dir_result`
pub enum ceph_dir_result {}
/// `struct UserPerm`
pub enum UserPerm {}
/// `struct CephContext`
pub enum CephContext {}

/// `struct ceph_statx`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ceph_statx {
    pub stx_mask: u32,
    pub stx_blksize: u32,
    pub stx_nlink: u32,
    pub stx_uid: u32,
    pub stx_gid: u32,
    pub stx_mode: u16,
    pub stx_ino: u64,
    pub stx_size: u64,
    pub stx_blocks: u64,
    /// The snapshot's number.
    pub stx_dev: dev_t,
    pub stx_rdev: dev_t,
    pub stx_atime: timespec,
    pub stx_ctime: timespec,
    pub stx_mtime: timespec,
    pub stx_btime: timespec,
    pub stx_version: u64,
}

/// `struct vinodeno_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vinodeno_t {
    pub ino: u64,
    pub snapid: u64,
}

/// `struct ceph_client_callback_args` of 16.2; the library copies only what it is set.
#[repr(C)]
pub struct ceph_client_callback_args {
    pub handle: *mut c_void,
    pub ino_cb: Option<unsafe extern "C" fn()>,
    pub dentry_cb: Option<unsafe extern "C" fn()>,
    pub switch_intr_cb: Option<unsafe extern "C" fn()>,
    pub remount_cb: Option<unsafe extern "C" fn()>,
    pub umask_cb: Option<unsafe extern "C" fn(*mut c_void) -> mode_t>,
    pub ino_release_cb: Option<unsafe extern "C" fn()>,
    /// Later versions have more.
    pub later: [Option<unsafe extern "C" fn()>; 8],
}

/// `CEPH_STATX_BASIC_STATS | CEPH_STATX_BTIME`
pub const STATX_ALL: c_uint = 0x0fff;
/// `CEPH_STATX_BASIC_STATS | CEPH_STATX_BTIME | CEPH_STATX_VERSION`
pub const STATX_VERSIONED: c_uint = 0x1fff;
/// `AT_SYMLINK_NOFOLLOW`, the only flag that every version takes.
pub const NOFOLLOW: c_uint = libc::AT_SYMLINK_NOFOLLOW as c_uint;
/// `CEPH_RECLAIM_RESET`
pub const RECLAIM_RESET: c_uint = 1;

/// `CEPH_SETATTR_*`
pub mod setattr {
    pub const MODE: i32 = 1 << 0;
    pub const UID: i32 = 1 << 1;
    pub const GID: i32 = 1 << 2;
    pub const MTIME: i32 = 1 << 3;
    pub const ATIME: i32 = 1 << 4;
    pub const SIZE: i32 = 1 << 5;
}

macro_rules! functions {
    ($($name:ident: fn($($arg:ty),* $(,)?) $(-> $ret:ty)?;)*) => {
        /// The library's functions.
        pub struct Functions {
            $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
        }

        impl Functions {
            /// Finds them all in `library`.
            ///
            /// # Safety
            ///
            /// `library` must be libcephfs, whose functions have these types, and must never be
            /// unloaded.
            pub unsafe fn find(library: &libloading::Library) -> Result<Functions, libloading::Error> {
                Ok(Functions {
                    // SAFETY: the caller's promise.
                    $($name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }?,)*
                })
            }
        }
    };
}

type M = *mut ceph_mount_info;
type I = *mut Inode;
type P = *const UserPerm;

functions! {
    ceph_version: fn(*mut c_int, *mut c_int, *mut c_int) -> *const c_char;
    ceph_userperm_new: fn(u32, u32, c_int, *mut u32) -> *mut UserPerm;
    ceph_userperm_destroy: fn(*mut UserPerm);
    ceph_create: fn(*mut M, *const c_char) -> c_int;
    ceph_create_with_context: fn(*mut M, *mut CephContext) -> c_int;
    ceph_get_mount_context: fn(M) -> *mut CephContext;
    ceph_release: fn(M) -> c_int;
    ceph_conf_read_file: fn(M, *const c_char) -> c_int;
    ceph_conf_set: fn(M, *const c_char, *const c_char) -> c_int;
    ceph_init: fn(M) -> c_int;
    ceph_select_filesystem: fn(M, *const c_char) -> c_int;
    ceph_set_uuid: fn(M, *const c_char);
    ceph_start_reclaim: fn(M, *const c_char, c_uint) -> c_int;
    ceph_finish_reclaim: fn(M);
    ceph_mount: fn(M, *const c_char) -> c_int;
    ceph_unmount: fn(M) -> c_int;
    ceph_sync_fs: fn(M) -> c_int;
    ceph_ll_register_callbacks: fn(M, *mut ceph_client_callback_args);
    ceph_ll_lookup_root: fn(M, *mut I) -> c_int;
    ceph_ll_lookup_vino: fn(M, vinodeno_t, *mut I) -> c_int;
    ceph_ll_lookup: fn(M, I, *const c_char, *mut I, *mut ceph_statx, c_uint, c_uint, P) -> c_int;
    ceph_ll_put: fn(M, I) -> c_int;
    ceph_ll_getattr: fn(M, I, *mut ceph_statx, c_uint, c_uint, P) -> c_int;
    ceph_ll_setattr: fn(M, I, *mut ceph_statx, c_int, P) -> c_int;
    ceph_ll_open: fn(M, I, c_int, *mut *mut Fh, P) -> c_int;
    ceph_ll_create: fn(M, I, *const c_char, mode_t, c_int, *mut I, *mut *mut Fh, *mut ceph_statx, c_uint, c_uint, P) -> c_int;
    ceph_ll_close: fn(M, *mut Fh) -> c_int;
    ceph_ll_readv: fn(M, *mut Fh, *const iovec, c_int, i64) -> i64;
    ceph_ll_writev: fn(M, *mut Fh, *const iovec, c_int, i64) -> i64;
    ceph_ll_lseek: fn(M, *mut Fh, off_t, c_int) -> off_t;
    ceph_ll_fsync: fn(M, *mut Fh, c_int) -> c_int;
    ceph_ll_sync_inode: fn(M, I, c_int) -> c_int;
    ceph_ll_fallocate: fn(M, *mut Fh, c_int, i64, i64) -> c_int;
    ceph_ll_getxattr: fn(M, I, *const c_char, *mut c_void, usize, P) -> c_int;
    ceph_ll_setxattr: fn(M, I, *const c_char, *const c_void, usize, c_int, P) -> c_int;
    ceph_ll_listxattr: fn(M, I, *mut c_char, usize, *mut usize, P) -> c_int;
    ceph_ll_removexattr: fn(M, I, *const c_char, P) -> c_int;
    ceph_ll_mknod: fn(M, I, *const c_char, mode_t, dev_t, *mut I, *mut ceph_statx, c_uint, c_uint, P) -> c_int;
    ceph_ll_mkdir: fn(M, I, *const c_char, mode_t, *mut I, *mut ceph_statx, c_uint, c_uint, P) -> c_int;
    ceph_ll_symlink: fn(M, I, *const c_char, *const c_char, *mut I, *mut ceph_statx, c_uint, c_uint, P) -> c_int;
    ceph_ll_link: fn(M, I, I, *const c_char, P) -> c_int;
    ceph_ll_rename: fn(M, I, *const c_char, I, *const c_char, P) -> c_int;
    ceph_ll_unlink: fn(M, I, *const c_char, P) -> c_int;
    ceph_ll_rmdir: fn(M, I, *const c_char, P) -> c_int;
    ceph_ll_readlink: fn(M, I, *mut c_char, usize, P) -> c_int;
    ceph_ll_statfs: fn(M, I, *mut statvfs) -> c_int;
    ceph_ll_opendir: fn(M, I, *mut *mut ceph_dir_result, P) -> c_int;
    ceph_ll_releasedir: fn(M, *mut ceph_dir_result) -> c_int;
    ceph_readdirplus_r: fn(M, *mut ceph_dir_result, *mut dirent, *mut ceph_statx, c_uint, c_uint, *mut I) -> c_int;
    ceph_readdir_r: fn(M, *mut ceph_dir_result, *mut dirent) -> c_int;
    ceph_seekdir: fn(M, *mut ceph_dir_result, i64);
    ceph_ll_getlk: fn(M, *mut Fh, *mut flock, u64) -> c_int;
    ceph_ll_setlk: fn(M, *mut Fh, *mut flock, u64, c_int) -> c_int;
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::mem::{offset_of, size_of};
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    /// What is compared with the header.
    const PROGRAM: &str = r#"
        #define _FILE_OFFSET_BITS 64
        #include <stddef.h>
        #include <stdio.h>
        #include <cephfs/libcephfs.h>
        #define AT(field) printf("%zu ", offsetof(struct ceph_statx, field));
        int main(void) {
            printf("%zu ", sizeof(struct ceph_statx));
            AT(stx_mask) AT(stx_blksize) AT(stx_nlink) AT(stx_uid) AT(stx_gid) AT(stx_mode) AT(stx_ino)
            AT(stx_size) AT(stx_blocks) AT(stx_dev) AT(stx_rdev) AT(stx_atime) AT(stx_ctime)
            AT(stx_mtime) AT(stx_btime) AT(stx_version)
            printf("%zu ", sizeof(vinodeno_t));
            printf("%zu ", offsetof(struct ceph_client_callback_args, umask_cb));
            printf("%u %u %u ", CEPH_STATX_BASIC_STATS | CEPH_STATX_BTIME, CEPH_STATX_ALL_STATS,
                   CEPH_RECLAIM_RESET);
            printf("%d %d %d %d %d %d", CEPH_SETATTR_MODE, CEPH_SETATTR_UID, CEPH_SETATTR_GID,
                   CEPH_SETATTR_MTIME, CEPH_SETATTR_ATIME, CEPH_SETATTR_SIZE);
            return 0;
        }"#;

    fn ours() -> Vec<u64> {
        macro_rules! at {
            ($($field:ident)*) => { [$(offset_of!(ceph_statx, $field)),*] };
        }
        let mut numbers = vec![size_of::<ceph_statx>()];
        numbers.extend(
            at!(stx_mask stx_blksize stx_nlink stx_uid stx_gid stx_mode stx_ino stx_size
            stx_blocks stx_dev stx_rdev stx_atime stx_ctime stx_mtime stx_btime stx_version),
        );
        numbers.push(size_of::<vinodeno_t>());
        numbers.push(offset_of!(ceph_client_callback_args, umask_cb));
        let flags = [STATX_ALL, STATX_VERSIONED, RECLAIM_RESET].map(u64::from);
        let set = [
            setattr::MODE,
            setattr::UID,
            setattr::GID,
            setattr::MTIME,
            setattr::ATIME,
            setattr::SIZE,
        ];
        let numbers = numbers.into_iter().map(|number| number as u64);
        let set = set.into_iter().map(|bit| bit as u64);
        numbers.chain(flags).chain(set).collect()
    }

    #[test]
    fn declarations_are_the_headers() {
        if !Path::new("/usr/include/cephfs/libcephfs.h").exists() {
            eprintln!("left out: libcephfs-dev is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        let mut compiler = Command::new("cc")
            .args(["-x", "c", "-", "-o"])
            .arg(&program)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = compiler.stdin.take().unwrap();
        stdin.write_all(PROGRAM.as_bytes()).unwrap();
        drop(stdin);
        assert!(compiler.wait().unwrap().success());
        let output = Command::new(program).output().unwrap().stdout;
        let text = String::from_utf8(output).unwrap();
        let theirs: Vec<u64> = text
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        assert_eq!(theirs, ours());
    }

    #[test]
    fn every_function_is_in_the_library() {
        match super::super::library::functions() {
            Ok(functions) => assert!(!super::super::library::version(functions).is_empty()),
            Err(super::super::library::Error::Load(why)) => eprintln!("left out: {why}"),
            Err(error) => panic!("{error}"),
        }
    }
}
