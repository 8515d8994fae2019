//! Resource limits and the out-of-memory score.
use super::SecurityError;
use crate::sys::SysError;
use crate::sys::rlimit::{self, Limit, Resource};
use nix::unistd::Pid;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Process};

/// Who sets the limits of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetBy {
    /// The process itself: at any later time the runtime might be refused, because prlimit(2) wants the same
    /// ids on both sides, or CAP_SYS_RESOURCE.
    #[default]
    Process,
    /// The runtime, for a process in a user namespace, which cannot raise its own hard limits. Whoever owns
    /// the namespace may set them at any time.
    Runtime,
}

/// `process.rlimits` and `process.oomScoreAdj`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Each resource at most once.
    pub limits: Vec<(Resource, Limit)>,
    /// -1000 to 1000; absent leaves what the caller has.
    pub oom_score_adj: Option<i32>,
    /// Who sets `limits`.
    pub set_by: SetBy,
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

fn name(resource: Resource) -> String {
    format!("RLIMIT_{}", format!("{resource:?}").to_uppercase())
}

impl Plan {
    /// Checks that no resource is named twice and no soft limit is above its hard limit.
    pub fn new(process: &Process, set_by: SetBy) -> Result<Plan, SecurityError> {
        let mut limits: Vec<(Resource, Limit)> = Vec::new();
        for (index, wanted) in process.rlimits().iter().flatten().enumerate() {
            let invalid =
                |reason| SecurityError::Invalid { field: format!("process.rlimits[{index}]"), reason };
            let (resource, limit) = entry(wanted);
            if limits.iter().any(|(seen, _)| *seen == resource) {
                return Err(invalid("the same type is limited twice"));
            }
            if limit.soft > limit.hard {
                return Err(invalid("the soft limit is above the hard limit"));
            }
            limits.push((resource, limit));
        }
        let oom_score_adj = process.oom_score_adj();
        if oom_score_adj.is_some_and(|value| !(-1000..=1000).contains(&value)) {
            return Err(SecurityError::Invalid {
                field: "process.oomScoreAdj".into(),
                reason: "not between -1000 and 1000",
            });
        }
        Ok(Plan { limits, oom_score_adj, set_by })
    }

    /// Hands the OOM score over to the process itself where its runtime is an ordinary user's: that may not
    /// write to a process that hides.
    pub fn take_own_oom_score(&mut self) -> Option<i32> {
        self.oom_score_adj.take_if(|_| !nix::unistd::geteuid().is_root())
    }

    /// The runtime's part, on a process that is being set up.
    pub fn apply_from_runtime(&self, pid: Pid) -> Result<(), SecurityError> {
        if let Some(value) = self.oom_score_adj {
            set_oom_score(&pid.to_string(), value)?;
        }
        match self.set_by {
            SetBy::Runtime => self.set(pid),
            SetBy::Process => Ok(()),
        }
    }

    /// The part of the process itself, while it is still the user that the runtime is.
    pub fn apply_own(&self) -> Result<(), SecurityError> {
        match self.set_by {
            SetBy::Process => self.set(Pid::from_raw(0)),
            SetBy::Runtime => Ok(()),
        }
    }

    fn set(&self, pid: Pid) -> Result<(), SecurityError> {
        for (resource, limit) in &self.limits {
            rlimit::set(pid, *resource, *limit).map_err(|source| SecurityError::Rlimit {
                name: name(*resource),
                soft: limit.soft,
                hard: limit.hard,
                source,
            })?;
        }
        Ok(())
    }
}

fn entry(limit: &PosixRlimit) -> (Resource, Limit) {
    (resource(limit.typ()), Limit { soft: limit.soft(), hard: limit.hard() })
}

/// `process` is a number, or `self`. Lowering it below what a process with CAP_SYS_RESOURCE last set needs that capability
/// (proc_pid_oom_score_adj(5)).
pub(in crate::runtime) fn set_oom_score(process: &str, value: i32) -> Result<(), SecurityError> {
    let path = format!("/proc/{process}/oom_score_adj");
    std::fs::write(&path, value.to_string())
        .map_err(SysError::io("write", path))
        .map_err(|source| SecurityError::OomScore { value, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan, SecurityError> {
        Plan::new(&serde_json::from_str(json).expect("test input"), SetBy::Process)
    }

    #[test]
    fn limits_are_read_with_their_numbers() {
        let plan = plan(
            r#"{"user": {}, "cwd": "/", "oomScoreAdj": 5,
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}, {"type": "RLIMIT_AS", "soft": 1, "hard": 18446744073709551615}]}"#,
        )
        .expect("valid");
        assert_eq!(plan.oom_score_adj, Some(5));
        assert_eq!(plan.limits[0], (Resource::Nofile, Limit { soft: 10, hard: 20 }));
        assert_eq!(plan.limits[1].1.hard, u64::MAX);
        assert_eq!(name(plan.limits[0].0), "RLIMIT_NOFILE");
    }

    #[test]
    fn bad_limits_name_their_field() {
        let twice = plan(
            r#"{"user": {}, "cwd": "/", "rlimits": [{"type": "RLIMIT_AS", "soft": 1, "hard": 2}, {"type": "RLIMIT_AS", "soft": 1, "hard": 2}]}"#,
        );
        assert_eq!(
            twice.expect_err("twice").to_string(),
            "process.rlimits[1]: the same type is limited twice"
        );
        let above =
            plan(r#"{"user": {}, "cwd": "/", "rlimits": [{"type": "RLIMIT_AS", "soft": 3, "hard": 2}]}"#);
        assert!(above.is_err());
        assert!(plan(r#"{"user": {}, "cwd": "/", "oomScoreAdj": 1001}"#).is_err());
    }
}
