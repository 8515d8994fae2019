//! Mounts and devices of containers.
use super::api;
use super::error::{CriError, Result, invalid};
use crate::engine::options::{Device, HostMount, MountAccess, Propagation, parse};
use crate::sys::SysError;
use std::path::{Path, PathBuf};

/// One mount; pure.
pub fn mount(given: &api::Mount) -> Result<HostMount> {
    let not_built = |what, reason| Err(CriError::NotBuilt { what, reason });
    if given.image.is_some() || !given.image_sub_path.is_empty() {
        return not_built("mounts.image", "images as volumes are not built");
    }
    if !given.uid_mappings.is_empty() || !given.gid_mappings.is_empty() {
        return not_built("mounts.uidMappings", "mounts with mapped owners are not built");
    }
    if !given.mount_options.is_empty() {
        return not_built("mounts.mount_options", "options of mounts are not built");
    }
    let propagation = match api::MountPropagation::try_from(given.propagation) {
        Ok(api::MountPropagation::PropagationPrivate) => Propagation::Private,
        Ok(api::MountPropagation::PropagationHostToContainer) => Propagation::HostToContainer,
        Ok(api::MountPropagation::PropagationBidirectional) => Propagation::Bidirectional,
        Err(_) => {
            return invalid("mounts.propagation", given.propagation.to_string(), "there is no such kind");
        }
    };
    let access = match (given.readonly, given.recursive_read_only) {
        (false, true) => {
            return invalid("mounts.recursive_read_only", &given.container_path, "it needs readonly");
        }
        (true, true) if propagation != Propagation::Private => {
            return invalid(
                "mounts.recursive_read_only",
                &given.container_path,
                "it needs private propagation, or mounts that come later could be written",
            );
        }
        (true, true) => MountAccess::RecursiveReadOnly,
        (true, false) => MountAccess::ReadOnly,
        (false, false) => MountAccess::ReadWrite,
    };
    Ok(HostMount {
        source: absolute("mounts.host_path", &given.host_path)?,
        destination: destination(&given.container_path)?,
        access,
        propagation,
    })
}

/// A path in the container.
fn destination(path: &str) -> Result<String> {
    Ok(parse::destination("container_path", path)?)
}

fn absolute(field: &'static str, path: &str) -> Result<PathBuf> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > 4095 {
        return invalid(field, path, "it is an absolute path");
    }
    Ok(PathBuf::from(path))
}

/// One device; pure.
pub fn device(given: &api::Device) -> Result<Device> {
    let access = if given.permissions.is_empty() { "rwm" } else { &given.permissions };
    if access.len() > 3 || !access.bytes().all(|letter| b"rwm".contains(&letter)) {
        return invalid("devices.permissions", access, "they are some of r, w and m");
    }
    let inside = if given.container_path.is_empty() { &given.host_path } else { &given.container_path };
    Ok(Device {
        source: absolute("devices.host_path", &given.host_path)?,
        destination: destination(inside)?,
        access: access.to_owned(),
    })
}

/// Makes what a mount lacks on the host, as a directory: kubelets rely on it, as containerd and CRI-O do so. The
/// paths are those of whoever administers the node.
pub fn make_source(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(std::fs::create_dir_all(path).map_err(SysError::io("mkdir", path.display().to_string()))?)
        }
        Err(error) => Err(SysError::io("stat", path.display().to_string())(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(change: impl FnOnce(&mut api::Mount)) -> Result<HostMount> {
        let mut given =
            api::Mount { host_path: "/h".into(), container_path: "/c//d/".into(), ..api::Mount::default() };
        change(&mut given);
        mount(&given)
    }

    #[test]
    fn kinds_of_access() {
        assert_eq!(of(|_| ()).unwrap().destination, "/c/d");
        assert_eq!(of(|given| given.readonly = true).unwrap().access, MountAccess::ReadOnly);
        let recursive = |given: &mut api::Mount| {
            given.readonly = true;
            given.recursive_read_only = true;
        };
        assert_eq!(of(recursive).unwrap().access, MountAccess::RecursiveReadOnly);
        of(|given| given.recursive_read_only = true).unwrap_err();
        of(|given| {
            recursive(given);
            given.set_propagation(api::MountPropagation::PropagationHostToContainer);
        })
        .unwrap_err();
    }

    #[test]
    fn what_is_refused() {
        of(|given| given.host_path = "h".into()).unwrap_err();
        of(|given| given.container_path = "/a/../b".into()).unwrap_err();
        of(|given| given.container_path = "a".into()).unwrap_err();
        of(|given| given.propagation = 9).unwrap_err();
        let image = of(|given| given.image = Some(api::ImageSpec::default())).unwrap_err();
        assert!(matches!(image, CriError::NotBuilt { .. }));
    }

    #[test]
    fn devices() {
        let given = api::Device { host_path: "/dev/fuse".into(), ..api::Device::default() };
        let device = super::device(&given).unwrap();
        assert_eq!((device.destination.as_str(), device.access.as_str()), ("/dev/fuse", "rwm"));
        super::device(&api::Device { permissions: "rx".into(), ..given }).unwrap_err();
    }
}
