//! A well-behaved client beside a fault or a load: one request at a time, each timed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::common::Client;

/// What the client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Writes of a small value.
    Put,
    /// Linearizable reads of a small value.
    Get,
}

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(5);

/// A client under way.
pub struct Beside {
    over: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

/// What it saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How long each answered request took, in order of length once it is over.
    pub took: Vec<Duration>,
    /// What it was told instead of an answer.
    pub failures: Vec<String>,
}

impl Beside {
    /// Begins to ask the member of `client`.
    pub fn start(client: &Client, asks: Asks) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(ask(client.clone(), asks, Arc::clone(&over)));
        Self { over, task }
    }

    /// Stops once the request under way is answered.
    pub async fn stop(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        let mut seen = self.task.await.expect("the client does not panic");
        seen.took.sort_unstable();
        seen
    }

    /// What it sees in so long a time.
    pub async fn watch(client: &Client, asks: Asks, how_long: Duration) -> Seen {
        let beside = Self::start(client, asks);
        tokio::time::sleep(how_long).await;
        beside.stop().await
    }
}

impl Seen {
    /// Ninety-nine of a hundred answers came at least this fast.
    pub fn p99(&self) -> Duration {
        assert!(!self.took.is_empty(), "it was never answered: {:?}", self.failures);
        self.took[(self.took.len() * 99 / 100).min(self.took.len() - 1)]
    }

    /// The slowest answer.
    pub fn worst(&self) -> Duration {
        self.took.last().copied().expect("at least one answer")
    }
}

async fn ask(client: Client, asks: Asks, over: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        let answer = match asks {
            Asks::Put => client.put("beside", "value").await.map(|_| ()),
            Asks::Get => client.get("beside").await.map(|_| ()),
        };
        match answer {
            Ok(()) => seen.took.push(start.elapsed()),
            Err(status) => seen.failures.push(status.to_string()),
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}
