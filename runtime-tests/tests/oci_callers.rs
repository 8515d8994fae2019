//! What callers of the OCI runtime see, beside Debian's runc on the same machine.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Bundle, Fixture, Outcome, command, events, needs, run};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const WAIT: &[&str] = &["/probe", "wait"];

/// Debian's runc with a state root of its own, and a container of it.
struct Runc<'f> {
    program: PathBuf,
    root: PathBuf,
    id: String,
    dir: PathBuf,
    fixture: &'f Fixture,
}

impl<'f> Runc<'f> {
    /// A container like `bundle`'s, in another cgroup.
    fn beside(bundle: &Bundle<'f>, fixture: &'f Fixture) -> Self {
        let id = format!("{}r", bundle.id);
        let dir = fixture.path().join("runc-bundle");
        std::fs::create_dir(&dir).unwrap();
        let mut config = bundle.config.clone();
        config["ociVersion"] = json!("1.0.2");
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        config["root"]["path"] = json!(bundle.rootfs());
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
        let root = fixture.path().join("runc");
        Self { program: needs::program("runc", "runc"), root, id, dir, fixture }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(words).env("CORTEN_TEST", self.fixture.token());
        command
    }
}

impl Drop for Runc<'_> {
    fn drop(&mut self) {
        run(&mut self.command(&["delete", "--force", &self.id]));
    }
}

