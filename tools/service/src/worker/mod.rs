//! A worker: a process that runs one TD for the service, and confines itself before the guest's first instruction.
//!
//! # Protocol
//! The service starts it with one end of a socket as its standard input, and says by it ([`protocol`]) what to do. One thread
//! reads orders, one follows them, one after the other; one builds, runs and tears down the TD (`life`); the TD's machine, devices and
//! vCPUs have theirs. When the TD has ended, or the service has gone, everything is given back and the process ends.

mod confine;
mod kept;
mod life;
pub mod protocol;
mod quotes;
mod relay;
mod report;
mod request;

use std::io::{BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machine_emu::Hardware;
use serde_json::{Value, json};
use tdvisor_runtime::board::Transport;

use life::Life;
use protocol::{Asked, Order, Refusal, RefusalKind, Said, Told, VERSION};
pub(crate) use relay::QUOTE_PATIENCE;
use relay::Relay;

pub use quotes::{Issue, Issuer, Quoted, VerifiedWith};
pub use request::{NAME_MAX, TdDisk, TdPayload, TdRequest, is_name};

/// How long the service may take to read what a worker says.
const PATIENCE: Duration = Duration::from_secs(10);

/// Orders that may wait for others.
const ORDERS: usize = 16;

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
    let relay = Arc::new(Relay::default());
    let mut from = BufReader::new(socket);
    // The worker is confined to files by this thread, and has no other until then.
    let Some(Told::Order(Asked { version, number, order })) = protocol::next(&mut from)? else {
        return Ok(());
    };
    let begun = begin(version, order, options, &voice, &relay);
    let (life, result) = match begun {
        Ok(life) => (Some(life), Ok(json!({}))),
        Err(refusal) => (None, Err(refusal)),
    };
    voice.say(&Said::Answer { number, result });
    let Some(life) = life else { return Ok(()) };
    let (orders, coming) = sync_channel(ORDERS);
    let reader = std::thread::Builder::new()
        .name("orders".to_owned())
        .spawn(move || read(&mut from, &orders, &relay))?;
    for Asked { number, order, .. } in coming {
        voice.say(&Said::Answer { number, result: life.follow(order) });
    }
    life.end();
    reader.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread that reads orders panicked")))
}

/// The first order, which has to be the TD's boot.
fn begin(
    version: u32,
    order: Order,
    options: &WorkerOptions,
    voice: &Voice,
    relay: &Arc<Relay>,
) -> Result<Life, Refusal> {
    match order {
        _ if version != VERSION => {
            Err(Refusal::new(RefusalKind::Failed, "the service speaks another version"))
        }
        Order::Boot { plan } => Life::begin(*plan, options, voice, relay),
        _ => Err(Refusal::new(RefusalKind::State, "the TD is not booted")),
    }
}

/// Reads what the service says until it says no more. A quote goes to who waits for it, however long an order takes.
fn read(from: &mut BufReader<UnixStream>, orders: &SyncSender<Asked>, relay: &Relay) -> std::io::Result<()> {
    while let Some(told) = protocol::next(from)? {
        match told {
            Told::Quote { number, quote } => relay.answer(number, quote),
            // Who follows orders outlives this.
            Told::Order(asked) => drop(orders.send(asked)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::TryRecvError;

    use super::*;

    #[test]
    fn a_quote_reaches_who_waits_for_it_though_an_order_is_followed_that_waits_too() {
        let (mut service, ours) = UnixStream::pair().expect("a pair of sockets");
        let (orders, coming) = sync_channel(ORDERS);
        let relay = Relay::default();
        let quote = relay.expect(7);
        std::thread::scope(|scope| {
            scope.spawn(|| read(&mut BufReader::new(ours), &orders, &relay));
            for number in 0..ORDERS as u64 {
                let asked = Told::Order(Asked { version: VERSION, number, order: Order::Pause });
                service.write_all(&protocol::line(&asked).expect("a line")).expect("a reader");
            }
            let brought = Told::Quote { number: 7, quote: Some("x".to_owned()) };
            service.write_all(&protocol::line(&brought).expect("a line")).expect("a reader");
            // Nobody has taken an order so far.
            assert_eq!(quote.recv(), Ok(Some("x".to_owned())));
            drop(service);
        });
        assert_eq!(coming.try_iter().map(|asked| asked.number).collect::<Vec<_>>().len(), ORDERS);
        assert!(matches!(coming.try_recv(), Err(TryRecvError::Empty)));
    }
}
