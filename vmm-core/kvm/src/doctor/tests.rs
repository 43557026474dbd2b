//! Machines made of files: one that can run TDs, and one for each link that is missing.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const RELEASE: &str = "7.3.4";
const TDX_TYPES: KvmAnswer = KvmAnswer::Types(0x21);

/// A machine's files, gone when dropped.
struct Machine(PathBuf);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Machine {
    /// A server that can run TDs, seen by root.
    fn good() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tdvisor-doctor-{}-{number}", std::process::id()));
        let machine = Self(folder);
        machine
            .with(
                "proc/cpuinfo",
                "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Xeon\nflags\t\t: fpu vmx tme tdx_host_platform\n\nvendor_id : other\n",
            )
            .with("proc/sys/kernel/osrelease", &format!("{RELEASE}\n"))
            .with("proc/self/cgroup", "0::/vms/one\n")
            .with(&format!("boot/config-{RELEASE}"), "CONFIG_INTEL_TDX_HOST=y\nCONFIG_KVM_INTEL_TDX=y\n")
            .with("sys/power/state", "freeze mem\n")
            .with("sys/module/kvm_intel/parameters/tdx", "Y\n")
            .with(
                "dev/kmsg",
                "6,1,0,-;virt/tdx: BIOS enabled: private KeyID range [32, 64)\n6,2,0,-;virt/tdx: Module version: 1.5.28\n6,3,0,-;virt/tdx: TDX-Module initialized\n",
            )
            .with("dev/kvm", "")
            .with("sys/fs/cgroup/misc.capacity", "tdx 31\n")
            .with("sys/fs/cgroup/misc.current", "tdx 2\n")
            .with("var/run/tdx-qgs/qgs.socket", "")
            .with("etc/sgx_default_qcnl.conf", "{\n  \"pccs_url\": \"https://localhost:8081/\",\n}\n")
            .with_msr(0x3a, 0b101)
            .with_msr(0x87, 31 << 32 | 32)
            .with_msr(0x982, 0b11)
            .with_msr(0x1401, 0b11 << 10)
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn without(self, path: &str) -> Self {
        let path = self.0.join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        self
    }

    fn with_msr(self, index: u32, value: u64) -> Self {
        let path = self.0.join("dev/cpu/0/msr");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::options().create(true).truncate(false).write(true).open(path).unwrap();
        file.write_all_at(&value.to_le_bytes(), index.into()).unwrap();
        self
    }

    fn diagnosis(&self, kvm: KvmAnswer) -> Diagnosis {
        Diagnosis::of(Path::new(&self.0), kvm)
    }
}

fn state(diagnosis: &Diagnosis, kind: LinkKind) -> LinkState {
    diagnosis.links.iter().find(|link| link.kind == kind).unwrap().state
}

#[track_caller]
fn misses(machine: &Machine, kvm: KvmAnswer, kind: LinkKind, found: &str) {
    let diagnosis = machine.diagnosis(kvm);
    let first = diagnosis.first_missing().map(|link| (link.kind, link.found.as_str()));
    assert_eq!(first, Some((kind, found)), "{diagnosis:#?}");
    assert!(!diagnosis.can_run_tds());
}

#[test]
fn a_whole_machine_can_run_tds_and_every_link_holds() {
    let diagnosis = Machine::good().diagnosis(TDX_TYPES);
    assert!(diagnosis.can_run_tds(), "{diagnosis:#?}");
    assert!(diagnosis.links.iter().all(|link| link.state == LinkState::Good), "{diagnosis:#?}");
}

/// A machine whose kernel did not initialise the module and whose KVM offers no TDs.
fn without_tdx() -> Machine {
    Machine::good().with("dev/kmsg", "6,1,0,-;Linux version 7.3\n")
}

const NO_TDS: KvmAnswer = KvmAnswer::Types(1);

