//! What KVM_TDX promises, asked of the kernel that runs: at least one case for each request and for each documented refusal.
//!
//! The cases use the interface as any monitor would, on hardware as on the emulated server. Each makes a TD of its own and is
//! done with it when it ends. Sources of what is promised: Documentation/virt/kvm/x86/intel-tdx.rst and api.rst of Linux.
//!
//! # What no case asks
//! | refusal | why not |
//! |---|---|
//! | EINTR of KVM_TDX_INIT_MEM_REGION and KVM_PRE_FAULT_MEMORY | takes a signal that arrives between the request's beginning and its first page; what is made of it is tested with a kernel that answers from a script |
//! | EAGAIN and EBUSY of requests to the module (TDH.MNG.CREATE, TDH.MNG.KEY.CONFIG, TDH.MR.FINALIZE, …) | takes a module that is busy: seen with injected statuses on the emulated server |
//! | EBUSY of KVM_TDX_INIT_VM after KVM_CREATE_VCPU | no vCPU is made before KVM_TDX_INIT_VM, and afterwards the answer is EINVAL |
//! | EBUSY of a request beside KVM_CREATE_VCPU of the same TD | a race, without a promise who wins |
//! | ENOMEM | takes a kernel without memory |
//! | EIO of any request | 'unexpected': the kernel warns of itself then |
//! | ENOSPC of KVM_TDX_INIT_VM, key ids used up | takes all key ids of the machine from whoever else runs TDs there |
//! | EOPNOTSUPP of KVM_PRE_FAULT_MEMORY with shadow page tables | TDs have none |
//! | flags of KVM_TDX_FINALIZE_VM and KVM_TDX_GET_CPUID | 'must be 0', which the kernel does not look at |

mod cases;
mod guests;
mod odd;
mod rig;

use std::fmt;

use crate::error::{Errno, Refusal};
use crate::kernel::Kernel;

/// All cases, in an order in which the first that fails says most: those in which a guest runs come last.
pub fn cases<K: Kernel>() -> Vec<Case<K>> {
    cases::cases().into_iter().chain(odd::cases()).chain(guests::cases()).collect()
}

/// A case.
pub struct Case<K: Kernel> {
    /// What is promised, as a sentence.
    pub name: &'static str,
    run: Run<K>,
}

/// What a case does.
enum Run<K: Kernel> {
    /// The case makes requests; no guest runs.
    Requests(fn(&K) -> Outcome),
    /// The case runs a guest.
    Guest(fn(&K, &Guests<'_>) -> Outcome),
}

/// The guests of the cases: TDVF images.
#[derive(Clone, Copy, Debug)]
pub struct Guests<'i> {
    /// Does once what every TD guest does, prints its MRTD, and asks for a quote if it is told `quote`: `hello-td`.
    pub hello: &'i [u8],
    /// Ends in the way that it is told to: `fault-td`.
    pub fault: &'i [u8],
    /// What marks the command in a TD HOB.
    pub command_guid: [u8; 16],
}

impl Guests<'_> {
    /// A command as an extension of a TD HOB.
    fn command(&self, words: &str) -> Option<([u8; 16], Vec<u8>)> {
        Some((self.command_guid, words.as_bytes().to_vec()))
    }
}

impl<K: Kernel> fmt::Debug for Case<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<K: Kernel> Case<K> {
    /// Asks the kernel.
    ///
    /// # Errors
    /// [`Mismatch`]: the kernel answered something else than what is promised.
    pub fn run(&self, kernel: &K, guests: &Guests<'_>) -> Outcome {
        match self.run {
            Run::Requests(run) => run(kernel),
            Run::Guest(run) => run(kernel, guests),
        }
    }
}

/// What became of a case.
pub type Outcome = Result<(), Mismatch>;

/// The kernel answered something else than what is promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// The request.
    pub step: &'static str,
    /// What is promised; `None` for success.
    pub wanted: Option<Errno>,
    /// What came; `None` for success.
    pub got: Option<Errno>,
    /// The module's status beside it, or zero.
    pub module: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let say = |f: &mut fmt::Formatter<'_>, answer: Option<Errno>| match answer {
            Some(errno) => errno.fmt(f),
            None => f.write_str("success"),
        };
        write!(f, "{}: wanted ", self.step)?;
        say(f, self.wanted)?;
        f.write_str(", got ")?;
        say(f, self.got)?;
        match self.module {
            0 => Ok(()),
            status => write!(f, " (module status {status:#x})"),
        }
    }
}

impl std::error::Error for Mismatch {}

/// What a request must have given, to go on.
fn done<T, E: Into<Refusal>>(step: &'static str, answer: Result<T, E>) -> Result<T, Mismatch> {
    answer.map_err(|error| {
        let Refusal { errno, module } = error.into();
        Mismatch { step, wanted: None, got: Some(errno), module }
    })
}

/// What a request must have been refused with.
fn refused<T, E: Into<Refusal>>(step: &'static str, answer: Result<T, E>, errno: i32) -> Outcome {
    let wanted = Some(Errno(errno));
    let (got, module) = match answer {
        Ok(_) => (None, 0),
        Err(error) => {
            let Refusal { errno, module } = error.into();
            (Some(errno), module)
        }
    };
    if got == wanted { Ok(()) } else { Err(Mismatch { step, wanted, got, module }) }
}

/// A fact that must hold; `errno` stands for its opposite in the report.
fn holds(step: &'static str, fact: bool) -> Outcome {
    if fact {
        Ok(())
    } else {
        Err(Mismatch { step, wanted: None, got: Some(Errno(libc::ERANGE)), module: 0 })
    }
}
