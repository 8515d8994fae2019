//! podman of an ordinary user: the runtime is root of the user namespace that podman has made.
use crate::client::{IMAGE, Podman};
use crate::pod;
use runtime_tests::terminal::OnTerminal;
use runtime_tests::user::{FIRST_SUBORDINATE, ID, User};
use runtime_tests::{Fixture, command, events};

#[test]
fn life() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let podman = Podman::of_user(&fixture, &user);
    let outcome = podman.run_image(&[], &["sh", "-c", "cat /proc/self/uid_map; exit 3"]).exits(3);
    let words: Vec<_> = outcome.stdout.split_whitespace().collect();
    let (own, first) = (ID.to_string(), FIRST_SUBORDINATE.to_string());
    assert_eq!(words, ["0", &own, "1", "1", &first, "65536"]);
    podman.detached("one", &[]);
    podman.run(&["exec", "one", "sh", "-c", "exit 5"]).exits(5);
    assert_eq!(podman.run(&["logs", "one"]).ok().stdout, "started\n");
    podman.run(&["stop", "--time", "10", "one"]).ok();
    podman.run(&["start", "one"]).ok();
    podman.run(&["rm", "--force", "--time", "1", "one"]).ok();
    podman.run_image(&[], &["/bin/nosuch"]).exits(127);
    podman.finish();
}

#[test]
fn a_terminal() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let podman = Podman::of_user(&fixture, &user);
    let mut run = OnTerminal::new(&mut podman.run_command(&["--rm", "-it"], &["sh", "-c", "tty; exit 3"]));
    run.until("/dev/pts/0");
    assert_eq!(command::wait(&mut run.child, events::patience()).expect("an end in time").code(), Some(3));
    podman.finish();
}

#[test]
fn ids() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let podman = Podman::of_user(&fixture, &user);
    let inside = |options: &[&str], args: &[&str]| podman.run_image(options, args).ok().stdout;
    assert_eq!(inside(&["--userns=keep-id"], &["id", "-u"]), format!("{ID}\n"));
    let map = inside(&["--userns=auto"], &["cat", "/proc/self/uid_map"]);
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1", "1024"]);
    let map = inside(&["--uidmap", "0:1:10", "--gidmap", "0:1:10"], &["cat", "/proc/self/gid_map"]);
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "1", "10"]);
    podman.finish();
}

#[test]
fn a_pod() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let podman = Podman::of_user(&fixture, &user);
    pod::shares_namespaces(&podman, &[]);
    podman.finish();
}

/// By slirp4netns, for which the host's /dev/net/tun must be open to users.
#[test]
fn a_network_of_its_own() {
    let fixture = Fixture::new();
    let user = User::new(&fixture);
    let podman = Podman::of_user(&fixture, &user);
    let run = ["run", "--rm", "--network", "slirp4netns", IMAGE, "cat"];
    let files = ["/proc/net/dev", "/proc/net/fib_trie"];
    let text = podman.run(&[&run[..], &files].concat()).ok().stdout;
    assert!(text.contains("tap0") && text.contains("10.0.2.100"), "{text}");
    podman.finish();
}
