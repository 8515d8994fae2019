//! The life of a container of root's.
use crate::client::Podman;
use runtime_tests::terminal::OnTerminal;
use runtime_tests::{Fixture, cgroup, command, events};

#[test]
fn run_rm() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    let outcome = podman.run_image(&[], &["sh", "-c", "echo from inside; cat /etc/release; exit 3"]).exits(3);
    assert_eq!(outcome.stdout, "from inside\ncorten test image\n");
    podman.finish();
}

#[test]
fn limits_and_hostname() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    let options = ["--memory", "64m", "--pids-limit", "33", "--hostname", "box", "--read-only"];
    let script = "hostname; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes; touch /new || echo refused";
    let outcome = podman.run_image(&options, &["sh", "-c", script]).ok();
    assert_eq!(outcome.stdout, "box\n33\n67108864\nrefused\n");
    podman.finish();
}

#[test]
fn detached_exec_logs_stop() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    podman.detached("one", &[]);
    assert_eq!(podman.run(&["exec", "one", "echo", "joined"]).ok().stdout, "joined\n");
    podman.run(&["exec", "one", "sh", "-c", "exit 5"]).exits(5);
    assert_eq!(podman.run(&["logs", "one"]).ok().stdout, "started\n");
    assert!(podman.run(&["top", "one"]).ok().stdout.contains("sleep 1"));
    podman.run(&["stop", "--time", "10", "one"]).ok();
    let ended = podman.run(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "one"]).ok();
    assert_eq!(ended.stdout, "exited 0\n");
    podman.run(&["start", "one"]).ok();
    podman.run(&["restart", "--time", "10", "one"]).ok();
    podman.run(&["kill", "one"]).ok();
    assert_eq!(podman.run(&["wait", "one"]).ok().stdout, "137\n");
    podman.finish();
}

#[test]
fn pause_update_and_stats() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    podman.detached("one", &["--memory", "64m"]);
    let status = || podman.run(&["inspect", "--format", "{{.State.Status}}", "one"]).ok().stdout;
    podman.run(&["pause", "one"]).ok();
    assert_eq!(status(), "paused\n");
    podman.run(&["unpause", "one"]).ok();
    assert_eq!(status(), "running\n");
    podman.run(&["update", "--memory", "32m", "--cpu-shares", "512", "one"]).ok();
    let id = podman.run(&["inspect", "--format", "{{.Id}}", "one"]).ok().stdout;
    let path = format!("{}p/libpod-{}", fixture.token(), id.trim());
    let memory = cgroup::value("memory", &path, "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory, (32 << 20).to_string());
    assert!(podman.run(&["stats", "--no-stream", "one"]).ok().stdout.contains("one"));
    podman.finish();
}

#[test]
fn a_terminal_for_run_and_exec() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    let script = "tty; stty size; read line; echo got $line; exit 3";
    let mut run = OnTerminal::new(&mut podman.run_command(&["--rm", "-it"], &["sh", "-c", script]));
    run.until("/dev/pts/0");
    run.until("33 77");
    run.types("typed\n");
    run.until("got typed");
    let ended = command::wait(&mut run.child, events::patience()).expect("an end in time");
    assert_eq!(ended.code(), Some(3));
    podman.detached("one", &[]);
    let mut exec = OnTerminal::new(&mut podman.command(&["exec", "-it", "one", "sh", "-c", script]));
    exec.until("/dev/pts/");
    exec.types("more\n");
    exec.until("got more");
    let ended = command::wait(&mut exec.child, events::patience()).expect("an end in time");
    assert_eq!(ended.code(), Some(3));
    podman.finish();
}

#[test]
fn a_health_check() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    podman.detached("one", &["--health-cmd", "test -e /tmp/well", "--health-interval", "disable"]);
    assert_eq!(podman.run(&["healthcheck", "run", "one"]).exits(1).stdout, "unhealthy\n");
    podman.run(&["exec", "one", "touch", "/tmp/well"]).ok();
    podman.run(&["healthcheck", "run", "one"]).ok();
    let status = podman.run(&["inspect", "--format", "{{.State.Health.Status}}", "one"]).ok();
    assert_eq!(status.stdout, "healthy\n");
    podman.finish();
}

#[test]
fn a_missing_program_is_127() {
    let fixture = Fixture::new();
    let podman = Podman::new(&fixture);
    podman.run_image(&[], &["/bin/nosuch"]).exits(127);
    podman.run_image(&[], &["/etc/passwd"]).exits(126);
    podman.finish();
}