/// The message of the last error on standard error, in logrus' text form.
fn message(outcome: &Outcome) -> String {
    let line = outcome.stderr.lines().rfind(|line| line.contains("level=error")).unwrap_or_default();
    let text = line.split_once("msg=").map_or("", |(_, text)| text);
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

/// Words with `ID` for the container; each is called in this order on a running one.
const LIVING: &[&str] = &[
    "create ID",
    "create a/b",
    "start ID",
    "exec ID echo hi",
    "exec ID sh -c exit\u{a0}3",
    "exec ID nosuch",
    "exec ID /etc/passwd",
    "exec ID /no/such",
    "exec ID",
    "exec -u 5:6 ID id",
    "exec -g 7 -g 8 ID id -G",
    "exec --cwd /tmp ID pwd",
    "exec --cap CAP_NOSUCH ID true",
    "ps ID -o cmd",
    "ps --format yaml ID",
    "list -q --format nosuch",
    "list --format nosuch",
    "pause ID",
    "pause ID",
    "exec ID true",
    "delete ID",
    "resume ID",
    "resume ID",
    "kill ID FOO",
    "kill ID SIGRTMIN",
    "kill ID 0",
    "kill -a ID 0",
    "kill --all ID winch",
    "update --memory 100m ID",
    "update --memory 0x10 ID",
    "update --l3-cache-schema L3:0=f ID",
    "update --kernel-memory 5m ID",
    "checkpoint --help",
    "restore --lsm-mount-context",
    "delete ID",
    "nosuchverb",
    "state",
    "kill ID TERM more",
    "state --nosuch ID",
    "--log-format xml state ID",
];

/// Likewise, on one that has stopped.
const DEAD: &[&str] = &[
    "kill ID KILL",
    "exec ID true",
    "pause ID",
    "resume ID",
    "start ID",
    "ps ID",
    "ps --format json ID",
    "events ID",
    "events --stats ID",
    "update --memory 10m ID",
    "kill ID",
    "delete ID",
    "delete ID",
    "delete --force ID",
    "state ID",
    "start ID",
    "events --interval 5 ID",
];

fn compare(ours: &Bundle<'_>, fixture: &Fixture, runc: &Runc<'_>, table: &[&str]) {
    for row in table {
        let words =
            |id: &str| row.split(' ').map(|word| word.replace("ID", id).replace('\u{a0}', " ")).collect();
        let (own, other): (Vec<String>, Vec<String>) = (words(&ours.id), words(&runc.id));
        let own = run(fixture.oci(own).current_dir(&ours.dir));
        let other: Vec<&str> = other.iter().map(String::as_str).collect();
        let other = run(runc.command(&other).current_dir(&runc.dir));
        assert_eq!(own.code, other.code, "{row}:\n{}\nrunc:\n{}", own.stderr, other.stderr);
        let usage = other.stdout.contains("USAGE:");
        let printed = other.stdout.replace(&runc.id, &ours.id);
        assert!(usage || own.stdout == printed, "{row}:\n{}\nrunc:\n{printed}", own.stdout);
        // Ours may say more: a path, an id, a call.
        let program = runc.program.to_str().unwrap();
        let expected = message(&other)
            .replace(&format!("{program}: "), "corten-oci: ")
            .replace("runc create", "corten-oci create")
            .replace("unable to start container process: ", "")
            .replace(&runc.id, &ours.id);
        let said = message(&own);
        // A quoted name in place of runc's own way to quote, and the call before the errno.
        let holds = expected.trim_end().split(": ").all(|part| said.contains(part.trim_matches('\'')));
        assert!(holds, "{row}: {said:?} has not all of {expected:?}");
    }
}

#[test]
fn codes_outputs_and_errors_are_runcs() {
    let fixture = Fixture::new();
    let ours = fixture.bundle().args(WAIT);
    let runc = Runc::beside(&ours, &fixture);
    let mut lines = ours.started();
    lines.next_line();
    let mut theirs = runc.command(&["run", "--detach", "--bundle", runc.dir.to_str().unwrap(), &runc.id]);
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child = theirs.stdin(Stdio::null()).stdout(writer).spawn().unwrap();
    drop(theirs);
    assert!(command::wait(&mut child, events::patience()).unwrap().success());
    events::Lines::new(reader).next_line();
    compare(&ours, &fixture, &runc, LIVING);
    same_shapes(&ours, &fixture, &runc);
    let state = run(&mut runc.command(&["state", &runc.id])).ok().json();
    let pid = i32::try_from(state["pid"].as_i64().unwrap()).unwrap();
    ours.kill_and_wait("KILL");
    run(&mut runc.command(&["kill", &runc.id, "KILL"])).ok();
    assert!(events::process_end(pid, events::patience()));
    compare(&ours, &fixture, &runc, DEAD);
}

/// The fields of JSON outputs, whatever their values are.
fn same_shapes(ours: &Bundle<'_>, fixture: &Fixture, runc: &Runc<'_>) {
    let order = |text: &str| -> Vec<String> {
        let keys = text.lines().filter_map(|line| Some(line.trim().strip_prefix('"')?.split_once('"')?.0));
        keys.map(str::to_owned).collect()
    };
    let own = ours.oci("state").ok().stdout;
    let other = run(&mut runc.command(&["state", &runc.id])).ok().stdout;
    assert_eq!(order(&own), order(&other));
    let own = fixture.run_oci(["events", "--stats", &ours.id]).ok().json();
    let other = run(&mut runc.command(&["events", "--stats", &runc.id])).ok().json();
    let missing: Vec<String> = paths(&other).difference(&paths(&own)).cloned().collect();
    assert!(missing.is_empty(), "events --stats lacks {missing:?}");
}

/// The JSON pointers of all objects' fields; numbers that are zero come and go (Go's `omitempty`).
fn paths(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![(String::new(), value)];
    while let Some((path, value)) = open.pop() {
        for (name, field) in value.as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            if !field.is_number() || path.ends_with("limit") || path.ends_with("failcnt") {
                found.insert(path.clone());
            }
            open.push((path, field));
        }
    }
    // Which of them the kernel counts depends on what ran.
    found.retain(|path| !path.contains("/raw/") && !path.contains("/blkio/") && !path.contains("/percpu"));
    found
}

