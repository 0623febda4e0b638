//! `/`: the member's state for people. One file, no outside resource, no framework.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

const PAGE: &str = include_str!("page.html");

pub(super) async fn show() -> Response {
    // The page may run its own script and ask its own origin, and nothing else.
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE)).into_response()
}

#[cfg(test)]
mod tests {
    use super::PAGE;

    #[test]
    fn page_needs_nothing_from_elsewhere() {
        for outside in ["http://", "https://", "src=", "<link", "@import", "innerHTML"] {
            assert!(!PAGE.contains(outside), "the page holds {outside}");
        }
    }
}
