//! What the conversation finds in this TD.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use guest_rt::measurement::{REPORT_DATA_LENGTH, Report};
use tdvisor_migration_td::mailbox::{Target, Wish};
use tdvisor_migration_td::{MigrationKey, Surroundings};
use tdx_guest::tdcall::TdCallError;
use tdx_module_iface::report::{TdInfo, TdReport};

use crate::host::{Host, NoAnswer};
use crate::{module, random};

/// Why something is not to be had.
#[derive(Debug)]
pub enum Missing {
    /// The host did not answer.
    Host(NoAnswer),
    /// The module refused.
    Module(TdCallError),
    /// The module's report is none.
    Report,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Module(error) => write!(f, "{error:?}"),
            Self::Report => f.write_str("its report is none"),
        }
    }
}

/// The TD around a conversation.
pub struct Inside {
    host: Host,
    report: &'static mut [u8],
}

impl Inside {
    /// A TD with a host, and a page of its own for reports.
    pub fn new(host: Host, report: &'static mut [u8]) -> Self {
        Self { host, report }
    }

    /// The host.
    pub fn host(&mut self) -> &mut Host {
        &mut self.host
    }
}

impl Surroundings for Inside {
    type Error = Missing;

    fn random(&mut self, out: &mut [u8]) -> bool {
        random::fill(out)
    }

    fn own(&mut self) -> Result<TdInfo, Missing> {
        let report = Report::take(self.report, &[0; REPORT_DATA_LENGTH]).map_err(Missing::Module)?;
        let report = TdReport::from_bytes(report.bytes()).map_err(|_| Missing::Report)?;
        Ok(report.td_info)
    }

    fn configuration(&mut self) -> Result<Vec<u8>, Missing> {
        self.host.ask(Wish::Configuration, &[]).map_err(Missing::Host)
    }

    fn quote(&mut self, report_data: &[u8; REPORT_DATA_LENGTH]) -> Result<Option<Vec<u8>>, Missing> {
        let report = Report::take(self.report, report_data).map_err(Missing::Module)?;
        Ok(self.host.quote(&report))
    }

    fn collateral(&mut self, quote: &[u8]) -> Result<String, Missing> {
        self.host.collateral(quote).map_err(Missing::Host)
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Missing> {
        self.host.ask(Wish::Send, message).map(drop).map_err(Missing::Host)
    }

    fn receive(&mut self) -> Result<Vec<u8>, Missing> {
        self.host.ask(Wish::Receive, &[]).map_err(Missing::Host)
    }

    fn sending_key(&mut self, target: &Target) -> Result<MigrationKey, Missing> {
        module::sending_key(target).map_err(Missing::Module)
    }

    fn set_receiving_key(&mut self, target: &Target, key: &MigrationKey) -> Result<(), Missing> {
        module::set_receiving_key(target, key).map_err(Missing::Module)
    }
}
