//! Mount options of config.json: the table of runtime-spec (config.md, "Linux mount options") and what
//! runc takes beyond it.
use crate::sys::mount::{Attr, Change, Propagation, Scope};

/// The options of one mount, sorted by who takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// `bind` or `rbind`.
    pub bind: Option<Scope>,
    /// `remount`: change what is mounted there.
    pub remount: bool,
    /// Attributes of the mount to set, without the access time mode.
    pub set: Attr,
    /// Attributes that were explicitly taken away (`rw`, `dev`, …).
    pub clear: Attr,
    /// The access time mode and whether directories have one, if any option spoke of them.
    pub atime: Option<Atime>,
    /// Attributes for the whole tree of mounts (`rro`, `rnosuid`, …).
    pub recursive: Change,
    /// In the order given.
    pub propagation: Vec<(Propagation, Scope)>,
    /// Flags of the superblock.
    pub superblock: SuperFlags,
    /// Whether any option was one of a mount or superblock flag: a bind mount keeps the flags of its source
    /// only without.
    pub flags_given: bool,
    /// What the file system itself is to parse: `key` or `key=value`.
    pub data: Vec<String>,
    /// `tmpcopyup`: the tmpfs starts with the content of the directory that it covers.
    pub copy_up: bool,
    /// `idmap` or `ridmap`.
    pub idmap: Option<Scope>,
    /// What follows `idmap=` or `ridmap=`.
    pub id_mappings: Option<String>,
    /// crun's `src-nofollow`: a source that is a symbolic link is mounted itself.
    pub source_no_follow: bool,
    /// crun's `dest-nofollow`: a destination that is a symbolic link is mounted on itself.
    pub destination_no_follow: bool,
    /// crun's `copy-symlink`: a source that is a symbolic link is made anew at the destination.
    pub copy_symlink: bool,
}

/// Flags of a superblock.
///
/// `iversion`, `silent` and `acl` and their opposites are not here: they are accepted and change nothing.
/// The mount API has no way to pass them; file systems count inode versions by themselves since Linux 6.2
/// at the latest, `silent` only spares the kernel's log, and whether there are ACLs the file system decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SuperFlags {
    /// Write synchronously.
    pub sync: bool,
    /// Write directories synchronously.
    pub dirsync: bool,
    /// Keep time stamps in memory.
    pub lazytime: bool,
    /// Mandatory locks (without effect since Linux 5.15).
    pub mand: bool,
}

impl SuperFlags {
    /// The names by which fsconfig(2) knows those that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [(self.sync, "sync"), (self.dirsync, "dirsync"), (self.lazytime, "lazytime"), (self.mand, "mand")]
            .into_iter()
            .filter_map(|(set, name)| set.then_some(name))
    }
}

/// Which access times are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Atime {
    strict: bool,
    none: bool,
    no_directories: bool,
}

impl Atime {
    /// The attributes, within `Attr::ATIME | Attr::NODIRATIME`. As in mount(2), `strictatime` overrides
    /// `noatime`, and `relatime` is the default.
    pub fn attr(self) -> Attr {
        let mode = if self.strict {
            Attr::STRICTATIME
        } else if self.none {
            Attr::NOATIME
        } else {
            Attr::RELATIME
        };
        if self.no_directories { mode | Attr::NODIRATIME } else { mode }
    }
}

/// All attributes that options can set, the access times aside.
const FLAGS: Attr =
    Attr::RDONLY.union(Attr::NOSUID).union(Attr::NODEV).union(Attr::NOEXEC).union(Attr::NOSYMFOLLOW);

