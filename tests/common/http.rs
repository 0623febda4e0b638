//! The least HTTP/1.1 client that can ask a node's pages: one request, one connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// `method path` of the server at `addr`.
pub async fn request(addr: &str, method: &str, path: &str) -> std::io::Result<Answer> {
    request_with(addr, method, path, "").await
}

/// The same with more headers, each with its line end.
pub async fn request_with(
    addr: &str,
    method: &str,
    path: &str,
    headers: &str,
) -> std::io::Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {addr}\r\n{headers}Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&raw).into_owned())
    };
    let raw = tokio::time::timeout(Duration::from_secs(10), exchange).await??;
    let (head, body) = raw.split_once("\r\n\r\n").unwrap_or((&raw, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no HTTP: {raw:?}")))?;
    Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// GET, which must be answered.
pub async fn get(addr: &str, path: &str) -> Answer {
    request(addr, "GET", path).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

/// The value of a metric without labels of the server at `addr`.
pub async fn gauge(addr: &str, name: &str) -> u64 {
    let page = get(addr, "/metrics").await.body;
    let line = page.lines().find(|line| line.split_whitespace().next() == Some(name));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
}
