//! `tdvisor serve-worker`: the process of one TD of `tdvisor serve`, which starts it.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tdvisor_runtime::board::Transport;
use tdvisor_service::worker::{self, WorkerOptions};

use super::hardware::HardwareArgs;
use super::run::quotes::{Genuine, LastQuote, TestIssuer};
use crate::outcome::{Failure, Status};

/// The word that this command is called by.
pub const NAME: &str = "serve-worker";

/// Run one TD for `tdvisor serve`, which starts this with a socket as standard input.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    #[command(flatten)]
    hardware: HardwareArgs,
}

/// Follows the service's orders until the TD has ended, or the service.
pub fn run(args: Args) -> Result<Status, Failure> {
    let options = WorkerOptions {
        hardware: args.hardware.hardware()?,
        transport: Transport::Pci,
        quotes: Arc::new(|machine| {
            Box::new(TestIssuer::new(Genuine::Machine(machine), LastQuote::default()))
        }),
    };
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let served = socket.and_then(|socket| worker::serve(UnixStream::from(socket), &options));
    served.map_err(|error| Failure::input("standard input is no socket of a service", error))?;
    Ok(Status::Success)
}
