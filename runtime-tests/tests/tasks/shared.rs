//! What the containers of a task share, and what goes with it.
use crate::world::{World, id, spec};
use corten::engine::EngineError;
use corten::engine::options::{Limits, Options, PidNamespace, TaskOptions};
use corten::engine::record::Status;
use corten::engine::task::{Dns, TaskNetwork, TaskSpec, TaskStatus};
use runtime_tests::{cgroup, command, events};
use std::process::Command;

fn with_pid(pid: PidNamespace) -> Options {
    Options { task: TaskOptions { pid, ..TaskOptions::default() }, ..Options::default() }
}

#[test]
fn containers_share_network_memory_and_names() {
    let world = World::new();
    let task = world
        .engine
        .run_task(TaskSpec {
            hostname: Some("sharing".into()),
            hosts: vec![("192.0.2.7".into(), vec!["db".into(), "db.example".into()])],
            dns: Dns {
                servers: vec!["192.0.2.53".into()],
                searches: vec!["example".into()],
                options: vec![],
            },
            sysctls: [
                ("net.ipv4.ip_unprivileged_port_start".to_owned(), "1".to_owned()),
                ("kernel.shmmax".to_owned(), "123456".to_owned()),
            ]
            .into(),
            shm_size: Some(1 << 20),
            ..spec("shared")
        })
        .unwrap();
    let first = world.started(
        &task,
        "shared-one",
        "echo from one > /dev/shm/note; echo served | nc -l -p 80 & \
         until netstat -ltn | grep -q ':80 '; do :; done; echo ready; wait; sleep 1000",
    );
    world.await_output(&first, "ready");
    let second = world.started(
        &task,
        "shared-two",
        "cat /dev/shm/note; nc 127.0.0.1 80 < /dev/null; hostname; cat /etc/hostname /etc/resolv.conf; \
         grep db /etc/hosts; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax; \
         echo $HOSTNAME; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; ls /proc | grep -c '^[0-9]*$'",
    );
    assert_eq!(world.ended(&second).code, 0);
    let text = world.output(&second);
    let (text, processes) = text.trim_end().rsplit_once('\n').unwrap();
    assert_eq!(
        text,
        "from one\nserved\nsharing\nsharing\nnameserver 192.0.2.53\nsearch example\n192.0.2.7\tdb db.example\n\
         1\n123456\nsharing\n1024"
    );
    assert!(processes.parse::<u32>().unwrap() < 6, "it sees its own processes alone: {processes}");
}

