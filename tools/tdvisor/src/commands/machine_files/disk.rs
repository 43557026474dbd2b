//! Boots of OVMF from a disk: boot loaders, or a unified kernel image.

use std::path::{Path, PathBuf};

use tdvisor_attest::predict::Prediction;
use tdvisor_attest::predict::disk_boot::{self, Inputs, Loaded};
use tdvisor_attest::predict::gpt::HEAD_BYTES;
use tdvisor_attest::predict::ovmf;
use tdvisor_attest::predict::uki::Uki;

use super::read;
use crate::outcome::Failure;

/// The most boot loaders that start each other.
const MAX_LOADERS: usize = 8;

/// What a disk boots.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct DiskArgs {
    /// Predict OVMF that boots this unified kernel image: RTMR1, and RTMR2 from its sections.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "td_hob"])]
    uki: Option<PathBuf>,
    /// Predict OVMF that boots this boot loader (shim, GRUB) from a disk; may be given more than once, in the order in which
    /// they start each other. --kernel is then the kernel that the last of them starts.
    #[arg(long, value_name = "FILE", conflicts_with = "td_hob")]
    boot_loader: Vec<PathBuf>,
    /// The configuration of GRUB, the last boot loader: RTMR2 from shim's lists, from the commands in it and from the kernel and the
    /// initrd that they load. Only commands of plain words are predicted, one a line, with `boot` at the end.
    #[arg(long, value_name = "FILE", requires = "boot_loader")]
    grub_config: Option<PathBuf>,
    /// The disk's image, whose partition table is measured into RTMR1.
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
}

impl DiskArgs {
    /// Whether a disk boots.
    pub(in crate::commands) const fn is_given(&self) -> bool {
        self.uki.is_some() || !self.boot_loader.is_empty()
    }

    /// Whether a disk's image is named.
    pub(super) const fn names_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// Every file that is read, by its option.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let uki = self.uki.iter().map(|path| ("--uki", path.as_path()));
        let loaders = self.boot_loader.iter().map(|path| ("--boot-loader", path.as_path()));
        let disk = self.disk.iter().map(|path| ("--disk", path.as_path()));
        let grub = self.grub_config.iter().map(|path| ("--grub-config", path.as_path()));
        uki.chain(loaders).chain(grub).chain(disk)
    }
}

/// The predictions of all builds whose OVMF is wanted by its name.
pub(in crate::commands) fn builds(
    args: &DiskArgs,
    machine: ovmf::Inputs<'_>,
    kernel: Option<&Path>,
    is_wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<(String, Prediction)>, Failure> {
    if args.boot_loader.len() > MAX_LOADERS {
        return Err(Failure::input("--boot-loader", "more boot loaders than start each other"));
    }
    let files = args.boot_loader.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    let loaders: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let disk = args.disk.as_deref().map(read_head).transpose()?;
    let grub = args.grub_config.as_deref().map(read).transpose()?;
    if machine.initrd.is_some() && args.uki.is_none() && grub.is_none() {
        let why = "who boots from a disk reads it by what GRUB is told: --grub-config is missing";
        return Err(Failure::input("--initrd", why));
    }
    let predict = |loaded, named: Option<&Path>| {
        let inputs = Inputs { machine, disk: disk.as_deref(), loaded };
        disk_boot::all(&inputs).map_err(|error| match (error, named) {
            (disk_boot::BootError::Loader(place, error), _) => {
                let path = args.boot_loader.get(place).map(|path| path.display().to_string());
                Failure::input(path.unwrap_or_default(), error)
            }
            (disk_boot::BootError::Disk(error), _) => Failure::input("--disk", error),
            (error, Some(path)) => Failure::input(path.display(), error),
            (error, None) => Failure::Input(error.to_string()),
        })
    };
    let all = match &args.uki {
        Some(path) => {
            let bytes = read(path)?;
            let image = Uki::parse(&bytes).map_err(|error| Failure::input(path.display(), error))?;
            predict(Loaded::Uki { loaders: &loaders, image: &image }, Some(path))?
        }
        None => predict(
            Loaded::Chain { loaders: &loaders, kernel: machine.kernel, grub: grub.as_deref() },
            kernel,
        )?,
    };
    let of_build = |name: &String| is_wanted(name.split(',').next().unwrap_or_default());
    Ok(all.into_iter().filter(|(name, _)| of_build(name)).collect())
}

/// As much of a disk's image as firmware measures.
fn read_head(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let problem = |error| Failure::input(path.display(), error);
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(problem)?;
    file.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(problem)?;
    Ok(head)
}
