//! Whatever is killed, `delete` leaves nothing.
use super::{Net, answered, ask_from_host, command, free_port};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_command_that_is_killed_at_any_moment_leaves_nothing_after_delete() {
    let net = Net::new();
    // The bridge is there: what is cut short is the container's own.
    net.world.once(&net.flags(&[]), &["true"]).ok();
    for step in 0..12 {
        let publish = format!("{}:80", free_port());
        let words =
            [vec!["run", "-d"], net.flags(&["-p", &publish]), vec!["localhost/test", "sleep", "1000"]]
                .concat();
        let mut child = net.world.spawn(&words);
        // The moments are spread over all of the start; which of them is hit does not matter.
        std::thread::sleep(Duration::from_millis(step * 8));
        child.kill().unwrap();
        child.wait().unwrap();
        net.world.clean_up();
        assert_eq!(net.attached(), [""; 0], "after {} ms", step * 8);
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
