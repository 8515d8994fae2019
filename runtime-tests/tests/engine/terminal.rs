//! `-t`: terminals.
use crate::world::{IMAGE, World, ends, seconds};
use nix::pty::{OpenptyResult, Winsize, openpty};
use runtime_tests::events;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

/// A command on a terminal of its own.
struct OnTerminal {
    child: Child,
    master: File,
    slave: File,
    seen: String,
}

impl OnTerminal {
    fn new(world: &World, args: &[&str]) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let slave = File::from(slave);
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = world.corten(args).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { child, master: File::from(master), slave, seen: String::new() }
    }

    fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(
                events::readable(self.master.as_fd(), seconds(20)),
                "{text:?} did not come: {:?}",
                self.seen
            );
            let mut buffer = [0; 1024];
            let length = self.master.read(&mut buffer).unwrap();
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let end = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..end);
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn resize(&self, rows: &str, columns: &str) {
        let path = nix::unistd::ttyname(&self.slave).unwrap();
        Command::new("stty").arg("-F").arg(path).args(["rows", rows, "cols", columns]).status().unwrap();
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGWINCH).unwrap();
    }
}

#[test]
fn a_shell_on_a_terminal() {
    let world = World::new();
    let mut shell = OnTerminal::new(&world, &["run", "--rm", "-it", IMAGE]);
    shell.types("stty size; tty; echo TERM=$TERM\n");
    shell.until("33 77");
    shell.until("/dev/");
    shell.until("TERM=xterm");
    shell.resize("40", "100");
    shell.types("while [ \"$(stty size)\" != '40 100' ]; do sleep 0.05; done; echo re'sized'\n");
    shell.until("resized");
    // The interrupt character goes to the container's terminal, not to the command.
    // It prints from the terminal's foreground, where the shell has put it by then.
    shell.types("sh -c 'echo slee\"\"ping; exec sleep 1000'\n");
    shell.until("sleeping");
    shell.types("\x03");
    // The shell drops what is typed before it prompts again.
    shell.until("# ");
    shell.types("echo aw'ake'; exit 5\n");
    shell.until("awake");
    assert_eq!(ends(&mut shell.child), 5);
    // Our own terminal is as it was.
    let mode = nix::sys::termios::tcgetattr(&shell.slave).unwrap();
    assert!(mode.local_flags.contains(nix::sys::termios::LocalFlags::ICANON));
    world.assert_nothing_left();
}

#[test]
fn exec_on_a_terminal() {
    let world = World::new();
    world.background(&["--name", "e"], &["sleep", "1000"]);
    let mut shell = OnTerminal::new(&world, &["exec", "-it", "e", "sh"]);
    shell.types("stty size; echo a'b'; exit 6\n");
    shell.until("33 77");
    shell.until("ab");
    assert_eq!(ends(&mut shell.child), 6);
}

#[test]
fn a_terminal_in_the_background() {
    let world = World::new();
    world.background(&["--name", "t", "-t"], &["sh", "-c", "tty && echo on a terminal"]);
    assert_eq!(world.run(&["wait", "t"]).ok().stdout, "0\n");
    assert!(world.run(&["logs", "t"]).ok().stdout.contains("on a terminal"));
}
