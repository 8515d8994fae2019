//! Readers of flag values; pure.
use super::{Seccomp, Security, Signal, Tmpfs, Ulimit, Volume, VolumeSource};
use crate::engine::error::EngineError;
use crate::engine::names;
use std::path::PathBuf;

/// Least memory limit, as docker's: below it not even the set-up of a container fits.
pub const LEAST_MEMORY: i64 = 6 * 1024 * 1024;
/// Most CPUs that a limit can name; the kernel's NR_CPUS is at most 8192.
const MOST_CPUS: u64 = 8192;
/// RTMAX of the kernel.
const LAST_SIGNAL: i32 = 64;
/// First real-time signal of the kernel; glibc keeps two for itself, which is why names count from 34.
const RTMIN: i32 = 34;

fn wrong<T>(flag: &'static str, value: &str, reason: &'static str) -> Result<T, EngineError> {
    Err(EngineError::Flag { flag, value: value.to_owned(), reason })
}

fn not_built<T>(flag: &'static str, value: &str, reason: &'static str) -> Result<T, EngineError> {
    Err(EngineError::NotBuilt { flag, value: value.to_owned(), reason })
}

/// A size in bytes: digits, perhaps with a fraction, and a unit of `b k m g t` (powers of 1024), which
/// `b` or `ib` may follow.
pub fn bytes(flag: &'static str, text: &str) -> Result<i64, EngineError> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return wrong(flag, text, "the unit is one of b, k, m, g, t"),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let nine_digits = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !nine_digits || (number.contains('.') && fraction.is_empty()) {
        return wrong(flag, text, "a size is a number and a unit, as 512m");
    }
    let too_large = || EngineError::Flag { flag, value: text.to_owned(), reason: "the size is too large" };
    let whole: i128 = whole.parse().map_err(|_| too_large())?;
    let billionths: i128 = format!("{fraction:0<9}").parse().map_err(|_| too_large())?;
    let size = whole
        .checked_mul(1 << shift)
        .and_then(|whole| whole.checked_add((billionths << shift) / 1_000_000_000))
        .ok_or_else(too_large)?;
    i64::try_from(size).map_err(|_| too_large())
}

/// `--memory`.
pub fn memory(text: &str) -> Result<i64, EngineError> {
    let size = bytes("--memory", text)?;
    if size < LEAST_MEMORY {
        return wrong("--memory", text, "the least memory limit is 6m");
    }
    Ok(size)
}

/// `--memory-swap`, which counts memory and swap together; -1 is unlimited.
pub fn memory_swap(text: &str, memory: Option<i64>) -> Result<i64, EngineError> {
    let flag = "--memory-swap";
    let Some(memory) = memory else {
        return wrong(flag, text, "it needs --memory, of which it is the sum with swap");
    };
    if text == "-1" {
        return Ok(-1);
    }
    let size = bytes(flag, text)?;
    if size < memory {
        return wrong(flag, text, "it is the sum of memory and swap and cannot be less than --memory");
    }
    Ok(size)
}

/// `--cpus` in units of 1e-9 CPU.
pub fn cpus(text: &str) -> Result<u64, EngineError> {
    let flag = "--cpus";
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || fraction.len() > 9
    {
        return wrong(flag, text, "a number of CPUs is decimal, as 1.5");
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u64::MAX) };
    let nano: u64 = format!("{fraction:0<9}").parse().unwrap_or(0);
    if whole > MOST_CPUS {
        return wrong(flag, text, "no machine has so many CPUs");
    }
    let nano = whole * 1_000_000_000 + nano;
    if nano < 10_000_000 {
        return wrong(flag, text, "the least is 0.01, because the kernel's least quota is 1 ms in 100 ms");
    }
    Ok(nano)
}

/// `--cpu-shares`, the range of cgroup v1.
pub fn cpu_shares(text: &str) -> Result<u64, EngineError> {
    match text.parse::<u64>() {
        Ok(shares) if (2..=262_144).contains(&shares) => Ok(shares),
        _ => wrong("--cpu-shares", text, "shares are a number from 2 to 262144"),
    }
}

/// `--cpuset-cpus`: `0-3,5`.
pub fn cpuset(text: &str) -> Result<String, EngineError> {
    let number = |part: &str| part.parse::<u64>().ok().filter(|cpu| *cpu < MOST_CPUS);
    let valid = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        }
        None => number(part).is_some(),
    };
    if text.split(',').all(valid) {
        Ok(text.to_owned())
    } else {
        wrong("--cpuset-cpus", text, "CPUs are listed as 0-3,5")
    }
}

/// `--pids-limit`; -1 is unlimited, and so is 0, as in docker.
pub fn pids_limit(text: &str) -> Result<i64, EngineError> {
    match text.parse::<i64>() {
        Ok(-1 | 0) => Ok(-1),
        Ok(limit) if limit > 0 => Ok(limit),
        _ => wrong("--pids-limit", text, "it is a positive number, or -1 for unlimited"),
    }
}

