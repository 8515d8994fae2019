//! The life of a container: run, logs, exec, stop, kill, start, wait, delete.
use crate::world::{IMAGE, World, ends, seconds};
use runtime_tests::{cgroup, events};
use std::io::Read;
use std::time::Instant;

#[test]
fn a_whole_life_in_the_background() {
    let world = World::new();
    let id = world.background(&["--name", "web"], &["sh", "-c", "echo begun; sleep 1000"]);
    assert_eq!(id.len(), 64);
    let ps = world.run(&["ps"]).ok().stdout;
    assert!(ps.contains("web") && ps.contains(&id[..12]) && ps.contains("Up "), "{ps}");
    let state = &world.inspect("web")["State"];
    assert_eq!((state["Status"].as_str(), state["Running"].as_bool()), (Some("running"), Some(true)));
    world.fixture.watch(i32::try_from(state["Pid"].as_i64().unwrap()).unwrap());
    world.await_log("web", "begun");
    // Busybox's sleep is not init, its shell is, which ignores SIGTERM as every init without a handler.
    let begin = Instant::now();
    world.run(&["stop", "-t", "1", "web"]).ok();
    assert!(begin.elapsed() >= seconds(0) && begin.elapsed().as_millis() >= 1000);
    let state = &world.inspect("web")["State"];
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(137)));
    assert_eq!(world.run(&["wait", "web"]).ok().stdout, "137\n");
    assert_eq!(world.run(&["ps"]).ok().stdout.lines().count(), 1);
    assert!(world.run(&["ps", "-a"]).ok().stdout.contains("Exited (137)"));
    world.run(&["start", &id[..8]]).ok();
    world.run(&["delete", "web"]).exits(125).says("running");
    world.run(&["kill", "web"]).ok();
    assert_eq!(world.run(&["logs", "web"]).ok().stdout, "begun\nbegun\n");
    world.run(&["rm", "web"]).ok();
    world.run(&["inspect", "web"]).exits(125).says("no such container");
    assert!(cgroup::named(&id).is_empty());
    world.assert_nothing_left();
}

#[test]
fn stop_sends_the_stop_signal_and_returns_at_once() {
    let world = World::new();
    let script = "trap 'echo bye; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    world.background(&["--name", "s", "--stop-signal", "INT"], &["sh", "-c", script]);
    world.await_log("s", "ready");
    let begin = Instant::now();
    world.run(&["stop", "s"]).ok();
    assert!(begin.elapsed() < seconds(8), "it was killed after ten seconds");
    assert_eq!(world.inspect("s")["State"]["ExitCode"], 5);
    assert!(world.run(&["logs", "s"]).ok().stdout.ends_with("bye\n"));
}

#[test]
fn kill_sends_any_signal() {
    let world = World::new();
    let script = "trap 'echo usr; exit 6' USR1; echo ready; while :; do sleep 0.05; done";
    world.background(&["--name", "k"], &["sh", "-c", script]);
    world.await_log("k", "ready");
    world.run(&["kill", "-s", "USR1", "k"]).ok();
    assert_eq!(world.run(&["wait", "k"]).ok().stdout, "6\n");
    world.run(&["kill", "k"]).exits(125).says("exited");
    world.run(&["kill", "-s", "NOPE", "k"]).exits(125).says("NOPE");
}

#[test]
fn wait_returns_when_it_ends() {
    let world = World::new();
    world.background(&["--name", "w", "--rm", "-i"], &["sh", "-c", "echo up; read line; exit 9"]);
    let mut waiting = world.spawn(&["wait", "w"]);
    world.await_log("w", "up");
    world.run(&["kill", "w"]).ok();
    assert_eq!(ends(&mut waiting), 0);
    let mut code = String::new();
    waiting.stdout.take().unwrap().read_to_string(&mut code).unwrap();
    assert_eq!(code, "137\n");
    world.assert_nothing_left();
}

