//! The security context of containers; pure.
use super::api::{
    LinuxContainerSecurityContext, NamespaceMode, SecurityProfile, security_profile::ProfileType,
};
use super::container_spec::Facts;
use super::error::{CriError, Result, invalid};
use super::sandbox_spec;
use crate::engine::options::Seccomp;
use std::path::PathBuf;

/// What cannot be had, and what contradicts itself or the pod.
pub fn check(context: &LinuxContainerSecurityContext, facts: &Facts<'_>) -> Result<()> {
    if context.privileged && !facts.sandbox.privileged {
        return invalid("privileged", "true", "the pod sandbox is not privileged");
    }
    if let Some(namespaces) = &context.namespace_options {
        sandbox_spec::check_namespaces(namespaces)?;
        let pod = &facts.sandbox.namespaces;
        // POD means what the pod has.
        for (field, asked, has) in [
            ("namespace_options.network", namespaces.network(), pod.network()),
            ("namespace_options.ipc", namespaces.ipc(), pod.ipc()),
        ] {
            if asked == NamespaceMode::Node && has != NamespaceMode::Node {
                return invalid(field, asked.as_str_name(), "the pod sandbox has one of its own");
            }
        }
    }
    if facts.selinux && context.selinux_options.as_ref().is_some_and(|options| *options != Default::default())
    {
        return Err(CriError::NotBuilt { what: "selinux_options", reason: "SELinux labels are not built" });
    }
    sandbox_spec::apparmor(context.apparmor.as_ref())?;
    // Kubelets before 1.30 said it so.
    #[expect(deprecated)]
    let profile = context.apparmor_profile.as_str();
    if context.apparmor.is_none() && profile.starts_with("localhost/") {
        return Err(CriError::NotBuilt {
            what: "apparmor_profile",
            reason: "profiles of the host are not built; use runtime/default or unconfined",
        });
    }
    Ok(())
}

/// The filter; none if nothing is said, as Kubernetes has it.
pub fn seccomp(context: &LinuxContainerSecurityContext) -> Result<Seccomp> {
    if let Some(profile) = &context.seccomp {
        return from_profile(profile);
    }
    // Kubelets before 1.19 said it so.
    #[expect(deprecated)]
    let path = context.seccomp_profile_path.as_str();
    match path {
        "" | "unconfined" => Ok(Seccomp::Unconfined),
        "runtime/default" | "docker/default" => Ok(Seccomp::Default),
        path => match path.strip_prefix("localhost/") {
            Some(path) => file("seccomp_profile_path", path),
            None => invalid("seccomp_profile_path", path, "it is unknown"),
        },
    }
}

fn from_profile(profile: &SecurityProfile) -> Result<Seccomp> {
    match ProfileType::try_from(profile.profile_type) {
        Ok(ProfileType::RuntimeDefault) => Ok(Seccomp::Default),
        Ok(ProfileType::Unconfined) => Ok(Seccomp::Unconfined),
        // A kubelet of old wrote the deprecated form into the new field.
        Ok(ProfileType::Localhost) => file(
            "seccomp",
            profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref),
        ),
        Err(_) => invalid("seccomp", profile.profile_type.to_string(), "there is no such type of profile"),
    }
}

fn file(field: &'static str, path: &str) -> Result<Seccomp> {
    if !path.starts_with('/') || path.contains('\0') {
        return invalid(field, path, "it is an absolute path");
    }
    Ok(Seccomp::File(PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles() {
        let new = |kind: ProfileType, path: &str| {
            let profile = SecurityProfile { profile_type: kind as i32, localhost_ref: path.into() };
            seccomp(&LinuxContainerSecurityContext { seccomp: Some(profile), ..Default::default() })
        };
        assert_eq!(new(ProfileType::RuntimeDefault, "").unwrap(), Seccomp::Default);
        assert_eq!(new(ProfileType::Unconfined, "").unwrap(), Seccomp::Unconfined);
        assert_eq!(new(ProfileType::Localhost, "/p.json").unwrap(), Seccomp::File("/p.json".into()));
        new(ProfileType::Localhost, "p.json").unwrap_err();
        #[expect(deprecated)]
        let old = |path: &str| {
            seccomp(&LinuxContainerSecurityContext {
                seccomp_profile_path: path.into(),
                ..Default::default()
            })
        };
        assert_eq!(old("").unwrap(), Seccomp::Unconfined);
        assert_eq!(old("runtime/default").unwrap(), Seccomp::Default);
        assert_eq!(old("localhost//p.json").unwrap(), Seccomp::File("/p.json".into()));
        old("default").unwrap_err();
    }
}
