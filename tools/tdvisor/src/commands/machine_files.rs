//! What OVMF measures of the machine and of what it boots, as files that are named on the command line: for `measure`, before a
//! boot, and for `eventlog explain`, after it.

pub(super) mod disk;

use std::path::{Path, PathBuf};

use td_image::td_hob::qemu_ram;
use td_image::tdvf::TdvfImage;
use tdvisor_attest::predict::ovmf::Inputs;
use tdvisor_runtime::board::FIRST_DEVICE;
use tdvisor_runtime::board::acpi_files::AcpiFiles;

use crate::outcome::Failure;
use crate::read_bounded::read_bounded;
use disk::DiskArgs;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// The machine under OVMF, and the disk that it boots.
#[derive(Debug, clap::Args)]
pub(super) struct MachineArgs {
    /// QEMU's etc/table-loader, for OVMF.
    #[arg(long, value_name = "FILE")]
    acpi_loader: Option<PathBuf>,
    /// QEMU's etc/acpi/rsdp, for OVMF.
    #[arg(long, value_name = "FILE")]
    acpi_rsdp: Option<PathBuf>,
    /// QEMU's etc/acpi/tables, for OVMF.
    #[arg(long, value_name = "FILE")]
    acpi_tables: Option<PathBuf>,
    /// The machine is that of `tdvisor run --firmware` with so many vCPUs: the ACPI tables are this project's board's, in
    /// place of the three files, and a disk that it boots is its only one, without a network card beside it.
    #[arg(long, value_name = "VCPUS", requires = "memory", value_parser = clap::value_parser!(u32).range(1..=512),
        conflicts_with_all = ["acpi_loader", "acpi_rsdp", "acpi_tables"])]
    board_vcpus: Option<u32>,
    /// The SMBIOS tables of the machine with this firmware (in Linux /sys/firmware/dmi/tables/DMI), for OVMF from 2026.08 on.
    #[arg(long, value_name = "FILE")]
    smbios: Option<PathBuf>,
    #[command(flatten)]
    pub(super) disk: DiskArgs,
}

impl MachineArgs {
    /// An option that says what OVMF measures, if one is given and names no boot by itself.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.acpi_loader.is_some(), "--acpi-loader"),
            (self.acpi_rsdp.is_some(), "--acpi-rsdp"),
            (self.acpi_tables.is_some(), "--acpi-tables"),
            (self.board_vcpus.is_some(), "--board-vcpus"),
            (self.smbios.is_some(), "--smbios"),
            (self.disk.names_disk(), "--disk"),
        ];
        given.iter().find(|(given, _)| *given).map(|(_, option)| *option)
    }

    /// Every file that is read, by its option.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let machine = [
            ("--acpi-loader", &self.acpi_loader),
            ("--acpi-rsdp", &self.acpi_rsdp),
            ("--acpi-tables", &self.acpi_tables),
            ("--smbios", &self.smbios),
        ];
        let machine = machine.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)));
        machine.chain(self.disk.files())
    }

    /// Reads what describes the machine.
    ///
    /// # Errors
    /// [`Failure::Input`]: a file cannot be read, or the board has no such machine.
    pub(super) fn read(&self, memory: Option<u64>) -> Result<Machine, Failure> {
        let file = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
        let smbios = file(&self.smbios)?;
        if let (Some(vcpus), Some(memory)) = (self.board_vcpus, memory) {
            let [low, _] = qemu_ram(memory);
            let files =
                AcpiFiles::new(vcpus, low.bytes).map_err(|error| Failure::input("--board-vcpus", error))?;
            let AcpiFiles { loader, rsdp, tables, .. } = files;
            return Ok(Machine {
                memory: Some(memory),
                loader: Some(loader),
                rsdp: Some(rsdp),
                tables: Some(tables),
                smbios,
                boot_disk: Some(FIRST_DEVICE),
            });
        }
        Ok(Machine {
            memory,
            loader: file(&self.acpi_loader)?,
            rsdp: file(&self.acpi_rsdp)?,
            tables: file(&self.acpi_tables)?,
            smbios,
            boot_disk: None,
        })
    }
}

/// What describes the machine, read.
#[derive(Debug)]
pub(super) struct Machine {
    memory: Option<u64>,
    loader: Option<Vec<u8>>,
    rsdp: Option<Vec<u8>>,
    tables: Option<Vec<u8>>,
    smbios: Option<Vec<u8>>,
    boot_disk: Option<u8>,
}

impl Machine {
    /// What OVMF measures on this machine, without anything that it boots.
    pub(super) fn inputs<'a>(&'a self, firmware: Option<TdvfImage<'a>>) -> Inputs<'a> {
        Inputs {
            firmware,
            memory: self.memory,
            acpi_loader: self.loader.as_deref(),
            acpi_rsdp: self.rsdp.as_deref(),
            acpi_tables: self.tables.as_deref(),
            smbios: self.smbios.as_deref(),
            boot_disk: self.boot_disk,
            kernel: None,
            initrd: None,
            command_line: None,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_bounded(path, MAX_FILE)
}
