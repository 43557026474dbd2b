//! What a user might try when a guest did not do what it was started for.
//!
//! A hint is a guess from what the host saw, and from words on the console that firmware and kernels are known to use. It is
//! printed beside the facts and changes none of them.

use tdvisor_devices::Place;
use tdvisor_vm::Ending;

/// Reads of one place after which a guest is taken to wait for it. Probing reads a place a few times.
const WAITS: u64 = 1000;

/// What is usually at a place that guests wait for.
const USUAL: [(u16, &str); 7] = [
    (0x20, "Other machines have an 8259 interrupt controller there."),
    (0x40, "Other machines have an 8254 timer there; a TD has the TSC and the local APIC's timer."),
    (0x60, "Other machines have a keyboard controller there; this one's console is the serial port."),
    (0x61, "Other machines have an 8254 timer there; a TD has the TSC and the local APIC's timer."),
    (0x64, "Other machines have a keyboard controller there; this one's console is the serial port."),
    (0x2e8, "Other machines have a fourth serial port there; this one has two, at 0x3f8 and 0x2f8."),
    (0x3e8, "Other machines have a third serial port there; this one has two, at 0x3f8 and 0x2f8."),
];

/// Words on a console that say what a guest lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remark {
    /// Firmware found nothing that it could boot.
    NothingToBoot,
    /// Firmware refused what it should boot: Secure Boot.
    NotSigned,
    /// The kernel found no root file system.
    NoRoot,
    /// The kernel found no first program.
    NoInit,
    /// The kernel could not run the first program that it found.
    ForeignInit,
    /// The kernel could not unpack its initial RAM disk.
    PackedOtherwise,
    /// The kernel was about to restart the machine.
    Restarts,
}

/// Words, and what they mean.
const WORDS: [(&str, Remark); 15] = [
    ("No bootable option or device was found", Remark::NothingToBoot),
    ("No mapping found", Remark::NothingToBoot),
    ("UEFI Interactive Shell", Remark::NothingToBoot),
    // Of firmware that a host hands a kernel, and of GRUB, by its own verifier or by shim's.
    ("Secure boot image verification failed", Remark::NotSigned),
    ("bad shim signature", Remark::NotSigned),
    ("bad shim loader signature", Remark::NotSigned),
    ("prohibited by secure boot policy", Remark::NotSigned),
    ("not using insecure legacy linux kernel loader", Remark::NotSigned),
    ("VFS: Unable to mount root fs", Remark::NoRoot),
    ("VFS: Cannot open root device", Remark::NoRoot),
    ("No working init found", Remark::NoInit),
    ("Requested init", Remark::NoInit),
    ("Failed to execute /init (error -8)", Remark::ForeignInit),
    ("Initramfs unpacking failed", Remark::PackedOtherwise),
    ("reboot: machine restart", Remark::Restarts),
];

/// Words of a denial: the firmware's only where its line also says what is denied.
const DENIALS: [&str; 2] = ["Security Violation", "Access Denied"];
const DENIED: [&str; 3] = ["BdsDxe", "Image", "Verification failed"];

impl Remark {
    /// What a line of a console says, if it is one of these.
    pub fn in_line(line: &str) -> Option<Self> {
        let has = |words: &&str| line.contains(*words);
        if DENIALS.iter().any(has) && DENIED.iter().any(has) {
            return Some(Self::NotSigned);
        }
        WORDS.iter().find(|(words, _)| has(words)).map(|(_, remark)| *remark)
    }

    /// What counts of two remarks: the later one, unless it only says what came of the earlier one.
    pub const fn after(self, earlier: Option<Self>) -> Self {
        match (earlier, self) {
            (Some(Self::NotSigned), Self::NothingToBoot) => Self::NotSigned,
            (_, later) => later,
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::NothingToBoot => {
                "the firmware found nothing to boot: --disk IMAGE needs an EFI system partition with \
                 EFI/BOOT/BOOTX64.EFI, or --kernel FILE a kernel with an EFI stub."
            }
            Self::NotSigned => {
                "this firmware enforces Secure Boot and refuses what is not signed: boot a disk with the \
                 distribution's signed shim, or take a build of the firmware without Secure Boot."
            }
            Self::NoRoot => {
                "the kernel found no root file system: give --initrd FILE, or --disk IMAGE with root=/dev/vda (or \
                 /dev/vda1 …) in --append and a kernel with CONFIG_VIRTIO_BLK and CONFIG_VIRTIO_MMIO or \
                 CONFIG_VIRTIO_PCI built in."
            }
            Self::NoInit => {
                "the kernel found no program to start: the initial RAM disk needs an executable /init for x86-64, \
                 or init=PATH in --append one of the root file system."
            }
            Self::ForeignInit => {
                "the kernel cannot run this /init: it needs CONFIG_BINFMT_ELF for programs and CONFIG_BINFMT_SCRIPT \
                 for scripts, and an /init for x86-64 whose interpreter is in the RAM disk too."
            }
            Self::PackedOtherwise => {
                "the kernel could not unpack the initial RAM disk: it needs CONFIG_RD_GZIP, CONFIG_RD_XZ, CONFIG_RD_ZSTD \
                 … for how the file is packed (an unpacked cpio archive needs none), and memory for its contents."
            }
            Self::Restarts => {
                "the kernel restarted the machine by real mode or a triple fault, which end a TD for good. Linux asks ACPI by \
                 itself, if neither reboot= nor acpi=off is on its command line; with reboot=acpi in --append it does so in \
                 any case."
            }
        }
    }
}

