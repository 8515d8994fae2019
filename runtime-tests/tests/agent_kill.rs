//! The agent is killed again and again: no task notices.
//!
//! `CORTEN_TEST_AGENT_KILLS` sets how often; 5 if absent.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::cri::lines_of;
use runtime_tests::{Agent, command, events};
use serde_json::json;

const TASKS: usize = 20;
const LINES_A_SECOND: usize = 100;

fn kills() -> usize {
    std::env::var("CORTEN_TEST_AGENT_KILLS").map_or(5, |text| text.parse().unwrap())
}

/// So many lines the task with this number says, and the code it ends with: one in four ends while the agent is
/// killed, the others some seconds later.
fn plan(number: usize) -> (usize, usize) {
    let seconds = if number.is_multiple_of(4) { 1 + number / 4 } else { kills() + 6 };
    (seconds * LINES_A_SECOND, number + 1)
}

fn words(number: usize) -> Vec<String> {
    let (lines, code) = plan(number);
    ["/probe", "count", &LINES_A_SECOND.to_string(), &lines.to_string(), &code.to_string()]
        .map(str::to_owned)
        .to_vec()
}

#[track_caller]
fn assert_whole(number: usize, said: &[String]) {
    let (lines, _) = plan(number);
    let expected: Vec<String> = (0..lines).map(|line| format!("line {line}")).collect();
    let wrong = said.iter().zip(&expected).position(|(said, expected)| said != expected);
    assert!(
        wrong.is_none() && said.len() == lines,
        "task {number}: {} of {lines} lines, first wrong at {wrong:?}",
        said.len()
    );
}

#[test]
fn no_line_and_no_exit_code_is_lost() {
    let agent = Agent::start();
    let mut containers = Vec::new();
    for number in 0..TASKS / 2 {
        let name = format!("cri-{number}");
        let pod = agent.pod(&name, &json!({}));
        containers.push(agent.container((&name, &pod), "main", &json!({"command": words(number)})));
    }
    for number in TASKS / 2..TASKS {
        static_pod(&agent, number);
    }
    agent.await_change(&agent.root(), "all tasks are there", || agent.tasks().len() == TASKS);
    let mut said = 0;
    for kill in 0..kills() {
        // Another moment of its life each time, by what a task that lives on says meanwhile.
        said += 1 + LINES_A_SECOND / 8 * (kill % 7);
        let log = agent.log_directory("cri-1").join("main.log");
        said = said.max(std::fs::read_to_string(&log).unwrap().lines().count());
        events::grown(&log, said);
        agent.kill();
        agent.boot();
    }
    for (number, container) in containers.iter().enumerate() {
        let status = agent.await_exit(container);
        assert_eq!(status["exitCode"], plan(number).1, "task {number}: {status}");
        let log =
            std::fs::read_to_string(agent.log_directory(&format!("cri-{number}")).join("main.log")).unwrap();
        let said: Vec<String> = lines_of(&log).into_iter().map(|(_, text)| text).collect();
        assert_whole(number, &said);
    }
    for number in TASKS / 2..TASKS {
        let id = container_of(&agent, number);
        let code = command::run_within(&mut agent.corten(&["wait", &id]), events::patience() * 2).ok().stdout;
        assert_eq!(code.trim(), plan(number).1.to_string(), "task {number}");
        let log = command::run(&mut agent.corten(&["logs", &id])).ok().stdout;
        let said: Vec<String> = log.lines().map(str::to_owned).collect();
        assert_whole(number, &said);
    }
}

fn static_pod(agent: &Agent, number: usize) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("static-{number}")},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": runtime_tests::agent::IMAGE, "imagePullPolicy": "Never",
                "command": words(number),
            }],
        },
    });
    // A folder is watched for whole files: those that were renamed into it.
    let file = agent.fixture.file(&format!("static-{number}.yaml"), pod.to_string());
    std::fs::rename(file, agent.manifests().join(format!("static-{number}.yaml"))).unwrap();
}

/// The id of the container of a static pod.
fn container_of(agent: &Agent, number: usize) -> String {
    let list = command::run(&mut agent.corten(&["ps", "-a", "--no-trunc", "--format", "json"])).ok();
    let name = format!("static-{number}");
    let list = list.json();
    let found = list.as_array().unwrap().iter().find(|one| {
        let text = one.to_string();
        text.contains(&format!("{name}\""))
            || text.contains(&format!("{name}_"))
            || text.contains(&format!("{name}."))
            || text.contains(&format!("{name}/"))
            || text.contains(&format!("{name}-main"))
    });
    let found = found.unwrap_or_else(|| panic!("no container of {name} in {list}"));
    found["id"].as_str().or(found["Id"].as_str()).or(found["ID"].as_str()).expect("an id").to_owned()
}

#[test]
fn what_is_half_made_when_the_agent_dies_is_finished_or_undone() {
    let agent = Agent::start();
    // What is made once is there from now on, and does not count as a change.
    let first = agent.pod("first", &json!({}));
    agent.cri(&["rmp", "-f", &first]).ok();
    for kill in 0..kills() {
        let name = format!("half-{kill}");
        let file = agent.pod_file(&name, &json!({"port_mappings": [{"container_port": 80}]}));
        let tasks = agent.root().join("tasks");
        let changes = events::Changes::of([agent.root().as_path(), &agent.state(), &tasks]);
        let mut client = agent.crictl(&["runp", file.to_str().unwrap()]);
        let mut client = client
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        changes.wait(1 + kill, &client);
        agent.kill();
        command::wait(&mut client, events::patience()).expect("crictl ends when its server does");
        agent.boot();
        // The next one is made as if nothing had happened, under the same name once the first is gone.
        for pod in agent.cri(&["pods", "-q"]).ok().stdout.lines() {
            agent.cri(&["rmp", "-f", pod]).ok();
        }
        let again = agent.pod(&name, &json!({}));
        agent.cri(&["rmp", "-f", &again]).ok();
    }
}
