//! `--gdb` of a server: a debugger of the host.

use seam_emu::guest::debug::DebugPort;
use server_emu::{Pace, ServerConfig};
use tdvisor_runtime::debugger::{Debugger, Endpoint, Listener};

use crate::outcome::Failure;
use crate::streams::Streams;

/// Options of debugging.
#[derive(Debug, clap::Args)]
pub struct GdbArgs {
    /// Let gdb debug the host: at a socket file (a path with a slash in it), or a port of this machine (HOST:PORT). The server
    /// waits before its first instruction until gdb comes (`target remote SOCKET`), and runs on when it detaches. What the
    /// host's TDs hold stays theirs.
    #[arg(long, value_name = "SOCKET|HOST:PORT", conflicts_with = "boots")]
    gdb: Option<Endpoint>,
}

impl GdbArgs {
    /// The debugger of a server, which says where it waits, if one was asked for.
    pub fn debugger(&self, config: &ServerConfig, streams: &Streams) -> Result<Option<Debugger>, Failure> {
        let Some(endpoint) = &self.gdb else { return Ok(None) };
        if config.pace != Pace::Real && config.processors > 1 {
            let why =
                "a processor that gdb halts keeps its turn, so with --deterministic there can be one only";
            return Err(Failure::input("--gdb", why));
        }
        let listener = Listener::bind(endpoint)
            .map_err(|error| Failure::input("--gdb", format!("{endpoint}: {error}")))?;
        let endpoint = listener.endpoint();
        streams.say(format_args!("tdvisor: the server waits for gdb: target remote {endpoint}"));
        Ok(Some(Debugger::new(listener, DebugPort::new(config.processors as usize))))
    }
}
