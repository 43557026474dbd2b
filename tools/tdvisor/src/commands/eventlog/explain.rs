//! `tdvisor eventlog explain`: a log beside what should have happened.

use std::path::{Path, PathBuf};

use td_image::tdvf::{HostContents, TdvfImage};
use tdvisor_attest::eventlog::EventLog;
use tdvisor_attest::explain::{Evidence, explain_by_best};
use tdvisor_attest::predict::boot_shim;
use tdvisor_attest::predict::guest::Guest;
use tdvisor_attest::predict::ovmf::{Inputs, PROFILES, direct_boot};
use tdvisor_attest::predict::{Prediction, td_shim};
use tdvisor_guest_images::BOOT_SHIM;

use super::{LogArgs, RegisterArgs, inputs, print};
use crate::commands::machine_files::{MachineArgs, disk};
use crate::commands::with_version;
use crate::files::{Claims, Output};
use crate::outcome::{Failure, Status};
use inputs::{parse_memory, read};

fn profile_names() -> Vec<&'static str> {
    PROFILES.iter().map(|profile| profile.name).chain([BOOT_SHIM.name]).collect()
}

/// Explain a log: the first and every difference from a prediction, each with its likely cause.
///
/// The prediction is another log (--reference), or follows from the inputs of the boot: firmware, memory size,
/// ACPI tables, kernel, initrd, command line. What is not given is not predicted and is told apart from a match.
/// Ends with status 0 if nothing differs, 1 if something does or the log says what was not measured, 2 if a file cannot
/// be used.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: LogArgs,
    /// Predict the events of this log, from a boot known to be good.
    #[arg(long, value_name = "LOG", conflicts_with_all = ["firmware", "kernel", "td_shim", "uki", "boot_loader"])]
    reference: Option<PathBuf>,
    /// Predict the boot of this image: OVMF, or a boot shim that is not the built-in one.
    #[arg(long, value_name = "FILE")]
    firmware: Option<PathBuf>,
    /// Memory of the machine, such as 2G.
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<u64>,
    #[command(flatten)]
    machine: MachineArgs,
    /// The kernel of a direct boot, or the one that the last of the boot loaders starts.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The kernel's initrd.
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The kernel's command line.
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// The firmware: a kind of OVMF build, or this project's boot shim. Without it, the boot shim for a log that it
    /// wrote, and else the kind of OVMF build that fits best.
    #[arg(long, value_name = "NAME", value_parser = profile_names())]
    profile: Option<String>,
    /// Predict the boot of this td-shim image.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["firmware", "kernel"])]
    td_shim: Option<PathBuf>,
    /// The TD HOB that td-shim or the boot shim was given.
    #[arg(long, value_name = "FILE", conflicts_with = "memory")]
    td_hob: Option<PathBuf>,
    /// The payload that td-shim was given.
    #[arg(long, value_name = "FILE", requires = "td_shim")]
    payload: Option<PathBuf>,
    /// The payload's parameters that td-shim was given.
    #[arg(long, value_name = "FILE", requires = "td_shim")]
    payload_param: Option<PathBuf>,
    /// The log is of this project's hello-td, which extends RTMR3 once.
    #[arg(long)]
    hello_td: bool,
    #[command(flatten)]
    registers: RegisterArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Also write a self-contained page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Opens the page, if there is to be one.
fn page(args: &Args) -> Result<Option<Output>, Failure> {
    let Some(path) = &args.html else { return Ok(None) };
    let mut claims = Claims::new();
    if let Some(log) = &args.log.log {
        claims.reads("the log", log)?;
    }
    for (what, path) in [
        ("--reference", &args.reference),
        ("--firmware", &args.firmware),
        ("--kernel", &args.kernel),
        ("--initrd", &args.initrd),
        ("--td-shim", &args.td_shim),
        ("--td-hob", &args.td_hob),
        ("--payload", &args.payload),
        ("--payload-param", &args.payload_param),
        ("--quote", &args.registers.quote),
        ("--report", &args.registers.report),
        ("--events", &args.registers.events),
        ("--ima", &args.registers.ima),
    ] {
        if let Some(path) = path {
            claims.reads(what, path)?;
        }
    }
    for (what, path) in args.machine.files() {
        claims.reads(what, path)?;
    }
    claims.writes("--html", path)?;
    Output::open(path).map(Some)
}

pub(super) fn run(args: &Args) -> Result<Status, Failure> {
    let page = page(args)?;
    let logs = inputs::Logs::read(&args.log, &args.registers)?;
    let log = EventLog::parse(&logs.area).map_err(|error| Failure::input("LOG", error))?;
    let given = inputs::registers(&args.registers)?;
    let mut runtime = logs.runtime();
    if args.hello_td {
        runtime.get_or_insert_default().extend(Guest::HelloTd.prediction());
    }
    let evidence =
        Evidence { registers: given.as_ref().map(|given| &given.registers), runtime: runtime.as_ref() };
    let predictions = predictions(args, &log)?;
    let mut explanation = explain_by_best(&log, &predictions, &evidence)
        .ok_or_else(|| Failure::Internal("no prediction to explain by".to_owned()))?;
    inputs::add_contradictions(&mut explanation, &logs, given.as_ref());
    if let Some(page) = page {
        page.write(explanation.to_html().as_bytes())?;
    }
    print(&if args.json {
        format!("{:#}\n", with_version(explanation.to_json()))
    } else {
        explanation.to_string()
    })?;
    Ok(if explanation.agrees() { Status::Success } else { Status::Negative })
}

