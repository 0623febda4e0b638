//! `/livez` and `/readyz`: named checks, each also under a path of its own.
//!
//! Alive means that restarting this process would not help; ready means that it should be sent
//! requests. The names and texts are etcd's; the checks `event_loop` and `started` are ours.

use std::fmt::Write as _;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::server::{self, Consistency, Server};

use super::{Admin, query_values, text};

/// One question with a yes, or a no and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// The event loop turned and the disk answered lately.
    EventLoop,
    /// The data is known to be whole. Always so: damage stops the process.
    DataCorruption,
    /// This member's own data can be read.
    SerializableRead,
    /// The cluster's latest data can be read here.
    LinearizableRead,
    /// This member counts in quorums.
    NonLearner,
    /// Caught up with what was committed when it started, and not on its way out.
    Started,
}

const LIVEZ: &[Check] = &[Check::EventLoop, Check::SerializableRead];

const READYZ: &[Check] = &[
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
    Check::Started,
];

/// A read that touches what every read touches.
pub(super) async fn read(server: &Server, consistency: Consistency) -> Result<(), String> {
    server.wait_for(consistency).await.map_err(|error| match error {
        server::Error::Request(error) => format!("etcdserver: {error}"),
        other => format!("{other:?}"),
    })?;
    assert!(server.revision() >= 1, "an empty store has revision 1");
    Ok(())
}

pub(super) async fn livez(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    answer(&admin.server, LIVEZ, query.as_deref()).await
}

pub(super) async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    answer(&admin.server, READYZ, query.as_deref()).await
}

pub(super) async fn livez_one(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    answer_one(&admin.server, LIVEZ, &name, query.as_deref()).await
}

pub(super) async fn readyz_one(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    answer_one(&admin.server, READYZ, &name, query.as_deref()).await
}

/// All checks but those that `?exclude=` names.
async fn answer(server: &Server, checks: &[Check], query: Option<&str>) -> Response {
    let excluded = query_values(query, "exclude");
    let checks: Vec<Check> =
        checks.iter().copied().filter(|check| !excluded.contains(&check.name())).collect();
    run(server, &checks, query).await
}

/// One check by its path, whatever `?exclude=` says.
async fn answer_one(
    server: &Server,
    checks: &[Check],
    name: &str,
    query: Option<&str>,
) -> Response {
    match checks.iter().find(|check| check.name() == name) {
        Some(check) => run(server, &[*check], query).await,
        None => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

async fn run(server: &Server, checks: &[Check], query: Option<&str>) -> Response {
    let mut report = String::new();
    let mut passed = true;
    for check in checks {
        let written = match check.run(server).await {
            Ok(()) => writeln!(report, "[+]{} ok", check.name()),
            Err(reason) => {
                passed = false;
                writeln!(report, "[-]{} failed: {reason}", check.name())
            }
        };
        written.expect("writing to a string succeeds");
    }
    if !passed {
        // A failure always tells everything; the second line end is what Go's http.Error adds.
        return text(StatusCode::SERVICE_UNAVAILABLE, report + "\n");
    }
    if query_values(query, "verbose").is_empty() {
        report.clear();
    }
    text(StatusCode::OK, report + "ok\n")
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::EventLoop => "event_loop",
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
            Self::Started => "started",
        }
    }

    async fn run(self, server: &Server) -> Result<(), String> {
        match self {
            Self::EventLoop if server.handle().status().alive => Ok(()),
            Self::EventLoop => Err("no turn of the event loop or answer of the disk".to_owned()),
            Self::DataCorruption => Ok(()),
            Self::SerializableRead => read(server, Consistency::Serializable).await,
            Self::LinearizableRead => read(server, Consistency::Linearizable).await,
            Self::NonLearner => non_learner(server),
            Self::Started => started(server),
        }
    }
}

fn non_learner(server: &Server) -> Result<(), String> {
    server.refuse_at_learner().map_err(|_| "not supported for learner".to_owned())
}

fn started(server: &Server) -> Result<(), String> {
    let status = server.handle().status();
    if status.shutting_down {
        Err("shutting down".to_owned())
    } else if !status.applied_at_start {
        Err("still applying what was committed at the start".to_owned())
    } else {
        Ok(())
    }
}
