//! GRUB: what it measures of its configuration, of the commands that it runs and of the files that they read.
//!
//! Into RTMR2 go the configuration, which GRUB reads twice; each command as it runs, with its words joined by one space; the files of
//! `linux` and `initrd`; and behind the former the command line for the kernel. A kernel from 6.9 on then measures that line, with
//! the name of its file before it, and the initrd (a boot of Debian's GRUB 2.14 with UEFI's protocol for confidential computing;
//! `grub-core/kern/verifiers.c` and `commands/tpm.c`).
//!
//! Predicted is what runs in the same way on every machine: commands of plain words, one a line. What tests, expands or asks is not.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Expectation, Part, Prediction, linux};
use crate::eventlog::Register;

/// A configuration is no longer than this.
const MAX_BYTES: usize = 1 << 20;
/// Times that the configuration is read.
const READS: usize = 2;
/// What has a meaning in a script beyond being part of a word.
const SPECIAL: &str = "$\"'\\{};|&<>*?#";
/// Why nothing is known of a script.
const NEEDS: &str = "what GRUB runs: compare with the log of a good boot";

/// What GRUB is told, and what it loads.
#[derive(Clone, Copy, Debug)]
pub struct Grub<'a> {
    /// GRUB's configuration: all of the file.
    pub configuration: &'a [u8],
    /// The kernel that `linux` loads: all of the file.
    pub kernel: Option<&'a [u8]>,
    /// The file that `initrd` loads.
    pub initrd: Option<&'a [u8]>,
}

/// Whether the kernel measures what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    Measures,
    DoesNotMeasure,
}

/// The commands of a script, or the number of the first line that is more than one.
fn commands(script: &str) -> Result<Vec<Vec<&str>>, usize> {
    let mut commands = Vec::new();
    for (number, line) in (1..).zip(script.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some((name, arguments)) = words.split_first() else { continue };
        let is_known = matches!(*name, "linux" | "initrd" | "boot" | "set" | "echo");
        let is_plain = |word: &&str| !word.contains(|letter| SPECIAL.contains(letter));
        if !is_known || !arguments.iter().all(is_plain) {
            return Err(number);
        }
        commands.push(words);
    }
    Ok(commands)
}

impl Grub<'_> {
    /// Appends what GRUB measures, and the kernel after it.
    pub(super) fn measure(&self, kernel: Kernel, prediction: &mut Prediction) {
        let mut add = |part, expectation| prediction.push(Register::Rtmr2, part, expectation);
        let loaded = |name: &str| Part::BootLoader(name.to_string());
        let unknown = |needs: String| Expectation::Unknown { needs: Cow::Owned(needs) };
        let script = match core::str::from_utf8(self.configuration) {
            Ok(script) if script.len() <= MAX_BYTES => commands(script).map_err(|line| {
                format!("{NEEDS}; line {line} of its configuration is more than a command of plain words")
            }),
            _ => Err(format!("{NEEDS}; its configuration is no text")),
        };
        let commands = match script {
            Ok(commands) if commands.last().is_some_and(|last| last.as_slice() == ["boot"]) => commands,
            Ok(_) => {
                return add(loaded("commands"), unknown(format!("{NEEDS}; no boot ends its configuration")));
            }
            Err(needs) => return add(loaded("commands"), unknown(needs)),
        };
        for _ in 0..READS {
            let configuration = Expectation::of_optional(Some(self.configuration), "the configuration");
            add(Part::grub_configuration(), configuration);
        }
        let text = |text: &str| Expectation::of_optional(Some(text.as_bytes()), "the command");
        let (mut line, mut initrd) = (None, None);
        for words in &commands {
            let command = words.join(" ");
            add(loaded(&format!("grub_cmd: {command}")), text(&command));
            let Some((name, arguments)) = words.split_first() else { continue };
            match (*name, arguments) {
                ("linux", [path, ..]) => {
                    add(loaded(path), Expectation::of_optional(self.kernel, "the kernel"));
                    let given = arguments.join(" ");
                    add(Part::CommandLine, text(&given));
                    line = Some(linux::given_command_line(&format!("BOOT_IMAGE={given}")));
                }
                ("initrd", [path]) => {
                    let read = Expectation::of_optional(self.initrd, "the initrd");
                    add(loaded(path), read.clone());
                    initrd = Some(read);
                }
                ("linux" | "initrd", _) => {
                    return add(loaded(name), unknown(format!("what '{command}' reads")));
                }
                _ => {}
            }
        }
        if kernel == Kernel::Measures {
            if let Some(line) = line {
                add(Part::CommandLine, line);
            }
            if let Some(initrd) = initrd {
                add(Part::Initrd, initrd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use td_image::digest::Digest384;

    fn prediction(configuration: &str, kernel: Kernel) -> Prediction {
        let mut prediction = Prediction { events: Vec::new(), silent: Vec::new() };
        let grub = Grub {
            configuration: configuration.as_bytes(),
            kernel: Some(b"kernel"),
            initrd: Some(b"initrd"),
        };
        grub.measure(kernel, &mut prediction);
        prediction
    }

    #[test]
    fn commands_and_what_they_read_are_measured_in_their_order_and_then_by_the_kernel() {
        let script =
            "# a comment\nset  timeout=0\n\nlinux /VMLINUZ console=ttyS0  quiet\ninitrd /INITRD\nboot\n";
        let wide: Vec<u8> =
            "BOOT_IMAGE=/VMLINUZ console=ttyS0 quiet\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let measured: [&[u8]; 11] = [
            script.as_bytes(),
            script.as_bytes(),
            b"set timeout=0",
            b"linux /VMLINUZ console=ttyS0 quiet",
            b"kernel",
            b"/VMLINUZ console=ttyS0 quiet",
            b"initrd /INITRD",
            b"initrd",
            b"boot",
            &wide,
            b"initrd",
        ];
        let value = |events: &[&[u8]]| {
            events.iter().fold(Digest384::ZERO, |value, event| value.extended_by(&Digest384::of(event)))
        };
        let register = |kernel| prediction(script, kernel).value(Register::Rtmr2);
        assert_eq!(register(Kernel::Measures), Some(value(&measured)));
        assert_eq!(register(Kernel::DoesNotMeasure), Some(value(&measured[..9])));
    }

    #[test]
    fn a_script_that_does_not_run_alike_everywhere_is_not_predicted_and_its_line_is_named() {
        for (script, line) in [
            ("linux $kernel\nboot", "line 1"),
            ("set a=b\nif linux /K; then boot; fi\nboot", "line 2"),
            ("menuentry 'A' {\nboot\n}", "line 1"),
            ("linux /K \"a b\"\nboot", "line 1"),
            ("search --file /K\nboot", "line 1"),
            ("a=b\nboot", "line 1"),
            ("linux /K; boot\nboot", "line 1"),
            ("linux /K", "no boot"),
            ("", "no boot"),
            ("linux /K\ninitrd /A /B\nboot", "initrd /A /B"),
            ("linux\nboot", "'linux'"),
        ] {
            let needs = prediction(script, Kernel::Measures).values(Register::Rtmr2).unwrap_err().unwrap();
            assert!(needs.contains(line), "{script}: {needs}");
        }
    }
}
