//! What `tdvisor run` is told on its command line.

use std::path::PathBuf;

use machine_emu::{MAX_TD_MEMORY, MAX_TD_VCPUS};
use seam_emu::inject::FaultPlan;
use td_host::td::config::TdConfig;
use tdvisor_base::Level;
use tdvisor_guest_images::BOOT_SHIM;
use tdx_module_iface::td_params::attributes;

use super::backend::BackendChoice;
use super::devices::DeviceArgs;
use super::dump::DumpArgs;
use super::firmware;
use super::gdb::GdbArgs;
use super::image::Image;
use super::in_guest::CommandArgs;
use super::linux::LinuxArgs;
use super::memory_size::MemorySize;
use super::quotes;
use super::report::ReportArgs;
use super::samples::SampleArgs;
use super::snapshot::SnapshotArgs;
use super::status_lines::StatusLinesArgs;
use super::summary::Detail;
use super::told::ToldArgs;
use crate::commands::hardware::HardwareArgs;
use crate::files::Claims;
use crate::outcome::Failure;

/// Run a TD, on the emulated TDX module or on Linux's KVM.
///
/// Without IMAGE, the built-in guest `hello-td` runs; with --kernel, a Linux kernel boots. The guest's consoles go
/// to stdout, and a summary goes to stderr; what is typed goes to the serial port, or to the virtio console (hvc0) if that
/// is the last `console=` of --cmdline. Ctrl-C ends the TD in order.
///
/// Exit status: 0 the guest succeeded, 1 it reported failure, panicked or asked for a reboot (a TD cannot be reset;
/// start it again), 2 bad usage or input, 3 the TD died or a signal stopped it, 4 a fault of tdvisor, 5 the guest needs
/// what the emulator does not implement, 6 the guest succeeded but an output could not be written, 124 the time was up.
/// With a COMMAND, its own status where that is known: 128 and the signal's number where one killed it, 126 or 127 where
/// it could not be started; 125 where the guest ended without saying what became of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A TDVF image, or the name of a built-in guest (`tdvisor list` names them).
    pub(super) image: Option<String>,
    /// What runs the TD: `kvm` takes a TDX server whose Linux has KVM_TDX (`tdvisor doctor` says what is missing).
    #[arg(long, value_name = "BACKEND", value_enum, default_value_t)]
    pub(super) backend: BackendChoice,
    /// Number of vCPUs.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) vcpus: u32,
    /// L2 VMs that the guest may run inside of its TD (TD partitioning), at most 3; `l1-vmm` has one, others none, if not
    /// given. The emulated processor applies the exits for HLT, ports, MSRs, control registers and memory; a VM for which its
    /// L1 wants others stops, and the summary says which.
    #[arg(long, value_name = "N")]
    pub(super) l2_vms: Option<u8>,
    /// Memory: a number of bytes, or one with K, M or G. 128M, or 512M for a Linux kernel, if not given.
    #[arg(long, value_name = "SIZE")]
    pub(super) memory: Option<MemorySize>,
    #[command(flatten)]
    pub(super) linux: LinuxArgs,
    #[command(flatten)]
    pub(super) hardware: HardwareArgs,
    #[command(flatten)]
    pub(super) in_guest: CommandArgs,
    #[command(flatten)]
    pub(super) devices: DeviceArgs,
    #[command(flatten)]
    pub(super) gdb: GdbArgs,
    #[command(flatten)]
    pub(super) report: ReportArgs,
    #[command(flatten)]
    pub(super) told: ToldArgs,
    #[command(flatten)]
    pub(super) status_lines: StatusLinesArgs,
    #[command(flatten)]
    pub(super) dump: DumpArgs,
    #[command(flatten)]
    pub(super) samples: SampleArgs,
    #[command(flatten)]
    pub(super) snapshots: SnapshotArgs,
    /// Run one vCPU at a time, in virtual time and an order that SEED decides: the same seed gives the same run,
    /// call for call. Nothing is read from stdin.
    #[arg(long, value_name = "SEED")]
    pub(super) deterministic: Option<u64>,
    /// Stop the TD after so many seconds, and end with status 124; 0 is never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(super) timeout: u64,
    /// Run the TD in debug mode: diagnostics may show what the guest holds. Its measurements do not change; its
    /// ATTRIBUTES, and so every quote, say so.
    #[arg(long)]
    pub(super) debug: bool,
    /// Print no summary where the guest succeeded, and one line where it did not.
    #[arg(short, long, conflicts_with_all = ["verbose", "json"])]
    pub(super) quiet: bool,
    /// Print every count of the summary.
    #[arg(short, long)]
    pub(super) verbose: bool,
    /// Print the summary as JSON on stdout; the guest's console goes to stderr.
    #[arg(long)]
    pub(super) json: bool,
    /// Write every SEAMCALL with its registers to FILE, one JSON object a line; `tdvisor decode FILE` explains it.
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
    /// The image's ELF file, to decode its log (built-in guests bring their own).
    #[arg(long, value_name = "FILE")]
    pub(super) elf: Option<PathBuf>,
    /// A command for the guest, passed in the TD HOB.
    #[arg(long, value_name = "TEXT")]
    pub(super) command: Option<String>,
    /// Write the guest's last quote to FILE; FILE.collateral.json and FILE.root.pem verify it and every other quote of
    /// this TD. Built-in guests are told to ask for one; a Linux kernel asks by itself (configfs-tsm). They are test quotes;
    /// with --backend kvm nobody checks the MAC of the guest's report.
    #[arg(long, value_name = "FILE", conflicts_with = "qgs")]
    pub(super) quote: Option<PathBuf>,
    /// Get the TD's quotes from the quote-generation service at this socket instead of the test issuer.
    #[arg(long, value_name = "SOCKET")]
    pub(super) qgs: Option<PathBuf>,
    /// Make chosen SEAMCALLs fail: `TDH.MEM.PAGE.AUG#3=OPERAND_BUSY:RCX`, `TDH.MEM.PAGE.DEMOTE#1..3=irq`, or
    /// `chaos:SEED/ONE-IN` for random faults that a host has to survive; several, separated by commas.
    #[arg(long, value_name = "PLAN")]
    pub(super) inject: Option<FaultPlan>,
    /// Map no page larger than this: 4K or 2M.
    #[arg(long, value_name = "LEVEL", default_value = USUAL_MAX_PAGE, value_parser = ["4K", "2M"])]
    pub(super) max_page: String,
}

