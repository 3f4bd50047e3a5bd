//! What a guest's extended attributes are called on the host.
//!
//! | guest | host |
//! | --- | --- |
//! | `user.*` | as it is, but for `user.pfs.*`, which is the volume's own |
//! | `trusted.NAME` | `user.pfs.t.NAME` |
//! | `security.NAME` | `user.pfs.s.NAME` |
//! | `security.capability` | native: as it is, so that the host's kernel drops it on a write |
//! | `system.posix_acl_access`, `_default` | native: as it is; mapped: `user.pfs.acl.*` |
//!
//! So a guest can neither see nor forge the host's own attributes, and the daemon needs no
//! `CAP_SYS_ADMIN` for them. The hidden names are short since a name has 255 bytes at most: with
//! three more than the guest's, nearly every name fits. Of other namespaces a guest has none.

use std::borrow::Cow;
use std::ffi::{CStr, CString};

use crate::fs::{Errno, Result, XattrName, XATTR_NAME_MAX};

/// Namespaces that are kept under other names: the guest's, the host's.
const HIDDEN: [(&[u8], &[u8]); 2] = [
    (b"trusted.", b"user.pfs.t."),
    (b"security.", b"user.pfs.s."),
];
/// What starts so is the volume's own.
const OWN: &[u8] = b"user.pfs.";
/// A program's capabilities.
pub(super) const CAPABILITY: &CStr = c"security.capability";

/// [`CAPABILITY`] where the host must not honour it.
pub(super) const HIDDEN_CAPABILITY: &CStr = c"user.pfs.s.capability";

/// A POSIX ACL of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acl {
    Access,
    Default,
}

impl Acl {
    const ALL: [Acl; 2] = [Acl::Access, Acl::Default];

    /// The attribute's name for a guest, and in native mode for the host.
    pub fn name(self) -> &'static CStr {
        match self {
            Acl::Access => c"system.posix_acl_access",
            Acl::Default => c"system.posix_acl_default",
        }
    }

    /// The attribute's name on the host in mapped mode.
    pub fn hidden_name(self) -> &'static CStr {
        match self {
            Acl::Access => c"user.pfs.acl.access",
            Acl::Default => c"user.pfs.acl.default",
        }
    }
}

/// Where an attribute of a guest is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored<'a> {
    /// Under this name.
    As(Cow<'a, CStr>),
    Acl(Acl),
}

/// Where attribute `name` of a guest is kept, in native or in mapped mode. Errors are
/// those of `setxattr(2)`.
pub(super) fn stored(name: &XattrName, native: bool) -> Result<Stored<'_>> {
    let name = name.as_c_str();
    if let Some(acl) = Acl::ALL.into_iter().find(|acl| acl.name() == name) {
        return Ok(Stored::Acl(acl));
    }
    let bytes = name.to_bytes();
    if bytes.starts_with(OWN) {
        return Err(Errno::PERM);
    }
    if bytes.starts_with(b"user.") || native && name == CAPABILITY {
        return Ok(Stored::As(name.into()));
    }
    let found = HIDDEN.iter().find_map(|(guest, host)| {
        let rest = bytes.strip_prefix(*guest)?;
        Some((host, rest))
    });
    match found {
        Some((_, [])) => Err(Errno::INVAL),
        Some((host, rest)) if host.len() + rest.len() > XATTR_NAME_MAX => Err(Errno::RANGE),
        Some((host, rest)) => {
            let name = CString::new([host, rest].concat()).map_err(|_| Errno::INVAL)?;
            Ok(Stored::As(name.into()))
        }
        None => Err(Errno::OPNOTSUPP),
    }
}

