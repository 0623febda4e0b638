//! Who may come in: what is spoken, how much of it, and on whose behalf.
//!
//! A web page that a developer visits can make the browser send requests to `localhost`, or to a
//! name of the page's own that it lets point there. What a browser sends without asking cannot be
//! gRPC over HTTP/2 with its content type; and what it sends on behalf of another site says so in
//! `Origin` and `Sec-Fetch-Site`. So gRPC is served as such and as nothing else, and requests on
//! behalf of other sites are refused. The pages that show the cluster's state are served only
//! under names that no stranger can point here. Probes and metrics say nothing secret and are
//! served under every name: load balancers and Prometheus use many.

use std::net::IpAddr;
use std::str::FromStr;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use tonic::Status;
use tonic::body::Body;

/// Headers of one request, decoded. Room for a token and little else.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// What each header counts besides its letters, by HTTP/2.
const HEADER_OVERHEAD_BYTES: usize = 32;

/// Pages that show the state of the cluster.
const PRIVATE_PAGES: [&str; 2] = ["/", "/status"];

/// Ends of names that cannot be registered: they mean something in one network only.
const PRIVATE_ENDS: [&str; 4] = [".localhost", ".local", ".internal", ".svc"];

/// The names under which this member may be called by browsers, besides those that no stranger can
/// have: IP addresses, names without a dot, and private names.
#[derive(Clone, Debug, Default)]
pub struct Names {
    any: bool,
    own: String,
    listed: Vec<String>,
}

impl Names {
    /// The name by which this member is known, and those that the operator lists, without ports;
    /// `*` is any.
    pub fn new(own: &str, listed: &[String]) -> Self {
        let any = listed.iter().any(|name| name == "*");
        Self { any, own: own.to_owned(), listed: listed.to_vec() }
    }

    fn allows(&self, host: &str) -> bool {
        is_private(host) || self.own.eq_ignore_ascii_case(host) || self.lists(host)
    }

    /// Whether pages of `host` may ask too.
    fn lists(&self, host: &str) -> bool {
        self.any || self.listed.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Whether no stranger can make `host` point here.
fn is_private(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    !host.contains('.') || IpAddr::from_str(ip).is_ok() || {
        PRIVATE_ENDS.iter().any(|end| host.ends_with(end))
    }
}

/// What a request that may come in is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A gRPC call.
    Call,
    /// Anything else: a page.
    Page,
}

/// What `request` is, or the answer that it gets instead of being served.
pub(super) fn judge<B>(request: &Request<B>, names: &Names) -> Result<Kind, Box<Response<Body>>> {
    let headers = request.headers();
    if let Some(origin) = headers.get(header::ORIGIN)
        && !is_own(origin, host(request), names)
    {
        let why = "requests on behalf of this origin are not allowed (RAFT_ALLOWED_HOSTS)\n";
        return Err(Box::new(refusal(StatusCode::FORBIDDEN, why)));
    }
    if is_grpc(headers) && request.version() == Version::HTTP_2 {
        let bytes = header_bytes(headers);
        if bytes > HEADER_BYTES_MAX {
            let why = format!("the metadata has {bytes} bytes, and at most {HEADER_BYTES_MAX} fit");
            return Err(Box::new(Status::resource_exhausted(why).into_http()));
        }
        return Ok(Kind::Call);
    }
    if is_grpc(headers) || names_a_method(request) {
        let why = "gRPC is served over HTTP/2 with the content type application/grpc\n";
        return Err(Box::new(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, why)));
    }
    if is_cross_site(headers) {
        return Err(Box::new(refusal(
            StatusCode::FORBIDDEN,
            "requests from other sites are not allowed\n",
        )));
    }
    if PRIVATE_PAGES.contains(&request.uri().path())
        && host(request).is_some_and(|host| !names.allows(host.host()))
    {
        let why = "this page is not served under this name (RAFT_ALLOWED_HOSTS)\n";
        return Err(Box::new(refusal(StatusCode::MISDIRECTED_REQUEST, why)));
    }
    Ok(Kind::Page)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let rest = kind.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.first().is_none_or(|next| b"+;".contains(next)))
}

/// Whether it is a call by its path alone: `POST /package.Service/Method`.
fn names_a_method<B>(request: &Request<B>) -> bool {
    let path = request.uri().path().strip_prefix('/').unwrap_or_default();
    let service = path.split_once('/').map(|(service, _)| service);
    request.method() == Method::POST && service.is_some_and(|service| service.contains('.'))
}

fn header_bytes(headers: &HeaderMap) -> usize {
    let bytes = |(name, value): (&http::HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES
    };
    headers.iter().map(bytes).sum()
}

/// The name by which this member is called.
fn host<B>(request: &Request<B>) -> Option<Authority> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.clone());
    }
    let host = request.headers().get(header::HOST)?;
    // A name that is none is a name that nobody allowed.
    let unreadable = || Authority::from_static("unreadable.invalid");
    Some(Authority::try_from(host.as_bytes()).unwrap_or_else(|_| unreadable()))
}

