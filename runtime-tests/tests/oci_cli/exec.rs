//! `exec` and `kill`: flags, exit codes, sockets and pid files.
use runtime_tests::terminal::ConsoleSocket;
use runtime_tests::{Bundle, Fixture, cgroup, command, events, needs, run};
use serde_json::json;
use std::os::fd::AsFd;

const WAIT: &[&str] = &["/probe", "wait"];

fn running(fixture: &Fixture) -> Bundle<'_> {
    let bundle = fixture.bundle().args(WAIT);
    let mut lines = bundle.started();
    lines.next_line();
    bundle
}

/// Flags, the words behind the id, exit code, standard output, and a part of standard error.
type Row = (&'static [&'static str], &'static [&'static str], i32, &'static str, &'static str);

const TABLE: &[Row] = &[
    (&[], &["echo", "hi"], 0, "hi\n", ""),
    (&[], &["sh", "-c", "exit 3"], 3, "", ""),
    (&[], &["sh", "-c", "kill -9 $$"], 137, "", ""),
    (&[], &["sh", "-c", "kill -TERM $$"], 143, "", ""),
    (&[], &["nosuch"], 255, "", "executable file not found in $PATH"),
    (&[], &["/no/such"], 255, "", "no such file or directory"),
    (&[], &["/etc/passwd"], 255, "", "permission denied"),
    (&[], &[], 255, "", "process args cannot be empty"),
    (&["--cwd", "/tmp"], &["pwd"], 0, "/tmp\n", ""),
    (&["-cwd=/tmp"], &["pwd"], 0, "/tmp\n", ""),
    (&["--cwd", "tmp"], &["pwd"], 255, "", "absolute"),
    (&["--cwd", "/nosuch"], &["pwd"], 255, "", "no such file or directory"),
    (&["-e", "A=1", "--env", "B=a,b"], &["sh", "-c", "echo $A $B"], 0, "1 a,b\n", ""),
    (&["-u", "5"], &["id", "-u"], 0, "5\n", ""),
    (&["--user", "5:6"], &["id", "-g"], 0, "6\n", ""),
    (&["-u", "root"], &["true"], 255, "", "uid"),
    (&["-u", ""], &["id", "-u"], 0, "0\n", ""),
    (&["-g", "7", "--additional-gids", "8"], &["id", "-G"], 0, "0 7 8\n", ""),
    (&["-g", "x"], &["true"], 255, "", "additional gid"),
    (&["--no-new-privs"], &["grep", "NoNewPrivs", "/proc/self/status"], 0, "NoNewPrivs:\t1\n", ""),
    (&["-c", "CAP_NOSUCH"], &["true"], 0, "", "CAP_NOSUCH"),
    (
        &["--cap", "CAP_SYS_NICE"],
        &["grep", "CapInh", "/proc/self/status"],
        0,
        "CapInh:\t0000000000000000\n",
        "",
    ),
    (&["--process", "/no/such/file"], &[], 255, "", "/no/such/file"),
    (&["--preserve-fds", "1"], &["true"], 255, "", "descriptor 3"),
    (&["--cgroup", "nosuch"], &["true"], 255, "", "nosuch"),
    (&["--cgroup", "../x"], &["true"], 255, "", "/x"),
    (&["--console-socket", "/nosuch"], &["true"], 255, "", "cannot use console socket"),
    (&["-t", "-d"], &["true"], 255, "", "without setting console socket: use --console-socket"),
    (&["--detach", "--console-socket", "/no/such"], &["true"], 255, "", "cannot use console socket"),
    (&["--tty"], &["tty"], 0, "/dev/pts/", ""),
];

