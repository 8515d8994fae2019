//! Pseudo-terminals of a given devpts mount.
use super::SysError;
use super::mount::{Attr, FsContext};
use super::root::Root;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// linux/magic.h; nix does not have it.
const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    /// The end of the terminal emulator.
    pub master: OwnedFd,
    /// The end of the programs.
    pub peer: OwnedFd,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters on a line.
    pub columns: u16,
}

impl Pty {
    /// A new pseudo-terminal of the devpts mount whose root is `devpts`.
    ///
    /// The peer is opened by `TIOCGPTPEER` from the master, not by a path that somebody could exchange
    /// (CVE-2025-52565).
    ///
    /// # Errors
    /// ENOTTY when `ptmx` in it is not the multiplexer (character device 5:2).
    pub fn open(devpts: BorrowedFd<'_>) -> Result<Pty, SysError> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let master = super::root::open_same_mount(devpts, Path::new("ptmx"), flags)?;
        Pty::from_master(master)
    }

    /// A new pseudo-terminal of the devpts on `/dev/pts` inside `root`, or of its `/dev/ptmx` where that cannot be.
    ///
    /// Nothing is opened but the multiplexer: an image, or a process of the container, may have put a FIFO or a device
    /// in its place, and to open that is to use it already.
    ///
    /// # Errors
    /// ENOTTY when there is something else.
    pub fn open_in(root: &Root) -> Result<Pty, SysError> {
        let pts = Path::new("/dev/pts");
        if let Ok(pts) = root.open(pts, OFlag::O_PATH | OFlag::O_DIRECTORY)
            && fstatfs(&pts).is_ok_and(|stat| stat.filesystem_type() == DEVPTS_SUPER_MAGIC)
        {
            match Pty::open(pts.as_fd()) {
                // Its mode may be 0 (devpts' own default), with a node for all beside it.
                Err(SysError { errno: Errno::EACCES, .. }) => {}
                other => return other,
            }
        }
        let ptmx = root.open(Path::new("/dev/ptmx"), OFlag::O_PATH)?;
        check_multiplexer(ptmx.as_fd())?;
        // By its descriptor, so that it is what was checked; in a procfs of our own, because the one that the
        // container has may be a decoy (CVE-2025-52881).
        let procfs = FsContext::open("proc")?.mount(Attr::empty())?;
        let path = format!("self/fd/{}", ptmx.as_raw_fd());
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = nix::fcntl::openat(&procfs, path.as_str(), flags, nix::sys::stat::Mode::empty())
            .map_err(SysError::on("openat", "/dev/ptmx"))?;
        Pty::from_master(master)
    }

    /// A new pseudo-terminal of the host's /dev/pts.
    pub fn open_host() -> Result<Pty, SysError> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = nix::fcntl::open("/dev/ptmx", flags, nix::sys::stat::Mode::empty())
            .map_err(SysError::on("open", "/dev/ptmx"))?;
        Pty::from_master(master)
    }

    fn from_master(master: OwnedFd) -> Result<Pty, SysError> {
        check_multiplexer(master.as_fd())?;
        let unlock: libc::c_int = 0;
        // SAFETY: TIOCSPTLCK reads one int at the pointer, which is valid for the call.
        Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })
            .map_err(SysError::on("ioctl", "TIOCSPTLCK"))?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor or -1 (Linux 4.13).
        let peer = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })
            .map_err(SysError::on("ioctl", "TIOCGPTPEER"))?;
        // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
        let peer = unsafe { OwnedFd::from_raw_fd(peer) };
        Ok(Pty { master, peer })
    }
}

fn check_multiplexer(ptmx: BorrowedFd<'_>) -> Result<(), SysError> {
    let stat = fstat(ptmx).map_err(SysError::on("fstat", "ptmx"))?;
    let is_ptmx = SFlag::from_bits_truncate(stat.st_mode & libc::S_IFMT) == SFlag::S_IFCHR
        && stat.st_rdev == nix::sys::stat::makedev(5, 2);
    if is_ptmx {
        Ok(())
    } else {
        Err(SysError::on("open", "ptmx: not the pseudo-terminal multiplexer")(Errno::ENOTTY))
    }
}

/// Sets the window size of a terminal (either end).
pub fn set_size(terminal: BorrowedFd<'_>, size: Size) -> Result<(), SysError> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize at the pointer, which is valid for the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
        .map(drop)
        .map_err(SysError::on("ioctl", "TIOCSWINSZ"))
}

/// The window size of a terminal.
pub fn size(terminal: BorrowedFd<'_>) -> Result<Size, SysError> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize at the pointer, which is valid for the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })
        .map_err(SysError::on("ioctl", "TIOCGWINSZ"))?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Makes the terminal the controlling one of this process, which must lead its session (setsid(2)).
pub fn make_controlling(terminal: BorrowedFd<'_>) -> Result<(), SysError> {
    // SAFETY: TIOCSCTTY takes an int by value; 0 does not steal the terminal from another session.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) })
        .map(drop)
        .map_err(SysError::on("ioctl", "TIOCSCTTY"))
}

/// Puts a terminal into raw mode for as long as the value lives.
#[derive(Debug)]
pub struct RawMode<Fd: AsFd> {
    terminal: Fd,
    before: Termios,
}

impl<Fd: AsFd> RawMode<Fd> {
    /// Every byte is passed on at once and unchanged.
    pub fn enter(terminal: Fd) -> Result<RawMode<Fd>, SysError> {
        let before = tcgetattr(&terminal).map_err(SysError::on("tcgetattr", "terminal"))?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).map_err(SysError::on("tcsetattr", "terminal"))?;
        Ok(RawMode { terminal, before })
    }
}

impl<Fd: AsFd> Drop for RawMode<Fd> {
    fn drop(&mut self) {
        // A terminal that is gone has no mode to restore.
        let _ = tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// Lets "\n" reach the reader as it was written: without it, a pty turns it into "\r\n". What runc does for
/// the master it hands over through a console socket.
pub fn keep_newlines(terminal: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut mode = tcgetattr(terminal).map_err(SysError::on("tcgetattr", "terminal"))?;
    mode.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(terminal, SetArg::TCSANOW, &mode).map_err(SysError::on("tcsetattr", "terminal"))
}
