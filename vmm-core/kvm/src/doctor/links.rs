//! Each link, from the facts.

use super::facts::Facts;
use super::{KvmAnswer, Link, LinkKind, LinkState};
use crate::uapi::VM_TYPE_TDX;

/// Processors with TDX: family 6, these models (Sapphire and Emerald Rapids, Granite Rapids, Sierra Forest, Clearwater Forest).
const MODELS: [u32; 6] = [143, 207, 173, 174, 175, 221];
/// The first kernel whose KVM has TDs.
const FIRST_KERNEL: (u32, u32) = (6, 16);
/// A module needs one key id for itself, and a TD needs one.
const LEAST_KEY_IDS: u64 = 2;

mod msr {
    /// IA32_FEATURE_CONTROL: locked (bit 0), VMX outside of SMX (bit 2).
    pub(super) const FEATURE_CONTROL: u32 = 0x3a;
    /// IA32_MKTME_KEYID_PARTITIONING: key ids for TDs in the high half.
    pub(super) const KEY_ID_PARTITIONING: u32 = 0x87;
    /// IA32_TME_ACTIVATE: locked (bit 0), on (bit 1).
    pub(super) const TME_ACTIVATE: u32 = 0x982;
    /// IA32_SEAMRR_PHYS_MASK: locked (bit 10), on (bit 11).
    pub(super) const SEAMRR_MASK: u32 = 0x1401;
}

/// The flag that Linux shows where MSRs say that there are key ids for TDs.
const PLATFORM_FLAG: &str = "tdx_host_platform";
/// What Linux logs when the module is ready; the second form is that of kernels before 7.2.
const READY: [&str; 2] = ["TDX-Module initialized", "virt/tdx: module initialized"];

fn link(kind: LinkKind, state: LinkState, found: impl Into<String>) -> Link {
    Link { kind, state, found: found.into() }
}

fn held(kind: LinkKind, holds: bool, found: impl Into<String>) -> Link {
    link(kind, if holds { LinkState::Good } else { LinkState::Missing }, found)
}

/// All links, in order.
pub(super) fn all(facts: &Facts, kvm: KvmAnswer) -> Vec<Link> {
    let is_ready = READY.iter().any(|words| facts.logged(words).is_some());
    let offers = matches!(kvm, KvmAnswer::Types(types) if types >> VM_TYPE_TDX & 1 == 1);
    // A kernel that got so far had everything below it.
    let proven = is_ready || offers;
    vec![
        cpu(facts, proven),
        vmx(facts, proven),
        memory_encryption(facts, proven),
        key_ids(facts, proven),
        seam_range(facts, proven),
        kernel_version(facts),
        kernel_config(facts, offers),
        no_hibernation(facts, proven),
        module(facts, is_ready, offers),
        kvm_intel(facts),
        tdx_parameter(facts, offers),
        device(facts, kvm),
        permission(kvm),
        offers_tds(kvm),
        room(facts),
        quote_service(facts),
        collateral(facts),
    ]
}

fn cpu(facts: &Facts, proven: bool) -> Link {
    let kind = LinkKind::Cpu;
    let name = facts.cpu("model name").unwrap_or("/proc/cpuinfo cannot be read");
    let number = |key| facts.cpu(key).and_then(|value| value.parse::<u32>().ok());
    let is_intel = facts.cpu("vendor_id") == Some("GenuineIntel");
    let is_known =
        number("cpu family") == Some(6) && number("model").is_some_and(|model| MODELS.contains(&model));
    match (is_intel, is_known || proven || facts.has_cpu_flag(PLATFORM_FLAG)) {
        (true, true) => link(kind, LinkState::Good, name),
        _ if facts.cpu("vendor_id").is_none() => link(kind, LinkState::Unknown, name),
        _ => link(kind, LinkState::Missing, name),
    }
}

