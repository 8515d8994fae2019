use super::*;
use crate::engine::options::parse;
use crate::engine::options::{
    GroupsPolicy, HostMount, Limits, MountAccess, Propagation, TaskOptions, Volume,
};
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
        netns: None,
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

fn joined() -> Joined {
    Joined {
        namespaces: vec![
            (LinuxNamespaceType::Network, "/t/ns/net".into()),
            (LinuxNamespaceType::Ipc, "/t/ns/ipc".into()),
            (LinuxNamespaceType::Uts, "/t/ns/uts".into()),
        ],
        own_pid: true,
        hostname: "pod".into(),
        cgroup: "/kubepods/pod1".into(),
    }
}

fn of_task(task: TaskOptions, joined: &Joined, host: &HostFacts) -> Spec {
    let options = Options { task, ..Options::default() };
    try_task(&options, joined, host, &root()).unwrap()
}

fn try_task(
    options: &Options,
    joined: &Joined,
    host: &HostFacts,
    identity: &Identity,
) -> Result<Spec, EngineError> {
    let id = Id::parse(&"ab".repeat(32)).unwrap();
    let command = Command { args: words(&["sh"]), env: vec![], cwd: "/".into(), user: String::new() };
    generate(&Inputs {
        id: &id,
        options,
        command: &command,
        identity,
        files: &[("/etc/hosts", "/t/hosts".into()), ("/dev/shm", "/t/shm".into())],
        binds: &[],
        seccomp: Some(LinuxSeccomp::default()),
        host,
        netns: None,
        joined: Some(joined),
    })
}

fn kinds(spec: &Spec) -> Vec<(LinuxNamespaceType, Option<PathBuf>)> {
    let linux = spec.linux().as_ref().unwrap();
    let of = |one: &LinuxNamespace| (one.typ(), one.path().clone());
    linux.namespaces().iter().flatten().map(of).collect()
}

fn mount_of<'a>(spec: &'a Spec, destination: &str) -> &'a Mount {
    let mounts = spec.mounts().as_ref().unwrap();
    let mut found = mounts.iter().filter(|mount| mount.destination() == std::path::Path::new(destination));
    let mount = found.next().expect(destination);
    assert!(found.next().is_none(), "{destination} is mounted once");
    mount
}

#[test]
fn a_container_joins_its_tasks_namespaces_and_cgroup() {
    let spec = of_task(TaskOptions::default(), &joined(), &host());
    let all = kinds(&spec);
    for (kind, path) in &joined().namespaces {
        assert!(all.contains(&(*kind, Some(path.clone()))), "{kind:?}");
    }
    for kind in [LinuxNamespaceType::Mount, LinuxNamespaceType::Cgroup, LinuxNamespaceType::Pid] {
        assert!(all.contains(&(kind, None)), "{kind:?}");
    }
    let linux = spec.linux().as_ref().unwrap();
    let cgroup = format!("/kubepods/pod1/{}", "ab".repeat(32));
    assert_eq!(linux.cgroups_path().as_deref(), Some(std::path::Path::new(&cgroup)));
    assert_eq!(*spec.hostname(), None, "the namespace has its name");
    let process = spec.process().as_ref().unwrap();
    assert!(process.env().as_ref().unwrap().contains(&"HOSTNAME=pod".to_owned()));
    assert_eq!(mount_of(&spec, "/dev/shm").source().as_deref(), Some(std::path::Path::new("/t/shm")));
    // The runtime itself finds nothing wrong with it.
    crate::runtime::validate::check(&spec).unwrap();
}

#[test]
fn pid_modes_of_a_container_of_a_task() {
    let of = |own_pid, path: Option<&str>| {
        let mut joined = Joined { own_pid, ..joined() };
        joined.namespaces.extend(path.map(|path| (LinuxNamespaceType::Pid, path.into())));
        let spec = of_task(TaskOptions::default(), &joined, &host());
        crate::runtime::validate::check(&spec).unwrap();
        kinds(&spec).into_iter().find(|(kind, _)| *kind == LinuxNamespaceType::Pid)
    };
    assert_eq!(of(true, None), Some((LinuxNamespaceType::Pid, None)));
    assert_eq!(of(false, None), None, "the host's");
    assert_eq!(of(false, Some("/x")), Some((LinuxNamespaceType::Pid, Some("/x".into()))));
}

