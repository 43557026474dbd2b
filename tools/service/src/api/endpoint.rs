//! The endpoints: one table, for the requests as well as for their description.

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{API_VERSION, ApiError, Call, end_process};
use crate::config::{DiskConfig, FsConfig, NetConfig, VmConfig, VsockConfig};
use crate::vm::{Added, VmError};

/// What an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// Nothing.
    None,
    /// JSON of this schema.
    Json(&'static str),
}

/// What an endpoint says when all went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaysKind {
    /// Nothing: 204.
    Nothing,
    /// JSON of this schema: 200.
    Json(&'static str),
}

/// One endpoint.
pub struct Endpoint {
    /// The endpoint's name, behind the root.
    pub name: &'static str,
    /// What the endpoint is for, in a sentence.
    pub summary: &'static str,
    /// What the endpoint takes.
    pub body: BodyKind,
    /// What the endpoint says when all went well.
    pub says: SaysKind,
    /// The statuses of its errors, beside 400 for requests that it does not take, and 500 when others are busy for too long.
    pub errors: &'static [u16],
    pub(super) call: fn(Call<'_>) -> Result<Option<Value>, ApiError>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The endpoint's method: what says something is asked for by GET, what does something by PUT.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self.says {
            SaysKind::Json(_) => Method::GET,
            SaysKind::Nothing => Method::PUT,
        }
    }
}

fn say(value: impl Serialize) -> Result<Option<Value>, ApiError> {
    serde_json::to_value(value).map(Some).map_err(ApiError::Answer)
}

fn done(result: Result<(), VmError>) -> Result<Option<Value>, ApiError> {
    result.map(|()| None).map_err(ApiError::Vm)
}

/// A device's name.
#[derive(Deserialize)]
struct DeviceId {
    id: String,
}

/// A size of memory or a number of vCPUs other than the VM has.
#[derive(Deserialize)]
struct Resize {
    desired_vcpus: Option<u32>,
    desired_ram: Option<u64>,
    desired_balloon: Option<u64>,
}

const NOTHING: BodyKind = BodyKind::None;
const DONE: SaysKind = SaysKind::Nothing;

