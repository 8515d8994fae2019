//! Volumes: directories that outlive what is mounted from them.
//!
//! `<root>/volumes/<name>/data` is what a container sees. An anonymous volume is named like an id and
//! removed with its container.
use super::Engine;
use super::error::EngineError;
use super::names::Id;
use super::options::{Options, Volume, VolumeSource, parse};
use super::record::{directory_with_mode, private_directory, remove_tree};
use super::specgen::Bind;
use crate::sys::SysError;
use nix::errno::Errno;
use oci_spec::image::ImageConfiguration;
use std::path::{Path, PathBuf};

/// An image that asks for more is refused: each is a directory and a mount.
const MAX_IMAGE_VOLUMES: usize = 128;

/// Adds the volumes that the image asks for and the command line did not give another mount for, and gives
/// names to the anonymous ones.
///
/// # Errors
/// A path of the image that is not absolute, has a `..`, or lies where the kernel's file systems are
/// (CVE-2022-23648, CVE-2019-16884).
pub fn complete(options: &mut Options, image: &ImageConfiguration) -> Result<(), EngineError> {
    let asked = image.config().as_ref().and_then(|config| config.volumes().as_ref());
    let mut paths: Vec<&String> = asked.into_iter().flatten().collect();
    paths.sort();
    if paths.len() > MAX_IMAGE_VOLUMES {
        return Err(EngineError::Flag {
            flag: "the image's VOLUME",
            value: paths.len().to_string(),
            reason: "an image may have at most 128 volumes",
        });
    }
    for path in paths {
        let destination = parse::destination("the image's VOLUME", path)?;
        let kernels = ["/proc", "/sys", "/dev"];
        if kernels.iter().any(|own| Path::new(&destination).starts_with(own)) {
            return Err(EngineError::Flag {
                flag: "the image's VOLUME",
                value: path.clone(),
                reason: "a volume cannot lie in /proc, /sys or /dev",
            });
        }
        let given = options.volumes.iter().any(|volume| volume.destination == destination)
            || options.tmpfs.iter().any(|tmpfs| tmpfs.destination == destination)
            || options
                .task
                .mounts
                .iter()
                .any(|mount| Path::new(&mount.destination) == Path::new(&destination));
        if !given {
            let source = VolumeSource::Anonymous(None);
            options.volumes.push(Volume { source, destination, options: Vec::new(), copy_up: true });
        }
    }
    for volume in &mut options.volumes {
        if let VolumeSource::Anonymous(name @ None) = &mut volume.source {
            *name = Some(Id::generate()?.to_string());
        }
    }
    Ok(())
}

/// What is mounted, and which of the destinations the image's content is copied into first.
#[derive(Debug, Default)]
pub struct Mounted {
    /// The mounts.
    pub binds: Vec<Bind>,
    /// Destinations of empty volumes.
    pub copy_up: Vec<PathBuf>,
}

impl Engine {
    pub(super) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Makes the volumes of a container that are not there yet.
    pub fn mount_volumes(&self, options: &Options) -> Result<Mounted, EngineError> {
        let mut mounted = Mounted::default();
        for volume in &options.volumes {
            let source = match &volume.source {
                VolumeSource::Host(path) => host_source(path)?,
                VolumeSource::Named(name) | VolumeSource::Anonymous(Some(name)) => {
                    let data = self.make_volume(name)?;
                    if volume.copy_up && is_empty(&data)? {
                        mounted.copy_up.push(PathBuf::from(&volume.destination));
                    }
                    data
                }
                // `complete` named them.
                VolumeSource::Anonymous(None) => continue,
            };
            mounted.binds.push(Bind {
                source,
                destination: volume.destination.clone(),
                options: volume.options.clone(),
            });
        }
        Ok(mounted)
    }

    /// Where a volume's content is.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.volumes().join(name).join("data")
    }

    fn make_volume(&self, name: &str) -> Result<PathBuf, EngineError> {
        let directory = self.volumes().join(name);
        private_directory(&directory)?;
        let data = self.volume_data(name);
        directory_with_mode(&data, 0o755)?;
        Ok(data)
    }

    /// Removes a volume with its content; that it is gone is no error.
    pub fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        remove_tree(&self.volumes(), Path::new(name))
    }
}

/// A directory or file of the host must be there: docker's habit of making it hides misspelt paths.
fn host_source(path: &Path) -> Result<PathBuf, EngineError> {
    match path.metadata() {
        Ok(_) => Ok(path.to_owned()),
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Err(EngineError::Flag {
            flag: "--volume",
            value: path.display().to_string(),
            reason: "there is no such path on the host",
        }),
        Err(error) => Err(SysError::io("stat", path.display().to_string())(error).into()),
    }
}

fn is_empty(directory: &Path) -> Result<bool, EngineError> {
    let mut entries =
        std::fs::read_dir(directory).map_err(SysError::io("readdir", directory.display().to_string()))?;
    Ok(entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(volumes: &str) -> ImageConfiguration {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{{"Volumes":{volumes}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_images_volumes_are_added_unless_something_is_mounted_there() {
        let mut options = Options {
            volumes: vec![parse::volume("/host:/data").unwrap(), parse::volume("/mine").unwrap()],
            tmpfs: vec![parse::tmpfs("/cache").unwrap()],
            ..Options::default()
        };
        complete(&mut options, &image(r#"{"/data":{},"/cache/":{},"/log":{}}"#)).unwrap();
        let destinations: Vec<&str> =
            options.volumes.iter().map(|volume| volume.destination.as_str()).collect();
        assert_eq!(destinations, ["/data", "/mine", "/log"]);
        let named = |volume: &Volume| matches!(&volume.source, VolumeSource::Anonymous(Some(name)) if name.len() == 64);
        assert!(named(&options.volumes[1]) && named(&options.volumes[2]));
    }

    /// CVE-2022-23648: a volume path that leads out; CVE-2019-16884: one that covers /proc.
    #[test]
    fn cve_2022_23648_hostile_volume_paths() {
        for path in [
            "../../etc",
            "/../etc",
            "/a/../../b",
            "",
            "/",
            "relative",
            "/proc",
            "/proc/self",
            "/sys/fs",
            "/dev",
        ] {
            let volumes = serde_json::json!({ path: {} }).to_string();
            complete(&mut Options::default(), &image(&volumes)).expect_err(path);
        }
    }

    #[test]
    fn volumes_are_made_once_and_filled_while_they_are_empty() {
        let directory = tempfile::tempdir().unwrap();
        let engine = Engine::new(directory.path().into(), directory.path().join("state"));
        let options =
            Options { volumes: vec![parse::volume("cache:/cache:ro").unwrap()], ..Options::default() };
        let first = engine.mount_volumes(&options).unwrap();
        assert_eq!(first.copy_up, [PathBuf::from("/cache")]);
        assert_eq!(first.binds[0].options, ["ro"]);
        std::fs::write(first.binds[0].source.join("file"), b"x").unwrap();
        assert!(engine.mount_volumes(&options).unwrap().copy_up.is_empty());
        engine.remove_volume("cache").unwrap();
        engine.remove_volume("cache").unwrap();
        assert!(!first.binds[0].source.exists());
    }

    #[test]
    fn a_host_path_must_be_there() {
        let engine = Engine::new("/nowhere".into(), "/nowhere".into());
        let options =
            Options { volumes: vec![parse::volume("/does/not/exist:/x").unwrap()], ..Options::default() };
        assert!(engine.mount_volumes(&options).unwrap_err().to_string().contains("/does/not/exist"));
    }
}
