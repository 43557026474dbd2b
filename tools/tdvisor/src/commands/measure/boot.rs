//! The registers of a Linux boot under the firmware that is given: this project's boot shim, OVMF (a kernel of its host's, or
//! a disk), or td-shim.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use td_image::tdvf::{HostContents, MetadataLocation, SectionKind, TdvfImage};
use tdvisor_attest::eventlog::Register;
use tdvisor_attest::predict::boot_shim::{self, DEFAULT_COMMAND_LINE, Inputs};
use tdvisor_attest::predict::ovmf::{self, PROFILES, UNMEASURED};
use tdvisor_attest::predict::uki::Uki;
use tdvisor_attest::predict::{Prediction, td_shim};
use tdvisor_guest_images::BOOT_SHIM;

use super::read;
use crate::commands::eventlog::parse_memory;
use crate::commands::machine_files::{MachineArgs, disk};
use crate::outcome::Failure;

/// What Linux is booted with.
#[derive(Debug, clap::Args)]
pub(super) struct LinuxArgs {
    /// Predict RTMR0 to RTMR2 of this kernel under the image: the boot shim, OVMF or td-shim.
    #[arg(long, value_name = "FILE")]
    pub(super) kernel: Option<PathBuf>,
    /// The initrd.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The command line.
    #[arg(long, value_name = "TEXT", requires = "kernel", default_value = DEFAULT_COMMAND_LINE)]
    cmdline: String,
    /// Memory of the TD, such as 512M: it tells the TD HOB, and so RTMR0; and where QEMU before 10.2 puts the initrd, and
    /// so RTMR1.
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<u64>,
    /// The TD HOB itself, where something is passed in it, or where the image has it measured into MRTD.
    #[arg(long, value_name = "FILE", conflicts_with = "memory")]
    pub(super) td_hob: Option<PathBuf>,
    /// Whose boot it is, where the image does not tell: a kind of OVMF build, or this project's boot shim.
    #[arg(long, value_name = "NAME", value_parser = profile_names())]
    profile: Option<String>,
    #[command(flatten)]
    machine: MachineArgs,
}

impl LinuxArgs {
    /// An option that says how something is booted, although nothing is.
    fn of_no_boot(&self) -> Option<&'static str> {
        let memory = self.memory.map(|_| "--memory");
        memory.or_else(|| self.machine.given()).or_else(|| self.profile.as_ref().map(|_| "--profile"))
    }
}

fn profile_names() -> Vec<&'static str> {
    PROFILES.iter().chain([&UNMEASURED]).map(|profile| profile.name).chain([BOOT_SHIM.name]).collect()
}

/// Whose firmware an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Firmware {
    BootShim,
    Ovmf,
    TdShim,
}

impl Firmware {
    /// What the image is, as far as it tells.
    fn of(image: &TdvfImage<'_>) -> Option<Self> {
        let has = |kind| image.sections().any(|section| section.kind == kind);
        match image.location() {
            _ if image.bytes() == BOOT_SHIM.image => Some(Self::BootShim),
            MetadataLocation::TdShimOffset => Some(Self::TdShim),
            // The variable store is what makes a UEFI firmware of a table at the image's end.
            MetadataLocation::GuidTable if has(SectionKind::CFV) => Some(Self::Ovmf),
            MetadataLocation::GuidTable => None,
        }
    }
}

/// The predictions: one for each kind of build that the image may be.
pub(super) struct Boot {
    firmware: Firmware,
    builds: Vec<(String, Prediction)>,
}

