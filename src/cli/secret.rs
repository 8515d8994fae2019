//! A secret from the terminal, without echo.
use anyhow::{Context, bail};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;

/// The longest line that is read; tokens have some kilobytes, and a terminal's line 4095 bytes (termios(3)).
const LINE_MAX: u64 = 4096;
/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> nix::Result<Silent<'a>> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        // Ctrl-C is read like any other byte, and ends the line: a signal would leave the terminal silent.
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Silent { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}

fn terminal() -> anyhow::Result<File> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("standard input is no terminal to ask on: give --username and --password-stdin");
    }
    Ok(stdin.as_fd().try_clone_to_owned().context("cannot use the terminal")?.into())
}

fn line(terminal: &mut File, prompt: &str) -> anyhow::Result<String> {
    eprint!("{prompt}: ");
    let mut bytes = Vec::new();
    let mut byte = [0];
    while (bytes.len() as u64) < LINE_MAX {
        match terminal.read(&mut byte).context("cannot read from the terminal")? {
            0 => break,
            _ if byte[0] == b'\n' => break,
            _ if byte[0] == INTERRUPT => bail!("interrupted"),
            _ => bytes.push(byte[0]),
        }
    }
    String::from_utf8(bytes).context("what was typed is not UTF-8")
}

/// Asks for a line, and shows it as it is typed.
pub fn ask(prompt: &str) -> anyhow::Result<String> {
    line(&mut terminal()?, prompt)
}

/// Asks for a line, and shows nothing.
pub fn ask_silently(prompt: &str) -> anyhow::Result<String> {
    let mut terminal = terminal()?;
    let other = terminal.try_clone().context("cannot use the terminal")?;
    let silent = Silent::new(&other).context("cannot silence the terminal")?;
    let result = line(&mut terminal, prompt);
    drop(silent);
    // The end of the line was not shown either.
    eprintln!();
    result
}
