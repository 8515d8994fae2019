//! Amazon resource names, and the short forms in which requests may name the same things.

/// Whose names they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Region.
    pub region: String,
    /// Account number.
    pub account: String,
}

impl Names {
    fn arn(&self, resource: std::fmt::Arguments<'_>) -> String {
        format!("arn:aws:ecs:{}:{}:{resource}", self.region, self.account)
    }

    /// `arn:aws:ecs:REGION:ACCOUNT:cluster/NAME`
    pub fn cluster(&self, name: &str) -> String {
        self.arn(format_args!("cluster/{name}"))
    }

    /// `arn:aws:ecs:REGION:ACCOUNT:task-definition/FAMILY:REVISION`
    pub fn definition(&self, family: &str, revision: u32) -> String {
        self.arn(format_args!("task-definition/{family}:{revision}"))
    }

    /// `arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID`
    pub fn task(&self, cluster: &str, id: &str) -> String {
        self.arn(format_args!("task/{cluster}/{id}"))
    }

    /// `arn:aws:ecs:REGION:ACCOUNT:container/CLUSTER/TASK/ID`
    pub fn container(&self, cluster: &str, task: &str, id: &str) -> String {
        self.arn(format_args!("container/{cluster}/{task}/{id}"))
    }

    /// `arn:aws:ecs:REGION:ACCOUNT:container-instance/CLUSTER/ID`
    pub fn instance(&self, cluster: &str, id: &str) -> String {
        self.arn(format_args!("container-instance/{cluster}/{id}"))
    }

    /// What stands behind `KIND/` in an ARN of ours; a text that is no ARN stands for itself. `None` for an ARN of
    /// another region, account or kind.
    pub fn strip<'t>(&self, kind: &str, text: &'t str) -> Option<&'t str> {
        if !text.starts_with("arn:") {
            return Some(text);
        }
        let rest = text.strip_prefix("arn:aws:ecs:")?.strip_prefix(self.region.as_str())?;
        rest.strip_prefix(':')?
            .strip_prefix(self.account.as_str())?
            .strip_prefix(':')?
            .strip_prefix(kind)?
            .strip_prefix('/')
    }

    /// The cluster, if it is said, and the id of `CLUSTER/ID`, `ID` or an ARN of that kind.
    pub fn strip_id<'t>(&self, kind: &str, text: &'t str) -> Option<(Option<&'t str>, &'t str)> {
        let rest = self.strip(kind, text)?;
        Some(match rest.split_once('/') {
            Some((cluster, id)) => (Some(cluster), id),
            None => (None, rest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_its_own_names_alone() {
        let names = Names { region: "eu-central-1".into(), account: "000000000000".into() };
        let arn = names.task("default", "0123");
        assert_eq!(arn, "arn:aws:ecs:eu-central-1:000000000000:task/default/0123");
        assert_eq!(names.strip_id("task", &arn), Some((Some("default"), "0123")));
        assert_eq!(names.strip_id("task", "0123"), Some((None, "0123")));
        assert_eq!(names.strip("cluster", "default"), Some("default"));
        assert_eq!(names.strip("cluster", &arn), None);
        assert_eq!(names.strip("task", "arn:aws:ecs:us-east-1:000000000000:task/default/0123"), None);
    }
}
