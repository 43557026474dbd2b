//! The process: one VM behind one socket, until it has to end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::http::{Limits, Server};
use crate::vm::{Exit, ExitReason, Vm, VmOptions};

/// How long answers that are under way may take to be written when the process ends: clients give it three seconds
/// altogether.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long the VM may be busy with a request when the process ends.
const LAST_REQUEST: Duration = Duration::from_secs(2);

/// Serves one VM until a client or a signal ends the process (`exit`), or the guest has ended.
///
/// # Errors
/// No thread can be had.
pub fn serve(server: Server, limits: Limits, options: VmOptions, exit: &Arc<Exit>) -> io::Result<ExitReason> {
    let vm = Arc::new(Vm::new(options, exit.clone()));
    let running = server.start(limits, Arc::new(Api::new(vm.clone())))?;
    let reason = exit.wait();
    running.stop(LAST_ANSWERS);
    // Who is busy with it ends it too, when the process does.
    let _ = vm.delete(Instant::now() + LAST_REQUEST);
    Ok(reason)
}
