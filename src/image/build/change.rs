//! `--change`: instructions of a Dockerfile that say something of the configuration alone.
use crate::error::{ErrorKind, Kind};
use serde_json::{Map, Value, json};
use std::str::FromStr;

/// An instruction that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid change {text:?}: {reason}")]
pub struct ChangeError {
    text: String,
    reason: &'static str,
}

impl Kind for ChangeError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    Cmd(Vec<String>),
    Entrypoint(Vec<String>),
    Env(Vec<(String, String)>),
    /// `PORT/PROTOCOL`
    Expose(Vec<String>),
    Label(Vec<(String, String)>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

impl FromStr for Instruction {
    type Err = ChangeError;

    fn from_str(text: &str) -> Result<Instruction, ChangeError> {
        let fail = |reason| ChangeError { text: text.chars().take(200).collect(), reason };
        let trimmed = text.trim();
        let (word, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        let rest = rest.trim();
        let one = || match rest {
            "" => Err(fail("it lacks a value")),
            value => Ok(value.to_owned()),
        };
        let pairs = || pairs(rest).ok_or_else(|| fail("want KEY=VALUE"));
        let words = || match list(rest).or_else(|| words(rest)) {
            Some(words) if !words.is_empty() => Ok(words),
            _ => Err(fail("it lacks a value, or a quote is open")),
        };
        Ok(match word.to_ascii_uppercase().as_str() {
            "CMD" => Instruction::Cmd(command(rest)),
            "ENTRYPOINT" => Instruction::Entrypoint(command(rest)),
            "ENV" => Instruction::Env(pairs()?),
            "LABEL" => Instruction::Label(pairs()?),
            "EXPOSE" => Instruction::Expose(
                words()?
                    .iter()
                    .map(|port| exposed(port).ok_or_else(|| fail("want PORT[/tcp|udp|sctp]")))
                    .collect::<Result<_, _>>()?,
            ),
            "STOPSIGNAL" => Instruction::StopSignal(one()?),
            "USER" => Instruction::User(one()?),
            "VOLUME" => Instruction::Volume(words()?),
            "WORKDIR" => Instruction::Workdir(one()?),
            "HEALTHCHECK" | "ONBUILD" | "SHELL" => {
                return Err(fail("an OCI image configuration has no such field"));
            }
            _ => {
                return Err(fail(
                    "want CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR",
                ));
            }
        })
    }
}

impl Instruction {
    /// Follows it in the `config` object of an image configuration.
    pub(super) fn apply(&self, config: &mut Map<String, Value>) {
        match self {
            Instruction::Cmd(words) => drop(config.insert("Cmd".into(), json!(words))),
            Instruction::Entrypoint(words) => {
                // The words of the old one are no arguments of the new one.
                config.remove("Cmd");
                config.insert("Entrypoint".into(), json!(words));
            }
            Instruction::Env(pairs) => {
                let mut env: Vec<String> = strings(config.get("Env"));
                for (key, value) in pairs {
                    let prefix = format!("{key}=");
                    let entry = format!("{prefix}{value}");
                    match env.iter_mut().find(|known| known.starts_with(&prefix)) {
                        Some(known) => *known = entry,
                        None => env.push(entry),
                    }
                }
                config.insert("Env".into(), json!(env));
            }
            Instruction::Label(pairs) => {
                let labels = object(config, "Labels");
                labels.extend(pairs.iter().map(|(key, value)| (key.clone(), json!(value))));
            }
            Instruction::Expose(ports) => {
                object(config, "ExposedPorts").extend(ports.iter().map(|port| (port.clone(), json!({}))));
            }
            Instruction::Volume(paths) => {
                object(config, "Volumes").extend(paths.iter().map(|path| (path.clone(), json!({}))));
            }
            Instruction::StopSignal(signal) => drop(config.insert("StopSignal".into(), json!(signal))),
            Instruction::User(user) => drop(config.insert("User".into(), json!(user))),
            Instruction::Workdir(path) => {
                let before = config.get("WorkingDir").and_then(Value::as_str).filter(|dir| !dir.is_empty());
                let path = match path.starts_with('/') {
                    true => path.clone(),
                    false => format!("{}/{path}", before.unwrap_or("/").trim_end_matches('/')),
                };
                config.insert("WorkingDir".into(), json!(path));
            }
        }
    }
}

/// The texts of a JSON array.
pub(super) fn strings(value: Option<&Value>) -> Vec<String> {
    let texts = value.and_then(Value::as_array).into_iter().flatten();
    texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// The object under `key`, made if it is not there.
fn object<'a>(config: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it was made an object"),
    }
}

/// A JSON array of words, or a line for the shell.
fn command(text: &str) -> Vec<String> {
    match list(text) {
        Some(words) => words,
        None if text.is_empty() => Vec::new(),
        None => ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
    }
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// Words as a Dockerfile has them: quotes of both kinds, and a backslash before what is meant as it is.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().push(characters.next()?),
            (close, Some(open)) if close == open => quote = None,
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                quote = Some(character);
            }
            (space, None) if space.is_whitespace() => words.extend(word.take()),
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// `K=V K="V W"`, or `K V` as old Dockerfiles have it.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    let first = words.first()?;
    if !first.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| {
            let (key, value) = word.split_once('=')?;
            (!key.is_empty() && !key.contains('\0') && !value.contains('\0'))
                .then(|| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A port with its protocol.
fn exposed(text: &str) -> Option<String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let valid = |port: &str| matches!(port.parse::<u16>(), Ok(1..));
    (valid(first) && valid(last) && matches!(protocol, "tcp" | "udp" | "sctp"))
        .then(|| format!("{ports}/{protocol}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(instructions: &[&str]) -> Value {
        let mut config = Map::new();
        config.insert("Env".into(), json!(["PATH=/bin", "A=old"]));
        config.insert("Cmd".into(), json!(["old"]));
        for text in instructions {
            text.parse::<Instruction>().unwrap().apply(&mut config);
        }
        Value::Object(config)
    }

    #[test]
    fn instructions_change_the_configuration() {
        let config = after(&[
            r#"CMD ["/bin/app", "-v"]"#,
            r#"env A=1 B="two words" C=\"x"#,
            "ENV D four five",
            "LABEL a.b=c",
            "EXPOSE 80 53/udp",
            "VOLUME /data /more",
            r#"VOLUME ["/third"]"#,
            "WORKDIR /srv",
            "WORKDIR app",
            "USER 5:6",
            "STOPSIGNAL SIGINT",
        ]);
        assert_eq!(
            config,
            json!({
                "Cmd": ["/bin/app", "-v"],
                "Env": ["PATH=/bin", "A=1", "B=two words", "C=\"x", "D=four five"],
                "Labels": {"a.b": "c"},
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Volumes": {"/data": {}, "/more": {}, "/third": {}},
                "WorkingDir": "/srv/app",
                "User": "5:6",
                "StopSignal": "SIGINT",
            })
        );
    }

    #[test]
    fn an_entry_point_takes_the_old_words_away() {
        let config = after(&["ENTRYPOINT exec app"]);
        assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c", "exec app"]));
        assert_eq!(config.get("Cmd"), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "RUN true",
            "ENV",
            "ENV =x",
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 1/icmp",
            "USER",
            "LABEL a=\"b",
            "ONBUILD RUN x",
        ] {
            assert!(text.parse::<Instruction>().is_err(), "{text}");
        }
    }
}
