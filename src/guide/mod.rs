#![doc = include_str!("rustdoc.links")]
#![doc = include_str!("README.md")]

// Each page reads well in two places: in the repository, where a link leads to another Markdown file, and in rustdoc,
// where it leads to a module. So pages use link references, and `rustdoc.links` comes before them: of two definitions of
// a reference, the first counts. A test in tests/suite/guide.rs holds the two against each other.
macro_rules! pages {
    ($($page:ident)*) => {
        $(
            #[doc = include_str!("rustdoc.links")]
            #[doc = include_str!(concat!(stringify!($page), ".md"))]
            pub mod $page {}
        )*
    };
}

pages! { language http_api settings metrics operating load results design }

/// Compiles the example in the repository's README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
