//! Whatever is killed, `delete` leaves nothing.
use super::{Net, answered, ask_from_host, command, free_port};
use runtime_tests::events;
use runtime_tests::kill_point::{Fault, Victim, run_until};
use std::process::Command;

#[test]
fn a_command_that_is_killed_at_any_moment_leaves_nothing_after_delete() {
    let net = Net::new();
    // The bridge is there: what is cut short is the container's own.
    net.world.once(&net.flags(&[]), &["true"]).ok();
    let command = || {
        let publish = format!("{}:80", free_port());
        let words = ["localhost/test", "sleep", "1000"];
        let words = [vec!["run", "-d"], net.flags(&["-p", &publish]), words.to_vec()].concat();
        net.world.corten(&words)
    };
    let victim = Fault::Kill(Victim::Command);
    let stops = run_until(&command(), victim, None, events::patience()).points;
    net.world.clean_up();
    for point in (1..=12).map(|part| stops * part / 13) {
        run_until(&command(), victim, Some(point), events::patience());
        net.world.clean_up();
        assert_eq!(net.attached(), [""; 0], "killed at {point} of {stops}");
    }
}

#[test]
fn a_container_whose_monitor_was_killed_gives_its_port_back() {
    let net = Net::new();
    let port = free_port();
    let publish = format!("{port}:80");
    net.background(&["--name", "orphan", "-p", &publish], &["sleep", "1000"]);
    let monitor = net.world.inspect("orphan")["State"]["MonitorPid"].as_i64().unwrap();
    let monitor = nix::unistd::Pid::from_raw(i32::try_from(monitor).unwrap());
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGKILL).unwrap();
    net.world.run(&["delete", "--force", "orphan"]).ok();
    assert_eq!(net.attached(), [""; 0]);
    net.world.once(&net.flags(&["-p", &publish]), &["true"]).ok();
}

#[test]
fn rules_that_somebody_flushed_are_there_again_with_the_next_container() {
    let net = Net::new();
    let port = free_port();
    net.server("server", "tcp", "80", &["-p", &format!("{port}:80")]);
    command::run(Command::new("nft").args(["delete", "table", "inet", &net.table()])).ok();
    net.world.once(&net.flags(&[]), &["true"]).ok();
    answered(ask_from_host("tcp", &format!("127.0.0.1:{port}")), "hello");
}
