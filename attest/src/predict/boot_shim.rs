//! This project's own Linux boot: the boot shim takes a kernel from fw_cfg, measures what it starts, and jumps.
//!
//! | register | events |
//! |---|---|
//! | RTMR0 | the TD HOB (its bytes as received, end marker included), separator |
//! | RTMR1 | the whole kernel file (EV_IPL "kernel"), separator |
//! | RTMR2 | the command line without its NUL (EV_IPL "kernel_cmdline: …"), the initrd file if there is one (EV_IPL "initrd"), separator |
//!
//! Nothing else happens before Linux runs. RTMR3 is Linux's own, and so is what it extends RTMR2 with later.
//! OVMF leaves the end marker of the TD HOB out of its measurement; the shim does not.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;

use super::{Expectation, Part, Prediction};
use crate::eventlog::{EventLog, Register};
use td_image::digest::Digest384;
use td_image::td_hob::{self, HobDialect, HobTooLarge};
use td_image::tdvf::TdvfImage;

/// The command line of a Linux guest that was given none.
pub const DEFAULT_COMMAND_LINE: &str = "console=ttyS0 panic=-1";

/// What a boot is made of. What is not given stays unknown in the prediction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// The TD HOB as the shim receives it, up to and including its end marker.
    pub td_hob: Option<&'a [u8]>,
    /// The kernel file.
    pub kernel: Option<&'a [u8]>,
    /// The initrd file; with a kernel, `None` says that there is none.
    pub initrd: Option<&'a [u8]>,
    /// The command line.
    pub command_line: Option<&'a str>,
}

/// The events of a boot.
#[must_use]
pub fn boot(inputs: &Inputs<'_>) -> Prediction {
    let mut prediction = Prediction { events: Vec::new(), silent: vec![Register::Rtmr3] };
    let separator = || Expectation::Exactly(Digest384::of(&[0; 4]));
    let mut add = |register, part, expectation| prediction.push(register, part, expectation);
    let hob = Expectation::of_optional(inputs.td_hob, "the TD HOB, or the image and the memory size");
    add(Register::Rtmr0, Part::TdHob, hob);
    add(Register::Rtmr0, Part::Separator, separator());
    add(Register::Rtmr1, Part::Kernel, Expectation::of_optional(inputs.kernel, "the kernel"));
    add(Register::Rtmr1, Part::Separator, separator());
    if inputs.kernel.is_none() && inputs.command_line.is_none() && inputs.initrd.is_none() {
        prediction.silent.push(Register::Rtmr2);
        return prediction;
    }
    let command_line = inputs.command_line.map(str::as_bytes);
    let command_line = Expectation::of_optional(command_line, "the command line");
    add(Register::Rtmr2, Part::CommandLine, command_line);
    match (inputs.initrd, inputs.kernel) {
        (Some(initrd), _) => {
            add(Register::Rtmr2, Part::Initrd, Expectation::Exactly(Digest384::of(initrd)));
        }
        (None, Some(_)) => {}
        (None, None) => {
            let needs = Cow::Borrowed("the initrd");
            add(Register::Rtmr2, Part::Initrd, Expectation::Unknown { needs });
        }
    }
    add(Register::Rtmr2, Part::Separator, separator());
    prediction
}

/// The TD HOB that this project's host gives `image` on a machine with `memory` bytes, when no command is passed
/// in it. `None` where the image has no section for it.
///
/// # Errors
/// [`HobTooLarge`].
pub fn host_td_hob(image: &TdvfImage<'_>, memory: u64) -> Option<Result<Vec<u8>, HobTooLarge>> {
    td_hob::list(image, &td_hob::qemu_ram(memory), HobDialect::Qemu)
}