/// What a guest calls the attribute that the host calls `name`; `None` for what it has none of.
/// Unprivileged users do not see `trusted.*`, as on Linux's own file systems.
pub(super) fn shown(name: &[u8], native: bool, privileged: bool) -> Option<Cow<'_, [u8]>> {
    let same = |acl: &Acl| match native {
        true => acl.name().to_bytes() == name,
        false => acl.hidden_name().to_bytes() == name,
    };
    if let Some(acl) = Acl::ALL.into_iter().find(same) {
        return Some(acl.name().to_bytes().into());
    }
    for (guest, host) in HIDDEN {
        if let Some(rest) = name.strip_prefix(host) {
            let seen = privileged || guest != b"trusted.";
            return seen.then(|| [guest, rest].concat().into());
        }
    }
    let as_it_is = match name == CAPABILITY.to_bytes() {
        true => native,
        false => name.starts_with(b"user.") && !name.starts_with(OWN),
    };
    as_it_is.then_some(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(name: &str, native: bool) -> Result<String> {
        let name = CString::new(name).unwrap();
        match stored(XattrName::new(&name).unwrap(), native)? {
            Stored::As(name) => Ok(name.to_str().unwrap().to_owned()),
            Stored::Acl(acl) => Ok(format!("{acl:?}")),
        }
    }

    #[test]
    fn names_are_kept_apart_from_the_hosts() {
        for (guest, host) in [
            ("user.a", Ok("user.a")),
            ("user.pfsx", Ok("user.pfsx")),
            ("user.pfs.t.a", Err(Errno::PERM)),
            ("user.pfs.owner", Err(Errno::PERM)),
            ("trusted.overlay.opaque", Ok("user.pfs.t.overlay.opaque")),
            ("security.selinux", Ok("user.pfs.s.selinux")),
            ("security.capability", Ok("security.capability")),
            ("security.capabilityx", Ok("user.pfs.s.capabilityx")),
            ("system.posix_acl_access", Ok("Access")),
            ("system.posix_acl_default", Ok("Default")),
            ("system.nfs4_acl", Err(Errno::OPNOTSUPP)),
            ("trusted.", Err(Errno::INVAL)),
            ("security.", Err(Errno::INVAL)),
            ("ceph.quota", Err(Errno::OPNOTSUPP)),
            ("nonamespace", Err(Errno::OPNOTSUPP)),
        ] {
            assert_eq!(to(guest, true), host.map(str::to_owned), "{guest}");
        }
        let mapped = to("security.capability", false);
        assert_eq!(mapped.as_deref(), Ok("user.pfs.s.capability"));
    }

    #[test]
    fn names_come_back_as_they_went() {
        for name in ["user.a", "trusted.a", "security.b", "security.capability"] {
            for native in [true, false] {
                let host = to(name, native).unwrap();
                let back = shown(host.as_bytes(), native, true).unwrap();
                assert_eq!(back, name.as_bytes());
            }
        }
        assert_eq!(shown(b"user.pfs.t.a", true, false), None);
        assert!(shown(b"user.pfs.s.a", true, false).is_some());
        for hosts in [
            "trusted.a",
            "security.selinux",
            "user.pfs.file",
            "system.nfs4_acl",
        ] {
            assert_eq!(shown(hosts.as_bytes(), true, true), None, "{hosts}");
        }
        assert_eq!(shown(b"security.capability", false, true), None);
        let acl = b"system.posix_acl_access";
        assert_eq!(shown(acl, true, true).as_deref(), Some(&acl[..]));
        assert_eq!(shown(acl, false, true), None);
        assert_eq!(shown(b"user.pfs.acl.access", true, true), None);
        assert_eq!(
            shown(b"user.pfs.acl.access", false, true).as_deref(),
            Some(&acl[..])
        );
    }

    #[test]
    fn the_longest_names() {
        let name = |prefix: &str, len: usize| prefix.to_owned() + &"n".repeat(len - prefix.len());
        assert!(to(&name("trusted.", 252), true).is_ok());
        assert_eq!(to(&name("trusted.", 253), true), Err(Errno::RANGE));
        assert!(to(&name("security.", 253), true).is_ok());
        assert_eq!(to(&name("security.", 254), true), Err(Errno::RANGE));
        assert!(to(&name("user.", 255), true).is_ok());
    }
}
