//! Who a container's process is: `USER` of an image or `-u`, looked up in the image's own files.
use crate::engine::error::EngineError;
use crate::engine::options::{GroupsPolicy, TaskOptions};
use serde::{Deserialize, Serialize};

/// `/etc/passwd` and `/etc/group` are read up to this size (CVE of containerd, 2026-47262).
pub const MAX_FILE: usize = 10 * 1024 * 1024;

/// 2^32 - 1 means "no change" to chown(2) and setresuid(2).
const LAST_ID: u64 = 0xffff_fffe;

/// A process's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; the group id is always among them (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// Home directory, `/` if the user has no entry.
    pub home: String,
}

/// One half of `USER[:GROUP]`.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Id(u32),
    Name(&'a str),
}

/// One line of `/etc/passwd`.
struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Finds who `user` is; an empty string is root. Digits are an id and never a name, and a number out of
/// range is an error (CVE-2024-40635: it became root).
pub fn resolve(user: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, EngineError> {
    let wrong = |reason| EngineError::User { user: user.to_owned(), reason };
    let (user_part, group_part) = match user.split_once(':') {
        Some((_, group)) if group.contains(':') => return Err(wrong("it is written USER[:GROUP]")),
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let user_part = if user_part.is_empty() { Part::Id(0) } else { part(user_part).map_err(wrong)? };
    let entry = passwd_lines(passwd).find(|line| match user_part {
        Part::Id(uid) => line.uid == uid,
        Part::Name(name) => line.name == name,
    });
    let (uid, mut gid) = match (&user_part, &entry) {
        (Part::Id(uid), entry) => (*uid, entry.as_ref().map_or(0, |line| line.gid)),
        (Part::Name(_), Some(line)) => (line.uid, line.gid),
        (Part::Name(_), None) => return Err(wrong("there is no such user in the image's /etc/passwd")),
    };
    let mut groups = Vec::new();
    match group_part.filter(|group| !group.is_empty()) {
        Some(text) => {
            gid = match part(text).map_err(wrong)? {
                Part::Id(gid) => gid,
                Part::Name(name) => group_lines(group)
                    .find(|(listed, ..)| *listed == name)
                    .map(|(_, gid, _)| gid)
                    .ok_or_else(|| wrong("there is no such group in the image's /etc/group"))?,
            };
        }
        None => {
            if let Some(line) = &entry {
                groups.extend(listed(line.name, group));
            }
        }
    }
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|line| line.home).filter(|home| home.starts_with('/')).unwrap_or("/");
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

/// The same for a container of a task: groups that are given by number come on top of the user's in `group`, whether or
/// not the user's group was given too; or, if the policy is strict, in place of them (CRI, `supplemental_groups`).
pub fn resolve_in_task(
    user: &str,
    passwd: &[u8],
    group: &[u8],
    options: &TaskOptions,
) -> Result<Identity, EngineError> {
    let mut identity = resolve(user, passwd, group)?;
    let mut groups = options.groups.clone();
    if options.groups_policy == GroupsPolicy::Merge {
        let entry = passwd_lines(passwd).find(|line| line.uid == identity.uid);
        groups.extend(entry.iter().flat_map(|line| listed(line.name, group)));
    }
    groups.push(identity.gid);
    groups.sort_unstable();
    groups.dedup();
    identity.groups = groups;
    Ok(identity)
}

/// The groups that list a user.
fn listed<'a>(user: &'a str, group: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
    group_lines(group)
        .filter(move |(_, _, members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

/// Digits are an id and must be in range; anything that looks like a number otherwise is refused, as it
/// could be meant as one.
fn part(text: &str) -> Result<Part<'_>, &'static str> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u64>() {
            Ok(id) if id <= LAST_ID => Ok(Part::Id(u32::try_from(id).unwrap_or(u32::MAX))),
            _ => Err("an id is at most 4294967294"),
        };
    }
    if text.starts_with(|first: char| first.is_ascii_digit() || "+-".contains(first)) {
        return Err("a name does not begin with a digit or a sign");
    }
    if text.bytes().any(|byte| byte.is_ascii_whitespace() || byte == 0 || byte == b'/') {
        return Err("a name has no spaces and slashes");
    }
    Ok(Part::Name(text))
}

/// An id in a file, where a number out of range makes the line void.
fn id(text: &str) -> Option<u32> {
    match part(text) {
        Ok(Part::Id(id)) if !text.is_empty() => Some(id),
        _ => None,
    }
}

fn lines(content: &[u8]) -> impl Iterator<Item = &str> {
    content.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

fn passwd_lines(content: &[u8]) -> impl Iterator<Item = PasswdLine<'_>> {
    lines(content).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        Some(PasswdLine { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// Name, id and members.
fn group_lines(content: &[u8]) -> impl Iterator<Item = (&str, u32, &str)> {
    lines(content).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = id(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or_default().trim_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\nbroken\n\
        hostile:x:99999999999:0::/:\n4294967296:x:0:0::/:/bin/sh\n-1:x:0:0::/:\nrel:x:7:7::home:\n";
    const GROUP: &[u8] =
        b"root:x:0:root\nweb:x:34:\nextra:x:50:web,other\nother:x:51:webber\nwheel:x:10:root,web\n";

    fn ids(user: &str) -> (u32, u32, Vec<u32>) {
        let identity = resolve(user, PASSWD, GROUP).unwrap();
        (identity.uid, identity.gid, identity.groups)
    }

    #[test]
    fn every_form() {
        assert_eq!(ids(""), (0, 0, vec![0, 10]));
        assert_eq!(ids("root"), (0, 0, vec![0, 10]));
        assert_eq!(ids("web"), (33, 34, vec![10, 34, 50]));
        assert_eq!(ids("33"), (33, 34, vec![10, 34, 50]));
        assert_eq!(ids("1000"), (1000, 0, vec![0]));
        assert_eq!(ids("1"), (1, 0, vec![0]));
        assert_eq!(ids("1:"), (1, 0, vec![0]));
        assert_eq!(ids(":1"), (0, 1, vec![1]));
        assert_eq!(ids("web:extra"), (33, 50, vec![50]));
        assert_eq!(ids("web:7"), (33, 7, vec![7]));
        assert_eq!(ids("4294967294"), (4_294_967_294, 0, vec![0]));
        assert_eq!(resolve("web", PASSWD, GROUP).unwrap().home, "/srv");
        assert_eq!(resolve("rel", PASSWD, GROUP).unwrap().home, "/");
        assert_eq!(resolve("77", b"", b"").unwrap().home, "/");
    }

    /// CVE-2024-40635, CVE-2026-46680, CVE-2026-30892, CVE-2016-3697.
    #[test]
    fn cve_2024_40635_no_number_becomes_root() {
        for user in [
            "4294967295",
            "4294967296",
            "2147483648000",
            "99999999999999999999",
            "0x1",
            "-1",
            "+1",
            "1 ",
            " 1",
            "1:2:3",
            "1:-1",
            "1:4294967295",
            "hostile",
            "nobody",
            "web:nogroup",
            "1a",
            "root\0",
        ] {
            resolve(user, PASSWD, GROUP).expect_err(user);
        }
    }
}
