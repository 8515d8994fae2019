//! `-t`: terminals.
use crate::world::{IMAGE, World, ends};
use runtime_tests::terminal::OnTerminal;

#[test]
fn a_shell_on_a_terminal() {
    let world = World::new();
    let mut shell = OnTerminal::new(&mut world.corten(&["run", "--rm", "-it", IMAGE]));
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
    assert!(shell.edits_lines());
    world.assert_nothing_left();
}

#[test]
fn exec_on_a_terminal() {
    let world = World::new();
    world.background(&["--name", "e"], &["sleep", "1000"]);
    let mut shell = OnTerminal::new(&mut world.corten(&["exec", "-it", "e", "sh"]));
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
