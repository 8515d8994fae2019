//! Records on a real file system.
use super::*;

fn engine() -> (tempfile::TempDir, Engine) {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::new(directory.path().join("root"), directory.path().join("state"));
    (directory, engine)
}

fn record(name: &str) -> Record {
    Record {
        version: Version::V1,
        id: Id::generate().unwrap().to_string(),
        name: name.to_owned(),
        created: Timestamp::now(),
        image: "busybox".into(),
        image_id: "sha256:0".into(),
        command: Command { args: vec!["sh".into()], ..Command::default() },
        options: Options::default(),
        task: None,
        data: serde_json::Value::Null,
    }
}

fn make(engine: &Engine, record: &Record) -> Result<Lock, EngineError> {
    engine.make(record, &engine.begin_making().unwrap())
}

#[test]
fn a_container_is_found_by_id_name_and_prefix() {
    let (_directory, engine) = engine();
    let record = record("web");
    drop(make(&engine, &record).unwrap());
    for given in [record.id.as_str(), "web", &record.id[..6]] {
        assert_eq!(engine.find(given).unwrap().id, record.id, "{given}");
    }
    for given in ["", "nobody", "../x", "zz", &"0".repeat(64)] {
        assert!(matches!(engine.find(given), Err(EngineError::NoSuchContainer { .. })), "{given}");
    }
    assert_eq!(engine.records().unwrap().len(), 1);
}

#[test]
fn a_name_is_given_once_and_freed_with_its_container() {
    let (_directory, engine) = engine();
    let first = record("web");
    let lock = make(&engine, &first).unwrap();
    assert!(matches!(make(&engine, &record("web")), Err(EngineError::NameInUse { .. })));
    assert_eq!(engine.ids().unwrap().len(), 1, "the loser leaves nothing");
    drop(lock);
    engine.discard(&first.id().unwrap(), "web").unwrap();
    assert!(
        engine.container_shelf().entries().unwrap().iter().all(|name| name == "names" || name == "making")
    );
    drop(make(&engine, &record("web")).unwrap());
}

#[test]
fn a_name_that_a_killed_call_left_is_taken_over() {
    let (_directory, engine) = engine();
    private_directory(&engine.container_shelf().names()).unwrap();
    std::os::unix::fs::symlink("0".repeat(64), engine.container_shelf().name_link("web")).unwrap();
    drop(make(&engine, &record("web")).unwrap());
}

#[test]
fn the_lock_tells_who_runs() {
    let (_directory, engine) = engine();
    let record = record("web");
    let id = record.id().unwrap();
    let lock = make(&engine, &record).unwrap();
    assert!(matches!(engine.status(&id).unwrap(), Status::Starting));
    assert!(engine.try_lock(&id).unwrap().is_none());
    drop(lock);
    assert!(matches!(engine.status(&id).unwrap(), Status::Created(None)));
    let ended = Ended {
        code: 3,
        oom_killed: true,
        started: Some(Timestamp::now()),
        finished: Timestamp::now(),
        error: None,
        restarts: 0,
    };
    write_json(&engine.directory(&id).join("exit.json"), &ended, Durability::Volatile).unwrap();
    assert!(matches!(engine.status(&id).unwrap(), Status::Exited(found) if found == ended));
}

#[test]
fn unfinished_directories_are_swept_unless_one_is_being_made() {
    let (_directory, engine) = engine();
    let path = engine.containers().join(format!("{}.tmp", "a".repeat(64)));
    let store = Store::open(&engine.root).unwrap();
    private_directory(&path).unwrap();
    let making = engine.begin_making().unwrap();
    // Killed between the claim of its name and the end of its making.
    let name = engine.containers().join("names/half");
    std::os::unix::fs::symlink("a".repeat(64), &name).unwrap();
    engine.sweep(&store).unwrap();
    assert!(path.exists());
    drop(making);
    engine.sweep(&store).unwrap();
    assert!(!path.exists());
    assert!(name.symlink_metadata().is_err(), "its name is free again");
}

#[test]
fn damaged_records_name_their_file() {
    let (_directory, engine) = engine();
    let record = record("web");
    let id = record.id().unwrap();
    drop(make(&engine, &record).unwrap());
    std::fs::write(engine.directory(&id).join("record.json"), b"{\"version\":\"2\"}").unwrap();
    assert!(engine.find("web").unwrap_err().to_string().contains("record.json"));
}
