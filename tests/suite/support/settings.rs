//! Settings that differ from others in some fields.

/// What `Config { field: value, ..base }` would be, which other crates can't write: there may be more settings one day.
macro_rules! settings {
    (@ $field:ident) => { $field };
    (@ $field:ident $value:expr) => { $value };
    ($($field:ident $(: $value:expr)?,)+ ..$base:expr) => {{
        let mut config = $base;
        $(config.$field = settings!(@ $field $($value)?);)+
        config
    }};
}
