//! Refusals, challenges and redirects: where a registry sends its client, and what it wants to be told there.

use crate::table::{Lie, Row, TAG, row};
use runtime_tests::registry::Answer;

pub fn rows() -> Vec<Row> {
    statuses().into_iter().chain(redirects()).chain(challenges()).chain(tokens()).collect()
}

fn error(status: u16, code: &str) -> Answer {
    let text = format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#);
    Answer { status, ..Answer::new("application/json", text) }
}

fn statuses() -> Vec<Row> {
    vec![
        row("an unknown repository", &["no such repository"], |lie| lie.tag(error(404, "NAME_UNKNOWN"))),
        row("an unknown manifest", &["does not have it"], |lie| lie.tag(error(404, "MANIFEST_UNKNOWN"))),
        row("an unknown layer", &["does not have it", "{0}"], |lie| lie.blob(0, error(404, "BLOB_UNKNOWN"))),
        row("an unknown configuration", &["does not have it", "{config}"], |lie| {
            lie.blob(2, Answer::status(404));
        }),
        row("server errors for ever", &["status 503"], |lie| lie.tag(Answer::status(503))),
        row("server errors for a layer", &["status 500", "{0}"], |lie| lie.blob(0, Answer::status(500))),
        row("to be asked again tomorrow", &["86400 seconds", "too long to wait"], |lie| {
            lie.tag(Answer::status(429).header("Retry-After: 86400"));
        }),
        row("to be asked again at the end of time", &["too long to wait"], |lie| {
            lie.tag(Answer::status(503).header("Retry-After: 18446744073709551615"));
        }),
        row("an error that is a terminal's commands", &["access denied"], |lie| {
            let text = r#"{"errors":[{"code":"DENIED","message":"\u001b[2J\u0007\r\nError: all is well"}]}"#;
            lie.tag(Answer { status: 403, ..Answer::new("application/json", text) });
        }),
    ]
}

fn to(lie: &mut Lie, status: u16, location: &str) {
    lie.tag(Answer::status(status).header(format!("Location: {location}")));
}

fn redirects() -> Vec<Row> {
    let url = &["bad URL"];
    vec![
        row("a redirect to itself", &["more than 5 redirects"], |lie| to(lie, 307, TAG)),
        row("a redirect of a layer to itself", &["more than 5 redirects", "{0}"], |lie| {
            let path = format!("/v2/t/app/blobs/{}", lie.image.blobs[0].0);
            lie.blob(0, Answer::status(302).header(format!("Location: {path}")));
        }),
        row("redirects in a ring", &["more than 5 redirects"], |lie| {
            to(lie, 301, "/a");
            lie.site.insert("/a".to_owned(), Answer::status(308).header(format!("Location: {TAG}")));
        }),
        row("a redirect to nowhere", &["t/app:v"], |lie| lie.tag(Answer::status(307))),
        row("a redirect to a file", url, |lie| to(lie, 307, "file:///etc/shadow")),
        row("a redirect to another protocol", url, |lie| to(lie, 307, "ftp://127.0.0.1/x")),
        row("a redirect with credentials", &["bad URL", "carries credentials"], |lie| {
            let location = format!("http://a:b@{}/x", lie.third);
            to(lie, 307, &location);
        }),
        row("a redirect in the clear", &["http://192.0.2.1", "is not encrypted"], |lie| {
            to(lie, 307, "http://192.0.2.1/x");
        }),
        row("a redirect in the clear without a scheme", &["http://192.0.2.1", "is not encrypted"], |lie| {
            to(lie, 302, "//192.0.2.1/x");
        }),
        row("a redirect of a layer in the clear", &["is not encrypted", "{0}"], |lie| {
            lie.blob(0, Answer::status(307).header("Location: http://192.0.2.1/x"));
        }),
        row("a redirect to somebody without it", &["does not have it"], |lie| {
            let location = format!("http://{}/x", lie.third);
            to(lie, 307, &location);
        }),
        row("two places at once", &["does not have it"], |lie| {
            lie.tag(Answer::status(307).header("Location: /a").header("Location: http://192.0.2.1/x"));
        }),
    ]
}

