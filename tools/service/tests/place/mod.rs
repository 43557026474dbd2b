//! A VMM in this process, in a folder of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tdvisor_runtime::board::Transport;
use tdvisor_service::config::TdPolicy;
use tdvisor_service::http::{Access, Client, Limits, Reply, Server};
use tdvisor_service::vm::{Exit, ExitReason, VmOptions, WhenOff};

/// Far more than anything here takes.
pub const LONG: Duration = Duration::from_secs(300);

/// The VMM.
pub struct Place {
    pub folder: PathBuf,
    pub exit: Arc<Exit>,
    thread: Option<JoinHandle<ExitReason>>,
}

/// A guest that waits until somebody ends it, in little memory.
pub fn waiting_guest() -> Value {
    json!({
        "memory": {"size": 64 << 20},
        "payload": {"firmware": "fault-td", "cmdline": "halt"},
        "platform": {"tdx": true},
        "console": {"mode": "Off"},
    })
}

/// A guest that does what every TD does, and powers off.
pub fn hello() -> Value {
    let mut config = waiting_guest();
    config["payload"] = json!({"firmware": "hello-td"});
    config
}

impl Place {
    pub fn new(name: &str) -> Self {
        Self::with(name, WhenOff::Exit, TdPolicy::WhenAsked)
    }

    pub fn with(name: &str, when_off: WhenOff, policy: TdPolicy) -> Self {
        let folder = std::env::temp_dir().join(format!("tdvisor-vmm-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder for the test");
        let server = Server::bind(&folder.join("api"), Access::Owner).expect("a socket");
        let options = VmOptions {
            backend: Default::default(),
            hardware: Default::default(),
            policy,
            transport: Transport::Pci,
            when_off,
            quotes: Arc::new(|_, _| None),
        };
        let exit = Arc::new(Exit::default());
        let of_thread = exit.clone();
        let thread = std::thread::spawn(move || {
            tdvisor_service::serve(server, Limits::default(), options, &of_thread).expect("threads")
        });
        Self { folder, exit, thread: Some(thread) }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("api")
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket()).expect("somebody listens")
    }

    /// Asks on a connection of its own.
    pub fn ask(&self, method: &Method, endpoint: &str, body: Option<&Value>) -> Reply {
        let body = body.map(|body| body.to_string().into_bytes());
        let path = format!("/api/v1/{endpoint}");
        self.client().ask(method, &path, body.as_deref(), LONG).expect("an answer")
    }

    pub fn put(&self, endpoint: &str, body: Option<&Value>) -> StatusCode {
        self.ask(&Method::PUT, endpoint, body).status
    }

    pub fn get(&self, endpoint: &str) -> Reply {
        self.ask(&Method::GET, endpoint, None)
    }

    pub fn state(&self) -> String {
        let reply = self.get("vm.info");
        let info = reply.json().expect("JSON");
        info["state"].as_str().unwrap_or("none").to_owned()
    }

    /// Waits until the process would end.
    pub fn finish(&mut self) -> ExitReason {
        let reason = self.thread.take().expect("once").join().expect("no panic");
        assert!(!self.socket().exists(), "the socket is gone with the process");
        reason
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.exit.ask(ExitReason::Asked);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
