//! `/health`: etcd's oldest probe, whose body load balancers and scripts parse.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::server::Consistency;

use super::probes;
use super::{Admin, query_values, text};

/// Healthy when a leader is known and a read succeeds. `?serializable=true` asks about this
/// member alone. `?exclude=` names alarms to overlook; no alarm exists yet, so it changes nothing.
pub(super) async fn show(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let serializable = query_values(query.as_deref(), "serializable").first() == Some(&"true");
    match check(&admin, serializable).await {
        Ok(()) => text(StatusCode::OK, body(true, "")),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, body(false, &reason) + "\n"),
    }
}

async fn check(admin: &Admin, serializable: bool) -> Result<(), String> {
    if !serializable && admin.server.require_leader().is_err() {
        return Err("RAFT NO LEADER".to_owned());
    }
    let consistency =
        if serializable { Consistency::Serializable } else { Consistency::Linearizable };
    probes::read(&admin.server, consistency).await.map_err(|error| format!("RANGE ERROR:{error}"))
}

/// The verdict is a string in etcd's JSON, not a boolean: clients compare it as text.
fn body(healthy: bool, reason: &str) -> String {
    serde_json::json!({ "health": healthy.to_string(), "reason": reason }).to_string()
}

#[cfg(test)]
mod tests {
    use super::body;

    #[test]
    fn body_is_byte_for_byte_what_etcd_sends() {
        assert_eq!(body(true, ""), r#"{"health":"true","reason":""}"#);
        assert_eq!(
            body(false, "RAFT NO LEADER"),
            r#"{"health":"false","reason":"RAFT NO LEADER"}"#
        );
    }
}