fn optional(path: Option<&PathBuf>) -> Result<Option<Vec<u8>>, Failure> {
    path.map(|path| read(path)).transpose()
}

fn image<'a>(path: &Path, bytes: &'a [u8]) -> Result<TdvfImage<'a>, Failure> {
    TdvfImage::parse(bytes).map_err(|error| Failure::input(path.display(), error))
}

fn predictions(args: &Args, log: &EventLog<'_>) -> Result<Vec<(String, Prediction)>, Failure> {
    if let Some(path) = &args.reference {
        let area = inputs::read_log(path)?;
        let log = EventLog::parse(&area).map_err(|error| Failure::input(path.display(), error))?;
        return Ok(vec![(format!("the reference log {}", path.display()), Prediction::from_log(&log))]);
    }
    if let Some(path) = &args.td_shim {
        let bytes = read(path)?;
        let (hob, payload) = (optional(args.td_hob.as_ref())?, optional(args.payload.as_ref())?);
        let parameters = optional(args.payload_param.as_ref())?;
        let host = HostContents {
            td_hob: hob.as_deref(),
            payload: payload.as_deref(),
            payload_param: parameters.as_deref(),
        };
        let prediction = td_shim::boot(&image(path, &bytes)?, &host);
        return Ok(vec![(format!("the prediction for td-shim {}", path.display()), prediction)]);
    }
    let of_boot_shim =
        args.profile.as_deref().map_or_else(|| boot_shim::wrote(log), |name| name == BOOT_SHIM.name);
    if of_boot_shim {
        if args.machine.disk.is_given() {
            return Err(Failure::input(BOOT_SHIM.name, "boots no disk: UEFI firmware (OVMF) does"));
        }
        return Ok(vec![(format!("the prediction for the {}", BOOT_SHIM.name), boot_shim_prediction(args)?)]);
    }
    if let Some(path) = &args.td_hob {
        return Err(Failure::input(path.display(), "a TD HOB is of use for td-shim and the boot shim only"));
    }
    let firmware = optional(args.firmware.as_ref())?;
    let firmware = match (&args.firmware, &firmware) {
        (Some(path), Some(bytes)) => Some(image(path, bytes)?),
        _ => None,
    };
    let (kernel, initrd) = (optional(args.kernel.as_ref())?, optional(args.initrd.as_ref())?);
    let machine = args.machine.read(args.memory)?;
    let inputs = Inputs {
        kernel: kernel.as_deref(),
        initrd: initrd.as_deref(),
        command_line: args.cmdline.as_deref(),
        ..machine.inputs(firmware)
    };
    let is_wanted = |name: &str| args.profile.as_deref().is_none_or(|wanted| wanted == name);
    let builds = if args.machine.disk.is_given() {
        disk::builds(&args.machine.disk, inputs, args.kernel.as_deref(), &is_wanted)?
    } else {
        let profiles = PROFILES.iter().filter(|profile| is_wanted(profile.name));
        let builds = profiles.map(|profile| {
            let prediction =
                direct_boot(&inputs, *profile).map_err(|error| Failure::Input(error.to_string()))?;
            Ok((profile.name.to_owned(), prediction))
        });
        builds.collect::<Result<Vec<_>, Failure>>()?
    };
    if builds.is_empty() {
        return Err(Failure::input("--profile", "no such build boots a disk"));
    }
    let named = |(name, prediction)| (format!("the prediction for profile {name}"), prediction);
    Ok(builds.into_iter().map(named).collect())
}

fn boot_shim_prediction(args: &Args) -> Result<Prediction, Failure> {
    let mut hob = optional(args.td_hob.as_ref())?;
    if let (None, Some(memory)) = (&hob, args.memory) {
        let own = optional(args.firmware.as_ref())?;
        let path = args.firmware.as_deref().unwrap_or(Path::new(BOOT_SHIM.name));
        hob = boot_shim::host_td_hob(&image(path, own.as_deref().unwrap_or(BOOT_SHIM.image))?, memory)
            .transpose()
            .map_err(|error| Failure::input("--memory", error))?;
    }
    let (kernel, initrd) = (optional(args.kernel.as_ref())?, optional(args.initrd.as_ref())?);
    Ok(boot_shim::boot(&boot_shim::Inputs {
        td_hob: hob.as_deref(),
        kernel: kernel.as_deref(),
        initrd: initrd.as_deref(),
        command_line: args.cmdline.as_deref(),
    }))
}
