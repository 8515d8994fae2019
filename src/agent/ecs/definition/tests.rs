use super::*;
use serde_json::{Value, json};

fn read(value: Value) -> Definition {
    serde_json::from_value(value).unwrap()
}

fn base() -> Value {
    json!({
        "family": "f",
        "containerDefinitions": [
            {"name": "a", "image": "busybox", "memory": 16},
            {"name": "b", "image": "busybox:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
             "memory": 16, "essential": false},
        ],
    })
}

/// The base with some members set: `("containerDefinitions.0.cpu", 5)`.
fn with(changes: &[(&str, Value)]) -> Definition {
    let mut value = base();
    for (path, new) in changes {
        let pointer = format!("/{}", path.replace('.', "/"));
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[member] = new.clone();
    }
    read(value)
}

fn refused(changes: &[(&str, Value)]) -> String {
    check(&with(changes)).expect_err(&format!("{changes:?} was taken")).to_string()
}

#[test]
fn takes_what_ecs_takes() {
    for changes in [
        &[][..],
        &[
            ("cpu", json!("1 vCPU")),
            ("memory", json!("0.5GB")),
            ("containerDefinitions.0.memory", json!(null)),
        ],
        &[("containerDefinitions.0.memoryReservation", json!(8))],
        &[
            ("networkMode", json!("awsvpc")),
            ("containerDefinitions.0.portMappings", json!([{"containerPort": 80, "hostPort": 80}])),
        ],
        &[(
            "containerDefinitions.0.portMappings",
            json!([{"containerPort": 80, "hostPort": 0, "protocol": "udp", "name": "n", "appProtocol": "http"}]),
        )],
        &[
            ("volumes", json!([{"name": "v"}, {"name": "h", "host": {"sourcePath": "/srv"}}])),
            (
                "containerDefinitions.0.mountPoints",
                json!([{"sourceVolume": "v", "containerPath": "/v", "readOnly": true}]),
            ),
        ],
        &[("containerDefinitions.1.dependsOn", json!([{"containerName": "a", "condition": "START"}]))],
        &[
            ("requiresCompatibilities", json!(["EC2", "EXTERNAL"])),
            ("runtimePlatform", json!({"operatingSystemFamily": "LINUX"})),
        ],
        &[(
            "containerDefinitions.0.linuxParameters",
            json!({
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}, "initProcessEnabled": false, "sharedMemorySize": 64,
            "maxSwap": 0, "swappiness": 10, "devices": [{"hostPath": "/dev/fuse", "permissions": ["read"]}],
            "tmpfs": [{"containerPath": "/run", "size": 16, "mountOptions": ["exec", "mode=755"]}]}),
        )],
        &[(
            "containerDefinitions.0.systemControls",
            json!([{"namespace": "net.core.somaxconn", "value": "512"}]),
        )],
        &[
            ("containerDefinitions.0.links", json!([])),
            ("containerDefinitions.0.volumesFrom", json!([])),
            ("placementConstraints", json!([])),
        ],
    ] {
        assert_eq!(check(&with(changes)), Ok(()), "{changes:?}");
    }
}