/// Whether a log is the boot shim's: nothing else has a kernel event.
#[must_use]
pub fn wrote(log: &EventLog<'_>) -> bool {
    log.events().any(|event| Part::of(&event) == Part::Kernel)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventlog::EventType;
    use crate::eventlog::tests::LogWriter;
    use crate::explain::{Evidence, Explanation, explain};
    use alloc::string::String;
    use td_image::testing::Image;

    const HOB: &[u8] = b"the list, with its end marker";
    const KERNEL: &[u8] = b"\x7fELF and so on";
    const INITRD: &[u8] = b"070701";
    const COMMAND_LINE: &str = "console=ttyS0 root=/dev/vda";

    /// What the shim writes, event by event.
    fn log(hob: &[u8], kernel: &[u8], command_line: &str, initrd: Option<&[u8]>) -> Vec<u8> {
        let digest = |bytes: &[u8]| Digest384::of(bytes).0;
        let mut tables = vec![8];
        tables.extend(b"TdxTable");
        tables.extend([0; 8]);
        let text = alloc::format!("kernel_cmdline: {command_line}\0");
        let mut log = LogWriter::new()
            .event(1, EventType::EFI_HANDOFF_TABLES2, &[(0xc, &digest(hob))], &tables)
            .measured(1, EventType::SEPARATOR, &[0; 4])
            .event(2, EventType::IPL, &[(0xc, &digest(kernel))], b"kernel\0")
            .measured(2, EventType::SEPARATOR, &[0; 4])
            .event(3, EventType::IPL, &[(0xc, &digest(command_line.as_bytes()))], text.as_bytes());
        if let Some(initrd) = initrd {
            log = log.event(3, EventType::IPL, &[(0xc, &digest(initrd))], b"initrd\0");
        }
        log.measured(3, EventType::SEPARATOR, &[0; 4]).fill(0xff, 64).bytes
    }

    fn inputs() -> Inputs<'static> {
        Inputs {
            td_hob: Some(HOB),
            kernel: Some(KERNEL),
            initrd: Some(INITRD),
            command_line: Some(COMMAND_LINE),
        }
    }

    fn explained(bytes: &[u8], inputs: &Inputs<'_>) -> Explanation {
        let log = EventLog::parse(bytes).unwrap();
        explain(&log, &boot(inputs), "the boot shim", &Evidence::default())
    }

    fn causes(bytes: &[u8], inputs: &Inputs<'_>) -> Vec<String> {
        let explanation = explained(bytes, inputs);
        explanation.differences().map(|line| alloc::format!("{}", line.cause.unwrap())).collect()
    }

    #[test]
    fn a_boot_of_known_inputs_is_predicted_to_the_register() {
        let bytes = log(HOB, KERNEL, COMMAND_LINE, Some(INITRD));
        let replay = EventLog::parse(&bytes).unwrap().replay();
        let prediction = boot(&inputs());
        for register in [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2] {
            assert_eq!(prediction.value(register), Some(replay[register]), "{register}");
        }
        assert_eq!(prediction.value(Register::Rtmr3), None);
        assert!(explained(&bytes, &inputs()).agrees());
        assert!(EventLog::parse(&bytes).unwrap().warnings().next().is_none(), "nothing odd in it");
        let without = log(HOB, KERNEL, COMMAND_LINE, None);
        assert!(explained(&without, &Inputs { initrd: None, ..inputs() }).agrees());
    }

    #[test]
    fn each_changed_input_is_named() {
        let other = b"another".as_slice();
        for (bytes, expected) in [
            (log(other, KERNEL, COMMAND_LINE, Some(INITRD)), "memory size or firmware sections differ"),
            (log(HOB, other, COMMAND_LINE, Some(INITRD)), "kernel differs"),
            (log(HOB, KERNEL, "quiet", Some(INITRD)), "command line differs"),
            (log(HOB, KERNEL, COMMAND_LINE, Some(other)), "initrd differs"),
            (log(HOB, KERNEL, COMMAND_LINE, None), "initrd differs"),
        ] {
            assert_eq!(causes(&bytes, &inputs()), [expected]);
        }
        let bytes = log(HOB, KERNEL, COMMAND_LINE, Some(INITRD));
        assert_eq!(causes(&bytes, &Inputs { initrd: None, ..inputs() }), ["initrd differs"]);
    }

    #[test]
    fn what_is_not_given_is_not_predicted_and_does_not_differ() {
        let bytes = log(HOB, KERNEL, COMMAND_LINE, Some(INITRD));
        let unknown = |inputs: &Inputs<'_>| -> Vec<String> {
            let explanation = explained(&bytes, inputs);
            assert!(explanation.agrees());
            explanation.open().map(|line| line.part()).collect()
        };
        assert_eq!(unknown(&Inputs { td_hob: None, ..inputs() }), ["TD HOB"]);
        assert_eq!(unknown(&Inputs { command_line: None, ..inputs() }), ["command line"]);
        assert_eq!(unknown(&Inputs { kernel: None, initrd: None, ..inputs() }), ["kernel", "initrd"]);
        assert_eq!(unknown(&Inputs::default()), ["TD HOB", "kernel"]);
        assert_eq!(boot(&Inputs { td_hob: None, ..inputs() }).value(Register::Rtmr0), None);
    }

    #[test]
    fn its_logs_are_told_from_those_of_others() {
        let bytes = log(HOB, KERNEL, COMMAND_LINE, None);
        assert!(wrote(&EventLog::parse(&bytes).unwrap()));
        let grub = LogWriter::new().measured(3, EventType::IPL, b"grub_cmd: linux /vmlinuz\0").bytes;
        assert!(!wrote(&EventLog::parse(&grub).unwrap()));
    }

    #[test]
    fn the_td_hob_of_the_host_is_measured_with_its_end_marker() {
        let bytes = Image::hello().build();
        let image = TdvfImage::parse(&bytes).unwrap();
        let list = host_td_hob(&image, 512 << 20).unwrap().unwrap();
        assert_eq!(list[list.len() - 8..list.len() - 4], [0xff, 0xff, 8, 0]);
        let prediction = boot(&Inputs { td_hob: Some(&list), ..inputs() });
        let hob = prediction.of(Register::Rtmr0).next().unwrap();
        assert_eq!(hob.expectation.only(), Some(&Digest384::of(&list)));
        assert_ne!(host_td_hob(&image, 1 << 30), host_td_hob(&image, 512 << 20));
    }
}