impl Boot {
    /// The boot that the arguments describe, under `image` if that is a TDVF image; `None` without a kernel.
    pub(super) fn of(
        args: &LinuxArgs,
        path: &Path,
        image: Option<&TdvfImage<'_>>,
        host: &HostContents<'_>,
    ) -> Result<Option<Self>, Failure> {
        if args.kernel.is_none() && !args.machine.disk.is_given() {
            return match args.of_no_boot() {
                Some(option) => Err(Failure::input(
                    option,
                    "nothing is booted: --kernel, --uki or --boot-loader is missing",
                )),
                None => Ok(None),
            };
        }
        let unknown = "nothing is known of how this image measures a kernel; --profile says whose boot it is";
        let firmware = match (args.profile.as_deref(), image) {
            (Some(name), _) if name == BOOT_SHIM.name => Firmware::BootShim,
            (Some(_), _) => Firmware::Ovmf,
            (None, Some(image)) => {
                Firmware::of(image).ok_or_else(|| Failure::input(path.display(), unknown))?
            }
            (None, None) => return Err(Failure::input(path.display(), unknown)),
        };
        if args.machine.disk.is_given() && firmware != Firmware::Ovmf {
            return Err(Failure::input(path.display(), "boots no disk: UEFI firmware (OVMF) does"));
        }
        let builds = match firmware {
            Firmware::BootShim => vec![(BOOT_SHIM.name.to_owned(), boot_shim(args, image)?)],
            Firmware::Ovmf => ovmf(args, image)?,
            Firmware::TdShim => vec![("td-shim".to_owned(), under_td_shim(args, path, image, host)?)],
        };
        Ok(Some(Self { firmware, builds }))
    }

    /// Every register of a build with its values, or what is missing to know them.
    fn registers(prediction: &Prediction) -> impl Iterator<Item = (Register, Values)> {
        Register::RTMRS.into_iter().map(|register| {
            let values = prediction.values(register).map_err(|needs| {
                needs.map_or_else(
                    || "extended by the running system alone".to_owned(),
                    |needs| format!("needs {needs}"),
                )
            });
            let values = values.map(|values| {
                values.into_iter().map(|one| (one.when.join("; "), one.value.to_string())).collect()
            });
            (register, values)
        })
    }

    /// Every value of every register that is predicted by all builds, by Trustee's names. What builds leave zero that measure
    /// nothing is no reference: it would be kept by whatever they start.
    pub(super) fn reference_values(&self) -> Vec<(String, BTreeSet<String>)> {
        let numbered = Register::RTMRS.into_iter().enumerate();
        numbered
            .filter_map(|(number, register)| {
                let mut all = BTreeSet::new();
                for (_, prediction) in self.builds.iter().filter(|(_, one)| !one.events.is_empty()) {
                    let values = prediction.values(register).ok()?;
                    all.extend(values.into_iter().map(|one| one.value.to_string()));
                }
                (!all.is_empty()).then(|| (format!("rtmr_{number}"), all))
            })
            .collect()
    }

    pub(super) fn to_json(&self) -> Value {
        let builds: Vec<Value> =
            self.builds.iter().map(|(name, prediction)| build_json(name, prediction)).collect();
        match (self.firmware, builds.as_slice()) {
            // One build: what there is to know is its own.
            (Firmware::BootShim | Firmware::TdShim, [build]) => build.clone(),
            _ => json!({ "firmware": "ovmf", "builds": builds }),
        }
    }
}

/// The values of a register with their circumstances, or why there are none.
type Values = Result<Vec<(String, String)>, String>;

fn build_json(name: &str, prediction: &Prediction) -> Value {
    let mut registers = serde_json::Map::new();
    for (register, values) in Boot::registers(prediction) {
        let value = match values {
            Ok(values) => {
                let only = match values.as_slice() {
                    [(_, only)] => Some(only),
                    _ => None,
                };
                let all: Vec<Value> =
                    values.iter().map(|(when, value)| json!({ "when": when, "value": value })).collect();
                json!({ "value": only, "values": all })
            }
            Err(missing) => json!({ "value": null, "not_predicted": missing }),
        };
        registers.insert(register.to_string().to_lowercase(), value);
    }
    let events: Vec<Value> = prediction
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
    json!({ "build": name, "registers": registers, "events": events })
}

fn boot_shim(args: &LinuxArgs, image: Option<&TdvfImage<'_>>) -> Result<Prediction, Failure> {
    let kernel = args.kernel.as_deref().map(read).transpose()?;
    let initrd = args.initrd.as_deref().map(read).transpose()?;
    let hob = match (&args.td_hob, args.memory, image) {
        (Some(path), ..) => Some(read(path)?),
        (None, Some(memory), Some(image)) => boot_shim::host_td_hob(image, memory)
            .transpose()
            .map_err(|error| Failure::input("--memory", error))?,
        _ => None,
    };
    Ok(boot_shim::boot(&Inputs {
        td_hob: hob.as_deref(),
        kernel: kernel.as_deref(),
        initrd: initrd.as_deref(),
        command_line: Some(&args.cmdline),
    }))
}

