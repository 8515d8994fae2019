//! `USER[:GROUP]`, /etc/passwd and /etc/group of an image, with an empty line between each.
#![no_main]
use corten::engine::specgen::user;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(3, "\n\n");
    let mut next = || parts.next().unwrap_or_default();
    let (who, passwd, group) = (next(), next(), next());
    let Ok(identity) = user::resolve(who, passwd.as_bytes(), group.as_bytes()) else { return };
    // setresuid(2) reads the largest number as "leave it": nobody may become that.
    assert_ne!((identity.uid, identity.gid), (u32::MAX, u32::MAX));
    // A number is never looked up as a name (CVE-2024-40635).
    let digits = who.split(':').next().unwrap_or_default();
    if let Ok(uid) = digits.parse::<u32>() {
        assert_eq!(identity.uid, uid);
    }
});