/// Linux shows no `vmx` where the BIOS has locked it off, and locks it on where the BIOS has locked nothing.
fn vmx(facts: &Facts, proven: bool) -> Link {
    const LOCKED: u64 = 1;
    const OUTSIDE_SMX: u64 = 1 << 2;
    let kind = LinkKind::Vmx;
    match facts.msr(msr::FEATURE_CONTROL) {
        Some(value) => {
            let is_on = value & LOCKED == 0 || value & OUTSIDE_SMX != 0;
            held(kind, is_on, format!("MSR 0x3a is {value:#x}"))
        }
        None if proven || facts.has_cpu_flag("vmx") => link(kind, LinkState::Good, "the kernel has it"),
        None if facts.cpu("flags").is_some() => link(
            kind,
            LinkState::Missing,
            "the kernel shows no vmx: the processor lacks it, or the BIOS locked it off",
        ),
        None => link(kind, LinkState::Unknown, "/proc/cpuinfo cannot be read"),
    }
}

fn memory_encryption(facts: &Facts, proven: bool) -> Link {
    const LOCKED_AND_ON: u64 = 0b11;
    let kind = LinkKind::MemoryEncryption;
    match facts.msr(msr::TME_ACTIVATE) {
        Some(value) => held(kind, value & LOCKED_AND_ON == LOCKED_AND_ON, format!("MSR 0x982 is {value:#x}")),
        None if proven || facts.has_cpu_flag(PLATFORM_FLAG) => {
            link(kind, LinkState::Good, "the kernel has found TDX")
        }
        None if facts.cpu("flags").is_some() && !facts.has_cpu_flag("tme") => {
            link(kind, LinkState::Missing, "the processor shows no TME")
        }
        None => link(kind, LinkState::Unknown, "MSR 0x982 cannot be read"),
    }
}

fn key_ids(facts: &Facts, proven: bool) -> Link {
    let kind = LinkKind::KeyIds;
    if let Some(value) = facts.msr(msr::KEY_ID_PARTITIONING) {
        let for_tds = value >> 32;
        return held(kind, for_tds >= LEAST_KEY_IDS, format!("{for_tds} for TDX (MSR 0x87)"));
    }
    match facts.logged("BIOS enabled: private KeyID range") {
        Some(line) => link(kind, LinkState::Good, message(line)),
        None if proven || facts.has_cpu_flag(PLATFORM_FLAG) => {
            link(kind, LinkState::Good, "the kernel has found TDX")
        }
        None if facts.logged("TDX not supported by the host platform").is_some() => {
            link(kind, LinkState::Missing, "the kernel found no TDX platform")
        }
        None => link(kind, LinkState::Unknown, "MSR 0x87 cannot be read, and the kernel's log does not say"),
    }
}

fn seam_range(facts: &Facts, proven: bool) -> Link {
    const LOCKED_AND_ON: u64 = 0b11 << 10;
    let kind = LinkKind::SeamRange;
    match facts.msr(msr::SEAMRR_MASK) {
        Some(value) => {
            held(kind, value & LOCKED_AND_ON == LOCKED_AND_ON, format!("MSR 0x1401 is {value:#x}"))
        }
        None if proven => link(kind, LinkState::Good, "the module answers"),
        None => link(kind, LinkState::Unknown, "MSR 0x1401 cannot be read"),
    }
}

/// The kernel's release; a kernel without sysctls has it in its version only ("Linux version 7.3.4 (…").
fn release(facts: &Facts) -> Option<String> {
    let of_version = || Some(facts.read("proc/version")?.split_whitespace().nth(2)?.to_owned());
    facts.read("proc/sys/kernel/osrelease").or_else(of_version)
}

