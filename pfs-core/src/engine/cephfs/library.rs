//! The library itself, loaded when the first volume needs it: a daemon of another engine does not
//! pay for it, and the program runs where it is not installed.

use std::ffi::CStr;
use std::sync::OnceLock;

use super::ffi::Functions;

/// The name under which every version since Ceph 14 is installed.
const NAME: &str = "libcephfs.so.2";

/// Why libcephfs cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot load {NAME}: {0}; install it (Debian, Ubuntu: apt install libcephfs2)")]
    Load(String),
    #[error("{NAME} is not one that is known here: {0}; Ceph 16.2 or later is needed")]
    Find(String),
}

/// libcephfs, loaded for good.
pub fn functions() -> Result<&'static Functions, Error> {
    static FUNCTIONS: OnceLock<Result<Functions, Error>> = OnceLock::new();
    FUNCTIONS.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Functions, Error> {
    // SAFETY: libcephfs's initializers are those of an ordinary shared library, which expects to be
    // loaded by programs.
    let library = unsafe { libloading::Library::new(NAME) };
    let library = library.map_err(|error| Error::Load(error.to_string()))?;
    // SAFETY: it is libcephfs by its name, and is leaked below: its threads outlive all else.
    let functions = unsafe { Functions::find(&library) };
    std::mem::forget(library);
    functions.map_err(|error| Error::Find(error.to_string()))
}

/// The library's version, as "16.2.15".
pub fn version(functions: &Functions) -> String {
    let (mut major, mut minor, mut patch) = (0, 0, 0);
    // SAFETY: the three are written to; the answer is a static string.
    unsafe {
        let text = (functions.ceph_version)(&mut major, &mut minor, &mut patch);
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}
