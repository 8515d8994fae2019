use super::*;

#[test]
fn ids_follow_runc() {
    for id in ["a", "A-b_c+d.e", "...", "0"] {
        assert!(check_id(id).is_ok(), "{id}");
    }
    for id in ["", ".", "..", "a/b", "a b", "ä", "a\n", "../x", &"x".repeat(256)] {
        assert!(check_id(id).is_err(), "{id}");
    }
}

#[test]
fn an_id_is_claimed_once_and_freed_by_remove() {
    let root = tempfile::tempdir().unwrap();
    let dir = StateDir::create(&root.path().join("deep/er"), "x").unwrap();
    let root = root.path().join("deep/er");
    assert!(matches!(StateDir::create(&root, "x"), Err(StateError::AlreadyExists { .. })));
    assert!(State::read(&dir).unwrap().is_none());
    dir.remove().unwrap();
    assert!(matches!(State::load(&root, "x"), Err(StateError::NotFound { .. })));
}
