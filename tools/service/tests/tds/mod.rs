//! A service of many TDs in this process, in a folder of its own; its workers are this program again.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tdvisor_monitor::{QuoteSource, QuoteUnavailable, TDREPORT_BYTES};
use tdvisor_runtime::board::Transport;
use tdvisor_runtime::kvm::NotOffered;
use tdvisor_service::fleet::{Fleet, FleetLimits, FleetOptions, QuoteService};
use tdvisor_service::http::{Access, Client, Limits, Reply, Running, Server};
use tdvisor_service::td_api::TdApi;
use tdvisor_service::worker::{Issuer, Quoted, VerifiedWith, WorkerOptions};

/// Far more than anything here takes.
pub const LONG: Duration = Duration::from_secs(300);

/// The word by which this program knows that it is a worker. To the test harness it is a name of no test.
const AS_WORKER: &str = "as-worker";

/// What a worker does when its guest asks for a quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    None,
    OpensFile,
    OpensSocket,
    Forks,
}

const MISDEEDS: [(Misdeed, &str); 4] = [
    (Misdeed::None, "does-nothing"),
    (Misdeed::OpensFile, "opens-a-file"),
    (Misdeed::OpensSocket, "opens-a-socket"),
    (Misdeed::Forks, "starts-a-program"),
];

struct Misbehaving(Misdeed);

impl Issuer for Misbehaving {
    fn issue(&self, _: &[u8; TDREPORT_BYTES]) -> Result<Quoted, QuoteUnavailable> {
        match self.0 {
            Misdeed::None => {}
            Misdeed::OpensFile => drop(fs::read("/etc/passwd")),
            Misdeed::OpensSocket => drop(UnixDatagram::unbound()),
            Misdeed::Forks => drop(std::process::Command::new("/bin/true").status()),
        }
        let verified_with = VerifiedWith { collateral: "{}".to_owned(), root: String::new() };
        Ok(Quoted { quote: vec![7; 100], verified_with: Some(verified_with) })
    }
}

