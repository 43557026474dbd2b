//! `tdvisor dump`: what a TD of the service holds, as a core file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tdvisor_runtime::private_file;
use tdvisor_service::http::{Client, Reply};
use tdvisor_service::td_api::ROOT;
use tdvisor_service::worker::is_name;

use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Write memory and registers of a TD of `tdvisor serve` to a file, for crash, drgn and gdb.
///
/// The TD was asked for with `"inspectable": true, "dump": true`: there is nothing of any other. One that runs is paused for it, and
/// runs on; of one that has ended the file is as it was then. It is an ELF core in the form of Linux's /proc/vmcore, which only its
/// owner may read. (`tdvisor run --inspectable --dump FILE` does the same for a TD without a service.)
///
/// Exit status: 0 the file is whole, 2 bad usage, a TD that cannot be dumped, or no service at the socket.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The socket of the service.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The TD.
    #[arg(value_name = "TD")]
    td: String,
    /// The file to be written. One that is there is replaced once the new one is whole.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// How long an answer may take: the service gives up earlier.
const PATIENCE: Duration = Duration::from_secs(150);

/// The TD, by its service.
struct Td<'a> {
    socket: &'a Path,
    name: &'a str,
}

/// Why there is no dump.
enum NotDumped {
    /// The service cannot be asked.
    Service(io::Error),
    /// The service refuses.
    Refused(Vec<String>),
    /// The file.
    File(io::Error),
}

impl From<io::Error> for NotDumped {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl Td<'_> {
    fn ask(&self, method: &Method, resource: &str) -> Result<Reply, NotDumped> {
        let path = format!("{ROOT}/tds/{}{resource}", self.name);
        let asked = Client::connect(self.socket)
            .and_then(|mut client| client.ask(method, &path, None, PATIENCE))
            .map_err(NotDumped::Service)?;
        if asked.status.is_success() {
            return Ok(asked);
        }
        let sentences: Vec<String> = serde_json::from_slice(&asked.body).unwrap_or_default();
        Err(NotDumped::Refused(if sentences.is_empty() { vec![asked.status.to_string()] } else { sentences }))
    }

    fn phase(&self) -> Result<String, NotDumped> {
        let reply = self.ask(&Method::GET, "")?;
        let phase = reply.json().ok().and_then(|td: Value| Some(td["phase"].as_str()?.to_owned()));
        phase.ok_or_else(|| NotDumped::Refused(vec!["what answers is no service of TDs".to_owned()]))
    }

    /// Has it dumped, if it runs.
    fn dump(&self) -> Result<(), NotDumped> {
        match self.phase()?.as_str() {
            "paused" => self.ask(&Method::PUT, "/dump").map(drop),
            "running" => {
                self.ask(&Method::PUT, "/pause")?;
                let dumped = self.ask(&Method::PUT, "/dump");
                // It may have been stopped meanwhile.
                let resumed = self.ask(&Method::PUT, "/resume");
                dumped.and(resumed).map(drop)
            }
            // Of one that has ended there is what was written then, or a reason why there is nothing.
            _ => Ok(()),
        }
    }

    /// Writes what there is, piece by piece.
    fn copy(&self, mut out: &File) -> Result<(), NotDumped> {
        let mut from = 0u64;
        loop {
            let piece = self.ask(&Method::GET, &format!("/dump?from={from}"))?.body;
            if piece.is_empty() {
                return Ok(());
            }
            out.write_all(&piece)?;
            from += piece.len() as u64;
        }
    }
}

/// Dumps the TD.
pub fn run(args: Args) -> Result<Status, Failure> {
    if !is_name(&args.td) {
        return Err(Failure::input(&args.td, "no TD has such a name"));
    }
    let td = Td { socket: &args.socket, name: &args.td };
    let written = td.dump().and_then(|()| private_file::replace(&args.file, |file| td.copy(file)));
    match written {
        Ok(bytes) => {
            print(&format!("{}: {bytes} bytes\n", args.file.display()))?;
            Ok(Status::Success)
        }
        Err(NotDumped::Service(error)) => Err(Failure::input(args.socket.display(), error)),
        Err(NotDumped::File(error)) => Err(Failure::input(args.file.display(), error)),
        Err(NotDumped::Refused(sentences)) => Err(Failure::input(&args.td, sentences.join(": "))),
    }
}
