//! Locks on byte ranges that belong to an open file description.
use super::SysError;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;

/// Waits until byte `offset` of `file` is locked exclusively.
///
/// The lock is an "open file description lock" (fcntl_locking(2)): it conflicts between threads as between
/// processes, and goes away when the last descriptor of this description is closed, also by a crash.
/// `offset` must be below 2^63.
pub fn lock_byte(file: &File, offset: u64) -> Result<(), SysError> {
    let range = exclusive(offset)?;
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&range)) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("fcntl F_OFD_SETLKW", format!("byte {offset}"))(errno)),
        }
    }
}

/// The same without waiting; `false` if another description has it.
pub fn try_lock_byte(file: &File, offset: u64) -> Result<bool, SysError> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&exclusive(offset)?)) {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
        Err(errno) => Err(SysError::on("fcntl F_OFD_SETLK", format!("byte {offset}"))(errno)),
    }
}

fn exclusive(offset: u64) -> Result<libc::flock, SysError> {
    let start = i64::try_from(offset)
        .map_err(|_| SysError::on("fcntl F_OFD_SETLKW", offset.to_string())(nix::errno::Errno::EINVAL))?;
    Ok(libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: start,
        l_len: 1,
        // Must be zero for this kind of lock.
        l_pid: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_description_waits_and_another_byte_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let open = || File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        let (first, other, second) = (open(), open(), open());
        lock_byte(&first, 7).unwrap();
        lock_byte(&other, 8).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            lock_byte(&second, 7).unwrap();
            sender.send(()).unwrap();
        });
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        drop(first);
        receiver.recv().unwrap();
        waiter.join().unwrap();
    }
}