#[test]
fn names_what_is_wrong() {
    let container = |member: &str| format!("containerDefinitions.0.{member}");
    for (member, value, wanted) in [
        ("memory", json!(5), "containerDefinitions[0].memory: 5 is not between 6 and"),
        ("memory", json!(null), "containerDefinitions[0]: container \"a\" needs memory or memoryReservation"),
        ("memoryReservation", json!(17), "containerDefinitions[0].memoryReservation: 17 is more than memory"),
        ("cpu", json!(-1), "containerDefinitions[0].cpu"),
        ("image", json!("A B"), "containerDefinitions[0].image"),
        ("name", json!("a b"), "containerDefinitions[0].name"),
        ("name", json!("b"), "containerDefinitions[1].name: two containers"),
        ("essential", json!(false), "containerDefinitions: at least one"),
        ("stopTimeout", json!(0), "containerDefinitions[0].stopTimeout"),
        ("startTimeout", json!(0), "containerDefinitions[0].startTimeout"),
        ("workingDirectory", json!("tmp"), "containerDefinitions[0].workingDirectory"),
        ("environment", json!([{"name": "A=B", "value": ""}]), "containerDefinitions[0].environment"),
        (
            "secrets",
            json!([{"name": "A", "valueFrom": "../x"}]),
            "containerDefinitions[0].secrets[0].valueFrom",
        ),
        (
            "secrets",
            json!([{"name": "A", "valueFrom": "arn:aws:ssm:x"}]),
            "containerDefinitions[0].secrets[0].valueFrom",
        ),
        ("healthCheck", json!({"command": []}), "containerDefinitions[0].healthCheck.command: is empty"),
        (
            "healthCheck",
            json!({"command": ["true"]}),
            "containerDefinitions[0].healthCheck.command: must begin",
        ),
        (
            "healthCheck",
            json!({"command": ["CMD", "x"], "interval": 4}),
            "containerDefinitions[0].healthCheck.interval",
        ),
        (
            "healthCheck",
            json!({"command": ["CMD", "x"], "timeout": 61}),
            "containerDefinitions[0].healthCheck.timeout",
        ),
        (
            "healthCheck",
            json!({"command": ["CMD", "x"], "retries": 11}),
            "containerDefinitions[0].healthCheck.retries",
        ),
        (
            "healthCheck",
            json!({"command": ["CMD", "x"], "startPeriod": 301}),
            "containerDefinitions[0].healthCheck.startPeriod",
        ),
        (
            "ulimits",
            json!([{"name": "files", "softLimit": 1, "hardLimit": 1}]),
            "containerDefinitions[0].ulimits[0].name",
        ),
        (
            "ulimits",
            json!([{"name": "nofile", "softLimit": -1, "hardLimit": 1}]),
            "containerDefinitions[0].ulimits[0]: softLimit",
        ),
        (
            "logConfiguration",
            json!({"logDriver": "awslogs"}),
            "containerDefinitions[0].logConfiguration.logDriver",
        ),
        ("dockerSecurityOptions", json!(["label:x"]), "containerDefinitions[0].dockerSecurityOptions[0]"),
        (
            "restartPolicy",
            json!({"enabled": true, "restartAttemptPeriod": 59}),
            "containerDefinitions[0].restartPolicy.restartAttemptPeriod",
        ),
        (
            "restartPolicy",
            json!({"enabled": true, "ignoredExitCodes": [256]}),
            "containerDefinitions[0].restartPolicy.ignoredExitCodes[0]",
        ),
        (
            "mountPoints",
            json!([{"sourceVolume": "v", "containerPath": "/v"}]),
            "containerDefinitions[0].mountPoints[0].sourceVolume",
        ),
        (
            "linuxParameters",
            json!({"capabilities": {"add": ["CAP_X"]}}),
            "containerDefinitions[0].linuxParameters.capabilities.add[0]",
        ),
        ("linuxParameters", json!({"swappiness": 5}), "containerDefinitions[0].linuxParameters.swappiness"),
        (
            "linuxParameters",
            json!({"tmpfs": [{"containerPath": "/t", "size": 1, "mountOptions": ["size=9g"]}]}),
            "containerDefinitions[0].linuxParameters.tmpfs[0].mountOptions",
        ),
        (
            "linuxParameters",
            json!({"devices": [{"hostPath": "fuse"}]}),
            "containerDefinitions[0].linuxParameters.devices[0].hostPath",
        ),
        (
            "portMappings",
            json!([{"containerPort": 0}]),
            "containerDefinitions[0].portMappings[0].containerPort",
        ),
        (
            "portMappings",
            json!([{"containerPort": 80, "hostPort": 70000}]),
            "containerDefinitions[0].portMappings[0].hostPort",
        ),
        (
            "systemControls",
            json!([{"namespace": "kernel.panic", "value": "1"}]),
            "containerDefinitions[0].systemControls[0].namespace",
        ),
        ("dnsServers", json!(["localhost"]), "containerDefinitions[0].dnsServers"),
        (
            "extraHosts",
            json!([{"hostname": "a b", "ipAddress": "10.0.0.1"}]),
            "containerDefinitions[0].extraHosts[0].hostname",
        ),
    ] {
        let text = refused(&[(&container(member), value)]);
        assert!(text.starts_with(wanted), "{text}");
    }
}