/// OVMF with QEMU's direct boot or a disk, one prediction for each kind of build.
fn ovmf(args: &LinuxArgs, image: Option<&TdvfImage<'_>>) -> Result<Vec<(String, Prediction)>, Failure> {
    if let Some(path) = &args.td_hob {
        let why = "a TD HOB is of use for td-shim and the boot shim only: for OVMF give --memory";
        return Err(Failure::input(path.display(), why));
    }
    let file = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
    let (kernel, initrd) = (file(&args.kernel)?, file(&args.initrd)?);
    let machine = args.machine.read(args.memory)?;
    let inputs = ovmf::Inputs {
        kernel: kernel.as_deref(),
        initrd: initrd.as_deref(),
        command_line: Some(&args.cmdline),
        ..machine.inputs(image.copied())
    };
    let is_wanted = |name: &str| args.profile.as_deref().is_none_or(|wanted| wanted == name);
    let unmeasured = || {
        let prediction = ovmf::direct_boot(&inputs, UNMEASURED);
        prediction.map_err(|error| Failure::Input(error.to_string()))
    };
    let mut builds = if args.machine.disk.is_given() {
        disk::builds(&args.machine.disk, inputs, args.kernel.as_deref(), &is_wanted)?
    } else {
        if let (Some(path), Some(bytes)) = (&args.kernel, &kernel)
            && Uki::parse(bytes).is_ok()
        {
            let why = "a unified kernel image, which measures its sections: name it with --uki";
            return Err(Failure::input(path.display(), why));
        }
        let profiles = PROFILES.iter().filter(|profile| is_wanted(profile.name));
        let builds = profiles.map(|profile| {
            let prediction = ovmf::direct_boot(&inputs, *profile);
            let prediction = prediction.map_err(|error| Failure::Input(error.to_string()))?;
            Ok((profile.name.to_owned(), prediction))
        });
        builds.collect::<Result<Vec<_>, Failure>>()?
    };
    if is_wanted(UNMEASURED.name) {
        builds.push((UNMEASURED.name.to_owned(), unmeasured()?));
    }
    if builds.is_empty() {
        return Err(Failure::input("--profile", "no such build boots a disk"));
    }
    Ok(builds)
}

/// td-shim starts a payload: a kernel is one where the image has a section for it.
fn under_td_shim(
    args: &LinuxArgs,
    path: &Path,
    image: Option<&TdvfImage<'_>>,
    host: &HostContents<'_>,
) -> Result<Prediction, Failure> {
    let refuse = |why: &str| Err(Failure::input(path.display(), why));
    let Some(image) = image else { return refuse("td-shim is a TDVF image") };
    if args.initrd.is_some() {
        return refuse("td-shim takes its initrd in the TD HOB, and measures no initrd of its own");
    }
    if !image.sections().any(|section| section.kind == SectionKind::PAYLOAD && section.raw_size == 0) {
        return refuse("this td-shim has its payload in the image and starts no other kernel");
    }
    let kernel = args.kernel.as_deref().map(read).transpose()?;
    Ok(td_shim::boot(
        image,
        &HostContents {
            td_hob: host.td_hob,
            payload: host.payload.or(kernel.as_deref()),
            // How the host writes a command line there is its own affair: only the bytes tell.
            payload_param: host.payload_param,
        },
    ))
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, prediction) in &self.builds {
            writeln!(f)?;
            if self.firmware != Firmware::BootShim {
                writeln!(f, "boot under {name}:")?;
            }
            if prediction.events.is_empty() {
                writeln!(f, "a build that measures nothing leaves these zero, whatever it starts")?;
            }
            for (register, values) in Self::registers(prediction) {
                match values {
                    Ok(values) => values.iter().try_for_each(|(when, value)| match when.as_str() {
                        "" => writeln!(f, "{register} {value}"),
                        when => writeln!(f, "{register} {value} ({when})"),
                    })?,
                    Err(missing) => writeln!(f, "{register} not predicted: {missing}")?,
                }
                for event in prediction.of(register) {
                    let digest = match event.expectation.only() {
                        Some(digest) => digest.to_string(),
                        None => "depends on the circumstances above, or is not predicted".to_owned(),
                    };
                    writeln!(f, "      {:<12} {digest}", event.part.to_string())?;
                }
            }
        }
        Ok(())
    }
}
