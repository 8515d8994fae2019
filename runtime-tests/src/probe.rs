//! The static program that runs inside containers and reports what it sees.
//!
//! ```text
//! probe report                  everything about this process and its surroundings, as JSON
//! probe open r|w|rw PATH...     whether each path can be opened, as JSON {path: "ok" | errno name}
//! probe memory MIB              touches so much memory and says "touched"
//! probe forks N                 starts up to N processes that wait; JSON {started, error}
//! probe burn SECONDS THREADS    busy for so long; JSON {cpu, wall} in seconds
//! probe trap SIGNAL CODE        says "ready", waits for the signal, exits with the code
//! probe hunt FILE               says "ready", and then again and again which processes it could trace or look into: those
//!                               whose root, working directory or descriptors lead to FILE of the host
//! probe wait                    says "ready" and waits to be killed
//! probe terminal                size of the terminal on standard input and what it is, as JSON
//! probe count RATE TOTAL CODE   says RATE numbered lines a second, TOTAL in all, and exits with the code
//! probe echo tcp|udp PORT       says "ready", answers every line or datagram with the asker's address and what it said
//! probe ask tcp|udp TO TEXT     asks such a server at ADDRESS:PORT and says its answer; code 7 if there is none
//! probe ioctl REQUEST           ioctl on standard input, all 64 bits of the hexadecimal request as they are: its errno
//! probe notify TEXT...          sends each text to $NOTIFY_SOCKET, says "ready" and waits to be killed
//! probe peak FILE PROGRAM ARG...  runs a program and writes to FILE how many bytes it had resident at the most; exits as it did,
//!                               with 128 and the number of the signal that ended it
//! probe exit CODE               exits
//! ```

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, getgroups, getpgrp, getpid, getppid, getresgid, getresuid, getsid};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["report"] => say(&report()),
        ["open", mode, paths @ ..] => say(&opened(mode, paths)),
        ["memory", mib] => touch_memory(number(mib)),
        ["forks", count] => say(&fork_many(number(count))),
        ["burn", seconds, threads] => say(&burn(number(seconds), number(threads))),
        ["trap", signal, code] => return trap(signal, number(code)),
        ["hunt", file] => hunt(file),
        ["wait"] => wait_forever(),
        ["terminal"] => say(&terminal()),
        ["count", rate, total, code] => return count(number(rate), number(total), number(code)),
        ["echo", "tcp", port] => echo_tcp(port),
        ["echo", "udp", port] => echo_udp(port),
        ["ask", protocol, to, text] => return ask(protocol, to, text),
        ["ioctl", request] => println!("{}", ioctl(request)),
        ["notify", texts @ ..] => notify(texts),
        ["peak", file, program, args @ ..] => return peak(file, program, args),
        ["exit", code] => return exit_code(number(code)),
        other => {
            eprintln!("probe: unknown words {other:?}");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}

fn ioctl(request: &str) -> String {
    let request = u64::from_str_radix(request.trim_start_matches("0x"), 16).expect("hexadecimal");
    runtime_tests::ioctl(request).map_or_else(|errno| format!("{errno:?}"), |()| "ok".to_owned())
}

fn notify(texts: &[&str]) {
    let socket = std::os::unix::net::UnixDatagram::unbound().expect("socket");
    let address = std::env::var("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
    let mut was_ready = false;
    for text in texts {
        match socket.send_to(text.as_bytes(), &address) {
            // Nobody need listen any more once it was told.
            Err(error) if was_ready && error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            sent => drop(sent.expect("send")),
        }
        was_ready |= text.split('\n').any(|line| line == "READY=1");
    }
    wait_forever();
}

fn echo_tcp(port: &str) {
    let listener = TcpListener::bind(format!("[::]:{port}"))
        .or_else(|_| TcpListener::bind(format!("0.0.0.0:{port}")))
        .expect("bind");
    ready();
    for stream in listener.incoming() {
        let mut stream = stream.expect("accept");
        let from = stream.peer_addr().expect("peer").ip().to_canonical();
        let mut line = String::new();
        // A peer that breaks off is of no interest.
        if BufReader::new(&stream).read_line(&mut line).is_ok() {
            let _ = write!(stream, "{from} {line}");
        }
    }
}

fn echo_udp(port: &str) {
    let socket = UdpSocket::bind(format!("0.0.0.0:{port}")).expect("bind");
    ready();
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).expect("receive");
        let answer = [format!("{} ", from.ip()).as_bytes(), &buffer[..length]].concat();
        let _ = socket.send_to(&answer, from);
    }
}

