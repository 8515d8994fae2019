//! Which capabilities a container has.
use crate::engine::error::EngineError;
use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};
use std::collections::HashSet;

/// docker's and containerd's default set.
const DEFAULT: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The default set.
pub fn default_set() -> HashSet<Capability> {
    DEFAULT.into_iter().collect()
}

/// Reads a capability's name, with or without `CAP_`, in any case.
pub fn parse(name: &str) -> Result<Capability, EngineError> {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().map_err(|_| EngineError::Flag {
        flag: "--cap-add or --cap-drop",
        value: name.to_owned(),
        reason: "there is no capability of that name (see capabilities(7))",
    })
}

/// The bounding set: the default one, plus `add`, minus `drop`; a capability in both is dropped, one
/// that `ALL` covers can be taken out again by its name (moby, oci/caps).
///
/// `held` is what the caller has: `ALL` cannot mean more, and a default that it lacks is left out, as
/// nothing was asked for. What was asked for by name stays, so that creating the container fails.
pub fn bounding(
    add: &[String],
    drop: &[String],
    privileged: bool,
    held: &HashSet<Capability>,
) -> Result<HashSet<Capability>, EngineError> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let named = |list: &[String]| {
        list.iter().filter(|name| !is_all(name)).map(|name| parse(name)).collect::<Result<HashSet<_>, _>>()
    };
    let (added, dropped) = (named(add)?, named(drop)?);
    let mut set = if privileged || add.iter().any(is_all) {
        held.clone()
    } else if drop.iter().any(is_all) {
        HashSet::new()
    } else {
        default_set().intersection(held).copied().collect()
    };
    set.extend(added);
    set.retain(|capability| !dropped.contains(capability));
    Ok(set)
}

/// Reads a list of names.
pub fn named(list: &[String]) -> Result<HashSet<Capability>, EngineError> {
    list.iter().map(|name| parse(name)).collect()
}

/// The five sets of a process. Inheritable is empty (CVE-2022-24769) but for the ambient ones, which a program keeps
/// over execve and which are none unless they were asked for; a user other than root starts with no others
/// effective, as after execve(2) of a program without file capabilities.
pub fn sets(
    bounding: &HashSet<Capability>,
    uid: u32,
    ambient: &HashSet<Capability>,
) -> Result<LinuxCapabilities, EngineError> {
    let bounding: HashSet<Capability> = bounding.union(ambient).copied().collect();
    let active = if uid == 0 { bounding.clone() } else { ambient.clone() };
    LinuxCapabilitiesBuilder::default()
        .bounding(bounding)
        .effective(active.clone())
        .permitted(active)
        .inheritable(ambient.clone())
        .ambient(ambient.clone())
        .build()
        .map_err(|source| EngineError::Spec { part: "process.capabilities", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn everything() -> HashSet<Capability> {
        let mut all = default_set();
        all.extend([Capability::SysAdmin, Capability::NetAdmin]);
        all
    }

    #[test]
    fn names() {
        for name in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(parse(name).unwrap(), Capability::NetAdmin);
        }
        for name in ["", "ALL", "CAP_", "NET-ADMIN", "CAP_CAP_KILL"] {
            parse(name).unwrap_err();
        }
    }

    #[test]
    fn adding_and_dropping() {
        let of =
            |add: &[&str], drop: &[&str]| bounding(&list(add), &list(drop), false, &everything()).unwrap();
        assert_eq!(of(&[], &[]), default_set());
        assert!(of(&["NET_ADMIN"], &[]).contains(&Capability::NetAdmin));
        assert!(!of(&[], &["CHOWN"]).contains(&Capability::Chown));
        assert_eq!(of(&["CHOWN"], &["ALL"]), HashSet::from([Capability::Chown]));
        assert_eq!(of(&["all"], &[]), everything());
        assert!(!of(&["ALL"], &["SYS_ADMIN"]).contains(&Capability::SysAdmin));
        assert_eq!(of(&[], &["ALL"]), HashSet::new());
    }

    #[test]
    fn a_default_that_the_caller_lacks_is_left_out() {
        let held = HashSet::from([Capability::Chown]);
        assert_eq!(bounding(&[], &[], false, &held).unwrap(), held);
        assert_eq!(bounding(&[], &[], true, &held).unwrap(), held);
        assert!(bounding(&list(&["KILL"]), &[], false, &held).unwrap().contains(&Capability::Kill));
    }

    #[test]
    fn cve_2022_24769_inheritable_is_empty() {
        for uid in [0, 1000] {
            let sets = sets(&everything(), uid, &HashSet::new()).unwrap();
            assert_eq!(sets.inheritable().as_ref().map(HashSet::len), Some(0));
            assert_eq!(sets.ambient().as_ref().map(HashSet::len), Some(0));
            assert_eq!(sets.effective().as_ref().is_some_and(HashSet::is_empty), uid != 0);
        }
    }
}
