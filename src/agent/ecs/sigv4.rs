//! AWS Signature Version 4 of requests; pure.
//!
//! Source: "Create a signed AWS API request" of the IAM user guide. Only what ECS clients send is taken: POST of `/`
//! without a query, signed by the Authorization header.
use super::error::{ApiError, Exception};
use super::keys::Keys;
use super::state::hex;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::time::Duration;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "ecs";
/// How far the clocks of client and server may be apart.
const MAX_SKEW: Duration = Duration::from_secs(5 * 60);
/// More headers than any client signs.
const MAX_SIGNED: usize = 64;

/// A request as it came.
#[derive(Debug)]
pub struct Request<'r> {
    /// Method.
    pub method: &'r str,
    /// Path.
    pub path: &'r str,
    /// What stands behind `?`.
    pub query: &'r str,
    /// Headers in their order, names in lower case.
    pub headers: &'r [(String, String)],
    /// Body.
    pub body: &'r [u8],
}

impl Request<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Checks that `keys` signed a request, for this region, within five minutes of `now` (time since 1970).
///
/// # Errors
/// As AWS answers: the exceptions of missing, malformed, unknown and wrong signatures.
pub fn verify(request: &Request<'_>, keys: &Keys, region: &str, now: Duration) -> Result<(), ApiError> {
    let Some(header) = request.header("authorization") else {
        return Err(refuse(Exception::MissingAuthenticationToken, "Missing Authentication Token"));
    };
    let parts = Parts::parse(header)?;
    let date = request
        .header("x-amz-date")
        .ok_or_else(|| incomplete("Authorization header requires existence of an 'X-Amz-Date' header."))?;
    let signed_at = parse_date(date).ok_or_else(|| incomplete("Date must be in ISO-8601 'basic format'."))?;
    let scope = format!("{}/{region}/{SERVICE}/aws4_request", &date[..8]);
    if !parts.headers.contains(&"host") || !parts.headers.contains(&"x-amz-date") {
        return Err(incomplete("'Host' and 'X-Amz-Date' must be 'SignedHeaders' in the AWS Authorization."));
    }
    // The target names the operation: a signature that leaves it out would serve for another one.
    if request.header("x-amz-target").is_some() && !parts.headers.contains(&"x-amz-target") {
        return Err(incomplete("'X-Amz-Target' must be a 'SignedHeader' in the AWS Authorization."));
    }
    if parts.key != keys.id {
        return Err(refuse(
            Exception::UnrecognizedClient,
            "The security token included in the request is invalid.",
        ));
    }
    if parts.scope != scope {
        return Err(mismatch(&format!("Credential should be scoped to a valid region and service: {scope}")));
    }
    let apart = signed_at.abs_diff(now);
    if apart > MAX_SKEW {
        return Err(mismatch(&format!(
            "Signature expired or not yet current: {date} is {} s from now",
            apart.as_secs()
        )));
    }
    let canonical = canonical_request(request, &parts.headers)?;
    let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
    let given =
        unhex(parts.signature).ok_or_else(|| incomplete("Signature must be 64 hexadecimal digits."))?;
    let key = signing_key(&keys.secret, &date[..8], region, SERVICE);
    // `verify_slice` takes the same time wherever the two differ.
    mac(&key, to_sign.as_bytes()).verify_slice(&given).map_err(|_| {
        mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method.",
        )
    })
}

fn refuse(exception: Exception, message: &str) -> ApiError {
    ApiError { exception, message: message.to_owned() }
}

fn incomplete(message: &str) -> ApiError {
    refuse(Exception::IncompleteSignature, message)
}

fn mismatch(message: &str) -> ApiError {
    refuse(Exception::InvalidSignature, message)
}

/// Parts of the Authorization header.
struct Parts<'h> {
    key: &'h str,
    /// `DATE/REGION/SERVICE/aws4_request`
    scope: &'h str,
    headers: Vec<&'h str>,
    signature: &'h str,
}

