//! The emulated server around the machine (`tools/server-emu`): what of it is as on hardware, and what is not.

/// What, and how far. The rows are of the server as a host sees it; its tests are named in SPECIFICATION.md.
pub const SERVER: &[(&str, &str)] = &[
    (
        "Processors",
        "64-bit mode; the features of the table above, and VMX, TME and TSC_ADJUST; started and parked by the ACPI wake-up mailbox, version 1. No real mode: INIT, \
         start-up IPIs and SMIs are not delivered, and named in the summary",
    ),
    (
        "SEAMCALL",
        "every leaf of the module; #UD outside of VMX operation, #GP above CPL 0 and where the module's range is off. The loader of \
         modules (RAX bit 63) is not loaded: VMfailInvalid. TDH.SYS.DISABLE is there in release 2.0; in earlier ones it is OPERAND_INVALID, as \
         every leaf that a release does not know, and Linux says so at shutdown and goes on",
    ),
    (
        "VMX",
        "VMXON, VMXOFF, INVEPT (both types); a VMCS is a store without effects: VMLAUNCH fails with error 7, VMRESUME with 5, and the \
         summary says that ordinary VMs are not emulated",
    ),
    (
        "Host state after a TD exit",
        "FMASK, STAR, LSTAR, TSC_AUX, KERNEL_GS_BASE, DR7 and x87 state are overwritten as the ABI allows. XCR0, IA32_XSS and DEBUGCTL keep \
         the host's values",
    ),
    (
        "Local APIC",
        "x2APIC mode, locked; IRR, ISR, TMR, priorities, timer in all modes, errors of illegal vectors. Acknowledged at TD exit; posted-interrupt \
         notifications and NMIs as in VMX. Lowest priority is the first processor named; no thermal, performance or CMCI sources",
    ),
    ("I/O APIC", "24 pins, all of them edges; a level entry gets edges, and an EOI is no broadcast to it"),
    (
        "VT-d",
        "interrupt remapping with queued invalidation; nothing is cached, so that a missing invalidation does not show. No DMA remapping, no \
         posted interrupts, no fault events: a lost interrupt is named in the summary",
    ),
    (
        "Memory",
        "key ids in address bits; a private key id in a host's address is #PF with the reserved bit, the module's range reads as ones. Page \
         attributes (MTRR, PAT) are kept and have no effect",
    ),
    (
        "Mistakes of the host",
        "pages in use written, lines of an old key not written back, translations kept: reported as violations, for stores of its processors \
         and of its devices alike. Partial writes are no machine checks",
    ),
    ("Machine checks", "#MC at the access; no banks, no logging"),
    ("MSRs and CPUID", "one table; a register that is missing is #GP, and named in the summary"),
    (
        "Devices",
        "a serial port, an exit port, pvpanic, ACPI power-off and reset, a clock; a virtio disk with `--disk`. No PCI functions, no HPET",
    ),
    (
        "Platform reset",
        "ends the run, or boots again (`--boots`): zero memory, module and keys as at power-on",
    ),
    (
        "Time",
        "real time, or with a seed virtual time at 250 M instructions a second: SEAMCALLs take none, a PAUSE loop lets the rest of its turn pass",
    ),
    (
        "Snapshots",
        "everything above but a disk; taken while no TD runs. The end of the console's line and input that nobody read are not in it",
    ),
];
