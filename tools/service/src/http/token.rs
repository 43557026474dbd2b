//! What a client beyond this machine has to know, and files that hold a secret.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::geteuid;
use subtle::ConstantTimeEq as _;

/// Bytes of the shortest token: shorter ones can be guessed.
const SHORTEST: usize = 16;
/// Bytes of the longest token: it has to fit into the head of a request.
const LONGEST: usize = 1024;
/// Bytes of the largest file that a secret is read from.
const FILE_MAX: u64 = 64 << 10;
/// What of a file's mode is for others than its owner.
const FOR_OTHERS: u32 = 0o077;
/// The word in front of a token (RFC 6750).
const SCHEME: &str = "Bearer";

/// The bytes of a file that nobody reads but its owner, who is the user of this process, and the superuser.
///
/// # Errors
/// It is another's, others may read or write it, it is larger than 64 KiB, or cannot be read.
pub fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    const ROOT: u32 = 0;
    let refused = |problem| io::Error::new(io::ErrorKind::PermissionDenied, problem);
    let file = File::open(path)?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(refused("a secret is read from a file and from nothing else"));
    }
    if data.uid() != geteuid().as_raw() && data.uid() != ROOT {
        return Err(refused("the secret is another user's"));
    }
    if data.mode() & FOR_OTHERS != 0 {
        return Err(refused("others than its owner may use the secret: its mode has to be 0600"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the secret is larger than 64 KiB"));
    }
    Ok(bytes)
}

/// A token. It is in no message.
pub struct Token(Vec<u8>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token of a file of mode 0600: one line.
    ///
    /// # Errors
    /// [`read_secret`]; or it is no token of 16 to 1024 visible ASCII characters.
    pub fn read(path: &Path) -> io::Result<Self> {
        let token = read_secret(path)?.trim_ascii_end().to_vec();
        if (SHORTEST..=LONGEST).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic) {
            return Ok(Self(token));
        }
        let problem = "a token is one line of 16 to 1024 visible ASCII characters";
        Err(io::Error::new(io::ErrorKind::InvalidData, problem))
    }

    /// Whether the field `Authorization` has this token. How long that takes says nothing of where they differ.
    pub(super) fn is_in(&self, field: &[u8]) -> bool {
        let Some((scheme, rest)) = field.split_at_checked(SCHEME.len()) else { return false };
        let Some((b' ', rest)) = rest.split_first().map(|(first, rest)| (*first, rest)) else { return false };
        scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && bool::from(rest.trim_ascii().ct_eq(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(text: &str, mode: u32) -> io::Result<Token> {
        let path = std::env::temp_dir().join(format!("tdvisor-token-{}-{mode:o}", std::process::id()));
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let token = Token::read(&path);
        fs::remove_file(path).unwrap();
        token
    }

    #[test]
    fn a_token_is_admitted_and_nothing_that_is_nearly_it() {
        let token = read("0123456789abcdef\n", 0o600).unwrap();
        assert!(token.is_in(b"Bearer 0123456789abcdef") && token.is_in(b"bearer  0123456789abcdef"));
        for field in [
            &b""[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer 0123456789abcde",
            b"Bearer 0123456789abcdef0",
            b"Bearer 0123456789abcdeF",
            b"Basic 0123456789abcdef",
            b"Bearer0123456789abcdef",
            b"0123456789abcdef",
        ] {
            assert!(!token.is_in(field), "{}", String::from_utf8_lossy(field));
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_file_that_others_read_and_what_is_no_token_are_refused() {
        for mode in [0o640, 0o604, 0o622] {
            let error = read("0123456789abcdef", mode).unwrap_err();
            assert!(error.to_string().contains("0600"), "{mode:o}: {error}");
        }
        for text in [
            "",
            "short",
            "0123456789abcdef 0123456789abcdef",
            "0123456789\u{e9}abcdefgh",
            "0123456789abcdef\nx",
        ] {
            assert_eq!(read(text, 0o600).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text}");
        }
        assert!(read(&"a".repeat(LONGEST + 1), 0o600).is_err());
        assert!(read(&"a".repeat(FILE_MAX as usize + 1), 0o600).is_err());
        assert!(Token::read(Path::new("/dev/zero")).is_err());
    }
}
