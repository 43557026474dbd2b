//! The host's side of a migration TD: its mailbox as a device, and two migration TDs that run while a test does.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seam_emu::Machine;
use td_host::td::Td;
use td_host::td::config::{ConfigIds, TdConfig};
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::issue::{PlatformSpec, TestPlatform};
use tdvisor_base::Gpa;
use tdvisor_devices::{DeviceRequest, Devices, PortDevice};
use tdvisor_migration_td::Configuration;
use tdvisor_migration_td::mailbox::{
    ANSWER_OFFSET, DONE, HEADER_BYTES, MAX_BODY, Order, Outcome, PORT, Reply, Request, Wish,
};
use tdvisor_monitor::{Monitor, QuoteSource, QuoteUnavailable, RunsOn, TDREPORT_BYTES};
use tdvisor_vm::{AccessSize, SharedMemory};

use super::world::{EmulatedHost, EmulatedTd};

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
const MIB: u64 = 1 << 20;
const COM1: u16 = 0x3f8;
/// How long anybody waits for anybody: far longer than a conversation takes.
const PATIENCE: Duration = Duration::from_secs(300);
/// More random numbers than a conversation takes.
const NUMBERS: u32 = 1 << 12;
/// What the host says instead of an answer.
const NO: u32 = 1;

/// The platform of both machines. Nobody but who was configured to trusts its root.
pub fn platform() -> TestPlatform {
    TestPlatform::new([5; 32], PlatformSpec::default())
}

/// The configuration of a migration TD that trusts the test root, from an evaluation number on.
pub fn test_root(least_evaluation_number: u32) -> Vec<u8> {
    Configuration::encode(least_evaluation_number, platform().pki().root_pem().as_bytes())
}

/// What a host does with a word on its way in: its own TD's words of the conversation so far, the word's number, the word.
pub type Alter = Box<dyn FnMut(&[Vec<u8>], usize, Vec<u8>) -> Vec<u8> + Send>;

/// What a host does in one conversation.
#[derive(Default)]
pub struct Conduct {
    pub alter: Option<Alter>,
    /// Collateral instead of that of the platform.
    pub collateral: Option<String>,
    /// There is no quoting service.
    pub no_quotes: bool,
    /// The platform's collateral, as it came with the TD's last quote.
    pub issued: Option<String>,
    /// What the TD said.
    pub said: Vec<Vec<u8>>,
}

/// A word of one conversation; none: the other side has gone.
type Word = (u32, Option<Vec<u8>>);

struct Mailbox {
    conduct: Arc<Mutex<Conduct>>,
    configuration: Vec<u8>,
    orders: Receiver<(u32, Order)>,
    outcomes: Sender<Outcome>,
    to_peer: Sender<Word>,
    from_peer: Receiver<Word>,
    conversation: u32,
    heard: usize,
}

impl Mailbox {
    fn answer(&mut self, wish: Wish, body: Vec<u8>) -> Option<Vec<u8>> {
        match wish {
            Wish::Order => {
                let (conversation, order) = self.orders.recv_timeout(PATIENCE).ok()?;
                (self.conversation, self.heard) = (conversation, 0);
                Some(order.bytes().to_vec())
            }
            Wish::Send => {
                self.conduct.lock().unwrap().said.push(body.clone());
                self.to_peer.send((self.conversation, Some(body))).ok()?;
                Some(Vec::new())
            }
            Wish::Receive => loop {
                let (conversation, word) = self.from_peer.recv_timeout(PATIENCE).ok()?;
                // Words of a conversation that is over are not brought.
                if conversation == self.conversation {
                    let (mut conduct, number) = (self.conduct.lock().unwrap(), self.heard);
                    let Conduct { alter, said, .. } = &mut *conduct;
                    self.heard += 1;
                    break word.map(|word| match alter {
                        Some(alter) => alter(said, number, word),
                        None => word,
                    });
                }
            },
            Wish::Collateral => {
                let conduct = self.conduct.lock().unwrap();
                // Both machines are of one platform: what is for the own quote is for the other's.
                conduct.collateral.clone().or(conduct.issued.clone()).map(String::into_bytes)
            }
            Wish::Configuration => Some(self.configuration.clone()),
            Wish::Report => {
                self.to_peer.send((self.conversation, None)).ok()?;
                self.outcomes.send(Outcome::from_bytes(&body)?).ok()?;
                Some(Vec::new())
            }
        }
    }
}

