//! Reaching a peer: the settings of a connection, and how long to wait before the next try.
//!
//! A name is resolved anew at each dial, since containers come back under other addresses. TLS
//! will be one more setting of the endpoint here.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use super::Config;
use crate::proto::raft::raft_client::RaftClient;

/// A connection that lasted so long was a good one: the next dial is not delayed.
const GOOD_CONNECTION: Duration = Duration::from_secs(1);

/// Connects to `addr`; without one there is nobody to reach. Bounded by the configured time.
pub async fn connect(config: &Config, addr: Option<&str>) -> Result<RaftClient<Channel>, String> {
    let addr = addr.ok_or("no address is known")?;
    let endpoint = endpoint(config, addr).map_err(|error| describe(&error))?;
    let channel = match tokio::time::timeout(config.dial_timeout, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| describe(&error))?,
        Err(_) => return Err(format!("no connection within {:?}", config.dial_timeout)),
    };
    Ok(RaftClient::new(channel)
        .max_decoding_message_size(config.frame_bytes_max)
        .max_encoding_message_size(config.frame_bytes_max))
}

fn endpoint(config: &Config, addr: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{addr}"))?
        .connect_timeout(config.dial_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(super::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(super::CONNECTION_WINDOW_BYTES)
        .max_frame_size(super::HTTP2_FRAME_BYTES)
        .http2_max_header_list_size(super::HEADERS_BYTES_MAX)
        .http2_max_local_error_reset_streams(super::ERROR_RESETS_MAX))
}

/// An error with what caused it: the library's own texts say only "transport error".
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The waits between dials: doubling, bounded, jittered so that members do not dial in step.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(config: &Config) -> Self {
        Self { min: config.redial_min, max: config.redial_max, next: config.redial_min }
    }

    /// Starts over after a connection that lasted `lived`, if that was long.
    pub fn after(&mut self, lived: Duration) {
        if lived >= GOOD_CONNECTION {
            self.reset();
        }
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.next = self.min;
    }

    /// How long to wait now: between half and one and a half times the step.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        step.mul_f64(rand::random_range(0.5..1.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::NodeId;

    #[test]
    fn waits_double_to_the_bound_and_start_over_after_a_good_connection() {
        let config = Config::new(1, NodeId::new(1).unwrap());
        let mut backoff = Backoff::new(&config);
        for step_ms in [10, 20, 40, 80, 160, 320, 500, 500] {
            let step = Duration::from_millis(step_ms);
            let wait = backoff.wait();
            assert!(wait >= step / 2 && wait <= step * 3 / 2, "{wait:?} for a step of {step:?}");
        }
        backoff.after(Duration::from_millis(999));
        assert!(backoff.wait() >= config.redial_max / 2);
        backoff.after(GOOD_CONNECTION);
        assert!(backoff.wait() <= config.redial_min * 3 / 2);
    }
}
