use super::*;
use crate::engine::options::parse;
use crate::engine::options::{Limits, Volume};
use oci_spec::image::ImageConfiguration;
use process::Overrides;

const IMAGE: &str = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
  "config":{"User":"web","Env":["PATH=/bin","A=1","broken","=x"],"Entrypoint":["/entry"],"Cmd":["serve","-v"],
  "WorkingDir":"/srv","Volumes":{"/data":{}}}}"#;

fn image() -> ImageConfiguration {
    serde_json::from_str(IMAGE).unwrap()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn root() -> Identity {
    Identity { uid: 0, gid: 0, groups: vec![0], home: "/root".into() }
}

fn host() -> HostFacts {
    let mut held = capabilities::default_set();
    held.insert(Capability::SysAdmin);
    HostFacts { held, counts_swap: true, ..HostFacts::default() }
}

fn spec(options: &Options, binds: &[Bind]) -> Spec {
    let id = Id::parse(&"ab".repeat(32)).unwrap();
    let command = Command { args: words(&["sh"]), env: vec![], cwd: "/".into(), user: String::new() };
    generate(&Inputs {
        id: &id,
        options,
        command: &command,
        identity: &root(),
        files: &[("/etc/hosts", "/c/hosts".into())],
        binds,
        seccomp: Some(LinuxSeccomp::default()),
        host: &host(),
        joined: None,
    })
    .unwrap()
}

#[test]
fn the_image_gives_what_the_command_line_leaves_open() {
    let command = process::command("i", &image(), &Overrides::default()).unwrap();
    assert_eq!(command.args, ["/entry", "serve", "-v"]);
    assert_eq!(command.env, ["PATH=/bin", "A=1"]);
    assert_eq!((command.cwd.as_str(), command.user.as_str()), ("/srv", "web"));
}

#[test]
fn the_command_line_wins() {
    let overrides = Overrides {
        args: words(&["x"]),
        env: words(&["A=2", "B=3"]),
        cwd: Some("/tmp".into()),
        user: Some("7".into()),
        entrypoint: None,
    };
    let command = process::command("i", &image(), &overrides).unwrap();
    assert_eq!(command.args, ["/entry", "x"]);
    assert_eq!(command.env, ["PATH=/bin", "A=2", "B=3"]);
    assert_eq!((command.cwd.as_str(), command.user.as_str()), ("/tmp", "7"));
}

#[test]
fn another_entry_point_drops_the_images_cmd() {
    let with = |entrypoint: &str, args: &[&str]| {
        let overrides = Overrides {
            entrypoint: Some(words(&[entrypoint]).into_iter().filter(|word| !word.is_empty()).collect()),
            args: words(args),
            ..Overrides::default()
        };
        process::command("i", &image(), &overrides)
    };
    assert_eq!(with("/bin/ls", &[]).unwrap().args, ["/bin/ls"]);
    assert_eq!(with("/bin/ls", &["-l"]).unwrap().args, ["/bin/ls", "-l"]);
    assert_eq!(with("", &["ls"]).unwrap().args, ["ls"]);
    with("", &[]).unwrap_err();
}

#[test]
fn the_environment_is_completed() {
    let env = process::complete_env(&words(&["PATH=/x", "HOSTNAME=h"]), true, "abc", "/root");
    assert_eq!(env, ["PATH=/x", "HOSTNAME=h", "TERM=xterm", "HOME=/root"]);
}

#[test]
fn default_specification() {
    let spec = spec(&Options::default(), &[]);
    assert_eq!(spec.hostname().as_deref(), Some("abababababab"));
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(
        linux.cgroups_path().as_ref().unwrap(),
        &PathBuf::from(format!("/corten/{}", "ab".repeat(32)))
    );
    assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
    let masked = linux.masked_paths().as_ref().unwrap();
    for path in oci_spec::runtime::get_default_maskedpaths() {
        assert!(masked.contains(&path), "{path}");
    }
    assert!(linux.seccomp().is_some());
    let devices = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    assert!(!devices[0].allow());
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.no_new_privileges(), Some(false));
    assert_eq!(process.user().additional_gids().as_deref(), Some(&[0][..]));
    let destinations: Vec<_> = spec.mounts().iter().flatten().map(|m| m.destination().clone()).collect();
    for path in
        ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/etc/hosts"]
    {
        assert!(destinations.contains(&PathBuf::from(path)), "{path}");
    }
}

