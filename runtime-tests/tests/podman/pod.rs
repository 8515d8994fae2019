//! Pods: containers that join the namespaces of their first one.
use crate::client::{IMAGE, Podman};
use runtime_tests::Fixture;

/// A pod of two containers that share network, IPC and UTS namespaces, but not the others.
#[track_caller]
pub fn shares_namespaces(podman: &Podman<'_>, options: &[&str]) {
    let create = ["pod", "create", "--name", "both", "--network", "none", "--infra-image", IMAGE];
    podman.run(&[&create[..], &["--infra-command", "/bin/sleep 1000"], options].concat()).ok();
    let inside = |kind: &str| {
        let link = format!("/proc/self/ns/{kind}");
        let one = podman.run(&["run", "--rm", "--pod", "both", IMAGE, "readlink", &link]).ok().stdout;
        let two = podman.run(&["run", "--rm", "--pod", "both", IMAGE, "readlink", &link]).ok().stdout;
        (one, two)
    };
    for kind in ["net", "ipc", "uts"] {
        let (one, two) = inside(kind);
        assert_eq!(one, two, "{kind}");
    }
    podman.run(&["pod", "stop", "--time", "1", "both"]).ok();
    podman.run(&["pod", "rm", "--force", "both"]).ok();
}

#[test]
fn containers_of_a_pod() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    shares_namespaces(&podman, &["--cgroup-parent", &format!("/{}p", fixture.token())]);
    podman.finish();
}