#[test]
fn a_parameter_of_the_whole_host_is_refused_and_nothing_stays() {
    let world = World::new();
    for key in ["kernel.core_pattern", "vm.swappiness"] {
        let sysctls = [(key.to_owned(), "1".to_owned())].into();
        let error = world.engine.run_task(TaskSpec { sysctls, ..spec("refused") }).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
    // One that the kernel refuses, which is found only while the task is made.
    let sysctls = [("net.ipv4.ip_forward".to_owned(), "no number".to_owned())].into();
    let error = world.engine.run_task(TaskSpec { sysctls, ..spec("refused") }).unwrap_err();
    assert!(error.to_string().contains("ip_forward"), "{error}");
    assert!(world.engine.tasks().unwrap().is_empty());
    world.task("refused");
    assert!(matches!(
        world.engine.run_task(spec("refused")),
        Err(EngineError::NameInUse { id, .. }) if id == world.engine.find_task("refused").unwrap().id
    ));
}

#[test]
fn a_shared_pid_namespace_has_a_pause_process_that_gives_nothing_away() {
    let world = World::new();
    let task = world.engine.run_task(TaskSpec { shares_pid: true, ..spec("pids") }).unwrap();
    let sleeper = world.container_with(&task, "pids-one", "sleep 1234", with_pid(PidNamespace::Task));
    world.engine.start_in_task(&sleeper).unwrap();
    let second = world.container_with(
        &task,
        "pids-two",
        // An orphan that ends is reaped; neither SIGTERM nor SIGKILL of a container ends the pause process.
        "(sleep 0 &); kill -TERM 1; kill -KILL 1; kill -INT 1; cat /proc/1/comm; ps -o args | grep -q '^sleep 1234' && echo seen; \
         ls /proc/1/root/ 2> /dev/null; readlink /proc/1/exe; readlink /proc/1/ns/net; \
         until ! ps -o stat | grep -q Z; do :; done; kill -0 1 && echo there",
        with_pid(PidNamespace::Task),
    );
    world.engine.start_in_task(&second).unwrap();
    assert_eq!(world.ended(&second).code, 0, "{}", world.output(&second));
    assert_eq!(world.output(&second), "pause\nseen\nthere\n");
    // Even one that may trace finds nothing of the host.
    let tracer = Options { cap_add: vec!["SYS_PTRACE".into()], ..with_pid(PidNamespace::Task) };
    let third = world.container_with(
        &task,
        "pids-three",
        "ls /proc/1/root/; ls -l /proc/1/fd | grep -vc signalfd; (readlink /proc/1/ns/net; readlink /proc/self/ns/net) | uniq | wc -l; \
         echo x 2> /dev/null > /proc/1/exe || echo sealed",
        tracer,
    );
    world.engine.start_in_task(&third).unwrap();
    assert_eq!(world.ended(&third).code, 0);
    assert_eq!(world.output(&third), "1\n1\nsealed\n", "one line says \"total 0\"");
    // One with a namespace of its own sees nobody else.
    let own = world.started(&task, "pids-own", "ps -o args | grep -q '^sleep 1234' || echo alone");
    world.ended(&own);
    assert_eq!(world.output(&own), "alone\n");
    let of = with_pid(PidNamespace::Of(sleeper.id));
    let debug = world.container_with(&task, "pids-debug", "cat /proc/1/comm", of);
    world.engine.start_in_task(&debug).unwrap();
    world.ended(&debug);
    assert_eq!(world.output(&debug), "pause\n");
}

#[test]
fn a_container_can_see_anothers_processes_or_the_hosts() {
    let world = World::new();
    let task = world.task("sees");
    let target = world.started(&task, "sees-target", "exec sleep 4321");
    let of = with_pid(PidNamespace::Of(target.id.clone()));
    let debug = world.container_with(&task, "sees-debug", "tr '\\0' ' ' < /proc/1/cmdline", of.clone());
    world.engine.start_in_task(&debug).unwrap();
    world.ended(&debug);
    assert_eq!(world.output(&debug).trim(), "sleep 4321");
    let host = world.container_with(
        &task,
        "sees-host",
        &format!("tr '\\0' ' ' < /proc/{}/cmdline", std::process::id()),
        with_pid(PidNamespace::Host),
    );
    world.engine.start_in_task(&host).unwrap();
    world.ended(&host);
    assert!(world.output(&host).contains("tasks"), "{}", world.output(&host));
    // The task has no namespace of processes that could be shared.
    let none = world.container_with(&task, "sees-none", "true", with_pid(PidNamespace::Task));
    let error = world.engine.start_in_task(&none).unwrap_err();
    assert!(error.to_string().contains("do not share a PID namespace"), "{error}");
    world.engine.stop(&target, Some(std::time::Duration::ZERO)).unwrap();
    let late = world.container_with(&task, "sees-late", "true", of);
    assert!(world.engine.start_in_task(&late).unwrap_err().to_string().contains("must run"));
}

#[test]
fn the_host_can_be_shared() {
    let world = World::new();
    let task = world
        .engine
        .run_task(TaskSpec { network: TaskNetwork::Host, host_ipc: true, ..spec("hosts") })
        .unwrap();
    let record = world.started(
        &task,
        "hosts-one",
        "hostname; for n in net ipc uts; do readlink /proc/self/ns/$n; done",
    );
    world.ended(&record);
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!(world.output(&record), format!("{name}\n{}\n{}\n{}\n", own("net"), own("ipc"), own("uts")));
}

#[test]
fn limits_of_the_task_and_of_its_containers() {
    let world = World::new();
    let memory = |bytes| Limits { memory: Some(bytes), ..Limits::default() };
    let error = world.engine.run_task(TaskSpec { limits: memory(i64::MAX), ..spec("limits") }).unwrap_err();
    assert!(error.to_string().contains("the machine has less memory"), "{error}");
    let parent = format!("/{}limits", world.fixture.token());
    let task = world
        .engine
        .run_task(TaskSpec { limits: memory(64 << 20), cgroup: Some(parent.clone()), ..spec("limits") })
        .unwrap();
    let options = Options { limits: memory(32 << 20), ..Options::default() };
    let record = world.container_with(&task, "limits-one", "echo ready; sleep 1000", options);
    world.engine.start_in_task(&record).unwrap();
    world.await_output(&record, "ready");
    let stats = world.engine.container_stats(&record).unwrap();
    assert_eq!(stats.memory.usage.limit, 32 << 20);
    assert!(stats.memory.usage.usage > 0 && stats.pids.current == 1);
    let stats = world.engine.task_stats(&id(&task)).unwrap();
    assert_eq!(stats.cgroup.memory.usage.limit, 64 << 20);
    assert_eq!((stats.processes, stats.links.len()), (1, 0));

    world.engine.update_limits(&record, &Limits { pids: Some(77), ..memory(24 << 20) }).unwrap();
    world.engine.update_task_limits(&id(&task), &memory(48 << 20)).unwrap();
    let stats = world.engine.container_stats(&record).unwrap();
    assert_eq!((stats.memory.usage.limit, stats.pids.limit), (24 << 20, 77));
    assert_eq!(world.engine.task_stats(&id(&task)).unwrap().cgroup.memory.usage.limit, 48 << 20);
    let kept = world.engine.find("limits-one").unwrap().options.limits;
    assert_eq!((kept.memory, kept.pids), (Some(24 << 20), Some(77)));
    assert_eq!(world.engine.find_task("limits").unwrap().spec.limits.memory, Some(48 << 20));
    assert!(world.engine.update_task_limits(&id(&task), &memory(i64::MAX)).is_err());
    // Over its limit, with no swap to go to.
    let options = Options { limits: memory(16 << 20), ..Options::default() };
    let hungry = world.container_with(&task, "limits-two", "tail /dev/zero", options);
    world.engine.start_in_task(&hungry).unwrap();
    let ended = world.ended(&hungry);
    assert!(ended.oom_killed && ended.code == 137, "{ended:?}");
    world.engine.stop_task(&id(&task), Some(std::time::Duration::ZERO)).unwrap();
    assert!(cgroup::named(parent.trim_start_matches('/')).is_empty(), "it was made for the task");
    assert!(world.engine.container_stats(&record).is_err());
    assert!(world.engine.task_stats(&id(&task)).is_err());
}

#[test]
fn removing_a_task_leaves_nothing_and_frees_its_name() {
    let world = World::new();
    let task = world.engine.run_task(TaskSpec { shares_pid: true, ..spec("gone") }).unwrap();
    let running = world.started(&task, "gone-one", "sleep 1000");
    world.container(&task, "gone-two", "true");
    let store = world.store();
    assert_eq!(world.engine.task_containers(&id(&task)).unwrap().len(), 2);
    world.engine.delete(&store, &running, true, true).unwrap();
    assert_eq!(world.engine.task_containers(&id(&task)).unwrap().len(), 1);
    world.started(&task, "gone-one", "sleep 1000");
    world.engine.remove_task(&store, &id(&task)).unwrap();
    world.engine.remove_task(&store, &id(&task)).unwrap();
    assert!(matches!(world.engine.find_task("gone"), Err(EngineError::NoSuchTask { .. })));
    assert!(matches!(world.engine.task_status(&id(&task)), Err(EngineError::NoSuchTask { .. })));
    assert!(world.engine.records().unwrap().is_empty());
    assert!(store.holders().unwrap().is_empty());
    assert!(!world.engine.state.join("tasks").join(&task.id).exists());
    assert!(cgroup::named(&task.id).is_empty());
    let again = world.task("gone");
    world.engine.stop_task(&id(&again), None).unwrap();
    world.engine.stop_task(&id(&again), None).unwrap();
    let image = store.resolve("localhost/test").unwrap();
    let error =
        world.engine.create_in_task(&store, &id(&again), &image, world.request("late", "true")).unwrap_err();
    assert!(error.to_string().contains("is stopped"), "{error}");
}

#[test]
fn a_task_whose_monitor_was_killed_is_cleaned_up() {
    let world = World::new();
    let task = world.engine.run_task(TaskSpec { shares_pid: true, ..spec("lost") }).unwrap();
    let running = world.started(&task, "lost-one", "sleep 1000");
    let Status::Running(run) = world.status(&running) else { panic!() };
    let monitor = world.monitor(&task);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(events::process_end(monitor, events::patience()));
    // Several at once, as at the start of an agent while others ask.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| world.engine.recover_tasks().unwrap());
        }
    });
    assert!(matches!(world.engine.task_status(&id(&task)).unwrap(), TaskStatus::Stopped { .. }));
    let ended = world.ended(&running);
    assert_eq!((ended.code, ended.started), (255, Some(run.started)));
    assert!(ended.error.unwrap().contains("monitor was killed"));
    assert!(!world.engine.state.join("tasks").join(&task.id).exists());
    assert!(cgroup::named(&task.id).is_empty());
    assert!(events::process_end(run.pid, events::patience()));
    world.engine.stop_task(&id(&task), None).unwrap();
    world.engine.remove_task(&world.store(), &id(&task)).unwrap();
}