fn challenges() -> Vec<Row> {
    let unsupported = &["authentication that is not supported"];
    vec![
        row("a refusal without a challenge", unsupported, |lie| lie.tag(Answer::status(401))),
        row("a challenge of another kind", unsupported, |lie| {
            lie.tag(Answer::status(401).header("Www-Authenticate: Negotiate x"));
        }),
        row("a challenge without its end", unsupported, |lie| {
            lie.tag(Answer::status(401).header("Www-Authenticate: Bearer realm=\"http://x"));
        }),
        row("a challenge that is never met", &["unauthorized"], |lie| {
            lie.tag(Answer::status(401).header("Www-Authenticate: Basic realm=\"x\""));
        }),
        row("a challenge for a layer that is never met", &["unauthorized", "{0}"], |lie| {
            lie.blob(0, Answer::status(401).header("Www-Authenticate: Basic realm=\"x\""));
        }),
        row("a challenge after a redirect", &["unauthorized"], |lie| {
            to(lie, 307, "/x");
            lie.site
                .insert("/x".to_owned(), Answer::status(401).header("Www-Authenticate: Basic realm=\"x\""));
        }),
        row("a realm in the clear", &["http://192.0.2.1", "is not encrypted"], |lie| {
            lie.realm("http://192.0.2.1/token");
        }),
        row("a realm that is a file", &["bad URL"], |lie| lie.realm("file:///etc/shadow")),
        row("a realm with credentials", &["bad URL", "carries credentials"], |lie| {
            let realm = format!("http://a:b@{}/token", lie.third);
            lie.realm(&realm);
        }),
        row("a realm that is no URL", &["bad URL"], |lie| lie.realm("token")),
        row("a realm elsewhere, whose token is no good", &["unauthorized"], |lie| {
            let realm = format!("http://{}/token", lie.third);
            lie.realm(&realm);
        }),
    ]
}

fn tokens() -> Vec<Row> {
    fn text(lie: &mut Lie, text: &str) {
        lie.token(Answer::new("application/json", text));
    }
    vec![
        row("a token that is no JSON", &["is not a token"], |lie| text(lie, "x")),
        row("no token", &["token"], |lie| text(lie, "{}")),
        row("an empty token", &["token"], |lie| text(lie, r#"{"token":""}"#)),
        row("a token that is a number", &["is not a token"], |lie| text(lie, r#"{"token":1}"#)),
        row("a token of two lines", &["token"], |lie| text(lie, r#"{"token":"a\r\nHost: evil"}"#)),
        row("a token with a NUL", &["token"], |lie| text(lie, r#"{"token":"a\u0000"}"#)),
        row("a token that is not UTF-8", &["is not a token"], |lie| {
            lie.token(Answer::new("application/json", b"{\"token\":\"\xff\"}".to_vec()));
        }),
        row("two tokens", &["is not a token"], |lie| text(lie, r#"{"token":"a","token":"b"}"#)),
        row("a token that is no good", &["unauthorized"], |lie| text(lie, r#"{"token":"abc"}"#)),
        row("a token service that wants a token", &["token", "unauthorized"], |lie| {
            let here = lie.here;
            let challenge = format!(r#"Www-Authenticate: Bearer realm="http://{here}/token""#);
            lie.token(Answer::status(401).header(challenge));
        }),
        row("a token service that fails", &["token", "status 500"], |lie| lie.token(Answer::status(500))),
        row("a token service that redirects to itself", &["token", "more than 5 redirects"], |lie| {
            lie.token(Answer::status(307).header("Location: /token"));
        }),
        row("a token service that is somebody else after a redirect", &["unauthorized"], |lie| {
            let location = format!("Location: http://{}/token", lie.third);
            lie.token(Answer::status(307).header(location));
        }),
    ]
}
