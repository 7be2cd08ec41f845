//! Whether bytes are UTF-8, found out at memory speed where a build has WebSockets.

#[cfg(not(feature = "web"))]
pub(crate) use std::str::from_utf8;

/// As the standard library's, but for the error, which says nothing.
#[cfg(feature = "web")]
pub(crate) use simdutf8::basic::from_utf8;

/// With an error that tells where the bytes end to be UTF-8.
#[cfg(feature = "web")]
pub(crate) use simdutf8::compat::from_utf8 as from_utf8_up_to;
#[cfg(not(feature = "web"))]
pub(crate) use std::str::from_utf8 as from_utf8_up_to;
