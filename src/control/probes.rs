//! The paths by which balancers ask how the server is.

/// Whether a path tells of health: everybody may ask it, from any page and under any name.
pub(super) fn is_health(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// Whether an OPTIONS to this path asks how the server is. `OPTIONS /` is what HAProxy sends unless told otherwise.
pub(super) fn is_probed(path: &str) -> bool {
    is_health(path) || matches!(path, "/" | "*")
}

/// Where an OPTIONS to this path finds its answer.
pub(super) fn probe_of(path: &str) -> &'static str {
    if path == "/healthz" { "/healthz" } else { "/readyz" }
}
