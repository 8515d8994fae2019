//! The ECS door as its clients see it: boto3 and the aws command, whose side of each test is a scenario of
//! `runtime-tests/python/ecs.py`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Agent, command, events, needs};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// An agent with an ECS door, and what its clients need.
struct Door {
    agent: Agent,
    address: String,
}

/// A port on which nobody listens, below those that the kernel gives to clients: none of them takes it while the agent
/// is down.
fn free_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(61).wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed));
    (0..12_000)
        .map(|step| u16::try_from(20_000 + first.wrapping_add(step) % 12_000).unwrap())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

impl Door {
    fn open() -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let secrets = tempfile::tempdir().unwrap().keep();
        std::fs::write(secrets.join("password"), "hunter2\n").unwrap();
        let agent = Agent::start_with(&format!(
            "[ecs]\nenabled = true\nlisten = \"{address}\"\nmetadata_listen = \"127.0.0.1:{}\"\nsecrets = \"{}\"\n",
            free_port(),
            secrets.display(),
        ));
        Self { agent, address }
    }

    /// Runs a scenario to its end.
    #[track_caller]
    fn plays(&self, scenario: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/ecs.py");
        let corten = needs::corten();
        let (root, state) = (self.agent.root(), self.agent.state());
        let outcome = command::run_within(
            Command::new(needs::aws_tool("python3"))
                .arg(script)
                .arg(scenario)
                .env("ECS_ENDPOINT", format!("http://{}", self.address))
                .env("ECS_ROOT", &root)
                .env("ECS_PATIENCE", (events::patience() * 2).as_secs().to_string())
                .env(
                    "CORTEN",
                    format!("{} --root {} --state {}", corten.display(), root.display(), state.display()),
                )
                .env("AWS", needs::aws_tool("aws"))
                .env("AWS_SHARED_CREDENTIALS_FILE", root.join("agent/ecs-credentials"))
                .env("AWS_CONFIG_FILE", "/dev/null")
                .env("AWS_PROFILE", "corten")
                .env("AWS_PAGER", "")
                .env("AWS_EC2_METADATA_DISABLED", "true")
                .env("no_proxy", "127.0.0.1"),
            events::patience() * 20,
        );
        assert_eq!(
            outcome.code,
            Some(0),
            "{scenario}:\n{}\n{}\nthe agent:\n{}",
            outcome.stdout,
            outcome.stderr,
            self.agent.log()
        );
    }
}

impl Drop for Door {
    /// Stopped tasks are forgotten at the next start of an agent that keeps none.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.plays("cleanup");
        self.agent.tasks();
        self.agent.stop();
        let path = self.agent.fixture.path().join("agent.toml");
        let text = std::fs::read_to_string(&path).unwrap() + "stopped_task_seconds = 0\n";
        std::fs::write(&path, text).unwrap();
        self.agent.boot();
    }
}

#[test]
fn three_containers_that_wait_for_each_other_are_run_read_and_stopped_by_the_aws_command() {
    Door::open().plays("three");
}

#[test]
fn every_documented_error_is_told_and_nothing_is_made() {
    Door::open().plays("errors");
}

#[test]
fn requests_that_are_not_signed_by_the_key_are_sent_away() {
    Door::open().plays("signatures");
}

#[test]
fn the_end_of_a_task_is_told_with_its_reason() {
    Door::open().plays("ends");
}

#[test]
fn a_container_finds_what_its_definition_says() {
    Door::open().plays("inside");
}

#[test]
fn lists_have_pages_and_a_client_token_runs_tasks_once() {
    Door::open().plays("lists");
}

#[test]
fn a_task_has_the_network_of_its_mode() {
    Door::open().plays("networks");
}

#[test]
fn tasks_go_on_and_wait_on_while_the_agent_is_killed_and_started() {
    let door = Door::open();
    door.plays("before_restart");
    door.agent.kill();
    door.agent.boot();
    door.plays("after_restart");
}
