//! The server: one path, one method, bodies of bounded size.
use super::api::{Api, known_name};
use super::error::{ApiError, Exception};
use super::keys::Keys;
use super::sigv4;
use super::state::random_uuid;
use crate::agent::AgentError;
use crate::agent::http::{Bounds, listen, serve};
use crate::agent::serve::{Open, Stop};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What stands before the name of an operation.
const TARGET: &str = "AmazonEC2ContainerServiceV20141113.";
/// Most bytes of a request's body.
const MAX_BODY: usize = 1024 * 1024;
/// For a request's body to come.
const BODY_TIME: Duration = Duration::from_secs(20);
const JSON: &str = "application/x-amz-json-1.1";

#[derive(Clone)]
struct Server {
    api: Arc<Api>,
    keys: Arc<Keys>,
}

/// Listens; the serving is the caller's to run.
pub async fn open(api: Arc<Api>, keys: Keys, stop: Stop) -> Result<Open, AgentError> {
    let wanted = api.node.config.ecs.listen.clone();
    let listener = listen("ecs", &wanted).await?;
    let address = listener.local_addr().map_or(wanted, |bound| bound.to_string());
    let server = Server { api, keys: Arc::new(keys) };
    let router = Router::new().fallback(answer).with_state(server);
    // Clients keep connections open between requests.
    let bounds =
        Bounds { connection: Duration::from_secs(3600), head: Duration::from_secs(60), ..Bounds::default() };
    Ok(Open { name: "ecs", address, serving: serve(listener, router, bounds, stop) })
}

async fn answer(State(server): State<Server>, request: Request<Body>) -> Response {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let operation = head
        .headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok())
        .and_then(|target| target.strip_prefix(TARGET))
        .map(str::to_owned);
    let name = known_name(operation.as_deref().unwrap_or_default());
    let result = handle(&server, head, body, operation).await;
    let code = match &result {
        Ok(_) => "OK",
        Err(error) => error.exception.name(),
    };
    server.api.node.metrics.observe("ecs", name, code, began.elapsed());
    tracing::debug!(door = "ecs", operation = name, code, "answered");
    respond(result)
}

async fn handle(
    server: &Server,
    head: Parts,
    body: Body,
    operation: Option<String>,
) -> Result<Value, ApiError> {
    let body = read(body).await?;
    authenticate(server, &head, &body)?;
    let unknown = |message: String| ApiError { exception: Exception::UnknownOperation, message };
    if head.method != "POST" || head.uri.path() != "/" || head.uri.query().is_some() {
        return Err(unknown("operations are called by POST of /".to_owned()));
    }
    let operation = operation
        .ok_or_else(|| unknown(format!("the header X-Amz-Target does not name {TARGET}OPERATION")))?;
    let is_json = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == JSON));
    if !is_json {
        let message = format!("the content type is not {JSON}");
        return Err(ApiError { exception: Exception::Serialization, message });
    }
    let api = Arc::clone(&server.api);
    match tokio::task::spawn_blocking(move || api.call(&operation, &body)).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let wrong = |message: String| ApiError { exception: Exception::Serialization, message };
    match tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(wrong(format!("the body is larger than {MAX_BODY} bytes, or was broken off"))),
        Err(_) => Err(wrong(format!("the body did not come within {} s", BODY_TIME.as_secs()))),
    }
}

fn authenticate(server: &Server, head: &Parts, body: &[u8]) -> Result<(), ApiError> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<(String, String)> =
        head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let request = sigv4::Request {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        headers: &headers,
        body,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    sigv4::verify(&request, &server.keys, &server.api.node.config.ecs.region, now)
}

fn respond(result: Result<Value, ApiError>) -> Response {
    let (status, body, kind) = match result {
        Ok(value) => (StatusCode::OK, value, None),
        Err(error) => {
            if error.exception == Exception::Server {
                tracing::error!(door = "ecs", "{}", error.message);
            }
            let status = StatusCode::from_u16(error.exception.status()).unwrap_or(StatusCode::BAD_REQUEST);
            let name = error.exception.name();
            (status, json!({"__type": name, "message": error.message}), Some(name))
        }
    };
    let mut response = (status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response();
    let id = random_uuid().unwrap_or_default();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    if let Some(name) = kind {
        response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(name));
    }
    response
}