/// `--ulimit NAME=SOFT[:HARD]`.
pub fn ulimit(text: &str) -> Result<Ulimit, EngineError> {
    const NAMES: [&str; 16] = [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let flag = "--ulimit";
    let Some((name, limits)) = text.split_once('=') else {
        return wrong(flag, text, "it is written NAME=SOFT[:HARD]");
    };
    if !NAMES.contains(&name) {
        return wrong(
            flag,
            text,
            "there is no limit of that name (see getrlimit(2); write nofile for RLIMIT_NOFILE)",
        );
    }
    let number = |text: &str| match text {
        "-1" | "unlimited" => Some(u64::MAX),
        text => text.parse::<u64>().ok(),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (Some(soft), Some(hard)) = (number(soft), number(hard)) else {
        return wrong(flag, text, "limits are numbers, or -1 for unlimited");
    };
    if soft > hard {
        return wrong(flag, text, "the soft limit is above the hard one");
    }
    Ok(Ulimit { name: format!("RLIMIT_{}", name.to_ascii_uppercase()), soft, hard })
}

/// All `--security-opt` together.
pub fn security(options: &[String]) -> Result<Security, EngineError> {
    let flag = "--security-opt";
    let mut security = Security::default();
    for option in options {
        // docker once wrote `seccomp:unconfined`, and still reads it.
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option.as_str(), ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", "default" | "builtin") => security.seccomp = Seccomp::Default,
            ("seccomp", path) if !path.is_empty() => security.seccomp = Seccomp::File(PathBuf::from(path)),
            ("apparmor", "unconfined") => security.apparmor = None,
            ("apparmor", profile) if !profile.is_empty() => security.apparmor = Some(profile.to_owned()),
            // No label is set, so there is nothing to disable.
            ("label", "disable") => {}
            ("label" | "mask" | "unmask" | "systempaths" | "proc-opts" | "writable-cgroups", _) => {
                return not_built(flag, option, "this option is not built");
            }
            _ => {
                return wrong(
                    flag,
                    option,
                    "known are no-new-privileges, seccomp=unconfined|FILE, apparmor=PROFILE and label=disable",
                );
            }
        }
    }
    Ok(security)
}

/// A path in the container: absolute, without `..`, not the root; repeated and trailing slashes go.
pub fn destination(flag: &'static str, text: &str) -> Result<String, EngineError> {
    if !text.starts_with('/') {
        return wrong(flag, text, "the path in the container is not absolute");
    }
    let mut clean = String::with_capacity(text.len());
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return wrong(flag, text, "the path in the container has a `..`");
        }
        clean.push('/');
        clean.push_str(part);
    }
    if clean.is_empty() {
        return wrong(flag, text, "a mount cannot cover the container's root");
    }
    if clean.len() >= 4096 || clean.contains('\0') {
        return wrong(flag, text, "the path is too long or has a NUL");
    }
    Ok(clean)
}

/// `-v [HOST-DIR|NAME:]PATH[:OPTIONS]`.
pub fn volume(text: &str) -> Result<Volume, EngineError> {
    let flag = "--volume";
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path, options) = match parts.as_slice() {
        [path] => (None, *path, ""),
        [source, path] => (Some(*source), *path, ""),
        [source, path, options] => (Some(*source), *path, *options),
        _ => return wrong(flag, text, "it is written [SOURCE:]PATH[:OPTIONS]"),
    };
    let source = match source {
        None => VolumeSource::Anonymous(None),
        Some("") => return wrong(flag, text, "the source is empty"),
        Some(path) if path.starts_with(['/', '.', '~']) => VolumeSource::Host(PathBuf::from(path)),
        Some(name) => {
            if names::validate(name).is_err() {
                return wrong(
                    flag,
                    text,
                    "a source is a path, or the name of a volume (letters, digits, '_', '.', '-')",
                );
            }
            VolumeSource::Named(name.to_owned())
        }
    };
    let copy_up = !matches!(source, VolumeSource::Host(_));
    let mut volume = Volume { source, destination: destination(flag, path)?, options: Vec::new(), copy_up };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "rw" | "nosuid" | "suid" | "nodev" | "dev" | "noexec" | "exec" | "private"
            | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "noatime" | "relatime" => {
                volume.options.push(option.to_owned());
            }
            "bind" | "rbind" if !copy_up => volume.options.push(option.to_owned()),
            "nocopy" if copy_up => volume.copy_up = false,
            "copy" if copy_up => volume.copy_up = true,
            "z" | "Z" => return not_built(flag, option, "SELinux labels are not built"),
            "U" | "O" | "idmap" => return not_built(flag, option, "this option is not built"),
            _ => {
                return wrong(
                    flag,
                    text,
                    "unknown option; known are ro, rw, [no]suid, [no]dev, [no]exec, nocopy, bind, rbind and the kinds of propagation",
                );
            }
        }
    }
    Ok(volume)
}

