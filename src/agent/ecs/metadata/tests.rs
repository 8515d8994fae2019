//! Who is answered, and with what.
use super::*;
use crate::agent::ecs::arn::Names;
use serde_json::from_value;

fn task(mode: &str) -> Task {
    let time = "2026-01-02T03:04:05Z";
    from_value(json!({
        "id": "0123456789abcdef0123456789abcdef",
        "cluster": "default",
        "definition": {
            "family": "web", "networkMode": mode, "taskRoleArn": "arn:aws:iam::000000000000:role/app",
            "cpu": "512", "memory": "64",
            "volumes": [{"name": "data"}, {"name": "etc", "host": {"sourcePath": "/etc"}}],
            "containerDefinitions": [{
                "name": "main", "image": "nginx", "cpu": 10, "memory": 32,
                "portMappings": [{"containerPort": 80}],
                "mountPoints": [{"sourceVolume": "data", "containerPath": "/d"},
                                {"sourceVolume": "etc", "containerPath": "/e"}],
                "dockerLabels": {"a": "b"}
            }],
        },
        "revision": 3,
        "overrides": {},
        "version": 1,
        "launch_type": "EC2",
        "group": "family:web",
        "tags": [{"key": "k", "value": "v"}],
        "subnets": [],
        "phase": "RUNNING",
        "times": {"created": time, "started": time},
        "containers": [{
            "name": "main", "id": "11111111-2222-4333-8444-555555555555", "endpoint": "e", "runtime_id": "r",
            "image_id": "sha256:1", "phase": "RUNNING", "created": time, "started": time, "restarts": 0
        }],
        "network": {
            "addresses": [{"ip": "10.1.2.3", "prefix": 16, "gateway": "10.1.0.1"}], "mac": "02:00:00:00:00:01",
            "ports": [{"host_ip": null, "host_port": 8080, "container_port": 80, "protocol": "tcp"}]
        },
    }))
    .unwrap()
}

fn names() -> Names {
    Names { region: "eu-central-1".into(), account: "000000000000".into() }
}

#[test]
fn only_the_tasks_own_address_is_answered() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let listen = ip("169.254.170.2");
    for (mode, from, want) in [
        ("bridge", "10.1.2.3", true),
        ("awsvpc", "10.1.2.3", true),
        ("bridge", "10.1.2.4", false),
        ("bridge", "169.254.170.2", false),
        ("bridge", "127.0.0.1", false),
        ("host", "169.254.170.2", true),
        ("host", "127.0.0.1", true),
        ("host", "10.1.2.4", false),
        ("none", "10.1.2.3", false),
        ("none", "169.254.170.2", false),
    ] {
        assert_eq!(is_own(&task(mode), ip(from), listen), want, "{mode} {from}");
    }
    let mut stopped = task("bridge");
    stopped.phase = Phase::Stopped;
    assert!(!is_own(&stopped, ip("10.1.2.3"), listen));
}

#[test]
fn a_container_is_described_as_by_an_ecs_agent() {
    let document = documents::container(&names(), &task("awsvpc"), "main").unwrap();
    for (field, want) in [
        ("DockerId", json!("r")),
        ("Name", json!("main")),
        ("DockerName", json!("ecs-web-3-main-0123456789ab")),
        ("Image", json!("nginx")),
        ("ImageID", json!("sha256:1")),
        ("Ports", json!([{"ContainerPort": 80, "Protocol": "tcp", "HostPort": 8080, "HostIp": "0.0.0.0"}])),
        ("DesiredStatus", json!("RUNNING")),
        ("KnownStatus", json!("RUNNING")),
        ("Limits", json!({"CPU": 10, "Memory": 32})),
        ("Type", json!("NORMAL")),
        ("LogDriver", json!("json-file")),
        (
            "ContainerARN",
            json!(
                "arn:aws:ecs:eu-central-1:000000000000:container/default/0123456789abcdef0123456789abcdef/\
                 11111111-2222-4333-8444-555555555555"
            ),
        ),
        (
            "Networks",
            json!([{
                "NetworkMode": "awsvpc", "IPv4Addresses": ["10.1.2.3"], "AttachmentIndex": 0,
                "MACAddress": "02:00:00:00:00:01", "IPv4SubnetCIDRBlock": "10.1.0.0/16",
                "SubnetGatewayIpv4Address": "10.1.0.1/16"
            }]),
        ),
        (
            "Volumes",
            json!([{"DockerName": "data", "Destination": "/d"}, {"Source": "/etc", "Destination": "/e"}]),
        ),
    ] {
        assert_eq!(document[field], want, "{field}");
    }
    assert_eq!(document["Labels"]["com.amazonaws.ecs.container-name"], "main");
    assert_eq!(document["Labels"]["a"], "b");
    assert!(document.get("ExitCode").is_none());
    assert!(documents::container(&names(), &task("awsvpc"), "other").is_none());
}

#[test]
fn a_task_is_described_with_its_containers_and_tags() {
    let document = documents::task(&names(), &task("bridge"), false);
    for (field, want) in [
        ("Cluster", json!("arn:aws:ecs:eu-central-1:000000000000:cluster/default")),
        ("Family", json!("web")),
        ("Revision", json!("3")),
        ("DesiredStatus", json!("RUNNING")),
        ("KnownStatus", json!("RUNNING")),
        ("Limits", json!({"CPU": 0.5, "Memory": 64})),
        ("AvailabilityZone", json!("eu-central-1a")),
        ("LaunchType", json!("EC2")),
    ] {
        assert_eq!(document[field], want, "{field}");
    }
    assert_eq!(document["Containers"].as_array().map(Vec::len), Some(1));
    assert!(document.get("TaskTags").is_none());
    assert_eq!(documents::task(&names(), &task("bridge"), true)["TaskTags"], json!({"k": "v"}));
}

#[test]
fn the_link_of_an_address_is_always_the_same_and_short() {
    let ip: IpAddr = "169.254.170.2".parse().unwrap();
    assert_eq!(link_name(ip), link_name(ip));
    assert!(link_name(ip).len() <= 15);
    assert!(is_link_local(&ip) && !is_link_local(&"127.0.0.1".parse().unwrap()));
}
