//! Locks of open files: flock(2), and open-file-description locks (fcntl(2), Linux 3.15), which tell whether a
//! process is alive.
//!
//! They belong to the open file, so that a child of fork(2) keeps what its parent locked, and they go
//! when the last descriptor of it is closed, also by SIGKILL. Unlike flock(2) they can be asked about
//! without being taken.
use super::SysError;
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd};

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        // The three kinds are 0, 1 and 2.
        l_type: i16::try_from(kind).unwrap_or(0),
        // SEEK_SET is 0.
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        // Must be zero for these locks (fcntl(2)).
        l_pid: 0,
    }
}

fn call(file: impl AsFd, command: libc::c_int, lock: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: the descriptor is borrowed from a live owner and `lock` is one valid struct flock, which
    // the kernel reads and, for F_OFD_GETLK, writes.
    Errno::result(unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, lock as *mut libc::flock) })
        .map(drop)
}

/// An open file that is locked by flock(2), until this is dropped or its last descriptor is closed.
#[derive(Debug)]
pub struct Locked<F: AsFd>(F);

impl<F: AsFd> Locked<F> {
    /// Waits until it can be had exclusively.
    pub fn wait(file: F) -> Result<Locked<F>, SysError> {
        flock(&file, libc::LOCK_EX)?;
        Ok(Locked(file))
    }

    /// `None` if somebody else has it.
    pub fn try_now(file: F) -> Result<Option<Locked<F>>, SysError> {
        match flock(&file, libc::LOCK_EX | libc::LOCK_NB) {
            Err(SysError { errno: Errno::EWOULDBLOCK, .. }) => Ok(None),
            other => other.map(|()| Some(Locked(file))),
        }
    }
}

impl<F: AsFd> AsFd for Locked<F> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<F: AsFd> Drop for Locked<F> {
    fn drop(&mut self) {
        // Not left to close(2): a child may have the descriptor still. Where this fails, it is.
        let _ = flock(&self.0, libc::LOCK_UN);
    }
}

fn flock(file: impl AsFd, operation: libc::c_int) -> Result<(), SysError> {
    loop {
        // SAFETY: two integers; the descriptor is borrowed from a live owner.
        match Errno::result(unsafe { libc::flock(file.as_fd().as_raw_fd(), operation) }) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop).map_err(SysError::on("flock", "")),
        }
    }
}

/// Takes the whole of `file`, open for writing, exclusively; `false` if another open file has it.
pub fn try_exclusive(file: impl AsFd) -> Result<bool, SysError> {
    match call(file, libc::F_OFD_SETLK, &mut whole_file(libc::F_WRLCK)) {
        Ok(()) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(SysError::on("fcntl", "F_OFD_SETLK")(errno)),
    }
}

/// Gives back what this open file has, though others, who inherited it, may keep it open.
pub fn release(file: impl AsFd) -> Result<(), SysError> {
    call(file, libc::F_OFD_SETLK, &mut whole_file(libc::F_UNLCK))
        .map_err(SysError::on("fcntl", "F_OFD_SETLK"))
}

/// Whether another open file has a lock on `file`; takes none.
pub fn is_held(file: impl AsFd) -> Result<bool, SysError> {
    let mut lock = whole_file(libc::F_WRLCK);
    call(file, libc::F_OFD_GETLK, &mut lock).map_err(SysError::on("fcntl", "F_OFD_GETLK"))?;
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

/// Waits until `file`, open for writing, can be had exclusively, and takes it.
pub fn wait_exclusive(file: impl AsFd) -> Result<(), SysError> {
    loop {
        match call(&file, libc::F_OFD_SETLKW, &mut whole_file(libc::F_WRLCK)) {
            Err(Errno::EINTR) => {}
            result => return result.map_err(SysError::on("fcntl", "F_OFD_SETLKW")),
        }
    }
}

/// The same for a lock that others may share; `file` is open for reading.
pub fn wait_shared(file: impl AsFd) -> Result<(), SysError> {
    loop {
        match call(&file, libc::F_OFD_SETLKW, &mut whole_file(libc::F_RDLCK)) {
            Err(Errno::EINTR) => {}
            result => return result.map_err(SysError::on("fcntl", "F_OFD_SETLKW")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_goes_with_its_owner_though_a_copy_of_the_descriptor_stays() {
        let directory = tempfile::tempdir().unwrap();
        let open = || std::fs::File::open(directory.path()).unwrap();
        let first = Locked::wait(open()).unwrap();
        let copy = first.as_fd().try_clone_to_owned().unwrap();
        assert!(Locked::try_now(open()).unwrap().is_none());
        drop(first);
        assert!(Locked::try_now(open()).unwrap().is_some());
        drop(copy);
    }

    #[test]
    fn a_second_open_file_is_kept_out_until_the_first_is_closed() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = || std::fs::File::options().read(true).write(true).open(path.path()).unwrap();
        let (first, second) = (open(), open());
        assert!(!is_held(&second).unwrap());
        assert!(try_exclusive(&first).unwrap());
        assert!(!try_exclusive(&second).unwrap());
        assert!(is_held(&second).unwrap());
        // A copy of the descriptor keeps the lock, as a forked child's does.
        let copy = first.try_clone().unwrap();
        drop(first);
        assert!(is_held(&second).unwrap());
        release(&copy).unwrap();
        assert!(!is_held(&second).unwrap());
        assert!(try_exclusive(&copy).unwrap());
        drop(copy);
        assert!(try_exclusive(&second).unwrap());
        drop(second);
        wait_shared(open()).unwrap();
        wait_exclusive(open()).unwrap();
    }
}