/// What the host saw of a guest that did not succeed.
pub struct Silence<'a> {
    /// How its TD ended.
    pub ending: &'a Ending<String>,
    /// The place without a device that it read most, and how often.
    pub waited: Option<(Place, u64)>,
    /// vCPUs that halted with interrupts off and were so at the end.
    pub halted: usize,
    /// Whether its kernel printed anything, where it has one that our firmware booted.
    pub kernel_spoke: Option<bool>,
    /// Whether the init of a command said anything, where there is one.
    pub command_spoke: Option<bool>,
    /// What the guest's console said.
    pub said: Option<Remark>,
}

impl Silence<'_> {
    /// What to try, if anything is known.
    pub fn hint(&self) -> Option<String> {
        if matches!(self.ending, Ending::PoweredOff { code: 0 }) && self.command_spoke != Some(false) {
            return None;
        }
        // A restart that the machine was asked for needs no hint.
        let told = |remark: &Remark| *remark != Remark::Restarts || matches!(self.ending, Ending::Died(_));
        let said = self.said.filter(told).map(|remark| remark.hint().to_owned());
        let hint = said
            .or_else(|| self.silent_kernel())
            .or_else(|| self.waiting())
            .or_else(|| self.silent_command());
        hint.map(|hint| format!("hint: {hint}"))
    }

    fn silent_kernel(&self) -> Option<String> {
        let is_silent = self.kernel_spoke == Some(false) && !matches!(self.ending, Ending::PoweredOff { .. });
        is_silent.then(|| {
            "the kernel printed nothing. It needs CONFIG_INTEL_TDX_GUEST; \
             'earlycon=uart8250,io,0x3f8' in --cmdline shows how far it comes."
                .to_owned()
        })
    }

    /// A guest that was stopped while it waited for what cannot come.
    fn waiting(&self) -> Option<String> {
        if !matches!(self.ending, Ending::Stopped) {
            return None;
        }
        if self.halted > 0 {
            let vcpus =
                if self.halted == 1 { "one vCPU".to_owned() } else { format!("{} vCPUs", self.halted) };
            return Some(format!("{vcpus} halted with interrupts off: only an NMI would have ended that."));
        }
        let (place, reads) = self.waited.filter(|(_, reads)| *reads >= WAITS)?;
        Some(match place {
            Place::Port(port) => {
                let usual = USUAL.iter().find(|(known, _)| *known == port);
                let usual = usual.map_or(String::new(), |(_, what)| format!(" {what}"));
                format!("the guest read port {port:#x} {reads} times, and nothing is there.{usual}")
            }
            Place::Memory(gpa) => {
                format!(
                    "the guest read the shared address {:#x} {reads} times, and no device is there.",
                    gpa.get()
                )
            }
        })
    }

    fn silent_command(&self) -> Option<String> {
        (self.command_spoke == Some(false)).then(|| {
            "the command never ran: the kernel has to unpack an initial RAM disk (CONFIG_BLK_DEV_INITRD), run \
             static programs and scripts (CONFIG_BINFMT_ELF, CONFIG_BINFMT_SCRIPT), and have a second serial port \
             (CONFIG_SERIAL_8250_NR_UARTS of 2 or more); -v shows its console."
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_firmware_and_kernels_are_known_and_those_of_programs_are_not() {
        for (line, remark) in [
            ("BdsDxe: No bootable option or device was found.", Some(Remark::NothingToBoot)),
            ("BdsDxe: failed to start Boot0001 \"UEFI\" from Fv(x): Access Denied", Some(Remark::NotSigned)),
            ("[    1.0] VFS: Cannot open root device \"vda\"", Some(Remark::NoRoot)),
            ("[    1.0] Kernel panic - not syncing: No working init found.", Some(Remark::NoInit)),
            ("Verification failed: (0x1A) Security Violation", Some(Remark::NotSigned)),
            ("error: bad shim signature.", Some(Remark::NotSigned)),
            ("error: bad shim loader signature.", Some(Remark::NotSigned)),
            ("[    1.0] Failed to execute /init (error -8)", Some(Remark::ForeignInit)),
            ("[    0.9] Initramfs unpacking failed: invalid magic", Some(Remark::PackedOtherwise)),
            ("curl: 403 Access Denied", None),
            ("login:", None),
        ] {
            assert_eq!(Remark::in_line(line), remark, "{line}");
        }
    }

    #[test]
    fn what_was_refused_is_why_there_is_nothing_to_boot() {
        let (refused, nothing) = (Remark::NotSigned, Remark::NothingToBoot);
        assert_eq!(nothing.after(Some(refused)), refused);
        assert_eq!(refused.after(Some(nothing)), refused);
        assert_eq!(nothing.after(None), nothing);
        assert_eq!(nothing.after(Some(Remark::NoRoot)), nothing);
    }

    #[test]
    fn a_guest_that_succeeds_hears_nothing_whatever_it_printed() {
        let silence = Silence {
            ending: &Ending::PoweredOff { code: 0 },
            waited: Some((Place::Port(0x64), u64::MAX)),
            halted: 0,
            kernel_spoke: Some(true),
            command_spoke: None,
            said: Some(Remark::NoRoot),
        };
        assert_eq!(silence.hint(), None);
    }

    #[test]
    fn a_restart_is_a_hint_only_where_it_ended_in_another_way() {
        let hint = |ending: &Ending<String>| {
            let said = Remark::in_line("[   14.0] reboot: machine restart");
            let silence = Silence {
                ending,
                waited: None,
                halted: 0,
                kernel_spoke: Some(true),
                command_spoke: None,
                said,
            };
            silence.hint()
        };
        assert_eq!(hint(&Ending::Reset), None);
        let died = hint(&Ending::Died("triple fault".to_owned()));
        assert!(died.as_ref().is_some_and(|text| text.contains("reboot=acpi")), "{died:?}");
    }
}
