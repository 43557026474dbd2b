//! The image to run: a file, or a built-in guest.

use std::borrow::Cow;
use std::path::Path;

use td_image::digest::Digest384;
use td_image::mrtd;
use td_image::tdvf::{HostContents, LoaderModel, SectionKind, TdvfImage};
use tdvisor_guest_images::{GUESTS, GuestImage, HELLO_TD};

use crate::outcome::Failure;
use crate::read_bounded::read_bounded;

/// The largest image that is read: firmware volumes are a few MiB.
const MAX_IMAGE: u64 = 64 << 20;
/// The largest ELF file that is read.
const MAX_ELF: u64 = 512 << 20;

/// An image, and the ELF file that it was made from, if that is known.
pub struct Image {
    name: String,
    bytes: Cow<'static, [u8]>,
    elf: Option<Cow<'static, [u8]>>,
}

impl Image {
    /// The image of this name or path; without one, `hello-td`.
    pub fn load(image: Option<&str>, elf: Option<&Path>) -> Result<Self, Failure> {
        let elf_file = elf.map(|path| read(path, MAX_ELF)).transpose()?.map(Cow::Owned);
        let built_in = match image {
            None => Some(&HELLO_TD),
            Some(name) if !Path::new(name).exists() => {
                GUESTS.iter().copied().find(|guest| guest.name == name)
            }
            Some(_) => None,
        };
        match (built_in, image) {
            (Some(guest), _) => {
                let built_in = Self::built_in(guest);
                Ok(Self { elf: elf_file.or(built_in.elf), ..built_in })
            }
            (None, Some(name)) if !Path::new(name).exists() => Err(Failure::input(
                name,
                format!("no such file, and no built-in guest; those are {}", guest_names()),
            )),
            (None, Some(path)) => Ok(Self {
                name: path.to_owned(),
                bytes: Cow::Owned(read(Path::new(path), MAX_IMAGE)?),
                elf: elf_file,
            }),
            (None, None) => Err(Failure::Internal("no image".to_owned())),
        }
    }

    /// The image of a TD that is resumed: its name, and the ELF file that its log is decoded with. Its contents are in the TD.
    pub fn of_saved(name: &str, elf: Option<&Path>) -> Result<Self, Failure> {
        let built_in = GUESTS.iter().copied().find(|guest| guest.name == name).map(Self::built_in);
        let elf = elf.map(|path| read(path, MAX_ELF)).transpose()?.map(Cow::Owned);
        let elf = elf.or(built_in.and_then(|image| image.elf));
        Ok(Self { name: name.to_owned(), bytes: Cow::Borrowed(&[]), elf })
    }

    /// The UEFI firmware in a file.
    ///
    /// # Errors
    /// There is no such file, or it is no UEFI firmware with TDX support.
    pub fn firmware(path: &Path) -> Result<Self, Failure> {
        let bytes = Cow::Owned(read(path, MAX_IMAGE)?);
        let image = Self { name: path.display().to_string(), bytes, elf: None };
        image.predicted_mrtd()?;
        if image.is_uefi() {
            return Ok(image);
        }
        Err(Failure::input(path.display(), "this TDVF image is no UEFI firmware: it has no variable store"))
    }

    /// What the image is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the image is UEFI firmware: that has a variable store.
    pub fn is_uefi(&self) -> bool {
        TdvfImage::parse(&self.bytes)
            .is_ok_and(|image| image.sections().any(|section| section.kind == SectionKind::CFV))
    }

    /// A built-in guest.
    pub fn built_in(guest: &GuestImage) -> Self {
        Self {
            name: guest.name.to_owned(),
            bytes: Cow::Borrowed(guest.image),
            elf: Some(Cow::Borrowed(guest.elf)),
        }
    }

    /// The image.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The ELF file of the image.
    pub fn elf(&self) -> Option<&[u8]> {
        self.elf.as_deref()
    }

    /// The MRTD by calculation alone.
    ///
    /// # Errors
    /// The image is none; that is found out here, before a machine is made.
    pub fn predicted_mrtd(&self) -> Result<Digest384, Failure> {
        let image = TdvfImage::parse(&self.bytes).map_err(|error| Failure::input(&self.name, error))?;
        // Nothing that this host writes into a section is measured, or the plan would say that it is missing.
        let plan = image
            .build_plan(LoaderModel::INTERLEAVED, HostContents::default())
            .map_err(|error| Failure::input(&self.name, error))?;
        Ok(mrtd::of_plan(&plan))
    }
}

/// The built-in guests, for people.
pub fn guest_names() -> String {
    GUESTS.iter().map(|guest| guest.name).collect::<Vec<_>>().join(", ")
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let bytes = read_bounded(path, limit)?;
    if bytes.is_empty() {
        return Err(Failure::input(path.display(), "the file is empty"));
    }
    Ok(bytes)
}
