//! The command line.
//!
//! | word | means |
//! |---|---|
//! | `memory=SIZE` | memory of the TD: bytes, or a number with K, M or G |
//! | `vcpus=N` | vCPUs of the TD |
//! | `command=WORD` | what the built-in guests are told |
//! | `exit-port=PORT` | where the machine takes the host's status: `isa-debug-exit` of QEMU, `tdvisor server` |
//! | `BOOT_IMAGE=…` | nothing: some boot loaders put it there |
//!
//! Any other word is refused: what is not understood cannot have been done.

use core::fmt;

use td_host::td::config::TdConfig;

/// The mark of a command in the TD HOB, in the byte order of the HOB (see the guests' README).
const COMMAND_HOB_GUID: [u8; 16] =
    [0x34, 0x58, 0x12, 0x1F, 0x85, 0x4E, 0x7C, 0x40, 0xA7, 0xDB, 0xAF, 0x17, 0x0E, 0xAE, 0x8D, 0xF7];

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The TD.
    pub config: TdConfig,
    /// The port that takes the host's status.
    pub exit_port: Option<u16>,
}

/// A word that is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWord<'a>(&'a str);

impl fmt::Display for BadWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' on the command line is not understood", self.0)
    }
}

/// The port that takes the host's status: looked for first, so that a bad command line can be answered there.
pub fn exit_port(line: &str) -> Option<u16> {
    line.split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("exit-port="))
        .and_then(number)
        .and_then(|port| u16::try_from(port).ok())
}

/// Reads the command line.
///
/// # Errors
/// The first [`BadWord`].
pub fn parse(line: &str) -> Result<Options, BadWord<'_>> {
    let mut options = Options { config: TdConfig::default(), exit_port: exit_port(line) };
    for word in line.split_ascii_whitespace() {
        let understood = match word.split_once('=') {
            Some(("memory", size)) => number(size).map(|bytes| options.config.memory = bytes),
            Some(("vcpus", count)) => number(count)
                .and_then(|count| u32::try_from(count).ok())
                .map(|count| options.config.vcpus = count),
            Some(("command", command)) => {
                options.config.hob_extensions.push((COMMAND_HOB_GUID, command.into()));
                Some(())
            }
            Some(("exit-port", _)) => options.exit_port.map(drop),
            Some(("BOOT_IMAGE", _)) => Some(()),
            _ => None,
        };
        understood.ok_or(BadWord(word))?;
    }
    Ok(options)
}

/// A decimal number with K, M or G, or a hexadecimal one after 0x.
fn number(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok();
    }
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (text.strip_suffix('K')?, 10),
        b'M' => (text.strip_suffix('M')?, 20),
        b'G' => (text.strip_suffix('G')?, 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
