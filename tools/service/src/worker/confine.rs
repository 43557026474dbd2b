//! What a worker may still do once it is set up.
//!
//! # Protocol
//! ```text
//! files(..)    before the worker has a second thread: no new privileges, rlimits, no core dumps, and by landlock no files but
//!              those of its TD, no TCP, no signals to others
//! calls(..)    when every file and device is open, before the guest's first instruction: by seccomp, on all threads, the
//!              system calls that running a TD needs, and none that opens, connects, executes or forks
//! ```
//! A TD on KVM is built before [`calls`]: of KVM's requests those remain that a TD makes that runs, and none that makes another VM.
//! Threads that are made later inherit both. Whoever makes another call is killed by the kernel (SIGSYS): the worker dies
//! alone, and the service, which sees the signal, says so.
//!
//! # Where the kernel lacks it
//! Landlock that is missing or older is stated ([`Files::landlock`]). Without seccomp a worker refuses to run a TD, unless the
//! service was told that it may.

use std::collections::BTreeMap;
use std::fmt;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};
use tdvisor_runtime::kvm::host::uapi::request;

/// The newest landlock that is asked for; an older kernel gives what it has.
const LANDLOCK: ABI = ABI::V6;

/// Files that a worker of any TD reads.
const READ_BY_ALL: [&str; 1] = ["/dev/urandom"];

/// What a worker may have.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of its address space.
    pub address_space: u64,
    /// Bytes of the largest file that it writes.
    pub file: u64,
    /// Descriptors.
    pub descriptors: u64,
}

/// What could be applied to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// How much of landlock the kernel has: `full`, `partial` or `none`.
    pub landlock: &'static str,
}

/// Why a worker is not confined.
#[derive(Debug)]
pub enum NotConfined {
    /// A limit.
    Limit(rustix::io::Errno),
    /// Landlock, which the kernel has and refused.
    Landlock(RulesetError),
    /// Seccomp.
    Seccomp(String),
}

impl fmt::Display for NotConfined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(error) => write!(f, "the worker's limits cannot be set: {error}"),
            Self::Landlock(error) => write!(f, "the worker cannot be confined by landlock: {error}"),
            Self::Seccomp(error) => write!(f, "the worker cannot be confined by seccomp: {error}"),
        }
    }
}

impl std::error::Error for NotConfined {}

impl From<RulesetError> for NotConfined {
    fn from(error: RulesetError) -> Self {
        Self::Landlock(error)
    }
}

/// Confines the calling thread, and all that it makes, to these files.
///
/// # Errors
/// [`NotConfined`].
pub fn files(bounds: Bounds, read: &[&str], written: &[&str]) -> Result<Files, NotConfined> {
    rustix::thread::set_no_new_privs(true).map_err(NotConfined::Limit)?;
    // What a guest holds is in no core dump, and no process of the same user may look into it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(NotConfined::Limit)?;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::As, bounds.address_space),
        (Resource::Fsize, bounds.file),
        (Resource::Nofile, bounds.descriptors),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(NotConfined::Limit)?;
    }
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?;
    let reading = AccessFs::ReadFile.into();
    let writing = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
    let read = READ_BY_ALL.iter().chain(read).map(|path| (*path, reading));
    for (path, access) in read.chain(written.iter().map(|path| (*path, writing))) {
        // A file that is not there is missed by whoever opens it.
        if let Ok(file) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(file, access))?;
        }
    }
    let landlock = match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => "full",
        RulesetStatus::PartiallyEnforced => "partial",
        RulesetStatus::NotEnforced => "none",
    };
    Ok(Files { landlock })
}

/// Calls that a worker makes whose TD runs.
const ALLOWED: &[libc::c_long] = &[
    // Files and sockets that are open.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    libc::SYS_ftruncate,
    libc::SYS_flock,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    // Memory; code that the compiler of the software CPU makes is in a file without a name.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_memfd_create,
    // Threads.
    libc::SYS_futex,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_membarrier,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Time and randomness.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
];

/// What a worker needs beside what running a TD needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// A debugger, one at a time, comes by a socket at which the worker listens already.
    Debugger,
    /// Linux's KVM runs the TD, which is built.
    Kvm,
}

