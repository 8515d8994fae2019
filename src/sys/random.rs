//! Random bytes from the kernel.
use super::SysError;
use nix::errno::Errno;

/// Fills `buffer` from the kernel's generator (getrandom(2); waits at boot until it is seeded).
pub fn fill(buffer: &mut [u8]) -> Result<(), SysError> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        // SAFETY: the pointer and the length are of one live, exclusively borrowed slice.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match Errno::result(got) {
            Ok(got) => done += usize::try_from(got).unwrap_or(0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("getrandom", "")(errno)),
        }
    }
    Ok(())
}
