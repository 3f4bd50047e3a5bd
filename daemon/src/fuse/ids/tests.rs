use super::rule::Error;
use super::*;

fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn map(texts: &[&str]) -> IdMap {
    IdMap::new(&rules(texts)).unwrap()
}

#[test]
fn ids_of_which_nothing_is_said_stay() {
    let map = map(&[]);
    for id in [0, 1, 65534, u32::MAX - 1] {
        assert_eq!((map.to_host(id), map.to_guest(id)), (Ok(id), id));
    }
    assert!(map.is_identity());
}

#[test]
fn each_kind_does_what_it_says() {
    let guest = map(&["guest:0:1000:10"]);
    assert_eq!((guest.to_host(9), guest.to_host(10)), (Ok(1009), Ok(10)));
    assert_eq!(guest.to_guest(1009), 1009);
    let host = map(&["host:1000:0:10"]);
    assert_eq!((host.to_guest(1009), host.to_guest(1010)), (9, 1010));
    assert_eq!(host.to_host(5), Ok(5));
    let squash = map(&["squash-guest:0:7:1000", "squash-host:0:0:4294967294"]);
    assert_eq!((squash.to_host(0), squash.to_host(999)), (Ok(7), Ok(7)));
    assert_eq!((squash.to_host(1000), squash.to_guest(7)), (Ok(1000), 0));
    let forbid = map(&["forbid-guest:5:2"]);
    assert_eq!(forbid.to_host(5), Err(Errno::PERM));
    assert_eq!((forbid.to_host(4), forbid.to_host(7)), (Ok(4), Ok(7)));
    let both = map(&["map:0:100000:65536", "map:70000:0:1"]);
    assert_eq!(
        (both.to_host(65535), both.to_guest(165535)),
        (Ok(165535), 65535)
    );
    assert_eq!((both.to_host(70000), both.to_guest(0)), (Ok(0), 70000));
}

#[test]
fn the_largest_ids() {
    let map = map(&["map:4294967294:0:1", "guest:0:4294967294:1"]);
    assert_eq!(map.to_host(u32::MAX - 1), Ok(0));
    assert_eq!(map.to_host(0), Ok(u32::MAX - 1));
    assert_eq!(map.to_guest(0), u32::MAX - 1);
}

#[test]
fn rules_that_overlap_are_refused() {
    for (first, second) in [
        ("guest:0:5:10", "guest:9:100:1"),
        ("guest:9:5:1", "squash-guest:0:5:10"),
        ("map:0:5:10", "forbid-guest:3:1"),
        ("map:0:5:10", "host:14:100:1"),
        ("host:5:0:1", "map:0:5:1"),
    ] {
        let list = rules(&[first, second]);
        assert_eq!(IdMap::new(&list), Err(Overlap(list[1])), "{first} {second}");
    }
    // Both directions are told apart, and neighbours are none.
    map(&[
        "guest:0:5:10",
        "host:0:5:10",
        "guest:10:5:10",
        "forbid-guest:20:1",
    ]);
}

#[test]
fn what_is_no_rule() {
    let error = |text: &str| text.parse::<Rule>().unwrap_err();
    assert_eq!(error("user:0:1:1"), Error::Kind("user".into()));
    for text in ["", "map", "map:1:2", "map:1:2:3:4", "forbid-guest:1:2:3"] {
        assert_eq!(error(text), Error::Fields, "{text}");
    }
    for text in [
        "map:a:2:3",
        "map:-1:2:3",
        "map:4294967295:0:1",
        "map:::",
        "map:1,2,3",
    ] {
        assert!(matches!(error(text), Error::Number(_)), "{text}");
    }
    assert_eq!(error("guest:0:0:0"), Error::Empty);
    assert_eq!(error("guest:4294967294:0:2"), Error::End);
    assert_eq!(error("guest:0:4294967294:2"), Error::End);
    // As virtiofsd: another separator, and a name in capitals.
    assert_eq!(
        "MAP,1,2,3".parse::<Rule>().unwrap().to_string(),
        "map:1:2:3"
    );
    assert_eq!(
        rules(&["forbid-guest:1:2"])[0].to_string(),
        "forbid-guest:1:2"
    );
}

#[test]
fn who_asks() {
    let ids = Ids {
        users: map(&["guest:0:1000:1", "forbid-guest:5:1"]),
        groups: map(&["forbid-guest:6:1"]),
    };
    let root = ids.caller(0, 0, 9, true).unwrap();
    assert_eq!(
        (root.uid, root.gid, root.pid, root.is_root),
        (1000, 0, 9, true)
    );
    assert_eq!(ids.caller(5, 0, 1, true), Err(Errno::PERM));
    assert_eq!(ids.caller(1, 6, 1, true), Err(Errno::PERM));
    let other = ids.caller(5, 6, 1, false).unwrap();
    assert_eq!(
        (other.uid, other.gid, other.is_root),
        (NOBODY, NOBODY, false)
    );
}

#[test]
fn ids_in_acls() {
    let ids = Ids {
        users: map(&["map:1:1001:1", "forbid-guest:5:1"]),
        groups: map(&["map:2:2002:1"]),
    };
    let entry = |tag: u16, id: u32| {
        let mut bytes = tag.to_le_bytes().to_vec();
        bytes.extend(7u16.to_le_bytes());
        bytes.extend(id.to_le_bytes());
        bytes
    };
    let acl = |user: u32, group: u32| {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, id) in [(1, u32::MAX), (2, user), (4, u32::MAX), (8, group), (16, 1)] {
            bytes.extend(entry(tag, id));
        }
        bytes
    };
    let mut value = acl(1, 2);
    assert_eq!(ids.acl_to_host(&mut value), Ok(()));
    assert_eq!(value, acl(1001, 2002));
    assert_eq!(ids.acl_to_guest(&mut value), Ok(()));
    assert_eq!(value, acl(1, 2));
    assert_eq!(ids.acl_to_host(&mut acl(5, 2)), Err(Errno::PERM));
    for bad in [&b""[..], b"\x02\0\0", b"\x03\0\0\0", b"\x02\0\0\0abcdefg"] {
        assert_eq!(ids.acl_to_host(&mut bad.to_vec()), Err(Errno::INVAL));
    }
}