/// A call that is allowed if this argument compares so.
fn if_argument(number: u8, compare: SeccompCmpOp, with: u64) -> Result<SeccompRule, NotConfined> {
    let condition = SeccompCondition::new(number, SeccompCmpArgLen::Qword, compare, with);
    let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
    rule.map_err(|error| NotConfined::Seccomp(error.to_string()))
}

/// The requests of a descriptor that are allowed.
fn if_request(requests: impl IntoIterator<Item = u64>) -> Result<Vec<SeccompRule>, NotConfined> {
    requests.into_iter().map(|request| if_argument(1, SeccompCmpOp::Eq, request)).collect()
}

fn apply(
    rules: BTreeMap<libc::c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<(), NotConfined> {
    let failed = |error: &dyn fmt::Display| NotConfined::Seccomp(error.to_string());
    let filter =
        SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64).map_err(|error| failed(&error))?;
    let program = BpfProgram::try_from(filter).map_err(|error| failed(&error))?;
    apply_filter_all_threads(&program).map_err(|error| failed(&error))
}

/// Confines every thread of the process to the calls that running a TD needs, and what stands beside it.
///
/// # Errors
/// [`NotConfined::Seccomp`]: the kernel has no filters, or refuses this one.
pub fn calls(beside: Beside) -> Result<(), NotConfined> {
    // What clone3 is asked for is behind a pointer that no filter reads: libc asks by clone where there is no clone3.
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    apply(no_clone3, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))?;
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let thread = libc::CLONE_THREAD as u64;
    rules.insert(libc::SYS_clone, vec![if_argument(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    rules.insert(libc::SYS_prctl, vec![if_argument(0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)?]);
    match beside {
        Beside::Nothing => {}
        Beside::Debugger => {
            rules.insert(libc::SYS_accept4, Vec::new());
            rules.insert(libc::SYS_ioctl, if_request([libc::FIONBIO])?);
            let timeout = if_argument(2, SeccompCmpOp::Eq, libc::SO_SNDTIMEO as u64)?;
            rules.insert(libc::SYS_setsockopt, vec![timeout]);
        }
        Beside::Kvm => {
            rules.insert(libc::SYS_ioctl, if_request(request::WHILE_IT_RUNS.map(u64::from))?);
            // Nothing compiles code.
            rules.remove(&libc::SYS_memfd_create);
        }
    }
    apply(rules, SeccompAction::KillProcess, SeccompAction::Allow)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// By which this program knows that it is to confine itself, and what it is to try then.
    const DEED: &str = "TDVISOR_CONFINED_DEED";

    /// What a worker may try while KVM runs its TD, and whether it lives on. What KVM is asked is tried on a machine that has it.
    const DEEDS: [(&str, bool, fn()); 6] = [
        ("does nothing", true, || ()),
        ("opens a file", false, || drop(std::fs::read("/proc/self/status"))),
        ("opens a socket", false, || drop(UnixDatagram::unbound())),
        ("starts a program", false, || drop(Command::new("/bin/true").status())),
        ("makes another request of a descriptor", false, || {
            let _ = rustix::io::ioctl_fionread(std::io::stdin());
        }),
        ("makes memory for code", false, || drop(memfd_create(c"code", MemfdFlags::CLOEXEC))),
    ];

    /// The test of a process of its own, which has one deed to do; nothing otherwise.
    #[test]
    fn a_deed_is_done_confined() {
        let Ok(word) = std::env::var(DEED) else { return };
        let (_, _, deed) = DEEDS.iter().find(|(name, ..)| *name == word).expect("a deed");
        rustix::thread::set_no_new_privs(true).unwrap();
        calls(Beside::Kvm).unwrap();
        deed();
    }

    #[test]
    fn a_worker_of_a_td_on_kvm_opens_nothing_starts_nothing_and_asks_nobody_but_kvm() {
        for (name, lives, _) in DEEDS {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "worker::confine::tests::a_deed_is_done_confined"]).env(DEED, name);
            let status = child.output().unwrap().status;
            assert_eq!(
                (status.success(), status.signal()),
                (lives, (!lives).then_some(libc::SIGSYS)),
                "{name}"
            );
        }
    }
}
