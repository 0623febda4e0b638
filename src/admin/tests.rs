//! The routes as probes, scrapers and browsers meet them.

use std::sync::{Arc, RwLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;

use crate::kv;
use crate::node::clock::Watchdog;
use crate::node::{self, Event, Handle, Limits, Member, RequestError, Ticket};
use crate::raft::{Index, NodeId};
use crate::server::{Responses, Server};

use super::{Versions, query_values, router};

const BODY_BYTES_MAX: usize = 1 << 20;

/// The routes of a member with this status. It answers read barriers if it has a leader.
fn routes(change: impl FnOnce(&mut node::Status)) -> Router {
    let id = NodeId::new(1).expect("positive");
    let mut status = node::Status {
        name: "<b>node1".into(),
        commit: Index(9),
        applied: Index(8),
        last_index: Index(9),
        ..node::Status::leading(id)
    };
    change(&mut status);
    let has_leader = status.leader.is_some();
    // The value stays readable when the sender is gone.
    let statuses = watch::channel(Arc::new(status)).1;
    let (requests, mut inbox) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(event) = inbox.recv().await {
            match event {
                Event::Read { ticket: Ticket::Barrier(reply) } if has_leader => {
                    let _ = reply.send(Ok(()));
                }
                Event::Read { ticket } => ticket.fail(RequestError::NoLeader),
                other => panic!("not asked for in these tests: {other:?}"),
            }
        }
    });
    let machine = Arc::new(RwLock::new(kv::Machine::new()));
    let members = vec![Member {
        id,
        name: "<b>node1".to_owned(),
        peer_addr: "node1:5001".to_owned(),
        client_addrs: vec![],
        learner: false,
    }];
    let limits = Limits {
        request_bytes_max: 1024,
        quota_bytes: 1 << 20,
        request_timeout: std::time::Duration::from_secs(7),
    };
    let handle = Handle::new(requests, statuses, Watchdog::new(), machine, members, limits);
    let versions = Versions { server: "3.6.1", cluster: "3.6.0", storage: "3.6.0", node: "0.9.0" };
    let (work, _) = std::sync::mpsc::sync_channel(1);
    let server = Server::new(handle, Responses::new(1 << 20, work));
    router(server, versions, |format| format!("{format:?} 1\n"))
}

async fn ask(routes: &Router, method: Method, path: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty());
    let request = request.expect("a valid request");
    let response = routes.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = to_bytes(response.into_body(), BODY_BYTES_MAX).await.expect("a small body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

async fn get(routes: &Router, path: &str) -> (StatusCode, String) {
    ask(routes, Method::GET, path).await
}

fn ok(body: &str) -> (StatusCode, String) {
    (StatusCode::OK, body.to_owned())
}

fn unavailable(body: &str) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, body.to_owned())
}

#[tokio::test]
async fn a_healthy_member_says_so_everywhere() {
    let routes = routes(|_| {});
    assert_eq!(get(&routes, "/health").await, ok(r#"{"health":"true","reason":""}"#));
    assert_eq!(get(&routes, "/livez").await, ok("ok\n"));
    assert_eq!(get(&routes, "/readyz").await, ok("ok\n"));
    let verbose = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
                   [+]non_learner ok\n[+]started ok\nok\n";
    assert_eq!(get(&routes, "/readyz?verbose").await, ok(verbose));
    assert_eq!(get(&routes, "/metrics").await, ok("Prometheus 1\n"));
    let version = concat!(
        r#"{"etcdserver":"3.6.1","etcdcluster":"3.6.0","storage":"3.6.0","#,
        r#""raft_node":"0.9.0"}"#
    );
    assert_eq!(get(&routes, "/version").await, ok(version));
}

#[tokio::test]
async fn without_a_leader_a_member_is_alive_and_not_ready() {
    let routes = routes(|status| status.leader = None);
    let no_leader = "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n";
    assert_eq!(get(&routes, "/health").await, unavailable(no_leader));
    let alone = ok(r#"{"health":"true","reason":""}"#);
    assert_eq!(get(&routes, "/health?serializable=true").await, alone);
    assert_eq!(get(&routes, "/livez").await, ok("ok\n"));
    let failed = "[-]linearizable_read failed: etcdserver: no leader\n\n";
    assert_eq!(get(&routes, "/readyz/linearizable_read").await, unavailable(failed));
    assert_eq!(get(&routes, "/readyz?exclude=linearizable_read").await, ok("ok\n"));
    let (status, body) = get(&routes, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("[+]non_learner ok\n"), "a failure tells all: {body}");
}

#[tokio::test]
async fn a_member_on_its_way_out_is_alive_and_not_ready() {
    let routes = routes(|status| status.shutting_down = true);
    assert_eq!(get(&routes, "/livez").await, ok("ok\n"));
    let failed = "[-]started failed: shutting down\n\n";
    assert_eq!(get(&routes, "/readyz/started").await, unavailable(failed));
}

#[tokio::test]
async fn a_member_that_hangs_is_not_alive() {
    let routes = routes(|status| status.alive = false);
    let (status, body) = get(&routes, "/livez").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.starts_with("[-]event_loop failed: "), "{body}");
}

#[tokio::test]
async fn unknown_checks_are_not_found() {
    let routes = routes(|_| {});
    assert_eq!(get(&routes, "/readyz/nonsense").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&routes, "/livez/linearizable_read").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_path_answers_get_alone() {
    let routes = routes(|_| {});
    let paths = [
        "/",
        "/status",
        "/health",
        "/livez",
        "/livez/serializable_read",
        "/readyz",
        "/readyz/started",
        "/version",
        "/metrics",
    ];
    for path in paths {
        assert_eq!(get(&routes, path).await.0, StatusCode::OK, "GET {path}");
        for method in [Method::HEAD, Method::POST, Method::DELETE] {
            let answer = ask(&routes, method.clone(), path).await;
            assert_eq!(answer.0, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn status_is_json_for_the_page() {
    let routes = routes(|_| {});
    let (status, body) = get(&routes, "/status").await;
    assert_eq!(status, StatusCode::OK);
    let view: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(view["name"], "<b>node1");
    assert_eq!((&view["term"], &view["leader"]), (&5.into(), &1.into()));
    assert_eq!(view["cluster_id"], "c1");
    assert_eq!((&view["commit_index"], &view["applied_index"]), (&9.into(), &8.into()));
    assert_eq!((&view["revision"], &view["compact_revision"]), (&1.into(), &(-1).into()));
    assert_eq!(view["members"][0]["this"], true);
}

#[tokio::test]
async fn the_page_may_ask_nobody_but_its_own_member() {
    let routes = routes(|_| {});
    let request = Request::builder().uri("/").body(Body::empty()).expect("a valid request");
    let response = routes.oneshot(request).await.expect("infallible");
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"));
}

#[test]
fn query_values_finds_bare_repeated_and_absent_parameters() {
    let query = Some("verbose&exclude=NOSPACE&exclude=&serializable=true");
    assert_eq!(query_values(query, "verbose"), [""]);
    assert_eq!(query_values(query, "exclude"), ["NOSPACE", ""]);
    assert_eq!(query_values(query, "serializable"), ["true"]);
    assert!(query_values(query, "verb").is_empty());
    assert!(query_values(None, "verbose").is_empty());
}