fn kernel_version(facts: &Facts) -> Link {
    let kind = LinkKind::KernelVersion;
    let Some(release) = release(facts) else {
        return link(kind, LinkState::Unknown, "/proc cannot be read");
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    held(kind, version >= FIRST_KERNEL, release)
}

fn kernel_config(facts: &Facts, offers: bool) -> Link {
    const OPTIONS: [&str; 2] = ["CONFIG_INTEL_TDX_HOST", "CONFIG_KVM_INTEL_TDX"];
    let kind = LinkKind::KernelConfig;
    let release = release(facts).unwrap_or_default();
    match facts.read(&format!("boot/config-{release}")) {
        _ if offers => link(kind, LinkState::Good, "KVM offers TDs"),
        Some(config) => {
            let missing =
                OPTIONS.iter().find(|option| !config.lines().any(|line| line == format!("{option}=y")));
            match missing {
                Some(option) => link(kind, LinkState::Missing, format!("{option} is not set")),
                None => link(kind, LinkState::Good, OPTIONS.join(", ")),
            }
        }
        None => link(kind, LinkState::Unknown, format!("/boot/config-{release} cannot be read")),
    }
}

fn no_hibernation(facts: &Facts, proven: bool) -> Link {
    let kind = LinkKind::NoHibernation;
    if proven {
        return link(kind, LinkState::Good, "the module is initialised");
    }
    if facts.logged("Hibernation support is enabled").is_some() {
        return link(kind, LinkState::Missing, "the kernel left TDX alone for it");
    }
    match facts.read("sys/power/state") {
        Some(states) if states.is_empty() => link(kind, LinkState::Good, "the kernel has no sleep states"),
        Some(states) => held(kind, !states.split_whitespace().any(|state| state == "disk"), states),
        None => link(kind, LinkState::Good, "the kernel has no sleep states"),
    }
}

fn module(facts: &Facts, is_ready: bool, offers: bool) -> Link {
    let kind = LinkKind::Module;
    let version = facts
        .read("sys/devices/faux/tdx_host/version")
        .or_else(|| facts.logged("Module version:").map(message));
    let version = version.unwrap_or_else(|| "initialised".to_owned());
    if is_ready || offers {
        return link(kind, LinkState::Good, version);
    }
    match facts.logged("virt/tdx:") {
        Some(line) => link(kind, LinkState::Missing, message(line)),
        None if facts.has_log() => link(kind, LinkState::Missing, "the kernel's log does not name TDX"),
        None => link(kind, LinkState::Unknown, "the kernel's log cannot be read"),
    }
}

fn kvm_intel(facts: &Facts) -> Link {
    let kind = LinkKind::KvmIntel;
    let others = ["kvm_amd", "kvm"].into_iter().find(|name| facts.exists(&format!("sys/module/{name}")));
    match (facts.exists("sys/module/kvm_intel"), others) {
        (true, _) => link(kind, LinkState::Good, "loaded"),
        (false, Some(other)) => link(kind, LinkState::Missing, format!("{other} is loaded without it")),
        (false, None) => link(kind, LinkState::Missing, "not loaded"),
    }
}

fn tdx_parameter(facts: &Facts, offers: bool) -> Link {
    let kind = LinkKind::TdxParameter;
    match facts.read("sys/module/kvm_intel/parameters/tdx") {
        Some(value) => held(kind, value == "Y" || value == "1", value),
        None if offers => link(kind, LinkState::Good, "KVM offers TDs"),
        None => link(kind, LinkState::Missing, "this kvm_intel has no such parameter"),
    }
}

fn device(facts: &Facts, kvm: KvmAnswer) -> Link {
    let is_there = facts.exists("dev/kvm");
    match kvm {
        KvmAnswer::Closed(errno) if errno.0 == libc::ENODEV || errno.0 == libc::ENXIO => {
            link(LinkKind::Device, LinkState::Missing, format!("it answers {errno}"))
        }
        _ => held(LinkKind::Device, is_there, if is_there { "there" } else { "not there" }),
    }
}

fn permission(kvm: KvmAnswer) -> Link {
    let kind = LinkKind::Permission;
    match kvm {
        KvmAnswer::Types(_) => link(kind, LinkState::Good, "it can be opened"),
        KvmAnswer::Closed(errno) if errno.0 == libc::EACCES || errno.0 == libc::EPERM => {
            link(kind, LinkState::Missing, errno.to_string())
        }
        KvmAnswer::Closed(errno) => link(kind, LinkState::Unknown, errno.to_string()),
        KvmAnswer::NotAsked => link(kind, LinkState::Unknown, "KVM was not asked"),
    }
}

fn offers_tds(kvm: KvmAnswer) -> Link {
    let kind = LinkKind::OffersTds;
    match kvm {
        KvmAnswer::Types(types) => {
            held(kind, types >> VM_TYPE_TDX & 1 == 1, format!("KVM_CAP_VM_TYPES is {types:#x}"))
        }
        KvmAnswer::Closed(_) => link(kind, LinkState::Unknown, "KVM cannot be asked"),
        KvmAnswer::NotAsked => link(kind, LinkState::Unknown, "KVM was not asked"),
    }
}

/// The number behind `tdx` in a file of the misc controller; `None` where it is not there or has no limit.
fn misc(facts: &Facts, path: &str) -> Option<u64> {
    let text = facts.read(path)?;
    text.lines().find_map(|line| line.strip_prefix("tdx "))?.trim().parse().ok()
}

fn room(facts: &Facts) -> Link {
    let kind = LinkKind::Room;
    let root = "sys/fs/cgroup";
    // "0::/user.slice/…": the cgroup of this process.
    let own = facts.read("proc/self/cgroup").and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("0::/").map(|path| format!("{root}/{path}")))
    });
    // KVM of Linux 7.3 gives back a charge that it did not get where a cgroup's limit is reached; the count is below zero then.
    let current = |folder: &str| {
        let count = misc(facts, &format!("{folder}/misc.current")).unwrap_or(0);
        if count > i64::MAX.cast_unsigned() { 0 } else { count }
    };
    let capacity = misc(facts, &format!("{root}/misc.capacity"));
    let mut folder = own.unwrap_or_else(|| root.to_owned());
    while folder.len() > root.len() {
        if let Some(limit) = misc(facts, &format!("{folder}/misc.max"))
            && current(&folder) >= limit
        {
            let found = format!("/{folder} has {} TDs of at most {limit}", current(&folder));
            return link(kind, LinkState::Missing, found);
        }
        folder.truncate(folder.rfind('/').unwrap_or(0));
    }
    match capacity {
        Some(capacity) => {
            let used = current(root);
            held(kind, used < capacity, format!("{used} of {capacity} key ids in use"))
        }
        None => link(kind, LinkState::Unknown, "the misc controller does not count TDs"),
    }
}

fn quote_service(facts: &Facts) -> Link {
    const SOCKETS: [&str; 2] = ["var/run/tdx-qgs/qgs.socket", "run/tdx-qgs/qgs.socket"];
    match SOCKETS.iter().find(|path| facts.exists(path)) {
        Some(path) => link(LinkKind::QuoteService, LinkState::Good, format!("/{path}")),
        None => link(LinkKind::QuoteService, LinkState::Missing, "no socket of a QGS"),
    }
}

fn collateral(facts: &Facts) -> Link {
    let kind = LinkKind::Collateral;
    let Some(config) = facts.read("etc/sgx_default_qcnl.conf") else {
        return link(kind, LinkState::Missing, "/etc/sgx_default_qcnl.conf is not there");
    };
    match config.lines().map(str::trim).find(|line| line.contains("pccs_url") || line.starts_with("PCCS_URL"))
    {
        Some(line) => link(kind, LinkState::Good, line.trim_end_matches(',')),
        None => link(kind, LinkState::Missing, "/etc/sgx_default_qcnl.conf names none"),
    }
}

/// The text of a record of the kernel's log.
fn message(line: &str) -> String {
    line.split_once(';').map_or(line, |(_, text)| text).to_owned()
}