impl PortDevice for Mailbox {
    fn read(&mut self, _: u16, size: AccessSize) -> u64 {
        size.all_ones()
    }

    fn write(&mut self, _: u16, _: AccessSize, value: u64, memory: &dyn SharedMemory) -> DeviceRequest {
        let at = |offset: usize| Gpa::new((value << 12) + offset as u64);
        let mut header = [0; 8];
        memory.read(at(0), &mut header).expect("the guest shares its mailbox");
        let request = Request::from_bytes(header).expect("a good guest");
        let mut body = vec![0; request.body];
        memory.read(at(HEADER_BYTES), &mut body).expect("the guest shares its mailbox");
        let answer = self.answer(request.wish, body).filter(|answer| answer.len() <= MAX_BODY);
        let reply = match &answer {
            Some(body) => Reply { status: DONE, body: body.len() as u32 },
            None => Reply { status: NO, body: 0 },
        };
        memory.write(at(HEADER_BYTES), &answer.unwrap_or_default()).expect("the guest shares its mailbox");
        memory.write(at(ANSWER_OFFSET), &reply.bytes()).expect("the guest shares its mailbox");
        DeviceRequest::None
    }
}

/// What the quoting enclave of a machine makes of reports that the machine made.
struct Enclave {
    machine: Arc<Machine>,
    conduct: Arc<Mutex<Conduct>>,
}

impl QuoteSource for Enclave {
    fn quote(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable> {
        let mut conduct = self.conduct.lock().unwrap();
        if conduct.no_quotes {
            return Err(QuoteUnavailable::Service);
        }
        let signed = report.first_chunk().expect("a report begins with what is signed");
        if !self.machine.everifyreport2(signed) {
            return Err(QuoteUnavailable::BadReport);
        }
        let issued = platform().quote_for_report(report, 5, NOW);
        let issued = issued.map_err(|_| QuoteUnavailable::BadReport)?;
        conduct.issued = Some(issued.collateral.to_json());
        Ok(issued.quote)
    }
}

/// The serial port and the port that ends the guest.
struct Board(Arc<Mutex<String>>);

impl PortDevice for Board {
    fn read(&mut self, _: u16, size: AccessSize) -> u64 {
        size.all_ones()
    }

    fn write(&mut self, _: u16, _: AccessSize, value: u64, _: &dyn SharedMemory) -> DeviceRequest {
        self.0.lock().unwrap().push(char::from(value as u8));
        DeviceRequest::None
    }
}

struct ExitPort;

impl PortDevice for ExitPort {
    fn read(&mut self, _: u16, size: AccessSize) -> u64 {
        size.all_ones()
    }

    fn write(&mut self, _: u16, _: AccessSize, value: u64, _: &dyn SharedMemory) -> DeviceRequest {
        DeviceRequest::PowerOff { code: value as u8 }
    }
}

/// A migration TD that runs.
pub struct MigTd<'h> {
    pub td: EmulatedTd<'h>,
    pub conduct: Arc<Mutex<Conduct>>,
    console: Arc<Mutex<String>>,
    monitor: Monitor,
    orders: Mutex<Sender<(u32, Order)>>,
    outcomes: Mutex<Receiver<Outcome>>,
}