/// All endpoints.
pub static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        name: "vmm.ping",
        summary: "Says which program this is",
        body: NOTHING,
        says: SaysKind::Json("VmmPingResponse"),
        errors: &[],
        call: |_| {
            Ok(Some(json!({
                "version": API_VERSION,
                "build_version": concat!("tdvisor-", env!("CARGO_PKG_VERSION")),
                "pid": std::process::id(),
                "features": ["tdx"],
            })))
        },
    },
    Endpoint {
        name: "vmm.shutdown",
        summary: "Ends the VM and the process",
        body: NOTHING,
        says: DONE,
        errors: &[500],
        call: |call| end_process(&call),
    },
    Endpoint {
        name: "vm.create",
        summary: "Keeps what a VM is asked for with",
        body: BodyKind::Json("VmConfig"),
        says: DONE,
        errors: &[409, 500],
        call: |call| {
            let config: VmConfig = call.body()?;
            done(call.vm.create(config, call.deadline))
        },
    },
    Endpoint {
        name: "vm.boot",
        summary: "Builds, measures and runs the TD; answers when its vCPUs run",
        body: NOTHING,
        says: DONE,
        errors: &[404, 500],
        call: |call| done(call.vm.boot(call.deadline)),
    },
    Endpoint {
        name: "vm.info",
        summary: "Says what the VM is and how it is",
        body: NOTHING,
        says: SaysKind::Json("VmInfo"),
        errors: &[404, 500],
        call: |call| say(call.vm.info(call.deadline)?),
    },
    Endpoint {
        name: "vm.counters",
        summary: "Says what the devices and the TDX module have counted",
        body: NOTHING,
        says: SaysKind::Json("VmCounters"),
        errors: &[500],
        call: |call| say(call.vm.counters(call.deadline)?),
    },
    Endpoint {
        name: "vm.pause",
        summary: "Makes the vCPUs stand still",
        body: NOTHING,
        says: DONE,
        errors: &[500],
        call: |call| done(call.vm.pause(call.deadline)),
    },
    Endpoint {
        name: "vm.resume",
        summary: "Lets vCPUs that stand still run on",
        body: NOTHING,
        says: DONE,
        errors: &[500],
        call: |call| done(call.vm.resume(call.deadline)),
    },
    Endpoint {
        name: "vm.shutdown",
        summary: "Ends the TD; it can be booted again",
        body: NOTHING,
        says: DONE,
        errors: &[500],
        call: |call| done(call.vm.shutdown(call.deadline)),
    },
    Endpoint {
        name: "vm.reboot",
        summary: "Ends the TD, and builds and runs it anew",
        body: NOTHING,
        says: DONE,
        errors: &[404, 500],
        call: |call| done(call.vm.reboot(call.deadline)),
    },
    Endpoint {
        name: "vm.delete",
        summary: "Ends the TD and forgets it; without a VM nothing happens",
        body: NOTHING,
        says: DONE,
        errors: &[500],
        call: |call| done(call.vm.delete(call.deadline)),
    },
    Endpoint {
        name: "vm.power-button",
        summary: "The board has no power button: 500",
        body: NOTHING,
        says: DONE,
        errors: &[500],
        call: |call| done(call.vm.refuse("the board has no power button", call.deadline)),
    },
    Endpoint {
        name: "vm.nmi",
        summary: "A TD gets no interrupt that cannot be masked from here: 500",
        body: NOTHING,
        says: DONE,
        errors: &[500],
        call: |call| done(call.vm.refuse("an NMI for a TD", call.deadline)),
    },
    Endpoint {
        name: "vm.add-disk",
        summary: "Adds a disk to a VM that does not run",
        body: BodyKind::Json("DiskConfig"),
        says: DONE,
        errors: &[404, 409, 500],
        call: |call| {
            let disk: DiskConfig = call.body()?;
            done(call.vm.add(Added::Disk(disk), call.deadline))
        },
    },
    Endpoint {
        name: "vm.add-net",
        summary: "Adds a network card to a VM that does not run, with the descriptor that comes with the request",
        body: BodyKind::Json("NetConfig"),
        says: DONE,
        errors: &[404, 409, 500],
        call: |mut call| {
            let net: NetConfig = call.body()?;
            let fds = std::mem::take(&mut call.request.fds);
            done(call.vm.add(Added::Net(net, fds), call.deadline))
        },
    },
    Endpoint {
        name: "vm.add-fs",
        summary: "Adds a folder to a VM that does not run",
        body: BodyKind::Json("FsConfig"),
        says: DONE,
        errors: &[404, 409, 500],
        call: |call| {
            let fs: FsConfig = call.body()?;
            done(call.vm.add(Added::Fs(fs), call.deadline))
        },
    },
    Endpoint {
        name: "vm.add-vsock",
        summary: "Adds streams between guest and host to a VM that does not run",
        body: BodyKind::Json("VsockConfig"),
        says: DONE,
        errors: &[404, 409, 500],
        call: |call| {
            let vsock: VsockConfig = call.body()?;
            done(call.vm.add(Added::Vsock(vsock), call.deadline))
        },
    },
    Endpoint {
        name: "vm.remove-device",
        summary: "Takes a device from a VM that does not run",
        body: BodyKind::Json("VmRemoveDevice"),
        says: DONE,
        errors: &[404, 500],
        call: |call| {
            let device: DeviceId = call.body()?;
            done(call.vm.remove(&device.id, call.deadline))
        },
    },
    Endpoint {
        name: "vm.resize",
        summary: "Changes vCPUs and memory of a VM that does not run",
        body: BodyKind::Json("VmResize"),
        says: DONE,
        errors: &[404, 500],
        call: |call| {
            let size: Resize = call.body()?;
            if size.desired_balloon.is_some_and(|bytes| bytes != 0) {
                call.vm.info(call.deadline)?;
                return Err(VmError::Unsupported("a balloon in a TD").into());
            }
            done(call.vm.resize(size.desired_vcpus, size.desired_ram, call.deadline))
        },
    },
];