#[test]
fn what_a_killed_maker_left_is_cleaned_up() {
    let world = World::new();
    // The lock is let go, as by a call that is killed before it started a monitor.
    let (record, lock) = world.engine.make_task(spec("half")).unwrap();
    assert!(matches!(world.engine.task_status(&id(&record)).unwrap(), TaskStatus::Making));
    drop(lock);
    assert!(matches!(world.engine.task_status(&id(&record)).unwrap(), TaskStatus::Stopped { .. }));
    let unfinished = world.engine.root.join("tasks").join(format!("{}.tmp", "a".repeat(64)));
    std::fs::create_dir(&unfinished).unwrap();
    std::os::unix::fs::symlink("a".repeat(64), world.engine.root.join("tasks/names/orphan")).unwrap();
    world.engine.recover_tasks().unwrap();
    assert!(!unfinished.exists());
    world.task("orphan");
}

#[test]
fn the_tool_shows_and_handles_containers_of_tasks() {
    let world = World::new();
    let corten = |args: &[&str]| {
        command::run(
            Command::new(runtime_tests::needs::corten())
                .args(args)
                .env("CORTEN_ROOT", &world.engine.root)
                .env("CORTEN_STATE", &world.engine.state),
        )
    };
    assert!(!corten(&["ps"]).ok().stdout.contains("TASK"));
    let task = world.task("tool");
    let log = world.fixture.path().join("elsewhere.log");
    let options = Options {
        task: TaskOptions { log_path: Some(log.clone()), ..TaskOptions::default() },
        ..Options::default()
    };
    let record = world.container_with(&task, "tool-one", "echo hello; sleep 1000", options);
    corten(&["start", "tool-one"]).ok();
    world.await_output(&record, "hello");
    let table = corten(&["ps"]).ok().stdout;
    assert!(table.lines().next().unwrap().ends_with("TASK") && table.contains("tool-one"), "{table}");
    assert!(table.lines().nth(1).unwrap().ends_with("tool"), "{table}");
    assert_eq!(corten(&["logs", "tool-one"]).ok().stdout, "hello\n");
    let shown = corten(&["inspect", "tool-one"]).ok().json();
    assert_eq!(shown[0]["LogPath"], log.to_str().unwrap());
    assert_eq!(shown[0]["Task"], task.id.as_str());
    assert_eq!(corten(&["exec", "tool-one", "echo", "inside"]).ok().stdout, "inside\n");
    corten(&["rm", "tool-one"]).fails().says("belongs to task");
    corten(&["stop", "-t", "0", "tool-one"]).ok();
    assert_eq!(world.ended(&record).code, 137);
    corten(&["rm", "--force", "tool-one"]).ok();
    assert!(world.engine.task_containers(&id(&task)).unwrap().is_empty());
}