fn ask(protocol: &str, to: &str, text: &str) -> ExitCode {
    let limit = Duration::from_secs(3);
    let answer = || -> std::io::Result<String> {
        let mut answer = String::new();
        if protocol == "tcp" {
            let mut stream = TcpStream::connect_timeout(&to.parse().expect("ADDRESS:PORT"), limit)?;
            stream.set_read_timeout(Some(limit))?;
            writeln!(stream, "{text}")?;
            BufReader::new(stream).read_line(&mut answer)?;
        } else {
            let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(limit))?;
            socket.connect(to)?;
            socket.send(text.as_bytes())?;
            let mut buffer = [0; 2048];
            let length = socket.recv(&mut buffer)?;
            answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
        Ok(answer)
    };
    match answer() {
        Ok(answer) => {
            println!("{}", answer.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("no answer: {error}");
            ExitCode::from(7)
        }
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn exit_code(code: u64) -> ExitCode {
    ExitCode::from(u8::try_from(code).expect("an exit code"))
}

/// A program begins with what the process that starts it has (setmax_mm_hiwater_rss in exec_mmap of Linux): this one has little.
#[expect(clippy::zombie_processes, reason = "wait4 takes it")]
fn peak(file: &str, program: &str, args: &[&str]) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let child = Command::new(program).args(args).spawn().expect("start the program");
    let (status, resident) = runtime_tests::wait4(i32::try_from(child.id()).expect("a pid"));
    fs::write(file, resident.to_string()).expect("write the result");
    ExitCode::from(
        u8::try_from(status.code().or(status.signal().map(|n| 128 + n)).unwrap_or(255)).unwrap_or(255),
    )
}

fn say(value: &Value) {
    println!("{value}");
}

fn ready() {
    println!("ready");
    std::io::stdout().flush().expect("stdout");
}

/// A file's text, or its error in words.
fn text(path: &str) -> String {
    fs::read_to_string(path)
        .map_or_else(|error| format!("error: {error}"), |text| text.trim_end_matches('\n').to_owned())
}

fn report() -> Value {
    let status = text("/proc/self/status");
    let uts = nix::sys::utsname::uname().expect("uname");
    let user = getresuid().expect("getresuid");
    let group = getresgid().expect("getresgid");
    json!({
        "pid": getpid().as_raw(), "ppid": getppid().as_raw(), "pgrp": getpgrp().as_raw(),
        "sid": getsid(None).map_or(-1, |pid| pid.as_raw()),
        "uid": ([user.real, user.effective, user.saved].map(Uid::as_raw)),
        "gid": ([group.real, group.effective, group.saved].map(Gid::as_raw)),
        "groups": getgroups().expect("getgroups").into_iter().map(Gid::as_raw).collect::<Vec<_>>(),
        "caps": fields(&status, &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]),
        "no_new_privs": field(&status, "NoNewPrivs"), "seccomp": field(&status, "Seccomp"),
        "umask": field(&status, "Umask"), "signals": fields(&status, &["SigBlk", "SigIgn"]),
        "cpus_allowed": field(&status, "Cpus_allowed_list"), "mems_allowed": field(&status, "Mems_allowed_list"),
        "args": std::env::args().collect::<Vec<_>>(), "env": std::env::vars().collect::<BTreeMap<_, _>>(),
        "cwd": std::env::current_dir().map_or_else(|error| error.to_string(), |dir| dir.display().to_string()),
        "hostname": uts.nodename().to_string_lossy(), "domainname": uts.domainname().to_string_lossy(),
        "machine": uts.machine().to_string_lossy(),
        "namespaces": links("/proc/self/ns"), "fds": links("/proc/self/fd"),
        "cgroup": text("/proc/self/cgroup"), "mountinfo": text("/proc/self/mountinfo"),
        "uid_map": text("/proc/self/uid_map"), "gid_map": text("/proc/self/gid_map"),
        "setgroups": text("/proc/self/setgroups"), "timens_offsets": text("/proc/self/timens_offsets"),
        "oom_score_adj": text("/proc/self/oom_score_adj"), "personality": text("/proc/self/personality"),
        "rlimits": limits(), "processes": processes(), "interfaces": entries("/sys/class/net"),
        "uptime": text("/proc/uptime"), "dev": device_nodes(),
        "exe": fs::read_link("/proc/self/exe").map_or_else(|error| error.to_string(), |path| path.display().to_string()),
    })
}

fn field(status: &str, name: &str) -> String {
    let lines = &mut status.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map_or_else(String::new, |value| value.trim().to_owned())
}

fn fields(status: &str, names: &[&str]) -> BTreeMap<String, String> {
    names.iter().map(|name| ((*name).to_owned(), field(status, name))).collect()
}

fn links(dir: &str) -> BTreeMap<String, String> {
    // The descriptor that lists /proc/self/fd is in the list and gone when its link is read.
    entries(dir)
        .into_iter()
        .filter_map(|name| {
            let target = fs::read_link(format!("{dir}/{name}")).ok()?;
            Some((name, target.display().to_string()))
        })
        .collect()
}

fn entries(dir: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn processes() -> Vec<u32> {
    entries("/proc").iter().filter_map(|name| name.parse().ok()).collect()
}

fn device_nodes() -> BTreeMap<String, String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let describe = |name: &String| {
        let path = format!("/dev/{name}");
        let Ok(metadata) = fs::symlink_metadata(&path) else { return "gone".to_owned() };
        let kind = metadata.file_type();
        let (major, minor) = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
        let owner = format!("{:o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        match () {
            () if kind.is_symlink() => fs::read_link(&path)
                .map_or_else(|error| error.to_string(), |to| format!("-> {}", to.display())),
            () if kind.is_char_device() => format!("c {major}:{minor} {owner}"),
            () if kind.is_block_device() => format!("b {major}:{minor} {owner}"),
            () if kind.is_fifo() => format!("p {owner}"),
            () if kind.is_dir() => "dir".to_owned(),
            () => format!("file {owner}"),
        }
    };
    entries("/dev").iter().map(|name| (name.clone(), describe(name))).collect()
}

fn limits() -> Map<String, Value> {
    let known = [
        ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
        ("RLIMIT_CORE", Resource::RLIMIT_CORE),
        ("RLIMIT_STACK", Resource::RLIMIT_STACK),
        ("RLIMIT_AS", Resource::RLIMIT_AS),
        ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
        ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
        ("RLIMIT_CPU", Resource::RLIMIT_CPU),
    ];
    known
        .into_iter()
        .map(|(name, resource)| {
            let (soft, hard) = getrlimit(resource).expect("getrlimit");
            (name.to_owned(), json!([soft, hard]))
        })
        .collect()
}

fn errno_name(error: &std::io::Error) -> String {
    error
        .raw_os_error()
        .map_or_else(|| error.to_string(), |raw| format!("{:?}", nix::errno::Errno::from_raw(raw)))
}

fn opened(mode: &str, paths: &[&str]) -> Value {
    let one = |path: &&str| {
        let result =
            fs::OpenOptions::new().read(mode.contains('r')).write(mode.contains('w')).open(path).map(drop);
        let word = result.map_or_else(|error| errno_name(&error), |()| "ok".to_owned());
        ((*path).to_owned(), Value::String(word))
    };
    Value::Object(paths.iter().map(one).collect())
}

fn touch_memory(mib: u64) {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mib {
        // Not zeros: a zeroed allocation need not be backed by pages.
        blocks.push(vec![1; 1 << 20]);
    }
    std::hint::black_box(&blocks);
    println!("touched");
}

fn fork_many(count: u64) -> Value {
    let mut children = Vec::new();
    let mut error = Value::Null;
    for _ in 0..count {
        let child =
            Command::new("/proc/self/exe").arg("wait").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        match child {
            Ok(child) => children.push(child),
            Err(failure) => {
                error = Value::String(errno_name(&failure));
                break;
            }
        }
    }
    let started = children.len();
    for child in &mut children {
        child.kill().expect("kill a child");
        child.wait().expect("wait for a child");
    }
    json!({"started": started, "error": error})
}

fn burn(seconds: u64, threads: u64) -> Value {
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            std::thread::spawn(move || {
                while Instant::now() < end {
                    std::hint::black_box((0..10_000u64).sum::<u64>());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("join");
    }
    let wall = begin.elapsed().as_secs_f64();
    let cpu = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("clock_gettime");
    json!({"cpu": Duration::from(cpu).as_secs_f64(), "wall": wall})
}

fn trap(signal: &str, code: u64) -> ExitCode {
    let signal: Signal = signal.parse().expect("a signal's name");
    let mut set = SigSet::empty();
    set.add(signal);
    set.thread_block().expect("sigprocmask");
    ready();
    set.wait().expect("sigwait");
    exit_code(code)
}

/// Numbered lines at a steady rate: what is late is said at once.
fn count(rate: u64, total: u64, code: u64) -> ExitCode {
    let begin = Instant::now();
    for line in 0..total {
        let due = Duration::from_micros(1_000_000 * line / rate);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        println!("line {line}");
    }
    exit_code(code)
}

/// What a hostile init does with those who join its container (CVE-2016-9962).
fn hunt(file: &str) {
    use nix::sys::ptrace;
    use nix::sys::wait::{WaitPidFlag, waitpid};
    let own = getpid().as_raw();
    let inside = fs::read_link("/proc/self/exe").expect("own executable");
    ready();
    loop {
        for number in processes() {
            let pid = i32::try_from(number).expect("a pid");
            if pid == own {
                continue;
            }
            let below = format!("/proc/{pid}");
            for way in ["root", "cwd"]
                .map(str::to_owned)
                .into_iter()
                .chain(entries(&format!("{below}/fd")).into_iter().map(|name| format!("fd/{name}")))
            {
                if fs::symlink_metadata(format!("{below}/{way}{file}")).is_ok() {
                    println!("found {way}");
                }
            }
            let before = fs::read_link(format!("{below}/exe"));
            let pid = nix::unistd::Pid::from_raw(pid);
            if ptrace::seize(pid, ptrace::Options::empty()).is_ok() {
                // A program of the container may be traced; what is not one, may not.
                let after = fs::read_link(format!("{below}/exe"));
                let ours = |exe: &std::io::Result<std::path::PathBuf>| {
                    exe.as_ref().is_ok_and(|exe| *exe == inside || exe.starts_with("/bin"))
                };
                if !ours(&before) && !ours(&after) && after.is_ok() {
                    println!("traced {before:?} {after:?}");
                }
            }
            // Who is traced stays a zombie until its tracer has heard of the end.
            while waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))
                .is_ok_and(|status| status.pid().is_some())
            {}
        }
    }
}

fn wait_forever() {
    ready();
    // Everything that can be caught stays deadly by default, except that init of a pid namespace ignores it.
    loop {
        nix::unistd::pause();
    }
}

fn terminal() -> Value {
    let stdin = std::io::stdin();
    let is_terminal = std::io::IsTerminal::is_terminal(&stdin);
    let name = fs::read_link("/proc/self/fd/0")
        .map_or_else(|error| error.to_string(), |path| path.display().to_string());
    // `stty` reads the size for us: the ioctl has no safe wrapper.
    let size = Command::new("/bin/stty").arg("size").stdin(Stdio::inherit()).output();
    let size = size
        .map_or_else(|error| error.to_string(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let controlling = fs::File::open("/dev/tty").map_or_else(|error| errno_name(&error), |_| "ok".to_owned());
    json!({"terminal": is_terminal, "name": name, "size": size, "controlling": controlling})
}