fn host_mount(destination: &str, access: MountAccess, propagation: Propagation) -> HostMount {
    HostMount { source: "/src".into(), destination: destination.into(), access, propagation }
}

#[test]
fn mounts_of_tasks() {
    let table = [
        (MountAccess::ReadWrite, Propagation::Private, "rbind,rprivate", None),
        (MountAccess::ReadOnly, Propagation::HostToContainer, "rbind,rslave,ro", Some("rslave")),
        (MountAccess::ReadWrite, Propagation::Bidirectional, "rbind,rshared", Some("rshared")),
        (MountAccess::RecursiveReadOnly, Propagation::Private, "rbind,rprivate,rro", None),
    ];
    for (access, propagation, options, root) in table {
        let task =
            TaskOptions { mounts: vec![host_mount("/mnt", access, propagation)], ..TaskOptions::default() };
        let spec = of_task(task, &joined(), &host());
        assert_eq!(mount_of(&spec, "/mnt").options().as_ref().unwrap().join(","), options);
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.rootfs_propagation().as_deref(), root);
    }
}

#[test]
fn a_kubelets_files_are_mounted_in_place_of_the_tasks() {
    let mounts = ["/etc/hosts", "/dev/shm", "/dev/termination-log"]
        .map(|path| host_mount(path, MountAccess::ReadWrite, Propagation::Private))
        .to_vec();
    let spec = of_task(TaskOptions { mounts, ..TaskOptions::default() }, &joined(), &host());
    for path in ["/etc/hosts", "/dev/shm", "/dev/termination-log"] {
        assert_eq!(mount_of(&spec, path).source().as_deref(), Some(std::path::Path::new("/src")), "{path}");
    }
}

#[test]
fn ambient_capabilities_are_in_every_set() {
    let options = Options {
        task: TaskOptions { cap_ambient: words(&["NET_ADMIN"]), ..TaskOptions::default() },
        cap_drop: words(&["ALL"]),
        ..Options::default()
    };
    let user = Identity { uid: 1000, gid: 1000, groups: vec![1000], home: "/".into() };
    for identity in [user, root()] {
        let spec = try_task(&options, &joined(), &host(), &identity).unwrap();
        let sets = spec.process().as_ref().unwrap().capabilities().clone().unwrap();
        let wanted = Some(HashSet::from([Capability::NetAdmin]));
        for set in [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()] {
            assert_eq!(*set, wanted, "{}", identity.uid);
        }
    }
}

#[test]
fn paths_that_are_hidden_can_be_chosen() {
    let paths = |masked: Option<&[&str]>, read_only: Option<&[&str]>| {
        let task = TaskOptions {
            masked_paths: masked.map(words),
            readonly_paths: read_only.map(words),
            ..TaskOptions::default()
        };
        let spec = of_task(task, &joined(), &host());
        let linux = spec.linux().as_ref().unwrap();
        (linux.masked_paths().clone().unwrap_or_default(), linux.readonly_paths().clone().unwrap_or_default())
    };
    assert_eq!(paths(Some(&[]), Some(&["/proc/x"])), (words(&[]), words(&["/proc/x"])));
    let (masked, read_only) = paths(None, None);
    assert!(masked.contains(&"/proc/kcore".to_owned()) && read_only.contains(&"/proc/sys".to_owned()));
}

#[test]
fn a_score_that_cannot_be_given_is_raised() {
    let score = |least| {
        let task = TaskOptions { oom_score_adj: Some(-998), ..TaskOptions::default() };
        let spec = of_task(task, &joined(), &HostFacts { least_oom_score: least, ..host() });
        spec.process().as_ref().unwrap().oom_score_adj()
    };
    assert_eq!(score(None), Some(-998));
    assert_eq!(score(Some(-1000)), Some(-998));
    assert_eq!(score(Some(0)), Some(0));
}

