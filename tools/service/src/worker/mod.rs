//! A worker: a process that runs one TD for the service, and confines itself before the guest's first instruction.
//!
//! # Protocol
//! The service starts it with one end of a socket as its standard input, and says by it ([`protocol`]) what to do. One thread
//! follows orders, one after the other; one builds, runs and tears down the TD (`life`); the TD's machine, devices and
//! vCPUs have theirs. When the TD has ended, or the service has gone, everything is given back and the process ends.

mod confine;
mod kept;
mod life;
pub mod protocol;
mod quotes;
mod report;
mod request;

use std::io::{BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machine_emu::Hardware;
use serde_json::{Value, json};
use tdvisor_runtime::board::Transport;

use life::Life;
use protocol::{Asked, Order, Refusal, RefusalKind, Said, VERSION};

pub use quotes::{Issue, Issuer, Quoted};
pub use request::{NAME_MAX, TdDisk, TdPayload, TdRequest, is_name};

/// How long the service may take to read what a worker says.
const PATIENCE: Duration = Duration::from_secs(10);

/// What all TDs of a service have in common.
pub struct WorkerOptions {
    /// The machine under a TD.
    pub hardware: Hardware,
    /// How virtio devices are attached.
    pub transport: Transport,
    /// Where quotes come from.
    pub quotes: Arc<Issue>,
}

impl std::fmt::Debug for WorkerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerOptions").finish_non_exhaustive()
    }
}

/// The way to the service. Whoever finds it closed goes on without it: the thread that follows orders ends everything.
#[derive(Clone)]
struct Voice(Arc<Mutex<UnixStream>>);

impl Voice {
    fn say(&self, said: &Said) {
        let line = protocol::line(said).unwrap_or_else(|error| {
            let Said::Answer { number, .. } = said else { return Vec::new() };
            let result = Err(Refusal::new(RefusalKind::Failed, error));
            protocol::line(&Said::Answer { number: *number, result }).unwrap_or_default()
        });
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.write_all(&line).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn tell(&self, event: Value) {
        self.say(&Said::Event { event });
    }

    /// Says how the TD ended, and nothing more.
    fn conclude(&self, report: Value, metrics: String) {
        self.say(&Said::Ended { report, metrics });
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both);
    }
}

/// Follows orders until the TD has ended or the service has gone.
///
/// # Errors
/// The socket cannot be used, or says what no service says.
pub fn serve(socket: UnixStream, options: &WorkerOptions) -> std::io::Result<()> {
    socket.set_write_timeout(Some(PATIENCE))?;
    let voice = Voice(Arc::new(Mutex::new(socket.try_clone()?)));
    let mut orders = BufReader::new(socket);
    let mut life: Option<Life> = None;
    while let Some(Asked { version, number, order }) = protocol::next(&mut orders)? {
        let result = if version == VERSION {
            follow(order, &mut life, options, &voice)
        } else {
            Err(Refusal::new(RefusalKind::Failed, "the service speaks another version"))
        };
        let is_failed_boot = life.is_none() && result.is_err();
        voice.say(&Said::Answer { number, result });
        if is_failed_boot {
            return Ok(());
        }
    }
    if let Some(life) = life {
        life.end();
    }
    Ok(())
}

fn follow(
    order: Order,
    life: &mut Option<Life>,
    options: &WorkerOptions,
    voice: &Voice,
) -> Result<Value, Refusal> {
    match (order, &*life) {
        (Order::Boot { plan }, None) => {
            *life = Some(Life::begin(*plan, options, voice)?);
            Ok(json!({}))
        }
        (Order::Boot { .. }, Some(_)) => Err(Refusal::new(RefusalKind::State, "the TD is booted already")),
        (_, None) => Err(Refusal::new(RefusalKind::State, "the TD is not booted")),
        (order, Some(life)) => life.follow(order),
    }
}