/// Whether pages of `origin` may ask: the member's own, and those of the listed names.
fn is_own(origin: &HeaderValue, host: Option<Authority>, names: &Names) -> bool {
    let origin = Uri::try_from(origin.as_bytes()).ok().and_then(|uri| uri.into_parts().authority);
    let Some(origin) = origin else { return names.any };
    let same = host.is_some_and(|host| host == origin && names.allows(host.host()));
    same || names.lists(origin.host())
}

/// Whether a browser says that another site asks, other than by a link that is followed here.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let is = |name: &str, values: &[&str]| {
        headers.get(name).is_some_and(|value| values.iter().any(|known| value == known))
    };
    is("sec-fetch-site", &["cross-site", "same-site"]) && !is("sec-fetch-mode", &["navigate"])
}

fn refusal(status: StatusCode, why: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(axum::body::Body::from(why)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        version: Version,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Kind, u16> {
        let mut request = Request::builder().version(version).method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let names = Names::new("node1.example.com", &["etcd.example.com".to_owned()]);
        judge(&request, &names).map_err(|response| response.status().as_u16())
    }

    fn call(version: Version, content_type: &str) -> Result<Kind, u16> {
        let headers = [("content-type", content_type)];
        judged(version, Method::POST, "/etcdserverpb.KV/Range", &headers)
    }

    fn page(path: &str, headers: &[(&str, &str)]) -> Result<Kind, u16> {
        judged(Version::HTTP_11, Method::GET, path, headers)
    }

    #[test]
    fn grpc_is_http2_with_its_content_type() {
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc; a=b"] {
            assert_eq!(call(Version::HTTP_2, kind), Ok(Kind::Call), "{kind}");
            assert_eq!(call(Version::HTTP_11, kind), Err(415), "{kind}");
        }
        for kind in ["text/plain", "application/grpc-web", "application/json", ""] {
            assert_eq!(call(Version::HTTP_2, kind), Err(415), "{kind}");
            assert_eq!(call(Version::HTTP_11, kind), Err(415), "{kind}");
        }
    }

    #[test]
    fn other_origins_are_refused() {
        let host = ("host", "localhost:2379");
        for origin in [
            "http://evil.example.com",
            "http://localhost:3000",
            "http://node1.example.com",
            "https://localhost.evil",
            "null",
        ] {
            assert_eq!(page("/health", &[host, ("origin", origin)]), Err(403), "{origin}");
        }
        for origin in ["http://localhost:2379", "https://etcd.example.com"] {
            assert_eq!(page("/health", &[host, ("origin", origin)]), Ok(Kind::Page), "{origin}");
        }
        let rebound = [("host", "evil.example.com"), ("origin", "http://evil.example.com")];
        assert_eq!(page("/health", &rebound), Err(403));
    }

    #[test]
    fn other_sites_may_link_here_and_no_more() {
        let from = ("sec-fetch-site", "cross-site");
        assert_eq!(page("/", &[from, ("sec-fetch-mode", "no-cors")]), Err(403));
        assert_eq!(page("/", &[from, ("sec-fetch-mode", "navigate")]), Ok(Kind::Page));
        assert_eq!(page("/", &[("sec-fetch-site", "same-origin")]), Ok(Kind::Page));
    }

    #[test]
    fn the_state_is_shown_under_known_names_only() {
        for host in [
            "127.0.0.1:2379",
            "[::1]:2379",
            "localhost:2379",
            "node1:2379",
            "raft-0.raft.default.svc.cluster.local:2379",
            "raft.default.svc:2379",
            "ETCD.example.com:2379",
            "node1.example.com:2379",
        ] {
            assert_eq!(page("/status", &[("host", host)]), Ok(Kind::Page), "{host}");
        }
        for host in ["evil.example.com:2379", "127.0.0.1.evil.example.com", "not a name"] {
            assert_eq!(page("/status", &[("host", host)]), Err(421), "{host}");
            assert_eq!(page("/", &[("host", host)]), Err(421), "{host}");
            assert_eq!(page("/metrics", &[("host", host)]), Ok(Kind::Page), "{host}");
            assert_eq!(page("/readyz", &[("host", host)]), Ok(Kind::Page), "{host}");
        }
        assert_eq!(page("/status", &[]), Ok(Kind::Page), "HTTP/1.0 without a host");
    }

    #[test]
    fn any_name_is_allowed_where_the_operator_says_so() {
        let names = Names::new("node1", &["*".to_owned()]);
        let request = Request::get("/status")
            .header("host", "evil.example.com")
            .header("origin", "null")
            .body(())
            .expect("a request");
        assert_eq!(judge(&request, &names).ok(), Some(Kind::Page));
    }

    #[test]
    fn too_much_metadata_is_refused_as_such() {
        let value = "x".repeat(HEADER_BYTES_MAX);
        let request = Request::post("/etcdserverpb.KV/Range")
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("token", value)
            .body(())
            .expect("a request");
        let response = judge(&request, &Names::default()).expect_err("too much");
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    }
}
