//! The first process of a guest that runs one command for its host.
//!
//! It mounts what programs expect, opens the second serial port, runs the command with three pipes, carries what goes
//! through them (see `protocol.rs`), says how the command ended, and powers the machine off. When it cannot begin it
//! says so on the console, and powers off as well: the host misses the greeting.

mod mounts;
#[path = "../../src/protocol.rs"]
#[expect(dead_code, reason = "the host uses the other half")]
mod protocol;
mod relay;
mod wire;

use std::fmt::Display;
use std::process::ExitCode;

use rustix::system::RebootCommand;

use protocol::{COMMAND_FILE, Root, Task};
use wire::Wire;

fn main() -> ExitCode {
    mounts::mount_all();
    if let Err(problem) = serve() {
        say(problem);
    }
    rustix::fs::sync();
    // A kernel without the power to do it halts; the host has heard of the end, and ends the machine.
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    // Reached only where this is not the first process, by mistake.
    ExitCode::FAILURE
}

fn serve() -> Result<(), String> {
    let mut wire = Wire::open()?;
    let task = std::fs::read(COMMAND_FILE).map_err(|error| format!("{COMMAND_FILE}: {error}"))?;
    let task = Task::decode(&task).map_err(|_| format!("{COMMAND_FILE} is not what it should be"))?;
    if task.root == Root::Shared {
        mounts::enter_shared_root()
            .map_err(|(what, error)| format!("the root file system: {what}: {error}"))?;
    }
    wire.greet().map_err(|error| format!("{}: {error}", wire::PORT))?;
    let end = relay::run(&task, &mut wire).map_err(|error| format!("{}: {error}", wire::PORT))?;
    wire.finish(end).map_err(|error| format!("{}: {error}", wire::PORT))
}

fn say(problem: impl Display) {
    eprintln!("tdvisor-init: {problem}");
}