#[test]
fn flags_and_exit_codes() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    for (options, args, code, out, err) in TABLE {
        let outcome = bundle.exec_with(options, args).exits(*code);
        let same = if out.ends_with('/') { outcome.stdout.starts_with(out) } else { outcome.stdout == *out };
        assert!(same, "{options:?} {args:?}: {:?} instead of {out:?}", outcome.stdout);
        assert!(outcome.stderr.contains(err), "{options:?} {args:?}: {}", outcome.stderr);
        assert!(code != &255 || outcome.stderr.contains("exec failed: "), "{options:?}: {}", outcome.stderr);
    }
}

#[test]
fn an_added_capability_is_there() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    let sets = |options: &[&str]| {
        let text = bundle.exec_with(options, &["grep", "Cap[EPB]", "/proc/self/status"]).ok().stdout;
        let bits = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        text.lines().map(bits).collect::<Vec<_>>()
    };
    const SYS_NICE: u64 = 1 << 23;
    assert!(sets(&[]).iter().all(|set| set & SYS_NICE == 0));
    assert!(sets(&["--cap", "CAP_SYS_NICE"]).iter().all(|set| set & SYS_NICE != 0));
}

#[test]
fn a_process_runs_in_the_cgroups_below_that_it_names() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    let below = |controller: &str| {
        let dir = cgroup::of(controller).join(&bundle.id).join("below");
        std::fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    };
    let place = |options: &[&str]| bundle.exec_with(options, &["cat", "/proc/self/cgroup"]).ok().stdout;
    below("pids");
    if cgroup::is_v2() {
        assert!(place(&["--cgroup", "below"]).contains("/below\n"));
        return;
    }
    below("memory");
    let text = place(&["--cgroup", "pids:below", "--cgroup=memory:/below"]);
    let in_it: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with("/below"))
        .map(|line| line.split(':').nth(1).unwrap())
        .collect();
    assert!(in_it.len() == 2 && in_it.contains(&"pids") && in_it.contains(&"memory"), "{text}");
}

#[test]
fn a_paused_container_takes_a_process_only_by_force() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    bundle.oci("pause").ok();
    bundle
        .exec(&["true"])
        .exits(255)
        .says("cannot exec in a paused container (use --ignore-paused to override)");
    bundle.oci("pause").exits(1).says("container not running");
    bundle.oci("resume").ok();
    bundle.oci("resume").exits(1).says("container not paused");
    bundle.exec_with(&["--ignore-paused"], &["true"]).ok();
}

/// A pidfd is readable when its process has ended.
#[test]
fn pidfd_sockets_get_a_descriptor_of_the_process() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "trap", "SIGTERM", "0"]);
    let socket = ConsoleSocket::new(fixture.path().join("pidfd.sock"));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut create = bundle.create_command(&["--pidfd-socket", socket.path()]);
    create.stdout(writer).stdin(std::process::Stdio::null());
    assert!(command::wait(&mut create.spawn().unwrap(), events::patience()).unwrap().success());
    drop(create);
    let init = socket.receive();
    let mut exec = fixture.oci(["exec", "--detach", "--pidfd-socket", socket.path(), &bundle.id]);
    exec.args(["/bin/sleep", "1000"]).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    bundle.oci("start").ok();
    run(&mut exec).ok();
    let process = socket.receive();
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut reader, &mut ready).unwrap();
    let ended = |pidfd: &std::os::fd::OwnedFd, within| events::readable(pidfd.as_fd(), within);
    assert!(!ended(&init, std::time::Duration::ZERO) && !ended(&process, std::time::Duration::ZERO));
    bundle.kill("TERM").ok();
    assert!(ended(&init, events::patience()) && ended(&process, events::patience()));
}