struct Fetched(fn(&[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable>);

impl QuoteSource for Fetched {
    fn quote(&self, report: &[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable> {
        (self.0)(report)
    }
}

/// The body of the test that is a worker when this program was started as one, and nothing otherwise.
pub fn work() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|word| word == AS_WORKER) {
        return;
    }
    let misdeed = MISDEEDS.iter().find(|(_, word)| arguments.iter().any(|other| other == word));
    let misdeed = misdeed.map_or(Misdeed::None, |(misdeed, _)| *misdeed);
    let options = WorkerOptions {
        hardware: Default::default(),
        transport: Transport::Pci,
        quotes: Arc::new(move |_| Box::new(Misbehaving(misdeed))),
    };
    let socket = io::stdin().as_fd().try_clone_to_owned().expect("standard input");
    tdvisor_service::worker::serve(UnixStream::from(socket), &options).expect("a service");
}

/// The service.
pub struct Tds {
    pub folder: PathBuf,
    pub fleet: Arc<Fleet>,
    running: Option<Running>,
}

/// A guest that waits until somebody ends it, in little memory.
pub fn waiting(name: &str) -> Value {
    json!({"name": name, "memory": 64 << 20, "payload": {"firmware": "fault-td", "cmdline": "halt"}})
}

/// A guest that does what every TD does, and powers off.
pub fn hello(name: &str) -> Value {
    json!({"name": name, "memory": 64 << 20, "payload": {"firmware": "hello-td"}})
}

pub fn options(state: PathBuf, limits: FleetLimits, misdeed: Misdeed) -> FleetOptions {
    let word = MISDEEDS.iter().find(|(other, _)| *other == misdeed).expect("a word").1;
    let arguments = ["worker_process", "--exact", "--test-threads=1", "--nocapture", AS_WORKER, word];
    let program = std::env::current_exe().expect("this program");
    FleetOptions {
        worker: (program, arguments.map(Into::into).to_vec()),
        state,
        limits,
        without_seccomp: false,
        quotes: None,
        kvm: || Err(NotOffered::Unseen),
    }
}

impl Tds {
    pub fn new(name: &str) -> Self {
        Self::with(name, FleetLimits::default(), Misdeed::None)
    }

    pub fn with(name: &str, limits: FleetLimits, misdeed: Misdeed) -> Self {
        Self::of(name, |state| options(state, limits, misdeed))
    }

    /// A service that fetches quotes for its TDs, from here.
    pub fn with_quotes(
        name: &str,
        quote: fn(&[u8; TDREPORT_BYTES]) -> Result<Vec<u8>, QuoteUnavailable>,
    ) -> Self {
        Self::of(name, |state| FleetOptions {
            quotes: Some(QuoteService::new(move || Box::new(Fetched(quote)))),
            ..options(state, FleetLimits::default(), Misdeed::None)
        })
    }

    /// A service of a machine whose KVM is said to run TDs.
    pub fn with_kvm(name: &str) -> Self {
        Self::of(name, |state| FleetOptions {
            kvm: || Ok(()),
            ..options(state, FleetLimits::default(), Misdeed::None)
        })
    }

    fn of(name: &str, options: impl FnOnce(PathBuf) -> FleetOptions) -> Self {
        let folder = std::env::temp_dir().join(format!("tdvisor-tds-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder for the test");
        let fleet = Arc::new(Fleet::open(options(folder.join("state"))).expect("a state directory"));
        let server = Server::bind(&folder.join("socket"), Access::Owner).expect("a socket");
        let running = server.start(Limits::default(), Arc::new(TdApi::new(fleet.clone()))).expect("a thread");
        Self { folder, fleet, running: Some(running) }
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.folder.join("socket")).expect("somebody listens")
    }

    pub fn ask(&self, method: &Method, path: &str, body: Option<&Value>) -> Reply {
        let body = body.map(|body| body.to_string().into_bytes());
        self.client().ask(method, path, body.as_deref(), LONG).expect("an answer")
    }

    /// The JSON of a resource below all TDs.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let reply = self.ask(&Method::GET, &format!("/td/v1/tds/{path}"), None);
        assert_eq!(reply.status, 200, "{path}: {}", String::from_utf8_lossy(&reply.body));
        reply.json().expect("JSON")
    }

    #[track_caller]
    pub fn put(&self, path: &str) -> u16 {
        self.ask(&Method::PUT, &format!("/td/v1/tds/{path}"), None).status.as_u16()
    }

    #[track_caller]
    pub fn create(&self, request: &Value) {
        let reply = self.ask(&Method::POST, "/td/v1/tds", Some(request));
        assert_eq!(reply.status, 201, "{request}: {}", String::from_utf8_lossy(&reply.body));
    }

    /// Creates it and boots it.
    #[track_caller]
    pub fn run(&self, request: &Value) {
        self.create(request);
        let name = request["name"].as_str().expect("a name");
        let reply = self.ask(&Method::PUT, &format!("/td/v1/tds/{name}/boot"), None);
        assert_eq!(reply.status, 204, "{name}: {}", String::from_utf8_lossy(&reply.body));
    }

    /// The events of a TD: those that there were, and those that come until it does not run any more.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let mut stream = UnixStream::connect(self.folder.join("socket")).expect("somebody listens");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        stream
            .write_all(format!("GET /td/v1/tds/{name}/events HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .expect("written");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("events, and their end");
        let (head, events) = said.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("Content-Type: text/event-stream"), "{head}");
        events
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).expect("JSON"))
            .collect()
    }

    /// Waits until a TD has ended or died.
    pub fn await_end(&self, name: &str) -> Value {
        self.events(name);
        let td = self.get(name);
        assert!(matches!(td["phase"].as_str(), Some("ended" | "died")), "{td}");
        td
    }
}

impl Drop for Tds {
    fn drop(&mut self) {
        drop(self.running.take());
        self.fleet.end(Instant::now() + LONG);
        let _ = fs::remove_dir_all(&self.folder);
    }
}
