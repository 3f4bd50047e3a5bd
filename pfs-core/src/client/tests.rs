use super::*;

#[test]
fn paths_are_split_and_checked() {
    let parts = |path: &str| components(path.as_bytes());
    assert_eq!(parts("/"), Ok(vec![]));
    assert_eq!(parts(""), Ok(vec![]));
    let ab = Ok(vec![c"a".to_owned(), c"b".to_owned()]);
    assert_eq!(parts("a/b"), ab);
    assert_eq!(parts("//a/./b/"), ab);
    assert_eq!(parts("a/../b"), Err(Errno::INVAL));
    assert_eq!(parts("a\0b"), Err(Errno::INVAL));
    assert_eq!(parts(&"n".repeat(256)), Err(Errno::NAMETOOLONG));
}