#[test]
fn each_missing_link_is_found() {
    let amd =
        "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: EPYC\nflags\t\t: svm\n\n";
    misses(&without_tdx().with("proc/cpuinfo", amd), NO_TDS, LinkKind::Cpu, "EPYC");
    misses(&without_tdx().with_msr(0x3a, 1), NO_TDS, LinkKind::Vmx, "MSR 0x3a is 0x1");
    let no_flag = without_tdx().without("dev/cpu").with(
        "proc/cpuinfo",
        "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Xeon\nflags\t\t: fpu tme\n\n",
    );
    misses(
        &no_flag,
        NO_TDS,
        LinkKind::Vmx,
        "the kernel shows no vmx: the processor lacks it, or the BIOS locked it off",
    );
    misses(&without_tdx().with_msr(0x982, 0), NO_TDS, LinkKind::MemoryEncryption, "MSR 0x982 is 0x0");
    misses(&without_tdx().with_msr(0x87, 63), NO_TDS, LinkKind::KeyIds, "0 for TDX (MSR 0x87)");
    misses(&without_tdx().with_msr(0x87, 1 << 32 | 62), NO_TDS, LinkKind::KeyIds, "1 for TDX (MSR 0x87)");
    misses(&without_tdx().with_msr(0x1401, 0), NO_TDS, LinkKind::SeamRange, "MSR 0x1401 is 0x0");
    misses(
        &without_tdx().with("proc/sys/kernel/osrelease", "6.12.117\n"),
        NO_TDS,
        LinkKind::KernelVersion,
        "6.12.117",
    );
    let config = format!("boot/config-{RELEASE}");
    misses(
        &without_tdx().with(&config, "# CONFIG_INTEL_TDX_HOST is not set\n"),
        NO_TDS,
        LinkKind::KernelConfig,
        "CONFIG_INTEL_TDX_HOST is not set",
    );
    misses(
        &without_tdx().with(&config, "CONFIG_INTEL_TDX_HOST=y\n"),
        NO_TDS,
        LinkKind::KernelConfig,
        "CONFIG_KVM_INTEL_TDX is not set",
    );
    misses(&without_tdx().with("sys/power/state", "mem disk\n"), NO_TDS, LinkKind::NoHibernation, "mem disk");
    misses(&without_tdx(), NO_TDS, LinkKind::Module, "the kernel's log does not name TDX");
    let without_parameter = Machine::good().without("sys/module/kvm_intel");
    misses(&without_parameter, KvmAnswer::Closed(Errno(libc::ENOENT)), LinkKind::KvmIntel, "not loaded");
    let off = Machine::good().with("sys/module/kvm_intel/parameters/tdx", "N\n");
    misses(&off, NO_TDS, LinkKind::TdxParameter, "N");
    let no_device = Machine::good().without("dev/kvm");
    misses(&no_device, KvmAnswer::Closed(Errno(libc::ENOENT)), LinkKind::Device, "not there");
    misses(
        &Machine::good(),
        KvmAnswer::Closed(Errno(libc::EACCES)),
        LinkKind::Permission,
        "EACCES (Permission denied)",
    );
    misses(&Machine::good(), NO_TDS, LinkKind::OffersTds, "KVM_CAP_VM_TYPES is 0x1");
}

#[test]
fn a_machine_whose_key_ids_or_whose_cgroups_are_used_up_says_which() {
    let full = Machine::good().with("sys/fs/cgroup/misc.current", "tdx 31\n");
    misses(&full, TDX_TYPES, LinkKind::Room, "31 of 31 key ids in use");
    let limited = Machine::good()
        .with("sys/fs/cgroup/vms/misc.max", "tdx 1\n")
        .with("sys/fs/cgroup/vms/misc.current", "tdx 1\n");
    misses(&limited, TDX_TYPES, LinkKind::Room, "/sys/fs/cgroup/vms has 1 TDs of at most 1");
    let unlimited = Machine::good()
        .with("sys/fs/cgroup/vms/misc.max", "tdx max\n")
        .with("sys/fs/cgroup/vms/misc.current", "tdx 1\n");
    assert!(unlimited.diagnosis(TDX_TYPES).can_run_tds());
    let below_zero = Machine::good()
        .with("sys/fs/cgroup/vms/misc.max", "tdx 1\n")
        .with("sys/fs/cgroup/vms/misc.current", "tdx 18446744073709551615\n");
    assert!(below_zero.diagnosis(TDX_TYPES).can_run_tds());
}

#[test]
fn quotes_are_not_needed_to_run_a_td() {
    let machine = Machine::good().without("var/run/tdx-qgs").without("etc/sgx_default_qcnl.conf");
    let diagnosis = machine.diagnosis(TDX_TYPES);
    assert!(diagnosis.can_run_tds());
    assert_eq!(state(&diagnosis, LinkKind::QuoteService), LinkState::Missing);
    assert_eq!(state(&diagnosis, LinkKind::Collateral), LinkState::Missing);
}

#[test]
fn what_cannot_be_read_is_unknown_and_what_kvm_proves_is_good() {
    let blind = || Machine::good().without("dev/cpu").without("dev/kmsg").without("boot");
    let proven = blind().diagnosis(TDX_TYPES);
    assert!(proven.can_run_tds(), "{proven:#?}");
    let not_asked = blind().diagnosis(KvmAnswer::NotAsked);
    assert!(!not_asked.can_run_tds() && not_asked.first_missing().is_none(), "{not_asked:#?}");
    for kind in [LinkKind::SeamRange, LinkKind::KernelConfig, LinkKind::Module, LinkKind::OffersTds] {
        assert_eq!(state(&not_asked, kind), LinkState::Unknown, "{kind:?}");
    }
}

#[test]
fn a_kernel_without_sysctls_is_known_by_its_version() {
    let machine = Machine::good().without("proc/sys").with("proc/version", "Linux version 6.15.1 (gcc)\n");
    misses(&machine, TDX_TYPES, LinkKind::KernelVersion, "6.15.1");
}

#[test]
fn an_empty_machine_is_no_panic() {
    let diagnosis = Diagnosis::of(Path::new("/nonexistent"), KvmAnswer::Closed(Errno(libc::ENOENT)));
    assert!(!diagnosis.can_run_tds());
    for link in &diagnosis.links {
        assert!(!link.kind.name().is_empty() && !link.kind.command().is_empty());
        assert!(!link.kind.advice().is_empty() && !link.found.is_empty(), "{link:?}");
    }
}
