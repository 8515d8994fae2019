//! Limits of config.json as values of cgroup files: pure, one list for v1 and one for v2.
use std::borrow::Cow;

use oci_spec::runtime::{LinuxHugepageLimit, LinuxRdma, LinuxThrottleDevice};

use super::host::{Controller, Version};
use super::{Error, Result};

pub(super) mod v1;
pub(super) mod v2;

/// What to do about a write that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tolerance {
    /// Nothing: the limit cannot be given.
    None,
    /// On EINVAL, try once more after all other writes: the kernel checks the value against another one, which
    /// a later write changes (a period that is too short for the old quota, a memory limit above the old swap).
    Again,
    /// A kernel without the file has no such limit to lift.
    Missing,
}

/// One value to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub controller: Controller,
    /// File and value; where the first file does not exist, the next is tried.
    pub targets: Vec<(Cow<'static, str>, String)>,
    pub tolerance: Tolerance,
}

/// A list of values in the order in which they are to be set.
#[derive(Debug, Default)]
pub(super) struct Sets(pub Vec<Set>);

impl Sets {
    fn add(&mut self, controller: Controller, file: impl Into<Cow<'static, str>>, value: impl ToString) {
        self.with(controller, file, value, Tolerance::None);
    }

    fn with(
        &mut self,
        controller: Controller,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
        tolerance: Tolerance,
    ) {
        self.0.push(Set { controller, targets: vec![(file.into(), value.to_string())], tolerance });
    }

    fn either(&mut self, controller: Controller, targets: [(&'static str, String); 2]) {
        let targets = targets.map(|(file, value)| (Cow::Borrowed(file), value)).into();
        self.0.push(Set { controller, targets, tolerance: Tolerance::None });
    }

    /// `hugetlb.2MB.limit_in_bytes` or `hugetlb.2MB.max`, and the same for reservations (Linux 5.7), without
    /// which a process that maps pages before it touches them gets SIGBUS instead of an error.
    fn hugepages(&mut self, limits: Option<&Vec<LinuxHugepageLimit>>, suffix: &str) -> Result<()> {
        for limit in limits.into_iter().flatten() {
            let size = limit.page_size();
            let digits = size.trim_end_matches("KB").trim_end_matches("MB").trim_end_matches("GB");
            // The size becomes a part of a file name.
            if digits.is_empty()
                || digits.len() == size.len()
                || !digits.bytes().all(|one| one.is_ascii_digit())
            {
                return Err(invalid("hugepageLimits.pageSize", format!("{size:?} is no size as 2MB or 1GB")));
            }
            let value = if limit.limit() < 0 { "max".to_owned() } else { limit.limit().to_string() };
            let value = if suffix == "max" { value } else { limit.limit().to_string() };
            self.add(Controller::Hugetlb, format!("hugetlb.{size}.{suffix}"), &value);
            self.with(
                Controller::Hugetlb,
                format!("hugetlb.{size}.rsvd.{suffix}"),
                &value,
                Tolerance::Missing,
            );
        }
        Ok(())
    }

    /// `rdma.max` is the same file on v1 and v2.
    fn rdma(&mut self, limits: Option<&std::collections::HashMap<String, LinuxRdma>>) {
        for (device, limit) in limits.into_iter().flatten() {
            let mut value = device.clone();
            if let Some(handles) = limit.hca_handles() {
                value.push_str(&format!(" hca_handle={handles}"));
            }
            if let Some(objects) = limit.hca_objects() {
                value.push_str(&format!(" hca_object={objects}"));
            }
            if value.len() > device.len() {
                self.add(Controller::Rdma, "rdma.max", value);
            }
        }
    }

    /// `pids.max`, the same file on v1 and v2. 0 is 1 as in runc: systemd has no 0, and a limit of 0 and of 1 are
    /// alike for a container, whose init is there before the limit counts.
    fn pids(&mut self, limit: Option<i64>) {
        match limit {
            None => {}
            Some(..=-1) => self.add(Controller::Pids, "pids.max", "max"),
            Some(limit) => self.add(Controller::Pids, "pids.max", limit.max(1)),
        }
    }
}

/// `8:0`.
fn device(major: i64, minor: i64) -> String {
    format!("{major}:{minor}")
}

/// The four lists of throttled devices with the names that each has on v1 and v2.
fn throttles(
    block: &oci_spec::runtime::LinuxBlockIo,
) -> impl Iterator<Item = (&'static str, &'static str, &LinuxThrottleDevice)> {
    let lists = [
        ("blkio.throttle.read_bps_device", "rbps", block.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", "wbps", block.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", "riops", block.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", "wiops", block.throttle_write_iops_device()),
    ];
    lists.into_iter().flat_map(|(v1, v2, list)| list.iter().flatten().map(move |one| (v1, v2, one)))
}

fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Invalid { field: field.into(), reason: reason.into() }
}

/// An error for a limit that this version does not have.
fn no_counterpart(field: &'static str, version: Version) -> Error {
    Error::NoCounterpart { field, version }
}

#[cfg(test)]
mod tests;