#[test]
fn tasks_bound_their_containers() {
    for (changes, wanted) in [
        (&[("cpu", json!("127"))][..], "cpu: "),
        (&[("cpu", json!("128")), ("containerDefinitions.0.cpu", json!(129))], "cpu: 128 is less than"),
        (&[("memory", json!("20"))], "memory: 20 is less than the containers' together, which is 32"),
        (&[("memory", json!("15"))], "containerDefinitions[0].memory: 16 is more than the task's"),
        (&[("memory", json!("x"))], "memory: "),
        (&[("family", json!("../x"))], "family: "),
        (&[("containerDefinitions", json!([]))], "containerDefinitions: "),
        (&[("requiresCompatibilities", json!(["FARGATE"]))], "requiresCompatibilities[0]: FARGATE"),
        (
            &[("runtimePlatform", json!({"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}))],
            "runtimePlatform.operatingSystemFamily",
        ),
        (&[("volumes", json!([{"name": "v"}, {"name": "v"}]))], "volumes[1].name"),
        (
            &[("volumes", json!([{"name": "v", "host": {"sourcePath": "/a/../b"}}]))],
            "volumes[0].host.sourcePath",
        ),
        (
            &[("volumes", json!([{"name": "v", "dockerVolumeConfiguration": {"scope": "shared"}}]))],
            "volumes[0].dockerVolumeConfiguration.scope",
        ),
    ] {
        let text = refused(changes);
        assert!(text.starts_with(wanted), "{text}");
    }
}

#[test]
fn dependencies_must_be_able_to_come_about() {
    let on = |name: &str, condition: &str| json!([{"containerName": name, "condition": condition}]);
    let of_b = "containerDefinitions.1.dependsOn";
    let of_a = "containerDefinitions.0.dependsOn";
    for (changes, wanted) in [
        (
            &[(of_b, on("c", "START"))][..],
            "containerDefinitions[1].dependsOn[0].containerName: there is no container",
        ),
        (
            &[(of_b, on("b", "START"))],
            "containerDefinitions[1].dependsOn[0]: container \"b\" depends on itself",
        ),
        (
            &[(of_b, on("a", "HEALTHY"))],
            "containerDefinitions[1].dependsOn[0].condition: container \"a\" has no healthCheck",
        ),
        (
            &[(of_b, on("a", "SUCCESS"))],
            "containerDefinitions[1].dependsOn[0].condition: container \"a\" is essential",
        ),
        (
            &[(of_b, on("a", "COMPLETE"))],
            "containerDefinitions[1].dependsOn[0].condition: container \"a\" is essential",
        ),
        (
            &[(of_b, on("a", "START")), (of_a, on("b", "START"))],
            "containerDefinitions: the dependencies of the containers form a cycle",
        ),
    ] {
        assert!(refused(changes).starts_with(wanted), "{}", refused(changes));
    }
    assert_eq!(check(&with(&[(of_a, on("b", "SUCCESS"))])), Ok(()));
    assert_eq!(start_order(&with(&[(of_a, on("b", "SUCCESS"))]).container_definitions), Some(vec![1, 0]));
}

#[test]
fn network_modes_have_their_rules() {
    let ports = |host: i64| json!([{"containerPort": 80, "hostPort": host}]);
    let of_a = "containerDefinitions.0.portMappings";
    let of_b = "containerDefinitions.1.portMappings";
    for (changes, wanted) in [
        (
            &[("networkMode", json!("none")), (of_a, ports(0))][..],
            "containerDefinitions[0].portMappings[0]: a task without a network",
        ),
        (
            &[("networkMode", json!("host")), (of_a, ports(81))],
            "containerDefinitions[0].portMappings[0].hostPort: must be absent",
        ),
        (
            &[("networkMode", json!("awsvpc")), (of_a, ports(81))],
            "containerDefinitions[0].portMappings[0].hostPort: must be absent",
        ),
        (
            &[(of_a, ports(0)), (of_b, ports(0))],
            "containerDefinitions[1].portMappings[0].containerPort: 80 is a port of container \"a\" too",
        ),
        (
            &[("networkMode", json!("awsvpc")), ("containerDefinitions.0.hostname", json!("x"))],
            "containerDefinitions[0].hostname: cannot be given",
        ),
        (
            &[
                ("containerDefinitions.0.hostname", json!("x")),
                ("containerDefinitions.1.hostname", json!("y")),
            ],
            "containerDefinitions[1].hostname: is another container's otherwise",
        ),
        (
            &[
                ("networkMode", json!("host")),
                (
                    "containerDefinitions.0.systemControls",
                    json!([{"namespace": "net.core.somaxconn", "value": "1"}]),
                ),
            ],
            "containerDefinitions[0].systemControls[0].namespace",
        ),
    ] {
        let text = refused(changes);
        assert!(text.starts_with(wanted), "{text}");
    }
}

#[test]
fn is_the_same_after_it_was_described() {
    let definition = with(&[
        ("containerDefinitions.0.healthCheck", json!({"command": ["CMD", "x"]})),
        ("volumes", json!([{"name": "v"}])),
    ]);
    let text = serde_json::to_string(&definition).unwrap();
    assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), definition);
    for member in ["environment", "mountPoints", "volumesFrom", "portMappings", "systemControls"] {
        assert!(text.contains(&format!("\"{member}\":[]")), "{text}");
    }
}

mod properties {
    use super::super::Definition;
    use super::{check, read};
    use proptest::prelude::*;

    proptest! {
        /// Whatever numbers are in it, a definition is refused or taken, and no more.
        #[test]
        fn numbers_of_any_size(numbers in proptest::collection::vec(any::<i64>(), 9), text in ".{0,12}") {
            let n = |at: usize| numbers[at];
            let definition: Definition = read(serde_json::json!({
                "family": "f", "cpu": text, "memory": text,
                "containerDefinitions": [{
                    "name": "a", "image": "b", "cpu": n(0), "memory": n(1), "memoryReservation": n(2), "stopTimeout": n(3),
                    "portMappings": [{"containerPort": n(4), "hostPort": n(5)}],
                    "ulimits": [{"name": "nofile", "softLimit": n(6), "hardLimit": n(7)}],
                    "linuxParameters": {"maxSwap": n(8)},
                }],
            }));
            let _ = check(&definition);
        }
    }
}
