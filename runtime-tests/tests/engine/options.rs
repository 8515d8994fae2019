//! What flags and an image's configuration do.
use crate::world::{IMAGE, World};
use runtime_tests::cgroup;
use runtime_tests::image::Image;
use serde_json::json;

#[test]
fn the_images_configuration_is_honoured() {
    let world = World::new();
    let mut image = Image::busybox();
    image.config = json!({
        "Env": ["PATH=/bin", "GREETING=hello"], "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["id -un; id -Gn; pwd; echo $GREETING $HOME; ls -A /data"],
        "User": "user", "WorkingDir": "/made/here", "Volumes": {"/data": {}}, "StopSignal": "SIGUSR2",
        "Labels": {"who": "image", "kept": "yes"},
    });
    world.load(&image, "localhost/full");
    let out = world.run(&["run", "--rm", "localhost/full"]).ok().stdout;
    assert_eq!(out, "user\nuser staff\n/made/here\nhello /tmp\n");
    let flags = [
        "run",
        "--name",
        "f",
        "--label",
        "who=me",
        "-e",
        "GREETING=bye",
        "-w",
        "/tmp",
        "-u",
        "0",
        "localhost/full",
        "pwd; id -u; echo $GREETING",
    ];
    assert_eq!(world.run(&flags).ok().stdout, "/tmp\n0\nbye\n");
    let inspected = world.inspect("f");
    assert_eq!(inspected["Config"]["Labels"], json!({"who": "me", "kept": "yes"}));
    assert_eq!(inspected["Config"]["StopSignal"], "SIGUSR2");
    assert_eq!(inspected["Mounts"][0]["Destination"], "/data");
    let volumes = || std::fs::read_dir(world.root().join("volumes")).unwrap().count();
    assert_eq!(volumes(), 1, "that of the removed container went with it");
    world.run(&["rm", "-v", "f"]).ok();
    assert_eq!(volumes(), 0);
    let out = world.run(&["run", "--rm", "--entrypoint", "echo", "localhost/full", "instead"]).ok().stdout;
    assert_eq!(out, "instead\n");
}

/// CVE-2022-23648 and CVE-2019-16884: an image's volume that leads out or covers /proc.
#[test]
fn cve_2022_23648_an_images_volumes_stay_inside() {
    let world = World::new();
    for path in ["/../../etc", "../x", "/proc", "/sys/fs/cgroup"] {
        let mut image = Image::busybox();
        image.config = json!({"Env": ["PATH=/bin"], "Cmd": ["true"], "Volumes": {path: {}}});
        world.load(&image, "localhost/hostile");
        world.run(&["run", "--rm", "localhost/hostile"]).exits(125).says("VOLUME");
    }
}

/// CVE-2024-40635: a user id that overflows, or a name made of digits, becomes root.
#[test]
fn cve_2024_40635_no_user_becomes_root() {
    let world = World::new();
    for user in ["4294967296", "-1", "0x0", "1 ", "1:2:3", "99999999999999999999"] {
        let flag = format!("--user={user}");
        world.once(&[&flag], &["id"]).exits(125).says("user");
    }
    assert_eq!(world.once(&["-u", "2000"], &["sh", "-c", "id -u; id -g"]).ok().stdout, "2000\n0\n");
}

#[test]
fn volumes_and_binds() {
    let world = World::new();
    let mut image = Image::busybox();
    image.layers.push(
        runtime_tests::image::Tar::new().dir("seed/").file("seed/file", 0o640, b"from the image").finish(),
    );
    world.load(&image, "localhost/seed");
    let run = |flags: &[&str], script: &str| {
        world.run(&[&["run", "--rm"], flags, &["localhost/seed", "sh", "-c", script]].concat())
    };
    // A new named volume is filled by the image, and keeps what is written.
    let out =
        run(&["-v", "named:/seed"], "cat /seed/file; echo; stat -c %a /seed/file; echo more > /seed/new")
            .ok()
            .stdout;
    assert_eq!(out, "from the image\n640\n");
    assert_eq!(
        run(&["-v", "named:/else:ro"], "ls /else; touch /else/x 2>/dev/null || echo ro").ok().stdout,
        "file\nnew\nro\n"
    );
    assert_eq!(run(&["-v", "empty:/seed:nocopy"], "ls /seed").ok().stdout, "");
    let host = world.fixture.path().join("shared");
    std::fs::create_dir(&host).unwrap();
    let bind = format!("{}:/host", host.display());
    run(&["-v", &bind], "echo from inside > /host/file").ok();
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "from inside\n");
    run(&["-v", &format!("{bind}:ro")], "echo x > /host/file").exits(1);
    run(&["-v", &format!("{bind}:z")], "true").exits(125).says("SELinux");
    let out =
        run(&["--tmpfs", "/scratch:size=1m"], "echo x > /scratch/y; mount | grep ' /scratch '").ok().stdout;
    assert!(out.contains("tmpfs") && out.contains("noexec") && out.contains("size=1024k"), "{out}");
}

#[test]
fn a_read_only_root() {
    let world = World::new();
    let out = world.once(
        &["--read-only", "--tmpfs", "/tmp"],
        &["sh", "-c", "touch /x || echo ro; touch /tmp/y && echo rw"],
    );
    assert_eq!(out.ok().stdout, "ro\nrw\n");
}

