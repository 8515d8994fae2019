//! What tasks are told of themselves: metadata version 4, and the credentials of their role.
//!
//! ```text
//! container --> 169.254.170.2:80 --> who asks (address, secret of the URL) --> state, engine, profile of the role
//! ```
//! The secret in a URL is of 256 random bits, and is only good for who has the task's own address: a task that got
//! hold of another one's URL is answered as if there were no such task.
use super::State;
use super::definition::NetworkMode;
use super::record::{Phase, Task};
use crate::agent::http::{self, Bounds, Peer};
use crate::agent::serve::{Open, Stop};
use crate::agent::{AgentError, Node};
use crate::engine::task::Bridge;
use crate::error::chain;
use axum::extract::{Path, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod documents;
mod limit;
mod profile;
mod stats;
#[cfg(test)]
mod tests;

use limit::Limiter;
use stats::Samples;

/// Where the metadata are counted.
const DOOR: &str = "metadata";

/// What the server answers from.
struct Server {
    node: Arc<Node>,
    state: Arc<State>,
    listen: IpAddr,
    limiter: Limiter,
    samples: Samples,
}

/// Opens the server; an address of the link-local block is made on a link of its own, on which only the host and the
/// tasks' bridge reach it.
///
/// # Errors
/// The address cannot be made or listened on.
pub async fn open(node: &Arc<Node>, state: Arc<State>, stop: Stop) -> Result<Open, AgentError> {
    let wanted = node.config.ecs.metadata_listen.clone();
    let parsed = wanted.parse::<SocketAddr>().ok();
    let link = parsed.map(|address| address.ip()).filter(is_link_local);
    if let Some(ip) = link {
        node.blocking(move |node| node.engine.make_metadata_address(&link_name(ip), ip, &[bridge(node)]))
            .await?;
    }
    let listener = http::listen(DOOR, &wanted).await?;
    let bound = listener.local_addr().ok().or(parsed);
    let server = Arc::new(Server {
        node: Arc::clone(node),
        state,
        listen: bound.map_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), |bound| bound.ip()),
        limiter: Limiter::default(),
        samples: Samples::default(),
    });
    let router = Router::new()
        .route("/v4/{endpoint}", get(container))
        .route("/v4/{endpoint}/task", get(task))
        .route("/v4/{endpoint}/taskWithTags", get(task_with_tags))
        .route("/v4/{endpoint}/stats", get(container_stats))
        .route("/v4/{endpoint}/task/stats", get(task_stats))
        .route("/v2/credentials/{id}", get(credentials))
        .route("/v2/credentials", get(no_credentials))
        .route("/v2/credentials/", get(no_credentials))
        .fallback(unknown)
        .with_state(server);
    // As an ECS agent: 5 s for whatever comes and goes.
    let bounds = Bounds { head: Duration::from_secs(5), ..Bounds::default() };
    let serving = http::serve(listener, router, bounds, stop);
    let node = Arc::clone(node);
    let serving = Box::pin(async move {
        let result = serving.await;
        if let Some(ip) = link
            && let Err(error) =
                node.blocking(move |node| node.engine.remove_metadata_address(&link_name(ip))).await
        {
            tracing::warn!("cannot remove the metadata server's address: {}", chain(&error));
        }
        result
    });
    Ok(Open { name: DOOR, address: bound.map_or(wanted, |bound| bound.to_string()), serving })
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The same for the same address, so that an agent finds what a killed one left.
fn link_name(ip: IpAddr) -> String {
    let digest = crate::image::digest::Digest::of(ip.to_string().as_bytes());
    format!("cmd{}", &digest.hex()[..8])
}

fn bridge(node: &Node) -> String {
    node.config.network.bridge.clone().unwrap_or_else(|| Bridge::default().link)
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// No such task, or not for who asks.
    Unknown,
    /// Too many requests.
    Busy,
}

impl Server {
    /// Lets a request for a task pass if it comes from that task, not too often.
    fn admit<T>(&self, peer: Peer, found: Option<T>, of: impl Fn(&T) -> &Arc<Task>) -> Result<T, Refusal> {
        let ip = peer.0.ip().to_canonical();
        let own = found.filter(|found| is_own(of(found), ip, self.listen));
        // Who guesses is counted by its address.
        let key = own.as_ref().map_or_else(|| ip.to_string(), |found| of(found).id.clone());
        if !self.limiter.admit(&key, Instant::now()) {
            return Err(Refusal::Busy);
        }
        own.ok_or(Refusal::Unknown)
    }

    fn by_endpoint(&self, peer: Peer, endpoint: &str) -> Result<(Arc<Task>, String), Refusal> {
        self.admit(peer, self.state.by_endpoint(endpoint), |(task, _)| task)
    }

    fn answered(&self, operation: &'static str, began: Instant, response: Response) -> Response {
        let code = match response.status().as_u16() {
            200 => "200",
            400 => "400",
            404 => "404",
            429 => "429",
            503 => "503",
            _ => "500",
        };
        self.node.metrics.observe(DOOR, operation, code, began.elapsed());
        response
    }
}

/// Whether a request from this address is the task's: its own address, or the host's if it has the host's network.
fn is_own(task: &Task, from: IpAddr, listen: IpAddr) -> bool {
    if task.phase == Phase::Stopped {
        return false;
    }
    match task.network_mode() {
        NetworkMode::Host => from.is_loopback() || from == listen.to_canonical(),
        NetworkMode::None => false,
        NetworkMode::Bridge | NetworkMode::Awsvpc => {
            task.network.addresses.iter().any(|address| address.ip.to_canonical() == from)
        }
    }
}

