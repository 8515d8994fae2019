//! What tasks of the ECS door are told of themselves, and that no task is told of another.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![expect(clippy::disallowed_methods, reason = "the tests own the directories that they work on")]

use runtime_tests::agent::IMAGE;
use runtime_tests::{Agent, Outcome, command, events, needs};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const ROLE: &str = "arn:aws:iam::000000000000:role/app";
/// The address at which SDKs look; the tests of this file have it one after the other.
const REAL: &str = "169.254.170.2:80";

/// Client of the ECS door: `python3 -c CLIENT ENDPOINT OPERATION PARAMETERS` prints the answer.
const CLIENT: &str = "
import boto3, json, sys
client = boto3.client('ecs', region_name='us-east-1', endpoint_url=sys.argv[1])
print(json.dumps(getattr(client, sys.argv[2])(**json.loads(sys.argv[3])), default=str))
";

struct World {
    agent: Agent,
    endpoint: String,
    metadata: String,
}

impl World {
    fn new(metadata: &str) -> Self {
        let port =
            || TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let listen = format!("127.0.0.1:{}", port());
        let metadata =
            if metadata.is_empty() { format!("127.0.0.1:{}", port()) } else { metadata.to_owned() };
        let profile =
            tempfile::NamedTempFile::new().expect("a file").into_temp_path().keep().expect("a path");
        let text = "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = secret\naws_session_token = tok\n";
        std::fs::write(&profile, text).expect("a profile");
        std::fs::set_permissions(&profile, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let agent = Agent::start_with(&format!(
            "[metrics]\nlisten = \"127.0.0.1:{}\"\n[ecs]\nenabled = true\nlisten = \"{listen}\"\n\
             metadata_listen = \"{metadata}\"\ntask_roles = {{ \"{ROLE}\" = \"{}\" }}\n",
            port(),
            profile.display()
        ));
        Self { agent, endpoint: format!("http://{listen}"), metadata }
    }

    #[track_caller]
    fn call(&self, operation: &str, parameters: &Value) -> Value {
        let python = needs::program("python3", "python3-boto3");
        let mut client = Command::new(python);
        client
            .args(["-c", CLIENT, &self.endpoint, operation, &parameters.to_string()])
            .env("AWS_SHARED_CREDENTIALS_FILE", self.agent.root().join("agent/ecs-credentials"))
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_PROFILE", "corten")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("no_proxy", "127.0.0.1");
        command::run_within(&mut client, events::patience() * 2).ok().json()
    }

    /// Runs a task of one container and returns its description once it runs.
    #[track_caller]
    fn run(&self, family: &str, mode: &str, more: Value) -> Value {
        let mut container = json!({
            "name": "main", "image": IMAGE, "memory": 128, "command": ["sleep", "1000"], "stopTimeout": 2
        });
        let mut definition = json!({"family": family, "networkMode": mode, "taskRoleArn": ROLE});
        for (key, value) in more.as_object().expect("an object") {
            let of = if key == "volumes" { &mut definition } else { &mut container };
            of[key] = value.clone();
        }
        definition["containerDefinitions"] = json!([container]);
        self.call("register_task_definition", &definition);
        let mut wanted = json!({"taskDefinition": family});
        if mode == "awsvpc" {
            wanted["networkConfiguration"] = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
        }
        let ran = self.call("run_task", &wanted);
        let arn = ran["tasks"][0]["taskArn"].as_str().expect("an ARN").to_owned();
        let deadline = std::time::Instant::now() + events::patience();
        loop {
            let task = self.call("describe_tasks", &json!({"tasks": [arn]}))["tasks"][0].clone();
            if task["lastStatus"] == "RUNNING" {
                return task;
            }
            assert_eq!(task["lastStatus"], "PENDING", "{task}\n{}", self.agent.log());
            assert!(std::time::Instant::now() < deadline, "{task}\n{}", self.agent.log());
        }
    }

    /// Runs a script in a task's container.
    fn inside(&self, task: &Value, script: &str) -> Outcome {
        let id = task["containers"][0]["runtimeId"].as_str().expect("a container");
        command::run_within(&mut self.agent.corten(&["exec", id, "sh", "-c", script]), events::patience())
    }

    /// The value of a variable of a task's container.
    #[track_caller]
    fn variable(&self, task: &Value, name: &str) -> String {
        self.inside(task, &format!("printf %s \"${name}\"")).ok().stdout
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let tasks = self.call("list_tasks", &json!({}))["taskArns"].clone();
        for arn in tasks.as_array().into_iter().flatten() {
            self.call("stop_task", &json!({"task": arn}));
        }
        let stopped = |arn: &Value| {
            let answer = self.call("describe_tasks", &json!({"tasks": [arn]}));
            answer["tasks"][0]["lastStatus"] == "STOPPED"
        };
        let deadline = std::time::Instant::now() + events::patience();
        while !tasks.as_array().into_iter().flatten().all(stopped) {
            assert!(std::time::Instant::now() < deadline, "tasks do not stop:\n{}", self.agent.log());
        }
        self.agent.tasks();
        self.agent.stop();
        // Stopped tasks are forgotten at the next start of an agent that keeps none.
        let path = self.agent.fixture.path().join("agent.toml");
        let text = std::fs::read_to_string(&path).expect("the configuration") + "stopped_task_seconds = 0\n";
        std::fs::write(&path, text).expect("the configuration");
        self.agent.boot();
    }
}

#[test]
fn a_task_is_told_of_itself_and_not_of_another() {
    let world = World::new(REAL);
    let (one, other) = (world.run("one", "bridge", json!({})), world.run("other", "awsvpc", json!({})));
    let uri = |task: &Value| world.variable(task, "ECS_CONTAINER_METADATA_URI_V4");
    let credentials = |task: &Value| {
        format!("http://{REAL}{}", world.variable(task, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"))
    };

    // Its own.
    for task in [&one, &other] {
        let document = world.inside(task, &format!("wget -qO- {}/task", uri(task))).ok().json();
        assert_eq!(document["TaskARN"], task["taskArn"]);
        let container = &document["Containers"][0];
        assert_eq!(container["DockerId"], task["containers"][0]["runtimeId"]);
        let address = container["Networks"][0]["IPv4Addresses"][0].as_str().expect("an address");
        let own = world.inside(task, "ip -4 -o addr show dev eth0").ok().stdout;
        assert!(own.contains(&format!(" {address}/")), "{address} is not in {own}");
        let container = world.inside(task, &format!("wget -qO- {}", uri(task))).ok().json();
        assert_eq!(container["Name"], "main");
        let stats = world.inside(task, &format!("wget -qO- {}/stats", uri(task))).ok().json();
        assert!(stats["memory_stats"]["usage"].as_u64().expect("a number") > 0, "{stats}");
        let stats = world.inside(task, &format!("wget -qO- {}/task/stats", uri(task))).ok().json();
        let runtime = task["containers"][0]["runtimeId"].as_str().expect("an id");
        assert!(stats[runtime]["networks"]["eth0"]["rx_bytes"].as_u64().expect("a number") > 0, "{stats}");
        assert!(stats[runtime]["network_rate_stats"]["rx_bytes_per_sec"].is_number(), "{stats}");
        let given = world.inside(task, &format!("wget -qO- {}", credentials(task))).ok().json();
        assert_eq!((&given["RoleArn"], &given["AccessKeyId"]), (&json!(ROLE), &json!("AKIATEST")));
        assert_eq!((&given["SecretAccessKey"], &given["Token"]), (&json!("secret"), &json!("tok")));
    }

    // The other's, with the other's secrets.
    for (url, code) in [
        (uri(&other), 404),
        (format!("{}/task", uri(&other)), 404),
        (format!("{}/stats", uri(&other)), 404),
        (format!("{}/task/stats", uri(&other)), 404),
        (credentials(&other), 400),
        (format!("http://{REAL}/v4/{}", "0".repeat(64)), 404),
        (format!("http://{REAL}/v2/credentials/{}", "0".repeat(64)), 400),
        (format!("http://{REAL}/v2/credentials/"), 400),
        (format!("http://{REAL}/"), 404),
        (format!("http://{REAL}/v4/../../etc/passwd"), 404),
    ] {
        let refused = world.inside(&one, &format!("wget -qO- {url} 2>&1"));
        assert!(refused.code != Some(0) && refused.stdout.contains(&code.to_string()), "{url}: {refused:?}");
    }

    // Nor does the host get it.
    let host = command::run(Command::new("busybox").args(["wget", "-qO-", &uri(&one)]));
    assert!(host.stderr.contains("404"), "{host:?}");

    // An agent that was killed answers again, at the same place.
    let before = uri(&one);
    world.agent.kill();
    world.agent.boot();
    let document = world.inside(&one, &format!("wget -qO- {before}/task")).ok().json();
    assert_eq!(document["TaskARN"], one["taskArn"]);

    boto3_finds_its_credentials(&world);
    too_many_requests_are_refused(&world, &one, &before);
}

/// A real SDK in a container, which is told nothing but its environment.
fn boto3_finds_its_credentials(world: &World) {
    let host = json!({
        "volumes": [{"name": "host", "host": {"sourcePath": "/"}}],
        "mountPoints": [{"sourceVolume": "host", "containerPath": "/host", "readOnly": true}],
    });
    let task = world.run("sdk", "bridge", host);
    let script = "import boto3; c = boto3.Session(region_name=\"us-east-1\").get_credentials(); \
                  print(c.method, c.access_key, c.token)";
    // By its path on the host: what is below /host is all of that.
    let python = runtime_tests::needs::aws_tool("python3");
    let command = format!("HOME=/nowhere chroot /host {} -c '{script}'", python.display());
    let outcome = world.inside(&task, &command).ok();
    assert_eq!(outcome.stdout.trim(), "container-role AKIATEST tok");
}

fn too_many_requests_are_refused(world: &World, task: &Value, uri: &str) {
    let script = format!("for i in $(seq 300); do wget -qO- {uri} 2>&1 >/dev/null; done | grep -c 429");
    let refused = world.inside(task, &script).stdout;
    assert!(refused.trim().parse::<u32>().expect("a number") > 0, "{refused}");
    let metrics = metrics(world);
    let counted =
        "corten_agent_request_seconds_count{code=\"429\",door=\"metadata\",operation=\"container\"}";
    assert!(metrics.contains(counted), "{metrics}");
}

fn metrics(world: &World) -> String {
    let status = command::run(&mut world.agent.corten(&["agent", "status", "--format", "json"])).ok().json();
    let doors = status["doors"].as_array().expect("doors");
    let door = doors.iter().find(|door| door["name"] == "metrics").expect("the door metrics");
    let url = format!("http://{}/metrics", door["address"].as_str().expect("an address"));
    command::run(Command::new("busybox").args(["wget", "-qO-", &url])).ok().stdout
}

#[test]
fn a_task_with_the_hosts_network_asks_from_the_host_and_one_without_network_never() {
    let world = World::new("");
    let task = world.run("host", "host", json!({}));
    let path = |task: &Value| {
        let uri = world.variable(task, "ECS_CONTAINER_METADATA_URI_V4");
        uri.strip_prefix("http://169.254.170.2").expect("the address of SDKs").to_owned()
    };
    let url = format!("http://{}{}/task", world.metadata, path(&task));
    assert_eq!(world.inside(&task, &format!("wget -qO- {url}")).ok().json()["TaskARN"], task["taskArn"]);
    let lonely = world.run("none", "none", json!({}));
    let url = format!("http://{}{}/task", world.metadata, path(&lonely));
    let host = command::run(Command::new("busybox").args(["wget", "-qO-", &url]));
    assert!(host.stderr.contains("404"), "{host:?}");
}
