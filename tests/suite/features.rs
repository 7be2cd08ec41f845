//! What a library user pays for: the packages that each feature brings.

use std::collections::BTreeSet;
use std::process::Command;

/// The packages that a library with `default-features = false` depends on.
const CORE: [&str; 12] = [
    "async-channel",
    "bytes",
    "futures-lite",
    "glommio",
    "io-uring",
    "libc",
    "memchr",
    "rustix",
    "sharded-slab",
    "socket2",
    "thiserror",
    "tracing",
];

/// The packages that the crate itself depends on with these features, as `cargo tree` lists them.
fn packages(features: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges=normal", "--depth=1", "--prefix=none", "--format={p}"])
        .args(["--no-default-features", "--features", features])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // The first line is the crate itself.
    text.lines().skip(1).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_library_alone_depends_on_twelve_packages() {
    let core: Vec<_> = packages("").into_iter().collect();
    assert_eq!(core, CORE, "a dependency that not every user needs belongs to a feature, as optional = true");
}

#[test]
fn each_feature_brings_what_it_needs_and_not_what_is_of_the_next_one() {
    for (features, brings, spares) in [
        ("serde", "humantime", "serde_json"),
        ("web", "httparse", "humantime"),
        ("web", "serde_json", "axum"),
        ("web", "zlib-rs", "clap"),
        ("control", "axum", "clap"),
        ("program", "clap", "mio"),
        ("load", "mio", "criterion"),
    ] {
        let packages = packages(features);
        assert!(packages.contains(brings), "{features} lacks {brings}: {packages:?}");
        assert!(!packages.contains(spares), "{features} brings {spares}");
    }
}