#[test]
fn names_and_networks() {
    let world = World::new();
    let script = "hostname; cat /etc/hostname; grep -c localhost /etc/hosts; ls /sys/class/net";
    let out = world.once(&["--hostname", "steel"], &["sh", "-c", script]).ok().stdout;
    assert_eq!(out, "steel\nsteel\n2\nlo\n");
    let host = std::fs::read_dir("/sys/class/net").unwrap().count();
    let out = world.once(&["--network", "host"], &["sh", "-c", "ls /sys/class/net | wc -l"]).ok().stdout;
    assert_eq!(out.trim(), host.to_string());
}

#[test]
fn rights_are_dockers() {
    let world = World::new();
    let status = |flags: &[&str]| {
        world.once(flags, &["grep", "-E", "^(Cap|NoNew|Seccomp:)", "/proc/self/status"]).ok().stdout
    };
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line.split_whitespace().last().unwrap().to_owned()
    };
    let default = status(&[]);
    assert_eq!(field(&default, "CapEff"), "00000000a80425fb");
    assert_eq!(field(&default, "CapBnd"), "00000000a80425fb");
    assert_eq!(field(&default, "CapInh"), "0000000000000000");
    assert_eq!((field(&default, "Seccomp:"), field(&default, "NoNew")), ("2".into(), "0".into()));
    let less = status(&["--cap-drop", "ALL", "--cap-add", "chown", "--security-opt", "no-new-privileges"]);
    assert_eq!((field(&less, "CapEff"), field(&less, "NoNew")), ("0000000000000001".into(), "1".into()));
    let user = status(&["-u", "1000"]);
    assert_eq!(
        (field(&user, "CapEff"), field(&user, "CapBnd")),
        ("0000000000000000".into(), "00000000a80425fb".into())
    );
    assert_eq!(field(&status(&["--security-opt", "seccomp=unconfined"]), "Seccomp:"), "0");
    let privileged = status(&["--privileged"]);
    assert_eq!(field(&privileged, "Seccomp:"), "0");
    assert_ne!(field(&privileged, "CapEff"), field(&default, "CapEff"));
    let profile = world.fixture.file(
        "profile.json",
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#,
    );
    let option = format!("seccomp={}", profile.display());
    world.once(&["--security-opt", &option], &["mkdir", "/x"]).exits(1).says("not supported");
    world.once(&["--security-opt", "bogus"], &["true"]).exits(125).says("bogus");
    // What the default profile denies, and the masked paths.
    world.once(&[], &["mount", "-t", "tmpfs", "none", "/tmp"]).fails();
    let masked = world.once(
        &[],
        &["sh", "-c", "cat /proc/kcore /proc/keys /proc/interrupts | wc -c; ls /sys/firmware | wc -l"],
    );
    assert_eq!(masked.ok().stdout.split_whitespace().collect::<Vec<_>>(), ["0", "0"]);
}

#[test]
fn limits_bite_and_are_shown() {
    let world = World::new();
    let flags = [
        "--name",
        "l",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--pids-limit",
        "30",
        "--cpuset-cpus",
        "0",
    ];
    let id = world.background(&flags, &["sleep", "1000"]);
    let path = format!("/corten/{id}");
    let value = |controller, v1, v2| cgroup::value(controller, &path, v1, v2);
    assert_eq!(value("memory", "memory.limit_in_bytes", "memory.max"), "67108864");
    assert_eq!(value("pids", "pids.max", "pids.max"), "30");
    assert_eq!(value("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    let quota = value("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("50000"), "{quota}");
    let shown = &world.inspect("l")["HostConfig"];
    assert_eq!(
        (&shown["Memory"], &shown["NanoCpus"], &shown["PidsLimit"]),
        (&json!(67_108_864), &json!(500_000_000), &json!(30))
    );
    assert_eq!(world.once(&["--ulimit", "nofile=100:200"], &["sh", "-c", "ulimit -n"]).ok().stdout, "100\n");
    world.once(&["--ulimit", "nofile=99999999"], &["true"]).exits(125).says("99999999");
}

#[test]
fn a_container_over_its_memory_is_killed_and_reported_so() {
    let world = World::new();
    let script = "x=0123456789; while :; do x=$x$x; done";
    world.run(&["run", "--name", "big", "-m", "16m", IMAGE, "sh", "-c", script]).exits(137);
    let state = &world.inspect("big")["State"];
    assert_eq!((state["OOMKilled"].as_bool(), state["ExitCode"].as_i64()), (Some(true), Some(137)));
    assert!(world.run(&["ps", "-a"]).ok().stdout.contains("OOM"));
    world.run(&["run", "--name", "small", "-m", "64m", IMAGE, "true"]).ok();
    assert_eq!(world.inspect("small")["State"]["OOMKilled"], false);
}

#[test]
fn environments() {
    let world = World::new();
    let file = world.fixture.file("env", "# comment\nFROM_FILE=1\nHERE\nGONE_FROM_HERE\n");
    let mut command = world.corten(&[
        "run",
        "--rm",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "HERE",
        "-e",
        "A=x y",
        IMAGE,
        "env",
    ]);
    let out = runtime_tests::run(command.env("HERE", "host")).ok().stdout;
    for line in ["FROM_FILE=1", "HERE=host", "A=x y", "PATH=/bin", "HOME=/root"] {
        assert!(out.lines().any(|have| have == line), "{line} in {out}");
    }
    assert!(!out.contains("GONE_FROM_HERE") && !out.contains("CORTEN_"), "{out}");
}
