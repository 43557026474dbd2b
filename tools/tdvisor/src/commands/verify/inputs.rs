//! Files and times that verification takes.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Bundle, CollateralError, Parts, Wanted};
use tdvisor_attest::eventlog::Register;
use tdvisor_attest::policy::Policy;
use tdvisor_attest::predict::list;
use tdvisor_attest::quote::{Measurement, Quote};
use tdvisor_attest::verify::TrustAnchor;

use crate::outcome::Failure;
use crate::read_bounded::{read_bounded, read_text_bounded};

/// The largest file that is read, in bytes; quotes and collateral are far smaller.
const MAX_FILE: u64 = 16 << 20;

/// Reads a file that evidence can be.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_bounded(path, MAX_FILE)
}

/// Reads a text of the same bound.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    read_text_bounded(path, MAX_FILE)
}

/// The most files that a folder of collateral may have.
const MAX_FILES: usize = 64;

/// Files of collateral, read.
pub struct Collateral {
    paths: Vec<PathBuf>,
    parts: Parts,
}

/// Reads files of collateral; a folder stands for the files in it. Their order does not matter.
pub fn read_collateral(paths: &[PathBuf]) -> Result<Collateral, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let problem = |error| Failure::input(path.display(), error);
        let entries = std::fs::read_dir(path).map_err(problem)?;
        let mut inside = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(problem)?;
        inside.sort();
        if inside.len() > MAX_FILES {
            return Err(Failure::input(path.display(), "too many files for collateral"));
        }
        files.extend(inside.into_iter().filter(|file| file.is_file()));
    }
    let mut parts = Parts::default();
    for file in &files {
        parts.add(&read(file)?).map_err(|error| Failure::input(file.display(), error))?;
    }
    Ok(Collateral { paths: files, parts })
}

impl Collateral {
    /// What the quote needs of it.
    pub fn bundle(&self, quote: &[u8]) -> Result<Bundle, Failure> {
        let built = match Quote::parse(quote) {
            Ok(quote) => self.parts.build_for(&Wanted::of(&quote)),
            // What is no quote is said by the verdict.
            Err(_) => self.parts.build(),
        };
        built.map_err(|error| self.failure(error))
    }

    /// Names the files at fault.
    fn failure(&self, error: CollateralError) -> Failure {
        let name =
            |file: usize| self.paths.get(file).map_or_else(String::new, |path| path.display().to_string());
        match error {
            CollateralError::Ambiguous { part, files: (first, second) } if first != second => Failure::input(
                "collateral",
                format!(
                    "{part}: {} and {} have different ones, and both fit the quote",
                    name(first),
                    name(second)
                ),
            ),
            CollateralError::Missing(_) => {
                let missing: Vec<String> = self.parts.missing().iter().map(ToString::to_string).collect();
                Failure::input("collateral", format!("missing: {}", missing.join(", ")))
            }
            error => Failure::input("collateral", error),
        }
    }
}

/// Reads a quote, as binary or as hexadecimal text.
pub fn read_quote(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read(path)?;
    let text = bytes.trim_ascii();
    let text = text.strip_prefix(b"0x").unwrap_or(text);
    let is_hex = !text.is_empty()
        && text.len().is_multiple_of(2)
        && text.iter().all(|digit| digit.is_ascii_hexdigit());
    if !is_hex {
        return Ok(bytes);
    }
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    Ok(text.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect())
}

/// Reads a policy.
pub fn read_policy(path: &Path) -> Result<Policy, Failure> {
    Policy::from_text(&read_text(path)?).map_err(|error| Failure::input(path.display(), error))
}

/// Reads what the running system says that it extended, and replays RTMR3 from it.
pub fn read_rtmr3(path: &Path) -> Result<Measurement, Failure> {
    let unusable = |error: &dyn std::fmt::Display| Failure::input(path.display(), error);
    let events = list::parse(&read_text(path)?).map_err(|error| unusable(&error))?;
    // Every digest of such a list is known.
    let value = events.value(Register::Rtmr3).ok_or_else(|| unusable(&"no value for RTMR3"))?;
    Ok(value.0)
}

/// Reads a root certificate.
pub fn read_root(path: &Path) -> Result<TrustAnchor, Failure> {
    TrustAnchor::from_bytes(&read(path)?).map_err(|error| Failure::input(path.display(), error))
}

/// Reads a time: seconds since 1970 or RFC 3339.
pub fn parse_time(text: &str) -> Result<UnixSeconds, String> {
    let seconds = text.parse().map(UnixSeconds).ok();
    seconds
        .or_else(|| UnixSeconds::from_rfc3339(text))
        .ok_or_else(|| "wanted: seconds since 1970, or YYYY-MM-DDThh:mm:ssZ".to_string())
}

/// The time of this machine's clock.
pub fn now() -> Result<UnixSeconds, Failure> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| UnixSeconds(since.as_secs()))
        .map_err(|_| Failure::input("clock", "before 1970; give --at"))
}