impl<'h> MigTd<'h> {
    fn new(
        host: &'h EmulatedHost,
        measured: &[u8],
        configuration: Vec<u8>,
        to_peer: Sender<Word>,
        from_peer: Receiver<Word>,
    ) -> Self {
        let config_id = if measured.is_empty() { [0; 48] } else { Configuration::mr_config_id(measured) };
        let ids = ConfigIds { config_id, ..ConfigIds::default() };
        let config = TdConfig { memory: 8 * MIB, ids, ..TdConfig::default() };
        let td = Td::build(host, &config, tdvisor_migration_td_image::IMAGE, |_| {}).expect("a migration TD");
        let (conduct, console) = (Arc::<Mutex<Conduct>>::default(), Arc::<Mutex<String>>::default());
        let (orders, ordered) = channel();
        let (report, outcomes) = channel();
        let mailbox = Mailbox {
            conduct: conduct.clone(),
            configuration,
            orders: ordered,
            outcomes: report,
            to_peer,
            from_peer,
            conversation: 0,
            heard: 0,
        };
        let mut devices = Devices::default();
        let exit_port = tdvisor_guest_images::EXIT_PORT;
        devices.ports.attach(COM1, 1, Box::new(Board(console.clone()))).unwrap();
        devices.ports.attach(exit_port, 1, Box::new(ExitPort)).unwrap();
        devices.ports.attach(PORT, 4, Box::new(mailbox)).unwrap();
        let enclave = Enclave { machine: host.platform().machine(), conduct: conduct.clone() };
        let monitor = Monitor::new(devices, Some(Box::new(enclave)));
        Self { td, conduct, console, monitor, orders: Mutex::new(orders), outcomes: Mutex::new(outcomes) }
    }

    /// What the migration TD printed.
    pub fn console(&self) -> String {
        self.console.lock().unwrap().clone()
    }

    fn order(&self, conversation: u32, order: Order) {
        self.conduct.lock().unwrap().said.clear();
        self.orders.lock().unwrap().send((conversation, order)).expect("a migration TD that runs");
    }

    fn outcome(&self) -> Outcome {
        let outcome = self.outcomes.lock().unwrap().recv_timeout(PATIENCE);
        outcome.unwrap_or_else(|_| panic!("no outcome: {}", self.console()))
    }
}

/// Two migration TDs that can hear each other through their hosts.
pub struct Pair<'h> {
    pub source: MigTd<'h>,
    pub destination: MigTd<'h>,
    conversations: Mutex<u32>,
}

/// Ends both when it goes.
struct End<'p, 'h>(&'p Pair<'h>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        for end in [&self.0.source, &self.0.destination] {
            end.order(0, Order::PowerOff);
        }
    }
}

/// What the two are configured with: what is measured, and what the host hands over.
#[derive(Clone)]
pub struct Setup {
    pub measured: [Vec<u8>; 2],
    pub handed_over: [Vec<u8>; 2],
}

impl Setup {
    /// A setup in which both migration TDs trust the test root, and their hosts are honest.
    pub fn honest() -> Self {
        let both = [test_root(17), test_root(17)];
        Self { measured: both.clone(), handed_over: both }
    }
}

impl<'h> Pair<'h> {
    /// Builds both.
    pub fn new(here: &'h EmulatedHost, there: &'h EmulatedHost, setup: Setup) -> Self {
        // Emulated machines have the same random numbers; this one has used up some.
        let machine = there.platform().machine();
        assert!((0..NUMBERS).all(|_| machine.random().is_some()));
        let (forth, from_source) = channel();
        let (back, from_destination) = channel();
        let [given_here, given_there] = setup.handed_over;
        let source = MigTd::new(here, &setup.measured[0], given_here, forth, from_destination);
        let destination = MigTd::new(there, &setup.measured[1], given_there, back, from_source);
        Self { source, destination, conversations: Mutex::new(0) }
    }

    /// Runs both while `during` does something with them, and ends them.
    pub fn run<T>(&self, during: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            for end in [&self.source, &self.destination] {
                scope.spawn(|| end.monitor.run_vcpu(&end.td, 0, &RunsOn));
            }
            // Also when it panics: whoever waits for an order waits long.
            let _end = End(self);
            during()
        })
    }

    /// Both hosts order their migration TDs to hand over keys: how it ended on each side.
    pub fn hand_over(&self, orders: [Order; 2]) -> [Outcome; 2] {
        let mut conversations = self.conversations.lock().unwrap();
        *conversations += 1;
        self.source.order(*conversations, orders[0]);
        self.destination.order(*conversations, orders[1]);
        [self.source.outcome(), self.destination.outcome()]
    }

    /// Takes both down.
    pub fn teardown(self) {
        assert!(self.source.td.teardown().is_clean());
        assert!(self.destination.td.teardown().is_clean());
    }
}
