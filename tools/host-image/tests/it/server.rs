//! The host image on servers that are no TDX hosts, and with its own console.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use server_emu::record::Record;
use server_emu::server::FirmwareSetup;
use server_emu::{BootFiles, Ending, Pace, Server, ServerConfig};
use tdvisor_board::address;
use tdvisor_devices::{AccessSize, DeviceRequest, Devices, ExitPort, PortDevice, SharedMemory};
use tdvisor_host_image::HOST_IMAGE;

/// What was written to the first serial port.
#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl PortDevice for Console {
    /// Always ready.
    fn read(&mut self, _: u16, size: AccessSize) -> u64 {
        size.all_ones()
    }

    fn write(&mut self, offset: u16, _: AccessSize, value: u64, _: &dyn SharedMemory) -> DeviceRequest {
        if offset == 0 {
            let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            bytes.write_all(&[value as u8]).expect("memory takes it");
        }
        DeviceRequest::None
    }
}

fn boot(config: ServerConfig) -> (String, Ending) {
    boot_with(config, "")
}

/// Boots the host with these words on its command line.
fn boot_with(config: ServerConfig, words: &str) -> (String, Ending) {
    let console = Console::default();
    let mut devices = Devices::default();
    devices.ports.attach(address::EXIT, 1, Box::new(ExitPort)).expect("the port is free");
    devices.ports.attach(0x3F8, 8, Box::new(console.clone())).expect("the ports are free");
    let command_line = format!("exit-port={:#x} {words}", address::EXIT);
    let files = BootFiles { kernel: HOST_IMAGE, initrd: None, command_line: &command_line };
    let server =
        Server::new(config, devices, &[], Record::default(), &files).expect("the host can be loaded");
    let ending = server.run();
    let bytes = console.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (String::from_utf8_lossy(&bytes).into_owned(), ending)
}

#[test]
fn what_firmware_did_not_set_up_is_named_in_one_line() {
    for (firmware, named) in [
        (FirmwareSetup::WithoutVmx, "locked VMX off"),
        (FirmwareSetup::WithoutMemoryEncryption, "did not turn memory encryption on"),
        (FirmwareSetup::WithoutKeyIds, "set 0 private key ids aside"),
        (FirmwareSetup::WithoutSeamRange, "did not enable the SEAM range"),
    ] {
        let pace = Pace::Deterministic { seed: 1 };
        let (console, ending) = boot(ServerConfig { pace, firmware, ..ServerConfig::default() });
        assert_eq!(ending, Ending::PowerOff { code: 3 }, "{firmware:?}: {console}");
        let missing: Vec<&str> = console.lines().filter(|line| line.contains("no TDX: ")).collect();
        assert_eq!(missing.len(), 1, "{firmware:?}: {console}");
        assert!(missing.iter().all(|line| line.contains(named)), "{firmware:?}: {console}");
    }
}

#[test]
fn the_smallest_server_runs_the_host_as_far_as_its_memory_goes() {
    let pace = Pace::Deterministic { seed: 1 };
    let (console, ending) =
        boot(ServerConfig { pace, memory: server_emu::server::MIN_MEMORY, ..ServerConfig::default() });
    assert_eq!(ending, Ending::PowerOff { code: 2 }, "{console}");
    assert!(console.contains("of memory is more than the machine has"), "{console}");
}

/// One processor is the host's own, two run a vCPU each: they wait for each other in loops, and sleep.
#[test]
fn two_vcpus_on_three_processors_end_and_the_same_seed_gives_the_same_console() {
    let run = |seed| {
        let pace = Pace::Deterministic { seed };
        boot_with(ServerConfig { pace, processors: 3, ..ServerConfig::default() }, "vcpus=2")
    };
    let (console, ending) = run(1);
    assert_eq!(ending, Ending::PowerOff { code: 0 }, "{console}");
    assert!(console.contains("everything came back"), "{console}");
    assert_eq!(run(1), (console, ending));
}