#[test]
fn logs_can_be_followed_cut_and_stamped() {
    let world = World::new();
    let script = "for i in 1 2 3; do echo line $i; done; echo oops >&2; read x; echo last; printf unfinished";
    world.run(&["create", "--name", "l", "-i", IMAGE, "sh", "-c", script]).ok();
    assert_eq!(world.run(&["logs", "l"]).ok().stdout, "");
    let mut running = world.spawn(&["start", "-a", "-i", "l"]);
    let mut lines = events::Lines::new(running.stdout.take().unwrap());
    lines.until("line 3");
    let mut follower = world.spawn(&["logs", "--follow", "l"]);
    let mut followed = events::Lines::new(follower.stdout.take().unwrap());
    followed.until("line 3");
    drop(running.stdin.take());
    assert_eq!(followed.next_line(), "last");
    assert_eq!(ends(&mut follower), 0, "it ends with the container");
    assert_eq!(ends(&mut running), 0);
    let all = world.run(&["logs", "l"]).ok();
    assert_eq!(all.stdout, "line 1\nline 2\nline 3\nlast\nunfinished");
    assert_eq!(all.stderr, "oops\n");
    assert_eq!(world.run(&["logs", "--tail", "2", "l"]).ok().stdout, "last\nunfinished");
    let stamped = world.run(&["logs", "-t", "--tail", "1", "l"]).ok().stdout;
    assert!(stamped.starts_with("20") && stamped.contains("Z unfinished"), "{stamped}");
    assert_eq!(world.run(&["logs", "--since", "1h", "l"]).ok().stdout, all.stdout);
    assert_eq!(world.run(&["logs", "--since", "2100-01-01T00:00:00Z", "l"]).ok().stdout, "");
    world.run(&["logs", "--tail", "few", "l"]).exits(125).says("few");
    // The format that a kubelet reads.
    let log = std::fs::read_to_string(world.inspect("l")["LogPath"].as_str().unwrap()).unwrap();
    let last = log.lines().last().unwrap();
    assert!(last.ends_with(" stdout P unfinished"), "{last}");
}

#[test]
fn a_slow_reader_loses_nothing_and_a_lost_one_holds_nothing_up() {
    let world = World::new();
    let script =
        "i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done";
    let mut slow = world.spawn(&["run", "--rm", IMAGE, "sh", "-c", script]);
    // More is written than the pipes and sockets on the way hold; the container waits for this reader.
    let mut output = slow.stdout.take().unwrap();
    let mut first = [0; 41];
    output.read_exact(&mut first).unwrap();
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).unwrap();
    assert_eq!(first.len() + rest.len(), 20_000 * 41);
    assert_eq!(ends(&mut slow), 0);
    let mut lost = world.spawn(&["run", "--name", "lost", IMAGE, "sh", "-c", script]);
    lost.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    lost.kill().unwrap();
    lost.wait().unwrap();
    assert_eq!(world.run(&["wait", "lost"]).ok().stdout, "0\n");
    assert_eq!(world.run(&["logs", "lost"]).ok().stdout.lines().count(), 20_000);
}

#[test]
fn a_reader_that_closes_its_end_is_no_error_of_the_container() {
    let world = World::new();
    let script = "trap '' PIPE; i=0; while [ $i -lt 5000 ]; do echo y; i=$((i+1)); done; exit 3";
    let mut child = world.spawn(&["run", "--name", "closed", IMAGE, "sh", "-c", script]);
    drop(child.stdout.take());
    assert_eq!(ends(&mut child), 128 + 13);
    assert_eq!(world.run(&["wait", "closed"]).ok().stdout, "3\n");
}

#[test]
fn signals_of_the_command_reach_the_container() {
    let world = World::new();
    let script = "trap 'echo got it; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = world.spawn(&["run", "--rm", IMAGE, "sh", "-c", script]);
    let mut lines = events::Lines::new(child.stdout.take().unwrap());
    lines.until("ready");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    lines.until("got it");
    assert_eq!(ends(&mut child), 4);
}