/// The largest page that is mapped where nothing else is asked for.
pub(super) const USUAL_MAX_PAGE: &str = "2M";

impl Args {
    /// How much of the summary is shown.
    pub(super) const fn detail(&self) -> Detail {
        match (self.quiet, self.verbose) {
            (true, _) => Detail::Quiet,
            (_, true) => Detail::Full,
            _ => Detail::Usual,
        }
    }

    /// What runs: firmware that boots something, or a guest.
    pub(super) fn image(&self, has_kernel: bool) -> Result<Image, Failure> {
        match (self.linux.firmware(), &self.image) {
            (Some(path), _) => Image::firmware(path),
            (None, _) if has_kernel => Ok(Image::built_in(&BOOT_SHIM)),
            (None, None) if self.devices.has_disk() => Image::firmware(firmware::installed()?),
            (None, image) => {
                let image = Image::load(image.as_deref(), self.elf.as_deref())?;
                if let Some(option) = self.devices.first_given()
                    && !image.is_uefi()
                {
                    let why = format!("{} is no UEFI firmware, and looks at no such device", image.name());
                    return Err(Failure::input(option, why));
                }
                Ok(image)
            }
        }
    }

    /// Checks that no file is used in two ways.
    pub(super) fn claim(&self) -> Result<(), Failure> {
        let mut claims = Claims::new();
        self.linux.claim(&mut claims)?;
        self.devices.claim(&mut claims)?;
        self.report.claim(&mut claims)?;
        self.told.claim(&mut claims)?;
        self.dump.claim(&mut claims)?;
        self.samples.claim(&mut claims)?;
        self.snapshots.claim(&mut claims)?;
        if let Some(image) = self.image.as_deref().map(std::path::Path::new).filter(|path| path.exists()) {
            claims.reads("the image", image)?;
        }
        for (what, path) in [("--elf", &self.elf), ("--qgs", &self.qgs)] {
            if let Some(path) = path {
                claims.reads(what, path)?;
            }
        }
        if let Some(quote) = &self.quote {
            let names = ["--quote", "the collateral of --quote", "the root of --quote"];
            for (what, path) in names.into_iter().zip(&quotes::paths(quote)) {
                claims.writes(what, path)?;
            }
        }
        self.trace.as_deref().map_or(Ok(()), |trace| claims.writes("--trace", trace))
    }

    /// The TD that is asked for.
    pub(super) fn td_config(
        &self,
        memory: MemorySize,
        l2_vms: u8,
        command: Option<String>,
    ) -> Result<TdConfig, Failure> {
        let mut config = TdConfig {
            memory: memory.bytes(),
            vcpus: self.vcpus,
            l2_vms,
            largest_page: if self.max_page == "4K" { Level::L4K } else { Level::L2M },
            ..TdConfig::default()
        };
        if self.debug {
            config.attributes |= attributes::DEBUG;
        }
        if let Some(command) = command {
            let limit = tdvisor_guest_images::COMMAND_MAX;
            if command.len() > limit || !command.is_ascii() {
                return Err(Failure::input("--command", format!("at most {limit} ASCII characters")));
            }
            config.hob_extensions.push((tdvisor_guest_images::COMMAND_HOB_GUID, command.into_bytes()));
        }
        // Before a machine is made for it, so that nothing is made for what cannot be.
        config.check(MAX_TD_MEMORY, MAX_TD_VCPUS).map_err(|error| Failure::Input(error.to_string()))?;
        Ok(config)
    }
}
