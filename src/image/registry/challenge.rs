//! `WWW-Authenticate` (RFC 9110, section 11.6.1): what a registry wants to see before it answers.

/// The longest header that is read, in bytes.
const HEADER_MAX: usize = 8 << 10;

/// One challenge of a kind that this client can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A user name and a password.
    Basic,
    /// A token from a service (distribution's `spec/auth/token.md`).
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The challenges of one header value; unknown schemes and malformed rests are left out.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    if header.len() > HEADER_MAX {
        return challenges;
    }
    let mut rest = header;
    while let Some((scheme, parameters, next)) = challenge(rest) {
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let value = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if let Some(realm) = value("realm") {
                challenges.push(Challenge::Bearer {
                    realm,
                    service: value("service"),
                    scope: value("scope"),
                });
            }
        }
        rest = next;
    }
    challenges
}

type Parameters = Vec<(String, String)>;

/// The first challenge and what follows it.
fn challenge(text: &str) -> Option<(&str, Parameters, &str)> {
    let (scheme, mut rest) = token(text.trim_start_matches([' ', '\t', ',']))?;
    let mut parameters = Parameters::new();
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = token(start) else { break };
        // A word that no `=` follows is the scheme of the next challenge.
        let Some(after) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else { break };
        let Some((value, after)) = value(after.trim_start_matches([' ', '\t'])) else { break };
        parameters.push((name.to_owned(), value));
        rest = after;
    }
    Some((scheme, parameters, rest))
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some registries leave URLs unquoted.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges() {
        for (header, want) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/busybox:pull"),
                )],
            ),
            (r#"Basic realm="x""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (r#"Basic realm="x", Bearer realm="y""#, vec![Challenge::Basic, bearer("y", None, None)]),
            (r#"Bearer realm="y", Basic realm="x""#, vec![bearer("y", None, None), Challenge::Basic]),
            (r#"Negotiate, Bearer  realm = "y" , error="a, b\" c""#, vec![bearer("y", None, None)]),
            ("Bearer realm=https://a/b?c=d,service=s", vec![bearer("https://a/b?c=d", Some("s"), None)]),
            (r#"Bearer service="s""#, vec![]),
            (r#"Bearer realm="open"#, vec![]),
            (r#"Bearer realm="\"#, vec![]),
            ("", vec![]),
            (",,, ,", vec![]),
            ("=", vec![]),
            ("é", vec![]),
        ] {
            assert_eq!(parse(header), want, "{header}");
        }
        assert_eq!(parse(&format!("Basic realm=\"{}\"", "x".repeat(HEADER_MAX))), vec![]);
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic_or_loop(header in ".{0,80}") {
            parse(&header);
        }
    }
}