#[test]
fn exec_joins_the_container() {
    let world = World::new();
    let id = world.background(&["--name", "e", "-e", "FROM=run"], &["sleep", "1000"]);
    let outcome = world.run(&["exec", "e", "sh", "-c", "echo $FROM; hostname; exit 3"]).exits(3);
    assert_eq!(outcome.stdout, format!("run\n{}\n", &id[..12]));
    let flags = [
        "exec",
        "-u",
        "user:staff",
        "-w",
        "/tmp",
        "-e",
        "A=b",
        "e",
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $A $HOME",
    ];
    assert_eq!(world.run(&flags).ok().stdout, "1000\n50\n/tmp\nb /tmp\n");
    world.run(&["exec", "e", "no-such-command"]).exits(127).says("no-such-command");
    world.run(&["exec", "e", "/etc/passwd"]).exits(126);
    world.run(&["exec", "-u", "ghost", "e", "true"]).exits(125).says("ghost");
    let mut child = world.spawn(&["exec", "-i", "e", "cat"]);
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        input.write_all(&vec![b'x'; 1_000_000]).unwrap();
    });
    assert_eq!(child.wait_with_output().unwrap().stdout.len(), 1_000_000);
    writer.join().unwrap();
    world.run(&["exec", "-d", "e", "sh", "-c", "echo done > /tmp/marker"]).ok();
    let script = "while ! [ -s /tmp/marker ]; do sleep 0.05; done; cat /tmp/marker";
    assert_eq!(world.run(&["exec", "e", "sh", "-c", script]).ok().stdout, "done\n");
    world.run(&["kill", "e"]).ok();
    world.run(&["exec", "e", "true"]).exits(125).says("exited");
}

#[test]
fn two_containers_of_one_image_do_not_see_each_others_writes() {
    let world = World::new();
    world.background(&["--name", "a"], &["sh", "-c", "echo a > /mine; rm /etc/release; sleep 1000"]);
    world.background(&["--name", "b"], &["sleep", "1000"]);
    let script = "while ! [ -s /mine ]; do sleep 0.05; done; while [ -e /etc/release ]; do sleep 0.05; done";
    world.run(&["exec", "a", "sh", "-c", script]).ok();
    assert_eq!(
        world.run(&["exec", "b", "sh", "-c", "ls /mine; cat /etc/release"]).stdout,
        "corten test image\n"
    );
    // The layers themselves are as they were.
    world.run(&["rm", "-f", "a", "b"]).ok();
    assert_eq!(world.once(&[], &["cat", "/etc/release"]).ok().stdout, "corten test image\n");
    // Each has its own processes.
    assert_eq!(world.once(&[], &["sh", "-c", "ps | grep -c '[s]leep 1000'"]).stdout.trim(), "0");
}

#[test]
fn names_are_unique_and_any_beginning_of_an_id_will_do() {
    let world = World::new();
    let id = world.run(&["create", "--name", "one", IMAGE]).ok().stdout.trim().to_owned();
    world.run(&["run", "-d", "--name", "one", IMAGE]).exits(125).says("one");
    world.run(&["run", "--name", "bad/name", IMAGE]).exits(125).says("bad/name");
    for given in ["one", &id, &id[..12], &id[..4]] {
        assert_eq!(world.inspect(given)["Id"], id.as_str());
    }
    // Ten at once want one name: one gets it.
    let mut all: Vec<_> = (0..10).map(|_| world.spawn(&["create", "--name", "race", IMAGE])).collect();
    let codes: Vec<i32> = all.iter_mut().map(ends).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    let json = world.run(&["ps", "-a", "--format", "json"]).ok().json();
    assert_eq!(json.as_array().unwrap().len(), 2);
}

#[test]
fn an_image_in_use_is_kept() {
    let world = World::new();
    world.run(&["create", "--name", "user", IMAGE, "true"]).ok();
    world.run(&["rmi", IMAGE]).fails();
    world.run(&["start", "-a", "user"]).ok();
    world.run(&["rm", "user"]).ok();
    world.run(&["rmi", IMAGE]).ok();
}

#[test]
fn a_cidfile_has_the_id_and_goes_with_a_failure() {
    let world = World::new();
    let path = world.fixture.path().join("cid");
    let path = path.to_str().unwrap();
    let id = world.background(&["--cidfile", path], &["true"]);
    assert_eq!(std::fs::read_to_string(path).unwrap(), id);
    world.run(&["run", "--rm", "--cidfile", path, IMAGE, "true"]).exits(125).says("cid");
    let other = format!("{path}2");
    world.run(&["run", "--rm", "--cidfile", &other, IMAGE, "no-such-command"]).exits(127);
    assert!(!std::path::Path::new(&other).exists());
}