impl<'h> Parts<'h> {
    fn parse(header: &'h str) -> Result<Self, ApiError> {
        let rest = header
            .strip_prefix(ALGORITHM)
            .filter(|rest| rest.starts_with(' '))
            .ok_or_else(|| incomplete("Unsupported AWS 'algorithm': use AWS4-HMAC-SHA256."))?;
        let value = |name: &str| {
            let mut pairs = rest.split(',').filter_map(|part| part.trim().split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        let missing = |name: &str| incomplete(&format!("Authorization header requires '{name}' parameter."));
        let credential = value("Credential").ok_or_else(|| missing("Credential"))?;
        let (key, scope) = credential.split_once('/').ok_or_else(|| missing("Credential"))?;
        let headers: Vec<&str> =
            value("SignedHeaders").ok_or_else(|| missing("SignedHeaders"))?.split(';').collect();
        if headers.len() > MAX_SIGNED || !headers.is_sorted_by(|one, next| one < next) {
            return Err(incomplete("'SignedHeaders' must be sorted and without repetition."));
        }
        let signature = value("Signature").ok_or_else(|| missing("Signature"))?;
        Ok(Self { key, scope, headers, signature })
    }
}

fn canonical_request(request: &Request<'_>, signed: &[&str]) -> Result<String, ApiError> {
    let payload = hex(&Sha256::digest(request.body));
    if request.header("x-amz-content-sha256").is_some_and(|given| given != payload) {
        return Err(mismatch("The provided 'x-amz-content-sha256' header does not match what was computed."));
    }
    let mut text = format!("{}\n{}\n{}\n", request.method, request.path, request.query);
    for name in signed {
        let values: Vec<String> = request
            .headers
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        if values.is_empty() {
            return Err(incomplete(&format!("The signed header '{name}' is not in the request.")));
        }
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    text.push_str(&format!("\n{}\n{payload}", signed.join(";")));
    Ok(text)
}

fn mac(key: &[u8], data: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of every length.
    #[allow(clippy::expect_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(data);
    mac
}

fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> Vec<u8> {
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [day, region, service, "aws4_request"] {
        key = mac(&key, part.as_bytes()).finalize().into_bytes().to_vec();
    }
    key
}

/// `20261122T095516Z` as time since 1970.
fn parse_date(text: &str) -> Option<Duration> {
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let plain = text.len() == 16 && text.is_ascii() && is_digits(&text[..8]) && is_digits(&text[9..15]);
    if !plain || &text[8..9] != "T" || !text.ends_with('Z') {
        return None;
    }
    let long = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &text[..4],
        &text[4..6],
        &text[6..8],
        &text[9..11],
        &text[11..13],
        &text[13..15]
    );
    let time = crate::engine::timestamp::Timestamp::parse(&long)?;
    Some(time.since(crate::engine::timestamp::Timestamp::from_unix(Duration::ZERO)))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !crate::engine::names::is_hex(text) {
        return None;
    }
    (0..32).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_795_341_316);
    const DATE: &str = "20261122T095516Z";
    const BODY: &[u8] = b"{}";

    fn keys() -> Keys {
        Keys { id: "AKIAEXAMPLE".into(), secret: "secret".into() }
    }

    fn headers() -> Vec<(String, String)> {
        [
            ("host", "127.0.0.1:51680"),
            ("x-amz-date", DATE),
            ("x-amz-target", "AmazonEC2ContainerServiceV20141113.ListClusters"),
            ("user-agent", "a  b"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn request(headers: &[(String, String)]) -> Request<'_> {
        Request { method: "POST", path: "/", query: "", headers, body: BODY }
    }

    fn sign(headers: &mut Vec<(String, String)>, keys: &Keys, region: &str, names: &[&str]) {
        let canonical = canonical_request(&request(headers), names).unwrap();
        let scope = format!("20261122/{region}/ecs/aws4_request");
        let text = format!("{ALGORITHM}\n{DATE}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
        let key = signing_key(&keys.secret, "20261122", region, SERVICE);
        let signature = hex(&mac(&key, text.as_bytes()).finalize().into_bytes());
        let value = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
            keys.id,
            names.join(";")
        );
        headers.push(("authorization".to_owned(), value));
    }

    const NAMES: [&str; 4] = ["host", "user-agent", "x-amz-date", "x-amz-target"];

    fn outcome(change: impl FnOnce(&mut Vec<(String, String)>), now: Duration) -> Result<(), Exception> {
        let mut all = headers();
        sign(&mut all, &keys(), "us-east-1", &NAMES);
        change(&mut all);
        verify(&request(&all), &keys(), "us-east-1", now).map_err(|error| error.exception)
    }

    fn set(all: &mut [(String, String)], name: &str, value: &str) {
        for (known, old) in all.iter_mut() {
            if known == name {
                value.clone_into(old);
            }
        }
    }

    /// The example of the AWS general reference ("GET ListUsers" of IAM, 30 August 2015).
    #[test]
    fn derives_the_signing_key_of_the_published_example() {
        let key = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1", "iam");
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }

    #[test]
    fn takes_what_was_signed() {
        assert_eq!(outcome(|_| {}, NOW), Ok(()));
        assert_eq!(outcome(|_| {}, NOW + Duration::from_secs(299)), Ok(()));
        // White space is folded, as the client does before it signs.
        assert_eq!(outcome(|all| set(all, "user-agent", " a b "), NOW), Ok(()));
    }

    #[test]
    fn refuses_what_was_not() {
        use Exception::{
            IncompleteSignature, InvalidSignature, MissingAuthenticationToken, UnrecognizedClient,
        };
        let missing = |name: &'static str| {
            move |all: &mut Vec<(String, String)>| all.retain(|(known, _)| known != name)
        };
        assert_eq!(outcome(missing("authorization"), NOW), Err(MissingAuthenticationToken));
        assert_eq!(outcome(missing("x-amz-date"), NOW), Err(IncompleteSignature));
        assert_eq!(outcome(missing("user-agent"), NOW), Err(IncompleteSignature));
        let late = NOW + Duration::from_secs(301);
        assert_eq!(outcome(|_| {}, late), Err(InvalidSignature));
        assert_eq!(outcome(|_| {}, NOW - Duration::from_secs(301)), Err(InvalidSignature));
        let target = "AmazonEC2ContainerServiceV20141113.RunTask";
        assert_eq!(outcome(|all| set(all, "x-amz-target", target), NOW), Err(InvalidSignature));
        assert_eq!(outcome(|all| set(all, "authorization", "Basic eA=="), NOW), Err(IncompleteSignature));
        let hash = |all: &mut Vec<(String, String)>| {
            all.push(("x-amz-content-sha256".into(), "UNSIGNED-PAYLOAD".into()));
        };
        assert_eq!(outcome(hash, NOW), Err(InvalidSignature));
        for (keys, region, wanted) in [
            (Keys { id: "AKIAOTHER".into(), ..keys() }, "us-east-1", UnrecognizedClient),
            (Keys { secret: "other".into(), ..keys() }, "us-east-1", InvalidSignature),
            (keys(), "eu-west-1", InvalidSignature),
        ] {
            let mut all = headers();
            sign(&mut all, &keys, region, &NAMES);
            let error = verify(&request(&all), &self::keys(), "us-east-1", NOW).unwrap_err();
            assert_eq!(error.exception, wanted);
        }
        for names in [&["host", "x-amz-date"][..], &["x-amz-date", "x-amz-target"], &["host", "x-amz-target"]]
        {
            let mut all = headers();
            sign(&mut all, &keys(), "us-east-1", names);
            let error = verify(&request(&all), &keys(), "us-east-1", NOW).unwrap_err();
            assert_eq!(error.exception, IncompleteSignature);
        }
    }

    #[test]
    fn refuses_another_body() {
        let mut all = headers();
        sign(&mut all, &keys(), "us-east-1", &NAMES);
        let other = Request { body: b"{ }", ..request(&all) };
        let error = verify(&other, &keys(), "us-east-1", NOW).unwrap_err();
        assert_eq!(error.exception, Exception::InvalidSignature);
    }

    #[test]
    fn reads_dates() {
        assert_eq!(parse_date(DATE), Some(NOW));
        for text in ["", "20261122T095516", "2026112209551600", "20261322T095516Z", "2026112äT95516Z"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}
