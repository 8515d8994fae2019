//! `--filter` of `corten images`
use super::images::created;
use crate::image::reference::Reference;
use crate::image::store::{Image, Store};
use std::str::FromStr;

/// What must hold of an image; the words are docker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// A name of it matches: `*` and `?` stand for what is no slash.
    Reference(String),
    /// It has no name, or it has one.
    Dangling(bool),
    Label(String, Option<String>),
    Before(String),
    Since(String),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let (key, value) = text.split_once('=').ok_or("want KEY=VALUE")?;
        Ok(match key {
            "reference" => Filter::Reference(value.to_owned()),
            "dangling" => {
                Filter::Dangling(value.parse().map_err(|_| "want dangling=true or dangling=false")?)
            }
            "label" => match value.split_once('=') {
                Some((key, value)) => Filter::Label(key.to_owned(), Some(value.to_owned())),
                None => Filter::Label(value.to_owned(), None),
            },
            "before" => Filter::Before(value.to_owned()),
            "since" => Filter::Since(value.to_owned()),
            _ => return Err("want reference, dangling, label, before or since".to_owned()),
        })
    }
}

impl Filter {
    /// Leaves those images of which it holds.
    pub(super) fn apply(&self, store: &Store, images: &mut Vec<Image>) -> anyhow::Result<()> {
        match self {
            Filter::Reference(pattern) => {
                images.retain(|image| image.names.iter().any(|name| is_named(name, pattern)));
            }
            Filter::Dangling(dangling) => images.retain(|image| image.names.is_empty() == *dangling),
            Filter::Label(key, value) => images.retain(|image| {
                let labels = image.config.config().as_ref().and_then(|config| config.labels().as_ref());
                let found = labels.and_then(|labels| labels.get(key));
                found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }),
            Filter::Before(name) => {
                let time = created(&store.resolve(name)?);
                images.retain(|image| created(image) < time);
            }
            Filter::Since(name) => {
                let time = created(&store.resolve(name)?);
                images.retain(|image| created(image) > time);
            }
        }
        Ok(())
    }
}

/// Whether a pattern means a name: as docker shows it or whole, with its tag or without.
fn is_named(name: &Reference, pattern: &str) -> bool {
    let whole = format!("{}/{}", name.registry(), name.repository());
    let familiar = name.familiar();
    let short = super::images::split(name).0;
    let tagged = name.tag().map(|tag| format!("{whole}:{tag}"));
    [Some(whole), Some(familiar), Some(short), tagged]
        .into_iter()
        .flatten()
        .any(|text| matches(pattern.as_bytes(), text.as_bytes()))
}

/// `*` and `?` as in Go's path.Match, without classes.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Where the last star was, and how far the text was when it came: a match fails only there.
    let (mut at, mut done) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while done < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, done));
                at += 1;
            }
            Some(b'?') if text[done] != b'/' => (at, done) = (at + 1, done + 1),
            Some(&byte) if byte == text[done] && byte != b'?' => (at, done) = (at + 1, done + 1),
            _ => match star {
                Some((place, from)) if text[from] != b'/' => {
                    star = Some((place, from + 1));
                    (at, done) = (place + 1, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let yes = [
            ("busybox", "busybox"),
            ("busy*", "busybox"),
            ("*/app", "test/app"),
            ("a*c*e", "abcde"),
            ("a?c", "abc"),
            ("*", ""),
        ];
        let no = [("busy", "busybox"), ("*", "test/app"), ("a?c", "a/c"), ("a*e", "ab/de"), ("", "a")];
        for (pattern, text) in yes {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in no {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn names_match_whole_and_short() {
        let name: Reference = "busybox:1.36".parse().unwrap();
        for pattern in ["busybox", "busybox:1.*", "docker.io/library/busybox", "docker.io/*/busybox:1.36"] {
            assert!(is_named(&name, pattern), "{pattern}");
        }
        assert!(!is_named(&name, "busybox:2*"));
        assert!("dangling=yes".parse::<Filter>().is_err());
        assert!("size=1".parse::<Filter>().is_err());
    }
}
