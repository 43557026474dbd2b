//! An emulated Intel TDX module and an emulated TDX server, as a library.
//!
//! For developers of kernels, VMMs, firmware and guests who want TDX in their tests and have no machine with it. The module
//! behaves as recordings of Intel's do, call for call and register for register; [`module::fidelity::TABLE`] says, leaf by
//! leaf, how well and by what evidence.
//!
//! # A TD in a unit test
//! ```
//! use tdx_emu::abi::{Gprs, TdhLeaf};
//! use tdx_emu::base::{Gpa, Level};
//! use tdx_emu::module::guest::GuestProgram;
//! use tdx_emu::module::testing::{Host, mem};
//!
//! let host = Host::ready();
//! let td = host.td_being_built(1, 0);
//! host.tables(&td, 0x1000, 0);
//! host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
//! host.ok(0, TdhLeaf::MEM_PAGE_AUG, mem(&td, 0x1000, 0, host.page()));
//! let guest = GuestProgram::new(|td| td.mem_page_accept(Gpa::new(0x1000), Level::L4K).expect("it is pending"));
//! host.machine.set_guest_cpu(0, Box::new(guest));
//! host.call(0, TdhLeaf::VP_ENTER, Gprs { rcx: td.vcpus[0], ..Gprs::ZERO });
//! assert!(host.machine.violations().is_empty(), "the host did nothing that it may not do");
//! ```
//!
//! # Where to go on
//! | for | begin at |
//! |---|---|
//! | a VMM's SEAMCALLs in unit tests | [`module`], its `testing`, and [`abi`] for leaves, registers and status codes |
//! | faults that hardware rarely shows | [`module::inject`] |
//! | guests of real instructions | [`module::CpuGuest`], or the processor alone: [`cpu`] |
//! | a whole TD from a TDVF image, with devices | `runtime` (feature `runtime`) |
//! | an unmodified Linux as TDX *host*, with KVM | `server` (feature `server`) |
//!
//! The program `tdvisor` has all of it on the command line.

#![forbid(unsafe_code)]

/// The TDX module's interface as data: leaves, registers, status codes, layouts.
pub use tdx_module_iface as abi;

/// Addresses, page levels, the clock.
pub use tdvisor_base as base;

/// The emulated module and the machine around it.
pub use seam_emu as module;

/// The software x86-64 processor.
pub use x86_emu as cpu;

/// State and constants of the x86-64 architecture.
pub use x86_arch as arch;

/// Physical memory with keys.
pub use phys_memory as memory;

/// A server whose processors run the host's own code.
#[cfg(feature = "server")]
pub use server_emu as server;

/// The machine that tdvisor's hypervisor runs on: logical processors, time, determinism.
#[cfg(feature = "runtime")]
pub use machine_emu as machine;

/// A TD host over SEAMCALLs: TDs, their memory, their vCPUs.
#[cfg(feature = "runtime")]
pub use td_host as host;

/// TDs from their specification to their teardown.
#[cfg(feature = "runtime")]
pub use tdvisor_runtime as runtime;