fn json_response(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// An ECS agent answers these with a JSON string.
fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Unknown => json_response(
            StatusCode::NOT_FOUND,
            &json!("V4 metadata handler: unable to find a task for the request"),
        ),
        Refusal::Busy => json_response(StatusCode::TOO_MANY_REQUESTS, &json!("too many requests")),
    }
}

async fn unknown() -> Response {
    json_response(StatusCode::NOT_FOUND, &json!("404 page not found"))
}

type Asked = (Shared<Arc<Server>>, Path<String>, Extension<Peer>);

async fn container(
    Shared(server): Shared<Arc<Server>>,
    Path(endpoint): Path<String>,
    peer: Extension<Peer>,
) -> Response {
    let began = Instant::now();
    let response = match server.by_endpoint(peer.0, &endpoint) {
        Ok((task, name)) => match documents::container(&server.state.names, &task, &name) {
            Some(document) => json_response(StatusCode::OK, &document),
            None => refused(Refusal::Unknown),
        },
        Err(refusal) => refused(refusal),
    };
    server.answered("container", began, response)
}

async fn task(asked: Shared<Arc<Server>>, endpoint: Path<String>, peer: Extension<Peer>) -> Response {
    whole_task((asked, endpoint, peer), "task", false)
}

async fn task_with_tags(
    asked: Shared<Arc<Server>>,
    endpoint: Path<String>,
    peer: Extension<Peer>,
) -> Response {
    whole_task((asked, endpoint, peer), "taskWithTags", true)
}

fn whole_task(
    (Shared(server), Path(endpoint), peer): Asked,
    operation: &'static str,
    tags: bool,
) -> Response {
    let began = Instant::now();
    let response = match server.by_endpoint(peer.0, &endpoint) {
        Ok((task, _)) => json_response(StatusCode::OK, &documents::task(&server.state.names, &task, tags)),
        Err(refusal) => refused(refusal),
    };
    server.answered(operation, began, response)
}

async fn container_stats(
    Shared(server): Shared<Arc<Server>>,
    Path(endpoint): Path<String>,
    peer: Extension<Peer>,
) -> Response {
    let began = Instant::now();
    let response = match server.by_endpoint(peer.0, &endpoint) {
        Ok((task, name)) => match stats::container(&server.node, &server.samples, &task, &name).await {
            Ok(document) => json_response(StatusCode::OK, &document),
            Err(error) => failed(&error),
        },
        Err(refusal) => refused(refusal),
    };
    server.answered("stats", began, response)
}

async fn task_stats(
    Shared(server): Shared<Arc<Server>>,
    Path(endpoint): Path<String>,
    peer: Extension<Peer>,
) -> Response {
    let began = Instant::now();
    let response = match server.by_endpoint(peer.0, &endpoint) {
        Ok((task, _)) => match stats::task(&server.node, &server.samples, &task).await {
            Ok(document) => json_response(StatusCode::OK, &document),
            Err(error) => failed(&error),
        },
        Err(refusal) => refused(refusal),
    };
    server.answered("taskStats", began, response)
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::warn!(door = DOOR, "statistics: {}", chain(error));
    json_response(StatusCode::INTERNAL_SERVER_ERROR, &json!("V4 stats handler: unable to get the statistics"))
}

/// An error in the form of an ECS agent's credentials handler.
fn credentials_error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({"code": code, "message": message, "HTTPErrorCode": status.as_u16()});
    json_response(status, &body)
}

async fn no_credentials(Shared(server): Shared<Arc<Server>>) -> Response {
    let message = "CredentialsV2Request: No ID in the request";
    let response = credentials_error(StatusCode::BAD_REQUEST, "NoIdInRequest", message);
    server.answered("credentials", Instant::now(), response)
}

async fn credentials(
    Shared(server): Shared<Arc<Server>>,
    Path(id): Path<String>,
    Extension(peer): Extension<Peer>,
) -> Response {
    let began = Instant::now();
    let response = match server.admit(peer, server.state.by_credentials(&id), |task| task) {
        Ok(task) => of_role(&server, &task).await,
        Err(Refusal::Busy) => refused(Refusal::Busy),
        Err(Refusal::Unknown) => credentials_error(
            StatusCode::BAD_REQUEST,
            "InvalidIdInRequest",
            "CredentialsV2Request: Credentials not found",
        ),
    };
    server.answered("credentials", began, response)
}

async fn of_role(server: &Arc<Server>, task: &Arc<Task>) -> Response {
    let Some(role) = task.role().map(str::to_owned) else {
        return credentials_error(StatusCode::BAD_REQUEST, "InvalidIdInRequest", "the task has no role");
    };
    let of = role.clone();
    let read = server.node.blocking(move |node| profile::of_role(&node.config.ecs.task_roles, &of)).await;
    // What is given out is noted; what it is, is not.
    match read {
        Ok(credentials) => {
            tracing::info!(task = task.id, role, "credentials were given");
            json_response(StatusCode::OK, &credentials.document(&role))
        }
        Err(error) => {
            tracing::warn!(task = task.id, role, "no credentials: {}", chain(&error));
            // Paths of the host are not for tasks.
            credentials_error(
                StatusCode::SERVICE_UNAVAILABLE,
                "CredentialsUninitialized",
                "CredentialsV2Request: Credentials uninitialized for ID",
            )
        }
    }
}