/// The names of all options that [`MountOptions::parse`] takes itself, sorted: `features` prints them.
pub const KNOWN: &[&str] = &[
    "acl",
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dest-nofollow",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "src-nofollow",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

impl MountOptions {
    /// Sorts the options of one mount. Whatever is not known here is for the file system.
    pub fn parse<'o>(options: impl IntoIterator<Item = &'o str>) -> MountOptions {
        let mut parsed = MountOptions::default();
        for option in options {
            let known = parsed.take_kind(option)
                || parsed.take_flag(option)
                || parsed.take_atime(option)
                || parsed.take_superblock(option)
                || parsed.take_recursive(option)
                || parsed.take_propagation(option);
            if !known {
                // The kernel separates options by commas too.
                parsed.data.extend(option.split(',').filter(|part| !part.is_empty()).map(str::to_owned));
            }
        }
        parsed
    }

    fn take_kind(&mut self, option: &str) -> bool {
        match option {
            "bind" => self.bind = self.bind.or(Some(Scope::Mount)),
            "rbind" => self.bind = Some(Scope::Tree),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(Scope::Mount),
            "ridmap" => self.idmap = Some(Scope::Tree),
            "src-nofollow" => self.source_no_follow = true,
            "dest-nofollow" => self.destination_no_follow = true,
            "copy-symlink" => self.copy_symlink = true,
            "defaults" | "" => {}
            _ => return self.take_id_mappings(option),
        }
        true
    }

    fn take_id_mappings(&mut self, option: &str) -> bool {
        let (scope, mappings) = match option.split_once('=') {
            Some(("idmap", mappings)) => (Scope::Mount, mappings),
            Some(("ridmap", mappings)) => (Scope::Tree, mappings),
            _ => return false,
        };
        self.idmap = Some(scope);
        self.id_mappings = Some(mappings.to_owned());
        true
    }

    fn take_flag(&mut self, option: &str) -> bool {
        let (flag, set) = match option {
            "ro" => (Attr::RDONLY, true),
            "rw" => (Attr::RDONLY, false),
            "nosuid" => (Attr::NOSUID, true),
            "suid" => (Attr::NOSUID, false),
            "nodev" => (Attr::NODEV, true),
            "dev" => (Attr::NODEV, false),
            "noexec" => (Attr::NOEXEC, true),
            "exec" => (Attr::NOEXEC, false),
            "nosymfollow" => (Attr::NOSYMFOLLOW, true),
            "symfollow" => (Attr::NOSYMFOLLOW, false),
            _ => return false,
        };
        self.flags_given = true;
        // The last one wins.
        if set {
            self.set |= flag;
            self.clear = self.clear & !flag;
        } else {
            self.clear |= flag;
            self.set = self.set & !flag;
        }
        true
    }

    fn take_atime(&mut self, option: &str) -> bool {
        let mut atime = self.atime.unwrap_or_default();
        match option {
            "noatime" => atime.none = true,
            "atime" => atime.none = false,
            "strictatime" => atime.strict = true,
            "nostrictatime" => atime.strict = false,
            "nodiratime" => atime.no_directories = true,
            "diratime" => atime.no_directories = false,
            // The default; taking it away leaves what the others say.
            "relatime" | "norelatime" => {}
            _ => return false,
        }
        self.atime = Some(atime);
        self.flags_given = true;
        true
    }

    fn take_superblock(&mut self, option: &str) -> bool {
        let flags = &mut self.superblock;
        match option {
            "sync" => flags.sync = true,
            "async" => flags.sync = false,
            "dirsync" => flags.dirsync = true,
            "lazytime" => flags.lazytime = true,
            "nolazytime" => flags.lazytime = false,
            "mand" => flags.mand = true,
            "nomand" => flags.mand = false,
            "iversion" | "noiversion" | "silent" | "loud" | "acl" | "noacl" => {}
            _ => return false,
        }
        self.flags_given = true;
        true
    }

    fn take_recursive(&mut self, option: &str) -> bool {
        let (flag, set) = match option {
            "rro" => (Attr::RDONLY, true),
            "rrw" => (Attr::RDONLY, false),
            "rnosuid" => (Attr::NOSUID, true),
            "rsuid" => (Attr::NOSUID, false),
            "rnodev" => (Attr::NODEV, true),
            "rdev" => (Attr::NODEV, false),
            "rnoexec" => (Attr::NOEXEC, true),
            "rexec" => (Attr::NOEXEC, false),
            "rnosymfollow" => (Attr::NOSYMFOLLOW, true),
            "rsymfollow" => (Attr::NOSYMFOLLOW, false),
            "rnodiratime" => (Attr::NODIRATIME, true),
            "rdiratime" => (Attr::NODIRATIME, false),
            "rnoatime" => (Attr::NOATIME, true),
            "rstrictatime" => (Attr::STRICTATIME, true),
            "rrelatime" | "ratime" | "rnostrictatime" | "rnorelatime" => (Attr::RELATIME, true),
            _ => return false,
        };
        let change = &mut self.recursive;
        let is_atime_mode = Attr::ATIME.contains(flag);
        if is_atime_mode {
            // mount_setattr(2): the mode changes only if all its bits are cleared first.
            change.clear |= Attr::ATIME;
            change.set = (change.set & !Attr::ATIME) | flag;
        } else if set {
            change.set |= flag;
            change.clear = change.clear & !flag;
        } else {
            change.clear |= flag;
            change.set = change.set & !flag;
        }
        true
    }

    fn take_propagation(&mut self, option: &str) -> bool {
        let Some(propagation) = propagation(option) else { return false };
        self.propagation.push(propagation);
        true
    }

    /// The attributes of a fresh mount.
    pub fn attr(&self) -> Attr {
        self.set | self.atime.unwrap_or_default().attr()
    }

    /// What to change on the copy of a bind mount's source. As in runc, and unlike mount(8), any flag
    /// replaces all of them; access times stay unless an option speaks of them (mount(2), MS_REMOUNT).
    pub fn bind_change(&self) -> Change {
        if !self.flags_given {
            return Change::default();
        }
        let mut change = Change { set: self.set, clear: FLAGS & !self.set, propagation: None };
        if let Some(atime) = self.atime {
            change.set |= atime.attr();
            change.clear |= Attr::ATIME | Attr::NODIRATIME;
        }
        change
    }

    /// The same without what was not asked for: in a user namespace the flags that the host's mount has are
    /// locked (mount_namespaces(7)), and clearing one of them is refused.
    pub fn bind_change_locked(&self) -> Change {
        let mut change = Change { set: self.set, clear: self.clear, propagation: None };
        if let Some(atime) = self.atime {
            change.set |= atime.attr();
            change.clear |= Attr::ATIME;
        }
        change
    }

    /// Whether an option of the file system is `key` or `key=…`.
    pub fn has_data(&self, key: &str) -> bool {
        self.data.iter().any(|option| option.split('=').next() == Some(key))
    }
}

/// The value of a propagation option, or of `linux.rootfsPropagation`.
pub fn propagation(option: &str) -> Option<(Propagation, Scope)> {
    Some(match option {
        "private" => (Propagation::Private, Scope::Mount),
        "rprivate" => (Propagation::Private, Scope::Tree),
        "shared" => (Propagation::Shared, Scope::Mount),
        "rshared" => (Propagation::Shared, Scope::Tree),
        "slave" => (Propagation::Slave, Scope::Mount),
        "rslave" => (Propagation::Slave, Scope::Tree),
        "unbindable" => (Propagation::Unbindable, Scope::Mount),
        "runbindable" => (Propagation::Unbindable, Scope::Tree),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
