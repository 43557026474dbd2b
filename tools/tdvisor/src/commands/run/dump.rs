//! `--inspectable` and `--dump`: what the TD held, for who debugs its kernel.

use std::path::PathBuf;

use tdvisor_runtime::Ended;
use tdvisor_runtime::dump::Secrecy;

use crate::files::Claims;
use crate::outcome::Failure;
use crate::streams::Streams;

/// Options of looking into the TD.
#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// Give up what the TD keeps from its host: --dump may show it, and the summary says where a TD that died was. The events
    /// and the summary say so; the TD's measurements, and its quotes, do not. Only an emulator can look into a TD that is not in debug mode.
    #[arg(long)]
    inspectable: bool,
    /// When the TD has ended, write its memory and registers to FILE, which only its owner may read: an ELF core file in the
    /// form of Linux's /proc/vmcore, which `crash`, `drgn` and gdb open beside the kernel's vmlinux.
    #[arg(long, value_name = "FILE", requires = "inspectable")]
    dump: Option<PathBuf>,
}

impl DumpArgs {
    /// Whether the host may look into the TD.
    pub const fn secrecy(&self) -> Secrecy {
        if self.inspectable { Secrecy::Inspectable } else { Secrecy::Kept }
    }

    /// Whether the TD is to be looked into.
    pub const fn is_given(&self) -> bool {
        self.inspectable
    }

    /// Notes which file is written.
    pub fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        self.dump.as_deref().map_or(Ok(()), |path| claims.writes("--dump", path))
    }

    /// Writes the dump of a TD that has ended, if it is asked for, and says what is in it. Whether nothing is missing.
    pub fn write(&self, ended: &Ended<'_>, streams: &Streams) -> bool {
        let Some(path) = &self.dump else { return true };
        let name = path.display();
        let written = ended.dump().and_then(|dump| Ok((dump.write_file(path)?, dump)));
        match &written {
            Ok((bytes, dump)) => {
                let memory = dump.memory() >> 10;
                streams
                    .say(format_args!("tdvisor: {name}: {memory} KiB of the TD's memory in {bytes} bytes"));
                if !dump.has_vmcoreinfo() {
                    streams.say(format_args!(
                        "tdvisor: {name}: the guest keeps no VMCOREINFO, by which crash and drgn find their way; gdb needs none"
                    ));
                }
            }
            Err(error) => streams.say(format_args!("tdvisor: --dump {name}: {error}")),
        }
        written.is_ok()
    }
}
