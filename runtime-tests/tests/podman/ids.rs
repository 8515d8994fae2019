//! User namespaces that root's podman asks for.
use crate::client::Podman;
use runtime_tests::Fixture;

#[test]
fn mapped_ids() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    let maps = ["--uidmap", "0:200000:1000", "--gidmap", "0:300000:1000"];
    let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /new; stat -c %u /new";
    let outcome = podman.run_image(&maps, &["sh", "-c", script]).ok();
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "200000", "1000", "0", "300000", "1000", "0", "0"]);
    podman.finish();
}
