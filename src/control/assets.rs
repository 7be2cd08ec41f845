//! The dashboard: one page and its files, built into the program.

use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use crate::control::problem::{Problem, ProblemCode};

/// A file, as it is served.
struct Asset {
    /// Its path under `/assets/`.
    path: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($path:literal,)*) => {
        &[$(Asset { path: $path, bytes: include_bytes!(concat!("dashboard/", $path)) },)*]
    };
}

const ASSETS: &[Asset] = assets![
    "api.js",
    "charts.js",
    "dashboard.js",
    "favicon.svg",
    "format.js",
    "history.js",
    "index.html",
    "publish.js",
    "stream.js",
    "style.css",
    "tables.js",
    "theme.js",
    "vendor/LICENSE-uPlot",
    "vendor/uPlot.iife.min.js",
    "vendor/uPlot.min.css",
];

/// The page loads nothing from elsewhere and is not shown inside other pages.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What browsers are told of everything else: it is no page, and nothing in it is loaded.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

/// Tells browsers what no response is for: to be guessed at, kept, shown in a frame, or loaded by other sites' pages.
pub(super) fn protect(headers: &mut HeaderMap) {
    let own = HeaderName::from_static("cross-origin-resource-policy");
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, NO_PAGE),
        (REFERRER_POLICY, "no-referrer"),
        (own, "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Whether a path may be fetched without the token: the page itself asks for it.
pub(super) fn is_public(path: &str) -> bool {
    path == "/" || path.starts_with("/assets/")
}

/// The page.
pub(super) async fn page() -> Response {
    serve("index.html")
}

/// One of its files.
pub(super) async fn asset(Path(path): Path<String>) -> Response {
    serve(&path)
}

fn serve(path: &str) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        return Problem::new(ProblemCode::NotFound, "the dashboard has no such file").into_response();
    };
    let headers = [
        (CONTENT_TYPE, media_type(asset.path)),
        (CONTENT_SECURITY_POLICY, POLICY),
        // A new version of the server has new files under the same names.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, asset.bytes).into_response()
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, end)| end) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "json" => "application/json",
        "woff2" => "font/woff2",
        "png" => "image/png",
        _ => "text/plain; charset=utf-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_dashboard_is_served() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control/dashboard");
        let (mut folders, mut files) = (vec![root.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files.sort();
        let mut served: Vec<_> = ASSETS.iter().map(|asset| asset.path).collect();
        served.sort_unstable();
        assert_eq!(files, served);
    }
}