#[test]
fn host_network_has_the_hosts_name_and_namespace() {
    let spec = spec(&Options { network: Network::Host, ..Options::default() }, &[]);
    let kinds: Vec<_> =
        spec.linux().as_ref().unwrap().namespaces().iter().flatten().map(|n| n.typ()).collect();
    assert!(!kinds.contains(&LinuxNamespaceType::Network));
    assert_eq!(spec.hostname(), &None);
}

#[test]
fn privileged() {
    let spec = spec(&Options { privileged: true, ..Options::default() }, &[]);
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none());
    assert_eq!(linux.masked_paths().as_ref().map(Vec::len), Some(0));
    assert!(linux.resources().as_ref().unwrap().devices().as_ref().unwrap()[0].allow());
    let process = spec.process().as_ref().unwrap();
    let bounding = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
    assert!(bounding.contains(&Capability::SysAdmin));
}

#[test]
fn limits() {
    let limits = Limits {
        memory: Some(64 << 20),
        nano_cpus: Some(500_000_000),
        cpuset_cpus: Some("0".into()),
        pids: Some(20),
        ..Limits::default()
    };
    let resources = |limits: Limits, host: &HostFacts| {
        resources::limits(&limits, resources::Swap::AsMemory, host.counts_swap).unwrap()
    };
    let with = resources(limits.clone(), &host());
    assert_eq!(with.memory().as_ref().unwrap().limit(), Some(64 << 20));
    assert_eq!(with.memory().as_ref().unwrap().swap(), Some(128 << 20));
    assert_eq!(with.cpu().as_ref().unwrap().quota(), Some(50_000));
    assert_eq!(with.cpu().as_ref().unwrap().period(), Some(100_000));
    assert_eq!(with.pids().as_ref().unwrap().limit(), 20);
    let without = resources(limits, &HostFacts::default());
    assert_eq!(without.memory().as_ref().unwrap().swap(), None);
    let none = resources(Limits::default(), &host());
    assert!(none.memory().is_none() && none.cpu().is_none() && none.pids().is_none());
}

#[test]
fn mounts_that_are_asked_for_replace_and_nest() {
    let bind = |destination: &str, options: &[&str]| Bind {
        source: "/src".into(),
        destination: destination.into(),
        options: words(options),
    };
    let options = Options { tmpfs: vec![parse::tmpfs("/dev/shm").unwrap()], ..Options::default() };
    let spec = spec(
        &options,
        &[bind("/a/b/c", &[]), bind("/a", &["ro", "bind", "rshared"]), bind("/etc/hosts", &[])],
    );
    let mounts = spec.mounts().as_ref().unwrap();
    let at = |path: &str| {
        let found: Vec<_> =
            mounts.iter().enumerate().filter(|(_, m)| m.destination() == &PathBuf::from(path)).collect();
        assert_eq!(found.len(), 1, "{path}");
        found[0]
    };
    assert!(at("/a").0 < at("/a/b/c").0);
    assert_eq!(at("/a").1.options().as_ref().unwrap(), &words(&["ro", "bind", "rshared"]));
    assert_eq!(at("/a/b/c").1.options().as_ref().unwrap(), &words(&["rbind", "rprivate"]));
    assert_eq!(at("/etc/hosts").1.source().as_ref().unwrap(), &PathBuf::from("/src"));
    assert_eq!(at("/dev/shm").1.source().as_ref().unwrap(), &PathBuf::from("tmpfs"));
}

#[test]
fn ulimits() {
    let options = Options { ulimits: vec![parse::ulimit("nofile=10:20").unwrap()], ..Options::default() };
    let spec = spec(&options, &[]);
    let limits = spec.process().as_ref().unwrap().rlimits().as_ref().unwrap();
    assert_eq!(
        (limits[0].typ(), limits[0].soft(), limits[0].hard()),
        (PosixRlimitType::RlimitNofile, 10, 20)
    );
}

#[test]
fn options_survive_the_record() {
    let options = Options {
        volumes: vec![parse::volume("/a:/b:ro").unwrap(), Volume { ..parse::volume("/x").unwrap() }],
        ..Options::default()
    };
    let text = serde_json::to_string(&options).unwrap();
    assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
}
