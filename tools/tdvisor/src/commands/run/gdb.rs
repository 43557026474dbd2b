//! `--gdb`: a debugger of the TD.

use std::sync::Arc;

use machine_emu::Pace;
use seam_emu::guest::debug::DebugPort;
use tdvisor_runtime::debugger::{Debugger, Endpoint, Listener};

use super::summary::Privacy;
use crate::outcome::Failure;
use crate::streams::Streams;

/// The processor that the host has for itself, beside one for each vCPU.
const PROCESSORS_OF_HOST: usize = 1;

/// Options of debugging.
#[derive(Debug, clap::Args)]
pub struct GdbArgs {
    /// Let gdb debug the TD: at a socket file (a path with a slash in it), or a port of this machine (HOST:PORT). The TD
    /// waits before its first instruction until gdb comes (`target remote SOCKET`), and runs on when it detaches. Only
    /// an emulator can do this to a TD that is not in debug mode.
    #[arg(long, value_name = "SOCKET|HOST:PORT")]
    gdb: Option<Endpoint>,
}

/// A debugger whose machine is not there yet.
pub struct Waiting {
    port: Arc<DebugPort>,
    listener: Listener,
}

impl GdbArgs {
    /// Whether a debugger was asked for.
    pub const fn is_given(&self) -> bool {
        self.gdb.is_some()
    }

    /// Listens for gdb, if that is asked for.
    pub fn listen(&self, vcpus: u32, pace: Pace) -> Result<Option<Waiting>, Failure> {
        let Some(endpoint) = &self.gdb else { return Ok(None) };
        if pace != Pace::Real && vcpus > 1 {
            let why =
                "a vCPU that gdb halts keeps its turn, so with --deterministic there can be one vCPU only";
            return Err(Failure::input("--gdb", why));
        }
        let listener = Listener::bind(endpoint)
            .map_err(|error| Failure::input("--gdb", format!("{endpoint}: {error}")))?;
        let port = DebugPort::new(vcpus as usize + PROCESSORS_OF_HOST);
        Ok(Some(Waiting { port, listener }))
    }
}

impl Waiting {
    /// What the machine's processors are stopped by.
    pub fn port(&self) -> Arc<DebugPort> {
        self.port.clone()
    }

    /// The debugger of the TD, which says where it waits.
    pub fn into_debugger(self, streams: &Streams, privacy: Privacy) -> Debugger {
        let endpoint = self.listener.endpoint();
        streams.say(format_args!("tdvisor: the TD waits for gdb: target remote {endpoint}"));
        if privacy == Privacy::Confidential {
            streams.say(
                "tdvisor: gdb sees and changes what this TD holds, although it is not in debug mode; only an emulator can do this",
            );
        }
        Debugger::new(self.listener, self.port)
    }
}
