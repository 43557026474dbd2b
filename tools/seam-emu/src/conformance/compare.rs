//! Expected against actual: what agrees, what differs, and what a difference is about.

use std::fmt;
use std::sync::Arc;

use tdvisor_base::{Gpa, Hpa};
use tdx_module_iface::{Gprs, Reg};

use super::bundle::BundleFault;
use super::model::{ControlRegister, Expected, GuestResult};
use super::words;

/// Which side of the module a call came in on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// SEAMCALL.
    Host,
    /// TDCALL.
    Guest,
}

/// How the registers after a call compare with the recording.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Registers that must agree and do not, in order of their numbers.
    pub different: Vec<Reg>,
    /// Registers that differ and may.
    pub soft: Vec<Reg>,
}

impl Comparison {
    /// Compares all fifteen registers.
    pub fn of(expected: &Expected, input: &Gprs, actual: &Gprs) -> Self {
        let mut comparison = Self::default();
        for (reg, value) in actual.iter() {
            if expected.of(reg, input).is_some_and(|expected| expected != value) {
                if expected.soft.contains(reg) {
                    comparison.soft.push(reg);
                } else {
                    comparison.different.push(reg);
                }
            }
        }
        comparison
    }

    /// Whether nothing that must agree differs.
    pub fn agrees(&self) -> bool {
        self.different.is_empty()
    }

    /// Whether RAX differs, after which the two machines are in different states.
    pub fn status_differs(&self) -> bool {
        self.different.contains(&Reg::Rax)
    }
}

/// A call, for reports.
#[derive(Clone, Debug)]
pub struct CallSite {
    /// Step number in the sequence (of the VP.ENTER, for what happens in its guest).
    pub step: u32,
    /// Logical processor.
    pub lp: u32,
    /// Position among the guest events of the step, from 0.
    pub event: Option<usize>,
    /// Name of the leaf.
    pub leaf: Arc<str>,
}

impl fmt::Display for CallSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}", self.step)?;
        if let Some(event) = self.event {
            write!(f, ", guest event {event}")?;
        }
        write!(f, ", LP {}: {}", self.lp, self.leaf)
    }
}

/// What a guest event came to, as the recording says it or as it was observed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As a recording names it.
    Known(GuestResult),
    /// The VP.ENTER returned before the guest had executed the event.
    NeverExecuted,
    /// The module refused to go on with the guest.
    Faulted,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(GuestResult::Ret) => f.write_str("returns to the guest"),
            Self::Known(GuestResult::Retry) => f.write_str("is interrupted, to be executed again"),
            Self::Known(GuestResult::Exit) => f.write_str("leaves the TD"),
            Self::Known(GuestResult::Inject { vector, error_code: None }) => {
                write!(f, "injects exception {vector:#x}")
            }
            Self::Known(GuestResult::Inject { vector, error_code: Some(code) }) => {
                write!(f, "injects exception {vector:#x} with error code {code:#x}")
            }
            Self::Known(GuestResult::Ok) => f.write_str("causes no VM exit"),
            Self::Known(GuestResult::Resume) => f.write_str("resumes the guest without effect"),
            Self::Known(GuestResult::Emulated) => f.write_str("is emulated"),
            Self::Known(GuestResult::EntersL2 { vm }) => write!(f, "enters L2 VM {vm}"),
            Self::Known(GuestResult::LeavesL2) => f.write_str("leaves an L2 VM"),
            Self::NeverExecuted => f.write_str("is never reached: the guest had been left before"),
            Self::Faulted => f.write_str("cannot be carried out"),
        }
    }
}

/// One way in which the answers differ from the recording.
#[derive(Clone, Debug)]
pub enum Difference {
    /// Registers after a call.
    Registers {
        /// Which side.
        side: Side,
        /// Registers before the call.
        input: Box<Gprs>,
        /// What was recorded.
        expected: Box<Expected>,
        /// What the emulator gave.
        actual: Box<Gprs>,
        /// The registers that differ.
        registers: Vec<Reg>,
    },
    /// The guest's registers when it starts to run.
    GuestEntry {
        /// What was recorded.
        expected: Box<Gprs>,
        /// What the emulator gave.
        actual: Box<Gprs>,
    },
    /// What came of a guest event.
    Event {
        /// What was recorded.
        expected: Outcome,
        /// What was observed.
        actual: Outcome,
    },
    /// The vector that is injected with the entry.
    Injection {
        /// What was recorded.
        expected: Option<u8>,
        /// What was observed.
        actual: Option<u8>,
    },
    /// A control register after a write.
    ControlRegister {
        /// Which.
        register: ControlRegister,
        /// What was recorded.
        expected: u64,
        /// What was observed.
        actual: u64,
    },
    /// Host memory.
    HostMemory {
        /// First byte.
        at: Hpa,
        /// Bytes.
        len: u64,
    },
    /// Memory as the guest reads it.
    GuestMemory {
        /// First byte.
        at: Gpa,
        /// Bytes.
        len: u64,
    },
    /// The registers of the VM that goes on, where an event ended in another one.
    OtherVm {
        /// What was recorded.
        expected: Box<Gprs>,
        /// What the emulator gave.
        actual: Box<Gprs>,
    },
    /// A migration bundle.
    Bundle(Box<BundleFault>),
    /// The guest was entered and should not have been, or the other way around.
    Entered {
        /// Whether the recording entered.
        expected: bool,
    },
    /// The step could not be carried out.
    NotReplayed {
        /// Why.
        why: String,
    },
}

