//! The home directory of a user of a container.
use std::path::Path;

use crate::sys::root::Root;

/// Far more than any real one has; an image can bring its own.
const MAX_SIZE: usize = 1024 * 1024;

/// The home directory of `uid` in `/etc/passwd` of this process's root; None if it is not there, has none or cannot be
/// read.
pub(super) fn read(uid: u32) -> Option<Vec<u8>> {
    let root = Root::open_host("/".as_ref()).ok()?;
    let passwd = root.read_file_bounded(Path::new("etc/passwd"), MAX_SIZE).ok()?;
    find(&passwd, uid).map(<[u8]>::to_vec)
}

/// Field 6 of the first line whose field 3 is `uid` (passwd(5)).
fn find(passwd: &[u8], uid: u32) -> Option<&[u8]> {
    let uid = uid.to_string();
    let mut homes = passwd.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        (fields.nth(2)? == uid.as_bytes()).then(|| fields.nth(2)).flatten()
    });
    homes.next().filter(|home| !home.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_the_user_counts() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n\nshort:x:7\nb:x:10:1::/b:\nb:x:10:1::/c:\nnone:x:11:1:::\n:::::";
        assert_eq!(find(passwd, 0), Some(&b"/root"[..]));
        assert_eq!(find(passwd, 10), Some(&b"/b"[..]));
        for uid in [7, 11, 12] {
            assert_eq!(find(passwd, uid), None);
        }
        assert_eq!(find(b"last:x:5:5::/last", 5), Some(&b"/last"[..]));
    }
}