/// `--tmpfs PATH[:OPTIONS]`.
pub fn tmpfs(text: &str) -> Result<Tmpfs, EngineError> {
    let flag = "--tmpfs";
    let (path, given) = text.split_once(':').unwrap_or((text, ""));
    let destination = destination(flag, path)?;
    let mut options: Vec<String> = Vec::new();
    // As docker: nothing in a tmpfs can be run or be a device unless it is asked for.
    for (default, opposite) in [("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")] {
        if !given.split(',').any(|option| option == opposite) {
            options.push(default.to_owned());
        }
    }
    for option in given.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "ro" | "rw" | "nosuid" | "suid" | "nodev" | "dev" | "noexec" | "exec" | "noatime"
            | "relatime" | "sync"
                if value.is_empty() => {}
            "size" if value.ends_with('%') && value.len() <= 4 => {}
            "size" | "nr_blocks" | "nr_inodes" => {
                bytes(flag, value)?;
            }
            "mode" if !value.is_empty() && value.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) => {}
            "uid" | "gid" if value.parse::<u32>().is_ok() => {}
            _ => {
                return wrong(
                    flag,
                    text,
                    "unknown option; known are ro, rw, [no]suid, [no]dev, [no]exec, size, mode, uid, gid, nr_inodes",
                );
            }
        }
        if !options.iter().any(|known| known == option) {
            options.push(option.to_owned());
        }
    }
    Ok(Tmpfs { destination, options })
}

/// A signal by number or by name, with or without `SIG`.
pub fn signal(flag: &'static str, text: &str) -> Result<Signal, EngineError> {
    if let Ok(number) = text.parse::<i32>() {
        if (1..=LAST_SIGNAL).contains(&number) {
            return Ok(Signal(number));
        }
        return wrong(flag, text, "signals are numbered from 1 to 64");
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: i32, offset: &str, sign: i32| match offset {
        "" => Some(base),
        _ => offset
            .get(1..)?
            .parse::<i32>()
            .ok()
            .filter(|offset| (0..=30).contains(offset))
            .map(|n| base + sign * n),
    };
    let number = if let Some(offset) =
        name.strip_prefix("RTMIN").filter(|rest| rest.is_empty() || rest.starts_with('+'))
    {
        real_time(RTMIN, offset, 1)
    } else if let Some(offset) =
        name.strip_prefix("RTMAX").filter(|rest| rest.is_empty() || rest.starts_with('-'))
    {
        real_time(LAST_SIGNAL, offset, -1)
    } else {
        format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
    };
    match number {
        Some(number) => Ok(Signal(number)),
        None => wrong(flag, text, "there is no signal of that name"),
    }
}

/// The name of a signal as docker shows it.
pub fn signal_name(signal: Signal) -> String {
    nix::sys::signal::Signal::try_from(signal.0)
        .map_or_else(|_| signal.0.to_string(), |signal| signal.as_str().to_owned())
}

/// A `KEY=VALUE` of `-e`; a `KEY` alone takes its value from our own environment, or is dropped.
pub fn env(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Option<String>, EngineError> {
    let flag = "--env";
    match text.split_once('=') {
        Some(("", _)) => wrong(flag, text, "the name is empty"),
        None if text.is_empty() => wrong(flag, text, "the name is empty"),
        _ if text.contains('\0') => wrong(flag, text, "it has a NUL"),
        Some(_) => Ok(Some(text.to_owned())),
        None => Ok(lookup(text).map(|value| format!("{text}={value}"))),
    }
}

/// The lines of an `--env-file`: `KEY=VALUE` or `KEY`, comments with `#`, no quoting, as docker.
pub fn env_file(content: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, EngineError> {
    let mut all = Vec::new();
    for line in content.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return wrong("--env-file", line, "a line is KEY=VALUE or KEY, and a key has no spaces");
        }
        all.extend(env(line, &lookup)?);
    }
    Ok(all)
}

/// `--label KEY[=VALUE]`.
pub fn label(text: &str) -> Result<(String, String), EngineError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return wrong("--label", text, "the key is empty");
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `--hostname`: at most 64 bytes (uname(2)), letters, digits, dots and dashes.
pub fn hostname(text: &str) -> Result<String, EngineError> {
    let valid = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        && !text.starts_with(['-', '.']);
    if valid {
        Ok(text.to_owned())
    } else {
        wrong("--hostname", text, "a host name is 1 to 64 letters, digits, '.', '-' and '_'")
    }
}