#[test]
fn a_new_specification_is_runcs_byte_for_byte() {
    let fixture = Fixture::new();
    for options in [&[][..], &["--rootless"]] {
        let make = |name: &str, mut command: Command| {
            let dir = fixture.path().join(format!("{name}{}", options.len()));
            std::fs::create_dir(&dir).unwrap();
            run(command.arg("spec").args(options).arg("--bundle").arg(&dir)).ok();
            std::fs::read_to_string(dir.join("config.json")).unwrap()
        };
        let own = make("own", needs::oci());
        let other = make("other", Command::new(needs::program("runc", "runc")));
        let version =
            |text: &str| -> Value { serde_json::from_str::<Value>(text).unwrap()["ociVersion"].clone() };
        let (new, old) = (version(&own).to_string(), version(&other).to_string());
        assert_eq!(own, other.replace(&old, &new));
    }
}

/// containerd's shim and conmon want the runtime to die with them, and its containers to live on.
#[test]
fn the_death_signal_of_the_runtime_is_not_the_containers() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().args(["/probe", "trap", "SIGTERM", "0"]);
    let oci = needs::oci();
    let program: Vec<_> = std::iter::once(oci.get_program()).chain(oci.get_args()).collect();
    let caller = |words: &[&str]| {
        // The shell is the caller: it ends as soon as the runtime has.
        let mut command = Command::new("sh");
        command.args(["-c", "setpriv --pdeathsig KILL \"$@\"; exit $?", "caller"]).args(&program);
        command.arg("--root").arg(fixture.state_root()).args(words).env("CORTEN_TEST", fixture.token());
        command
    };
    needs::program("setpriv", "util-linux");
    let dir = bundle.write().dir.to_str().unwrap().to_owned();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut create = caller(&["create", "--bundle", &dir, &bundle.id]);
    create.stdin(Stdio::null()).stdout(writer);
    assert!(command::wait(&mut create.spawn().unwrap(), events::patience()).unwrap().success());
    drop(create);
    fixture.watch(bundle.pid());
    run(&mut caller(&["start", &bundle.id])).ok();
    let mut exec = caller(&["exec", "--detach", &bundle.id, "/bin/sleep", "1000"]);
    run(exec.stdin(Stdio::null())).ok();
    events::Lines::new(reader).next_line();
    assert_eq!(bundle.status(), "running");
    let pids = fixture.run_oci(["ps", "--format", "json", &bundle.id]).ok().json();
    assert_eq!(pids.as_array().unwrap().len(), 2, "the added process lives, too");
    bundle.kill_and_wait("TERM");
}

fn traced(fixture: &Fixture, options: &[&str], log: &Path, bundle: &Bundle<'_>) -> (Outcome, String) {
    let trace = fixture.path().join("trace");
    let oci = needs::oci();
    let mut strace = Command::new(needs::program("strace", "strace"));
    strace.arg("-f").arg("-o").arg(&trace).args(options).arg(oci.get_program()).args(oci.get_args());
    strace.arg("--root").arg(fixture.state_root()).arg("--log").arg(log).arg("--log-format=json");
    let dir = bundle.write().dir.to_str().unwrap().to_owned();
    let outcome = run(strace.args(["run", "--bundle", &dir, &bundle.id]));
    (outcome, std::fs::read_to_string(trace).unwrap())
}

/// What the container's side warns of must not end with the copy of the log that it has.
#[test]
fn warnings_of_the_containers_side_reach_the_log() {
    let fixture = Fixture::new();
    let log = fixture.path().join("log.json");
    let bundle = fixture.bundle().script("exit 0");
    let options = ["-e", "trace=keyctl,open,openat", "-e", "inject=keyctl:error=ENOSYS"];
    let (outcome, trace) = traced(&fixture, &options, &log, &bundle);
    assert_eq!(outcome.ok().stderr, "");
    let text = std::fs::read_to_string(&log).unwrap();
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        records
            .iter()
            .any(|one| one["level"] == "warning" && one["msg"].as_str().unwrap().contains("keyring")),
        "{text}"
    );
    let opened = trace.lines().find(|line| line.contains("log.json")).unwrap();
    for flag in ["O_APPEND", "O_SYNC", "O_CREAT", "O_CLOEXEC", "0644"] {
        assert!(opened.contains(flag), "{flag}: {opened}");
    }
}
