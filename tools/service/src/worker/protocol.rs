//! What the service and a worker say to each other.
//!
//! # Form
//! JSON lines on a socket that the worker inherits as its standard input. The service asks ([`Asked`]), with numbers of its
//! own, and the worker answers each in turn; it brings quotes ([`Told::Quote`]) that the worker asked for, at any time. The worker tells ([`Said`]) what
//! happens whenever it happens, and at last how the TD ended. Either end closing the socket ends the worker. Both ends are of one program; a version that differs is refused.
//!
//! # Bounds
//! A line has [`LINE_MAX`] bytes at most; each end gives up the other at the first that has more, or that is none of these.

use std::io::{self, BufRead, Read as _};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::request::TdRequest;

/// The version of the form.
pub const VERSION: u32 = 5;
/// Bytes of the longest line.
pub const LINE_MAX: usize = 16 << 20;

/// What is to be done.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Order {
    /// Builds, measures and runs the TD. The answer comes when its vCPUs run.
    Boot {
        /// What is asked for.
        plan: Box<Plan>,
    },
    /// Makes its vCPUs stand still.
    Pause,
    /// Lets them run on.
    Resume,
    /// Ends it.
    Stop,
    /// Says how often its vCPUs left their guests.
    Exits,
    /// Says which SEAMCALLs there were.
    Seamcalls,
    /// Says what was measured.
    Measurements,
    /// Gives its last quotes.
    Quotes,
    /// Compares mirror, Secure EPT and PAMT.
    Audit,
    /// Gives entries of its page tables.
    PageTables {
        /// The first address.
        from: u64,
        /// How many entries, at most.
        limit: usize,
    },
    /// Writes the inspector's page of it into its file.
    Inspector,
    /// Writes what it holds into its file.
    Dump,
    /// Saves it into its file, which ends it. The answer comes when it is told to stop; what came of it is in its report.
    Save,
    /// Gives its numbers in the OpenMetrics form.
    Metrics,
}

/// Where the quotes of a TD come from.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuotesFrom {
    /// The worker issues them.
    Worker,
    /// The service fetches them.
    Service,
    /// There are none.
    Nobody,
}

impl Order {
    /// What is asked for, where the emulated machine alone has it.
    pub const fn only_emulated(&self) -> Option<&'static str> {
        Some(match self {
            Self::Seamcalls => "its SEAMCALLs",
            Self::Audit => "the audit of its page tables",
            Self::PageTables { .. } => "its page tables",
            Self::Inspector => "the inspector's page",
            Self::Dump => "a dump",
            Self::Save => "a snapshot",
            Self::Boot { .. }
            | Self::Pause
            | Self::Resume
            | Self::Stop
            | Self::Exits
            | Self::Measurements
            | Self::Quotes
            | Self::Metrics => return None,
        })
    }
}

/// What a worker is to do with its one TD.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Plan {
    /// The TD's name.
    pub name: String,
    /// What is asked for.
    pub request: TdRequest,
    /// The file of its console, which is there.
    pub console: String,
    /// Bytes of the console that are kept.
    pub console_max: u64,
    /// The file of its SEAMCALLs, which is there, if they are written down.
    pub trace: Option<String>,
    /// The file of the inspector's page, which is there, if it is kept.
    pub inspector: Option<String>,
    /// The file of its dump, which is there, if it may be dumped.
    pub dump: Option<String>,
    /// The file of its next snapshot, which is there, if it may be saved.
    pub saving: Option<String>,
    /// The snapshot that it goes on from, if it does.
    pub restored: Option<String>,
    /// The socket of its debugger, which is made and left by the worker, if it is debugged.
    pub gdb: Option<String>,
    /// Bytes of SEAMCALLs that are kept.
    pub trace_max: u64,
    /// Where its quotes come from.
    pub quotes: QuotesFrom,
    /// Whether the TD may run where the kernel has no seccomp.
    pub without_seccomp: bool,
}

/// An order on its way.
#[derive(Debug, Deserialize, Serialize)]
pub struct Asked {
    /// [`VERSION`].
    pub version: u32,
    /// What the answer is found by.
    pub number: u64,
    /// What is to be done.
    pub order: Order,
}

/// What the service says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Told {
    /// An order.
    Order(Asked),
    /// What came of a wish for a quote ([`Said::Quote`]).
    Quote {
        /// The number that it was asked for with.
        number: u64,
        /// The quote in base64, if there is one.
        quote: Option<String>,
    },
}

/// Of which kind a refusal is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The TD is in another state.
    State,
    /// What the TD is asked for with cannot be had: a file, a device.
    Input,
    /// The machine has no room for one more TD now.
    Full,
    /// The host failed.
    Failed,
    /// The request took too long.
    Overdue,
}

/// Why an order is not followed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The refusal's kind.
    pub kind: RefusalKind,
    /// The reason.
    pub text: String,
}

impl Refusal {
    /// A refusal for this reason.
    pub fn new(kind: RefusalKind, text: impl ToString) -> Self {
        Self { kind, text: text.to_string() }
    }
}

/// What a worker says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum Said {
    /// The answer to an order.
    Answer {
        /// The order's number.
        number: u64,
        /// What came of it.
        result: Result<Value, Refusal>,
    },
    /// Something happened.
    Event {
        /// One of `tdvisor_runtime::events`, or of the worker itself.
        event: Value,
    },
    /// A quote is wanted, which [`Told::Quote`] brings.
    Quote {
        /// What the quote is found by.
        number: u64,
        /// The TDREPORT, in base64.
        report: String,
    },
    /// The TD has ended, and everything was given back. Nothing follows.
    Ended {
        /// What there is to say of it.
        report: Value,
        /// The TD's numbers.
        metrics: String,
    },
}

/// A line with its end.
pub fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    if bytes.len() >= LINE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
    }
    bytes.push(b'\n');
    Ok(bytes)
}

/// The next line; `None` at the end.
///
/// # Errors
/// The other end is gone, or what it says is too long or none of these.
pub fn next<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut bytes = Vec::new();
    from.by_ref().take(LINE_MAX as u64 + 1).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the line has no end"));
    }
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written_and_nothing_else_is() {
        let order = Order::PageTables { from: 1 << 40, limit: 3 };
        let asked = Told::Order(Asked { version: VERSION, number: 7, order: order.clone() });
        let ended = Said::Answer { number: 7, result: Err(Refusal::new(RefusalKind::State, "no")) };
        let bytes = [line(&asked).unwrap(), line(&ended).unwrap(), b"{\"say\":".to_vec()].concat();
        let mut from = &bytes[..];
        let Some(Told::Order(read)) = next(&mut from).unwrap() else { panic!("no order") };
        assert_eq!((read.number, read.order), (7, order));
        assert!(matches!(next(&mut from).unwrap(), Some(Said::Answer { number: 7, result: Err(_) })));
        assert!(next::<Said>(&mut from).is_err(), "half a line");
        assert!(next::<Said>(&mut from).unwrap().is_none());
        assert!(next::<Said>(&mut &b"{\"say\":\"more\"}\n"[..]).is_err());
        let long = vec![b' '; LINE_MAX + 2];
        assert!(next::<Said>(&mut &long[..]).is_err());
    }
}
