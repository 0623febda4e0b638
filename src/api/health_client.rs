//! The other end of the health service: `raft-node health` asks the node beside it. The image
//! holds nothing but the binary, so this is also its health check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Longer than a healthy node ever takes, shorter than any prober's patience.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HealthCheckError {
    /// Nobody listens there, or not in this protocol.
    #[error("{addr} does not answer: {source}")]
    Unreachable {
        /// Who was asked.
        addr: SocketAddr,
        /// What went wrong.
        source: tonic::transport::Error,
    },
    /// The node answered with an error.
    #[error("{addr} refuses to say: {}", .status.message())]
    Refused {
        /// Who was asked.
        addr: SocketAddr,
        /// What it answered.
        status: Box<tonic::Status>,
    },
}

/// Whether `service` is serving, by the node that listens at `listen`.
///
/// # Errors
///
/// [`HealthCheckError`] when there is no answer.
pub async fn health(listen: SocketAddr, service: &str) -> Result<bool, HealthCheckError> {
    let addr = reachable(listen);
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))
        .expect("a socket address is a valid authority")
        .connect_timeout(ASK_TIMEOUT)
        .timeout(ASK_TIMEOUT);
    let channel = endpoint
        .connect()
        .await
        .map_err(|source| HealthCheckError::Unreachable { addr, source })?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let reply = HealthClient::new(channel)
        .check(request)
        .await
        .map_err(|status| HealthCheckError::Refused { addr, status: Box::new(status) })?;
    Ok(reply.into_inner().status() == ServingStatus::Serving)
}

/// Where a listener on all addresses is reached from its own host.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:2379", "127.0.0.1:2379"),
            ("[::]:2379", "[::1]:2379"),
            ("10.1.2.3:2379", "10.1.2.3:2379"),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), asked);
        }
    }
}