#[test]
fn devices_that_are_asked_for_have_rules() {
    let device = oci_spec::runtime::LinuxDeviceBuilder::default()
        .path("/dev/x")
        .typ(oci_spec::runtime::LinuxDeviceType::C)
        .major(1)
        .minor(7)
        .build()
        .unwrap();
    let host = HostFacts { asked_devices: vec![Asked { device, access: "rw".into() }], ..host() };
    let spec = of_task(TaskOptions::default(), &joined(), &host);
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.devices().as_ref().unwrap()[0].path(), std::path::Path::new("/dev/x"));
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!((rules[0].allow(), rules.len()), (false, 2));
    assert_eq!((rules[1].allow(), rules[1].major(), rules[1].minor()), (true, Some(1), Some(7)));
    assert_eq!(rules[1].access().as_deref(), Some("rw"));
    let privileged = Options { privileged: true, ..Options::default() };
    let spec = try_task(&privileged, &joined(), &host, &root()).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.resources().as_ref().unwrap().devices().as_ref().unwrap()[0].allow());
    assert!(linux.seccomp().is_none());
}

#[test]
fn limits_of_tasks() {
    let given = Limits {
        memory: Some(64 << 20),
        memory_reservation: Some(32 << 20),
        swappiness: Some(0),
        cpu_period: Some(50_000),
        cpu_quota: Some(25_000),
        cpuset_mems: Some("0".into()),
        hugepages: vec![("2MB".into(), 4 << 20)],
        unified: [("memory.high".to_owned(), "1000".to_owned())].into(),
        ..Limits::default()
    };
    let all = resources::limits(&given, resources::Swap::None, true).unwrap();
    let memory = all.memory().unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(64 << 20)), "no swap");
    assert_eq!((memory.reservation(), memory.swappiness()), (Some(32 << 20), Some(0)));
    let cpu = all.cpu().clone().unwrap();
    assert_eq!((cpu.period(), cpu.quota(), cpu.mems().as_deref()), (Some(50_000), Some(25_000), Some("0")));
    assert_eq!(all.hugepage_limits().as_ref().unwrap()[0].page_size(), "2MB");
    assert_eq!(all.unified().as_ref().unwrap()["memory.high"], "1000");
    assert_eq!(all.devices(), &None, "an update leaves devices alone");
    let unlimited = Limits { memory: Some(-1), ..Limits::default() };
    let all = resources::limits(&unlimited, resources::Swap::None, true).unwrap();
    assert_eq!(all.memory().unwrap().swap(), None);
}

#[test]
fn groups_come_on_top_or_in_place_of_the_images() {
    let passwd = b"web:x:33:34:web:/srv:/bin/sh\n";
    let group = b"extra:x:50:web\nother:x:51:x\n";
    let of = |user: &str, groups_policy| {
        let task = TaskOptions { groups: vec![9, 50], groups_policy, ..TaskOptions::default() };
        let identity = user::resolve_in_task(user, passwd, group, &task).unwrap();
        (identity.uid, identity.gid, identity.groups)
    };
    assert_eq!(of("33:7", GroupsPolicy::Merge), (33, 7, vec![7, 9, 50]));
    assert_eq!(of("web", GroupsPolicy::Merge), (33, 34, vec![9, 34, 50]));
    assert_eq!(of("web", GroupsPolicy::Strict), (33, 34, vec![9, 34, 50]));
    let none = TaskOptions::default();
    assert_eq!(user::resolve_in_task("web:7", passwd, group, &none).unwrap().groups, [7, 50]);
    let strict = TaskOptions { groups_policy: GroupsPolicy::Strict, ..none };
    assert_eq!(user::resolve_in_task("web:7", passwd, group, &strict).unwrap().groups, [7]);
}

#[test]
fn an_unconfined_profile_is_none() {
    let with = |profile: &str| {
        let security = crate::engine::options::Security {
            apparmor: Some(profile.to_owned()),
            ..crate::engine::options::Security::default()
        };
        let spec = spec(&Options { security, ..Options::default() }, &[]);
        spec.process().as_ref().unwrap().apparmor_profile().clone()
    };
    assert_eq!(with("unconfined"), None);
    assert_eq!(with("p").as_deref(), Some("p"));
}
