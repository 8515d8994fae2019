//! Platforms: operating system, architecture and variant, in Go's names (`linux/arm64/v8`).

use crate::error::{ErrorKind, Kind};
use std::fmt;
use std::str::FromStr;

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {text:?}: want OS/ARCH[/VARIANT], such as linux/arm64")]
pub struct PlatformError {
    text: String,
}

impl Kind for PlatformError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// What an image runs on; names are normalised (`x86_64` is `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// A platform by its names, Go's or the kernel's.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let variant = variant.filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64", None),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "i486" | "i586" | "i686", variant) => ("386", variant),
            ("aarch64" | "arm64", Some("8" | "v8") | None) => ("arm64", None),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", Some("7") | None) => ("arm", Some("v7")),
            other => other,
        };
        Platform {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// The platform of this host, with the level of its CPU as the variant where variants are levels.
    pub fn host() -> Platform {
        let (architecture, variant) = host_architecture();
        Platform::new("linux", architecture, variant)
    }

    /// How well an image for `offered` runs on `self`: higher is better, `None` is not at all.
    pub fn suits(&self, offered: &Platform) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (level(self.variant.as_deref()), level(offered.variant.as_deref())) {
            // Levels of amd64 and arm include the ones below them.
            (Some(wanted), Some(offered)) if offered <= wanted => Some(1 + offered),
            (Some(_), Some(_)) => None,
            _ if self.variant == offered.variant => Some(1),
            _ => None,
        }
    }
}

/// `v3` is 3; no variant is the lowest level.
fn level(variant: Option<&str>) -> Option<u32> {
    match variant {
        None => Some(1),
        Some(variant) => variant.strip_prefix('v')?.parse().ok().filter(|level| *level < 100),
    }
}

#[cfg(target_arch = "x86_64")]
fn host_architecture() -> (&'static str, Option<&'static str>) {
    // The levels of the x86-64 psABI; a level is claimed only if its whole list is there, of which these are
    // the members that no processor has without the others.
    let v2 = is_x86_feature_detected!("sse4.2") && is_x86_feature_detected!("popcnt");
    let v3 = v2
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("movbe")
        && is_x86_feature_detected!("lzcnt");
    let v4 = v3
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let variant = match (v2, v3, v4) {
        (_, _, true) => Some("v4"),
        (_, true, _) => Some("v3"),
        (true, _, _) => Some("v2"),
        _ => None,
    };
    ("amd64", variant)
}

#[cfg(not(target_arch = "x86_64"))]
fn host_architecture() -> (&'static str, Option<&'static str>) {
    let architecture = match std::env::consts::ARCH {
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    };
    (architecture, None)
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let word = |part: &str| {
            (1..=32).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, architecture] if word(os) && word(architecture) => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] if word(os) && word(architecture) && word(variant) => {
                Ok(Platform::new(os, architecture, Some(variant)))
            }
            _ => Err(PlatformError { text: text.chars().take(96).collect() }),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_normalised() {
        for (text, want) in [
            ("linux/x86_64", "linux/amd64"),
            ("Linux/amd64/v1", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/i686", "linux/386"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(platform(text).to_string(), want);
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux/../x/y"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn suits_by_level() {
        let suits = |wanted: &str, offered: &str| platform(wanted).suits(&platform(offered));
        assert_eq!(suits("linux/amd64", "linux/arm64"), None);
        assert_eq!(suits("linux/amd64", "windows/amd64"), None);
        assert_eq!(suits("linux/amd64", "linux/amd64/v3"), None);
        assert!(suits("linux/amd64/v3", "linux/amd64/v2") > suits("linux/amd64/v3", "linux/amd64"));
        assert_eq!(suits("linux/amd64/v3", "linux/amd64/v4"), None);
        assert!(suits("linux/arm/v7", "linux/arm/v6").is_some());
        assert_eq!(suits("linux/arm/v6", "linux/arm/v7"), None);
        assert!(suits("linux/arm64", "linux/arm64/v8").is_some());
    }

    #[test]
    fn the_host_suits_itself() {
        let host = Platform::host();
        assert!(host.suits(&host).is_some());
        assert!(host.suits(&Platform::new("unknown", "unknown", None)).is_none());
    }
}
