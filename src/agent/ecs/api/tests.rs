use super::*;
use crate::agent::ecs::definition::Definition;

fn message<T: DeserializeOwned>(body: &str) -> String {
    match parse::<T>(body.as_bytes()) {
        Ok(_) => panic!("{body} was taken"),
        Err(error) => format!("{} {}", error.exception.name(), error.message),
    }
}

#[test]
fn tells_unknown_members_by_their_path() {
    let container = r#"{"name": "a", "image": "b", "portMappings": [{"containerPort": 80, "x": 1}]}"#;
    let text = format!(r#"{{"family": "f", "containerDefinitions": [{container}]}}"#);
    assert_eq!(
        message::<Definition>(&text),
        "ClientException containerDefinitions[0].portMappings[0].x: this parameter is not known or not supported"
    );
    let linked = r#"{"family": "f", "containerDefinitions": [{"name": "a", "image": "b", "links": ["c"]}]}"#;
    assert_eq!(
        message::<Definition>(linked),
        "ClientException containerDefinitions[0].links[0]: is not supported"
    );
    assert_eq!(
        message::<Page>(r#"{"maxResults": "1"}"#),
        "ClientException maxResults: invalid type: string \"1\", expected i64"
    );
    assert!(message::<Page>("{").starts_with("SerializationException "));
    assert!(message::<Page>(&"[".repeat(100_000)).starts_with("SerializationException "));
}

#[test]
fn a_null_is_as_good_as_nothing() {
    let page = parse::<Page>(br#"{"maxResults": null, "other": null}"#).unwrap();
    assert_eq!(page.max_results, None);
    assert!(parse::<Page>(b"").is_ok());
}

#[test]
fn pages_follow_each_other() {
    let items = || (0..25).map(|at| (format!("{at:02}"), at)).collect::<Vec<_>>();
    let (first, token) = page(items(), None, Some(10)).unwrap();
    assert_eq!(first, (0..10).collect::<Vec<_>>());
    let (second, token) = page(items(), token.as_deref(), Some(10)).unwrap();
    assert_eq!(second, (10..20).collect::<Vec<_>>());
    // The item that the token names is gone: the page goes on behind it.
    let rest: Vec<_> = items().into_iter().filter(|(key, _)| key != "19").collect();
    let (third, end) = page(rest, token.as_deref(), Some(10)).unwrap();
    assert_eq!((third, end), ((20..25).collect::<Vec<_>>(), None));
    for (token, most) in [(None, Some(0)), (None, Some(101)), (Some("!"), None)] {
        assert!(page(items(), token, most).is_err());
    }
}

#[test]
fn tags_are_checked() {
    let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
    assert_eq!(check_tags(&[tag("a", ""), tag("b:c", "d e")]), Ok(()));
    for wrong in
        [vec![tag("", "x")], vec![tag("a", "{")], vec![tag("AWS:x", "")], vec![tag("a", ""), tag("a", "")]]
    {
        assert!(check_tags(&wrong).is_err(), "{wrong:?}");
    }
}
