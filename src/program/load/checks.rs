//! Checks of what the command line says, in the same words for all loads.

use super::LoadError;
use super::payload::STAMP_BYTES;

const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) fn check_message_size(bytes: usize) -> Result<usize, LoadError> {
    in_range("--message-size", bytes, STAMP_BYTES, MESSAGE_BYTES_MAX)
}

pub(super) fn in_range<T: PartialOrd + std::fmt::Display>(
    option: &'static str,
    value: T,
    min: T,
    max: T,
) -> Result<T, LoadError> {
    if value < min || value > max {
        let allowed = format!("it must be from {min} to {max}");
        return Err(LoadError::Argument { option, value: value.to_string(), allowed });
    }
    Ok(value)
}

/// `in_range` for a number that may also be NaN.
pub(super) fn positive(option: &'static str, value: f64, min_text: &str, min: f64, max: f64) -> Result<f64, LoadError> {
    if value >= min && value <= max {
        return Ok(value);
    }
    let allowed = format!("it must be from {min_text} to {max}");
    Err(LoadError::Argument { option, value: value.to_string(), allowed })
}
