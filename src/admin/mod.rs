//! HTTP/1.1: health for probes, numbers for machines, one page for people.
//!
//! It shares the client port with gRPC: [`router`] is merged into the routes of `api`. The paths
//! and texts of `/health`, `/livez`, `/readyz` and `/version` are etcd's, so that its probes and
//! dashboards work unchanged; `/` and `/status` are our own.
//!
//! Everything answers GET alone; HEAD is refused too, as etcd refuses it. Nothing here changes
//! anything, and nothing asks who the caller is.

mod health;
mod page;
mod probes;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde::Serialize;

use crate::metrics::Format;
use crate::server::Server;

/// What `/version` answers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Versions {
    /// The version whose behaviour this server has.
    #[serde(rename = "etcdserver")]
    pub server: &'static str,
    /// The lowest version that every member supports.
    #[serde(rename = "etcdcluster")]
    pub cluster: &'static str,
    /// The version of the stored data.
    pub storage: &'static str,
    /// The version of this program: not etcd's field, and its clients ignore fields that they do
    /// not know.
    #[serde(rename = "raft_node")]
    pub node: &'static str,
}

/// What the handlers share.
#[derive(Clone)]
struct Admin {
    server: Server,
    versions: Versions,
    metrics: Arc<dyn Fn(Format) -> String + Send + Sync>,
}

/// The routes. `metrics` renders them in the format that the scraper wants.
pub fn router(
    server: Server,
    versions: Versions,
    metrics: impl Fn(Format) -> String + Send + Sync + 'static,
) -> Router {
    Router::new()
        .route("/", get_only(page::show))
        .route("/status", get_only(status::show))
        .route("/health", get_only(health::show))
        .route("/livez", get_only(probes::livez))
        .route("/livez/{check}", get_only(probes::livez_one))
        .route("/readyz", get_only(probes::readyz))
        .route("/readyz/{check}", get_only(probes::readyz_one))
        .route("/version", get_only(version))
        .route("/metrics", get_only(metrics_text))
        .with_state(Admin { server, versions, metrics: Arc::new(metrics) })
}

/// A route that answers GET and nothing else. Axum would answer HEAD by the handler of GET.
fn get_only<H, T>(handler: H) -> MethodRouter<Admin>
where
    H: Handler<T, Admin>,
    T: 'static,
{
    get(handler).head(method_not_allowed).fallback(method_not_allowed)
}

async fn method_not_allowed() -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned());
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

async fn version(State(admin): State<Admin>) -> Response {
    axum::Json(admin.versions).into_response()
}

async fn metrics_text(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept);
    let content_type = HeaderValue::from_static(format.content_type());
    ([(header::CONTENT_TYPE, content_type)], (admin.metrics)(format)).into_response()
}

/// Plain text that no browser takes for anything else.
fn text(status: StatusCode, body: String) -> Response {
    const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
    const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
    let headers = [(header::CONTENT_TYPE, PLAIN), (header::X_CONTENT_TYPE_OPTIONS, NOSNIFF)];
    (status, headers, body).into_response()
}

/// The values of the query parameter `name`, in order. Absent and empty are told apart: a bare
/// `?verbose` has the one value `""`.
fn query_values<'q>(query: Option<&'q str>, name: &str) -> Vec<&'q str> {
    let pairs = query.unwrap_or_default().split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value)
        .collect()
}
