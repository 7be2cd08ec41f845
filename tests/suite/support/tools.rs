//! Tools that some tests need and a machine may lack.

use std::path::Path;
use std::process::Command;

use super::is_here;

/// Whether a program can be run at all.
pub(crate) fn runs(program: impl AsRef<std::ffi::OsStr>) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|ran| ran.status.success())
}

/// Whether Node and a package of `tests/browser` are here.
pub(crate) fn node_has(package: &str) -> bool {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/node_modules");
    is_here("node", runs("node")) && is_here(package, modules.join(package).exists())
}

/// Whether a browser can be driven.
pub(crate) fn can_browse() -> bool {
    let chromium = std::env::var_os("CHROMIUM").is_some() || Path::new("/usr/bin/chromium").exists();
    node_has("playwright-core") && is_here("chromium", chromium)
}
