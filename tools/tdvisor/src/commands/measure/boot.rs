//! The registers of a Linux boot under this project's boot shim.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};
use td_image::tdvf::TdvfImage;
use tdvisor_attest::eventlog::Register;
use tdvisor_attest::predict::boot_shim::{self, DEFAULT_COMMAND_LINE, Inputs};
use tdvisor_attest::predict::{Expectation, Prediction};

use super::read;
use crate::commands::eventlog::parse_memory;
use crate::outcome::Failure;

/// What Linux is booted with.
#[derive(Debug, clap::Args)]
pub(super) struct LinuxArgs {
    /// Predict RTMR0 to RTMR2 of this kernel under the boot shim.
    #[arg(long, value_name = "FILE")]
    pub(super) kernel: Option<PathBuf>,
    /// The initrd.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The command line.
    #[arg(long, value_name = "TEXT", requires = "kernel", default_value = DEFAULT_COMMAND_LINE)]
    cmdline: String,
    /// Memory of the TD, such as 512M: it tells the TD HOB, and so RTMR0.
    #[arg(long, value_name = "SIZE", requires = "kernel", value_parser = parse_memory)]
    memory: Option<u64>,
    /// The TD HOB itself, where something is passed in it, or where the image has it measured into MRTD.
    #[arg(long, value_name = "FILE", conflicts_with = "memory")]
    pub(super) td_hob: Option<PathBuf>,
}

/// The prediction.
pub(super) struct Boot(Prediction);

impl Boot {
    /// The boot that the arguments describe, under `shim` if it is a TDVF image; `None` without a kernel.
    pub(super) fn of(args: &LinuxArgs, shim: Option<&TdvfImage<'_>>) -> Result<Option<Self>, Failure> {
        let Some(kernel) = &args.kernel else { return Ok(None) };
        let kernel = read(kernel)?;
        let initrd = args.initrd.as_deref().map(read).transpose()?;
        let hob = match (&args.td_hob, args.memory, shim) {
            (Some(path), ..) => Some(read(path)?),
            (None, Some(memory), Some(image)) => boot_shim::host_td_hob(image, memory)
                .transpose()
                .map_err(|error| Failure::input("--memory", error))?,
            _ => None,
        };
        Ok(Some(Self(boot_shim::boot(&Inputs {
            td_hob: hob.as_deref(),
            kernel: Some(&kernel),
            initrd: initrd.as_deref(),
            command_line: Some(&args.cmdline),
        }))))
    }

    /// Every register with its value, or what is missing to know it.
    fn registers(&self) -> impl Iterator<Item = (Register, Result<String, String>)> {
        Register::RTMRS.into_iter().map(|register| {
            let missing = || {
                let unknown = self.0.of(register).find_map(|event| match &event.expectation {
                    Expectation::Unknown { needs } => Some(format!("needs {needs}")),
                    Expectation::Exactly(_) | Expectation::OneOf(_) => None,
                });
                unknown.unwrap_or_else(|| "extended by the running system alone".to_owned())
            };
            (register, self.0.value(register).map(|value| value.to_string()).ok_or_else(missing))
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let mut registers = serde_json::Map::new();
        for (register, value) in self.registers() {
            let value = match value {
                Ok(value) => json!({ "value": value }),
                Err(missing) => json!({ "value": null, "not_predicted": missing }),
            };
            registers.insert(register.to_string().to_lowercase(), value);
        }
        let events: Vec<Value> = self
            .0
            .events
            .iter()
            .map(|event| {
                json!({
                    "register": event.register.to_string(),
                    "part": event.part.to_string(),
                    "digest": event.expectation.only().map(ToString::to_string),
                })
            })
            .collect();
        json!({ "registers": registers, "events": events })
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for (register, value) in self.registers() {
            match value {
                Ok(value) => writeln!(f, "{register} {value}")?,
                Err(missing) => writeln!(f, "{register} not predicted: {missing}")?,
            }
            for event in self.0.of(register) {
                let digest = match event.expectation.only() {
                    Some(digest) => digest.to_string(),
                    None => "not predicted".to_owned(),
                };
                writeln!(f, "      {:<12} {digest}", event.part.to_string())?;
            }
        }
        Ok(())
    }
}
