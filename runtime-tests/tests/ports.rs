//! A published port loses no request, wherever they come from.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::Agent;
use runtime_tests::cri::{NGINX, all_answered, published};
use serde_json::json;
use std::net::TcpListener;

const REQUESTS: usize = 10_000;

#[test]
fn a_published_port_answers_ten_thousand_requests_from_the_host_and_from_another_task() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, mirror) = published(dir.path());
    let agent = Agent::start_with(&mirror);
    agent.cri(&["pull", NGINX]).ok();
    // Free at this moment; nobody else on this machine is told of it.
    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let ports = json!({"port_mappings": [{"container_port": 80, "host_port": port}]});
    let server = agent.pod("server", &ports);
    agent.container(("server", &server), "nginx", &json!({"image": {"image": NGINX}}));
    let client = agent.pod("client", &json!({}));

    let gateway = agent.subnet().replace(".0/22", ".1");
    all_answered(&[], &format!("http://{gateway}:{port}/"), REQUESTS);
    all_answered(&[], &format!("http://127.0.0.1:{port}/"), 1_000);
    let netns = agent.state().join("tasks").join(&client).join("ns/net");
    let inside = format!("--net={}", netns.display());
    all_answered(&["nsenter", &inside], &format!("http://{gateway}:{port}/"), REQUESTS);
    // And from the task itself, back through the host: hairpin.
    let netns = agent.state().join("tasks").join(&server).join("ns/net");
    let itself = format!("--net={}", netns.display());
    all_answered(&["nsenter", &itself], &format!("http://{gateway}:{port}/"), 1_000);
}