#[test]
fn a_pid_file_appears_whole_and_by_itself() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    let dir = fixture.path().join("pids");
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("pid");
    std::fs::write(&file, "an old one, longer than any number").unwrap();
    let mut exec = fixture.oci(["exec", "-d", "--pid-file", file.to_str().unwrap(), &bundle.id]);
    run(exec.args(["/bin/sleep", "1000"]).stdin(std::process::Stdio::null())).ok();
    let pid: i32 = std::fs::read_to_string(&file).unwrap().parse().expect("digits, no newline");
    assert!(needs::exists(format!("/proc/{pid}")));
    assert_eq!(runtime_tests::leaks::entries(&dir), ["pid"]);
    // One that fails leaves none: conmon takes the file for the sign of success.
    std::fs::remove_file(&file).unwrap();
    let mut exec = fixture.oci(["exec", "-d", "--pid-file", file.to_str().unwrap(), &bundle.id, "/nosuch"]);
    run(&mut exec).exits(255);
    assert_eq!(runtime_tests::leaks::entries(&dir), [""; 0]);
}

/// Signal, and whether it is one.
const SIGNALS: &[(&str, bool)] = &[
    ("0", true),
    ("WINCH", true),
    ("SIGWINCH", true),
    ("winch", true),
    ("sigwinch", true),
    ("28", true),
    ("FOO", false),
    ("SIG", false),
    ("SIGSIGKILL", false),
    ("-9", false),
    ("999", false),
    ("", false),
    // As runc, real-time signals by number only.
    ("SIGRTMIN", false),
    ("RTMAX-1", false),
];

#[test]
fn signals_have_runcs_spellings() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    for (signal, known) in SIGNALS {
        for all in [false, true] {
            let mut kill = fixture.oci(["kill"]);
            kill.args(["-a"].iter().filter(|_| all)).args([&bundle.id, *signal]);
            let outcome = run(&mut kill).exits(i32::from(!known));
            assert!(*known || outcome.stderr.contains("unknown signal"), "{signal}: {}", outcome.stderr);
        }
    }
    let traps = fixture.bundle().script("trap 'echo 34; exit 0' 34; echo up; while :; do sleep 0.01; done");
    let mut lines = traps.started();
    lines.next_line();
    traps.kill("34").ok();
    assert_eq!(lines.next_line(), "34");
}

#[test]
fn what_ends_a_program_ends_a_container_that_has_none_yet() {
    let fixture = Fixture::new();
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let bundle = fixture.bundle().args(WAIT);
        let _lines = bundle.created();
        bundle.kill("WINCH").ok();
        assert_eq!(bundle.status(), "created");
        bundle.kill_and_wait(signal);
        bundle.oci("start").exits(1).says("stopped");
        bundle.oci("delete").ok();
    }
}

#[test]
fn a_damaged_record_can_be_deleted_by_force() {
    let fixture = Fixture::new();
    for damage in ["", "{", "null", "{\"version\": 99}"] {
        let bundle = fixture.bundle().without_namespace("pid").script("/probe wait & /probe wait");
        let mut lines = bundle.started();
        assert_eq!((lines.next_line(), lines.next_line()), ("ready".into(), "ready".into()));
        let pid = bundle.pid();
        let record = fixture.state_root().join(&bundle.id).join("state.json");
        let whole = std::fs::read_to_string(&record).unwrap();
        let damage = if damage == "null" { &whole[..whole.len() / 2] } else { damage };
        std::fs::write(&record, damage).unwrap();
        bundle.oci("state").exits(1);
        assert_eq!(fixture.run_oci(["list", "-q"]).ok().stdout, "");
        bundle.oci("delete").exits(1).says(&bundle.id);
        fixture.run_oci(["delete", "--force", &bundle.id]).ok();
        bundle.wait(pid);
        fixture.assert_clean();
    }
}

#[test]
fn a_seccomp_free_process_file_is_taken_instead_of_the_flags() {
    let fixture = Fixture::new();
    let bundle = running(&fixture);
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["/bin/sh", "-c", "echo from the file; pwd"]);
    process["cwd"] = json!("/etc");
    let file = fixture.file("process.json", process.to_string());
    let outcome = bundle.exec_with(&["-p", file.to_str().unwrap(), "--cwd", "/tmp"], &[]).ok();
    assert_eq!(outcome.stdout, "from the file\n/etc\n");
}
