//! Token files: what is read from one, and who else may read or write it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use thiserror::Error;

use crate::config::control::TOKEN_BYTES_MAX;

/// Why a token file can't be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] io::Error),
    /// Anybody on this machine could put a token of their own into it.
    #[error("everybody on this machine can write it (mode {mode:03o}); take that away: chmod o-w FILE")]
    Open {
        /// Its permissions.
        mode: u32,
    },
    /// There is no token in it.
    #[error("it is empty; write a token into it, as in `openssl rand -hex 32 > FILE`")]
    Empty,
    /// It is too large for a token.
    #[error("it has more than {TOKEN_BYTES_MAX} bytes; a token is one line")]
    TooLarge,
    /// It holds what an HTTP header can't.
    #[error("a token is one line of visible ASCII characters without spaces")]
    BadCharacter,
}

/// Reads the token from a file, as a control plane and its clients do, without the white space around it. Also returns, in
/// a sentence for the operator, who else can read or write the file: Kubernetes and Compose mount secrets readable for everybody, in a container where nobody
/// else is.
///
/// # Errors
/// Everybody may write the file, or there is no token in it.
pub fn read_token(path: &Path) -> Result<(String, Option<String>), TokenError> {
    // A link is followed: Kubernetes mounts a secret as one.
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o002 != 0 {
        return Err(TokenError::Open { mode });
    }
    let mut bytes = Vec::new();
    file.take(TOKEN_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLarge);
    }
    let token = bytes.trim_ascii();
    if token.is_empty() {
        return Err(TokenError::Empty);
    }
    let token = std::str::from_utf8(token).ok().filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
    let token = token.ok_or(TokenError::BadCharacter)?.to_owned();
    Ok((token, exposure(path, mode)))
}

/// Who else can read or write a file with this mode, if that is too many.
fn exposure(path: &Path, mode: u32) -> Option<String> {
    let (who, remedy) = match mode {
        _ if mode & 0o004 != 0 && mode & 0o020 != 0 => {
            ("everybody on this machine can read, and its group write,", "g-w,o=")
        }
        _ if mode & 0o004 != 0 => ("everybody on this machine can read", "o="),
        _ if mode & 0o020 != 0 => ("its group can write", "g-w"),
        _ => return None,
    };
    let path = path.display();
    Some(format!(
        "{who} the token file {path} (mode {mode:03o}); unless nobody else is there, as in a container, take that away: \
         chmod {remedy} {path}, or defaultMode: 0400 where Kubernetes mounts it"
    ))
}
