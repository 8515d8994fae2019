//! What a container leaves is removed, and nothing else.

use runtime_tests::Fixture;

#[test]
fn cve_2017_1002101_bind_mounts_survive_the_deletion_of_the_container() {
    let fixture = Fixture::new();
    let canary = fixture.file("shared/canary", "alive");
    let bundle = fixture
        .bundle()
        .mount("/mnt", "bind", fixture.path().join("shared"), &["rbind"])
        .args(["/probe", "wait"]);
    let _lines = bundle.started();
    fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    assert_eq!(std::fs::read_to_string(canary).unwrap(), "alive");
}