impl Difference {
    /// A short description of kind and values, equal for equal causes: what developers group by.
    pub fn signature(&self) -> String {
        match self {
            Self::Registers { expected, actual, registers, .. } => match registers.first() {
                Some(Reg::Rax) | None => format!(
                    "rax expected {:#x} {}, actual {:#x} {}",
                    expected.values.rax,
                    words::status(expected.values.rax),
                    actual.rax,
                    words::status(actual.rax)
                ),
                Some(reg) => format!("{reg} differs after {}", words::status(actual.rax)),
            },
            Self::GuestEntry { .. } => "guest registers at entry differ".to_owned(),
            Self::Event { expected, actual } => format!("event {expected}; but it {actual}"),
            Self::OtherVm { expected, actual } => {
                let differing = Reg::ALL.into_iter().find(|reg| expected.get(*reg) != actual.get(*reg));
                format!("registers of the VM that goes on differ from {differing:?} on")
            }
            Self::Bundle(fault) => fault.to_string(),
            Self::Injection { .. } => "injection with the entry differs".to_owned(),
            Self::ControlRegister { register, .. } => format!("{register:?} differs after a write"),
            Self::HostMemory { .. } => "host memory differs".to_owned(),
            Self::GuestMemory { .. } => "guest memory differs".to_owned(),
            Self::Entered { expected: true } => "the guest was not entered".to_owned(),
            Self::Entered { expected: false } => "the guest was entered".to_owned(),
            Self::NotReplayed { why } => why.clone(),
        }
    }
}

/// Writes one register of both sides, with the meaning of its value where it has one.
fn write_register(
    f: &mut fmt::Formatter<'_>,
    leaf: &str,
    reg: Reg,
    expected: (Option<u64>, &Gprs),
    actual: &Gprs,
) -> fmt::Result {
    let (value, all) = expected;
    let show = |value: u64, all: &Gprs| match words::register(leaf, reg, all) {
        Some(meaning) => format!("{value:#x}  {meaning}"),
        None => format!("{value:#x}"),
    };
    match value {
        Some(value) => writeln!(f, "    {reg:>3} expected {}", show(value, all))?,
        None => writeln!(f, "    {reg:>3} expected nothing in particular")?,
    }
    writeln!(f, "        actual   {}", show(actual.get(reg), actual))
}

/// A difference and the call that it belongs to, as text of several lines.
pub struct Explained<'a> {
    /// The call.
    pub site: &'a CallSite,
    /// The difference.
    pub difference: &'a Difference,
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}", self.site)?;
        match self.difference {
            Difference::Registers { input, expected, actual, registers, .. } => {
                writeln!(f, "    called with {input:?}")?;
                let mut shown = expected.values;
                for reg in Reg::ALL {
                    if let Some(value) = expected.of(reg, input) {
                        shown.set(reg, value);
                    }
                }
                for reg in registers {
                    write_register(f, &self.site.leaf, *reg, (expected.of(*reg, input), &shown), actual)?;
                }
                Ok(())
            }
            Difference::GuestEntry { expected, actual } => {
                writeln!(f, "    registers when the guest starts:")?;
                for reg in Reg::ALL.into_iter().filter(|reg| expected.get(*reg) != actual.get(*reg)) {
                    let (expected, actual) = (expected.get(reg), actual.get(reg));
                    writeln!(f, "    {reg:>3} expected {expected:#x}, actual {actual:#x}")?;
                }
                Ok(())
            }
            Difference::Event { expected, actual } => {
                writeln!(f, "    expected: the event {expected}")?;
                writeln!(f, "    actual:   the event {actual}")
            }
            Difference::OtherVm { expected, actual } => {
                writeln!(f, "    registers of the VM that goes on:")?;
                for reg in Reg::ALL.into_iter().filter(|reg| expected.get(*reg) != actual.get(*reg)) {
                    let (expected, actual) = (expected.get(reg), actual.get(reg));
                    writeln!(f, "    {reg:>3} expected {expected:#x}, actual {actual:#x}")?;
                }
                Ok(())
            }
            Difference::Bundle(fault) => writeln!(f, "    {fault}"),
            Difference::Injection { expected, actual } => {
                writeln!(f, "    injected with the entry: expected {expected:x?}, actual {actual:x?}")
            }
            Difference::ControlRegister { register, expected, actual } => {
                writeln!(f, "    {register:?} afterwards: expected {expected:#x}, actual {actual:#x}")
            }
            Difference::HostMemory { at, len } => {
                writeln!(f, "    host memory at {at}, {len:#x} bytes, does not have the recorded contents")
            }
            Difference::GuestMemory { at, len } => {
                writeln!(f, "    the guest does not read the recorded contents at {at}, {len:#x} bytes")
            }
            Difference::Entered { expected: true } => {
                writeln!(f, "    expected: the guest runs; actual: the call returned without running it")
            }
            Difference::Entered { expected: false } => {
                writeln!(f, "    expected: the call returns without running the guest; actual: the guest ran")
            }
            Difference::NotReplayed { why } => writeln!(f, "    not replayed: {why}"),
        }
    }
}
