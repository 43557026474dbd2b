//! The VMCS fields of L2 VMs (context 2, classes 0x24, 0x2c and 0x34: `TDH.VP.RD`/`WR`, `TDG.VP.RD`/`WR`).
//!
//! A field exists for an L2 VM exactly if it exists for the TD itself; who may read and write what differs
//! (recorded: what L1 sees with each bit written alone).

use super::field::{ALL, Field, Masks, NONE, RdWr};
use super::id::FieldId;
use super::{VMCS, VP};

/// The class of a VM's fields.
const fn class(vm: u8) -> u64 {
    0x1c + 8 * vm as u64
}

/// What L1 may read and write of a field, by VMCS encoding.
const fn for_l1(encoding: u32) -> RdWr {
    match encoding {
        // What belongs to the host, or to the module alone.
        0x0000
        | 0x0004
        | 0x0812
        | 0x2004..=0x2010
        | 0x2014
        | 0x2024..=0x2028
        | 0x2032
        | 0x2038..=0x203e
        | 0x204a
        | 0x204c
        | 0x2800
        | 0x400e
        | 0x4010
        | 0x4014
        | 0x4026
        | 0x4828
        | 0x482e
        | 0x6c00..=0x6cff => RdWr { rd: NONE, wr: NONE },
        0x0002 | 0x2000 | 0x2002 | 0x2016 | 0x2018 | 0x202a | 0x202e | 0x2036 | 0x4000 | 0x400c | 0x4024
        | 0x4826 => RdWr { rd: ALL, wr: NONE },
        // The address of the tables is the host's.
        0x201a => RdWr { rd: 0xfff0_0000_0000_0fff, wr: SUPERVISOR_SHADOW_STACK },
        // Uncore PMI is the processor's own.
        0x2802 => RdWr { rd: !(1 << 13), wr: 0xffc7 },
        _ => RdWr { rd: ALL, wr: written_by_l1(encoding) },
    }
}

/// EPTP: supervisor shadow-stack control.
const SUPERVISOR_SHADOW_STACK: u64 = 0x80;
/// Bits of the HLAT pointer.
const HLAT_POINTER: u64 = 0x000f_ffff_ffff_f018;
/// Bits of CR0 and CR4 that an L2 VM may have.
const CR0: u64 = 0x8005_001f;
const CR4: u64 = 0x03ff_1fbf;

/// The bits that L1 may write of a field of which it may write any.
const fn written_by_l1(encoding: u32) -> u64 {
    match encoding {
        // Virtual-APIC page: a page of the TD.
        0x2012 => 0xffff_ffff_ffff_f000,
        0x2034 => 0xe,
        0x2040 => HLAT_POINTER,
        // SCE, LME, LMA.
        0x2806 => 0x501,
        0x4002 => 0x48d9_9a04,
        // Machine checks always exit.
        0x4004 => 0xfffb_ffff,
        // IA-32e mode guest.
        0x4012 => 0x200,
        0x401e => 0x0c51_3e0c,
        0x6800 => CR0,
        0x6804 => CR4,
        _ => ALL,
    }
}

/// What the host may do is what it may do with the TD's own field, but for what L1 decides: interrupts and the owners
/// of control-register bits.
const fn for_host(encoding: u32, own: RdWr) -> RdWr {
    match encoding {
        0x4000 => RdWr { rd: NONE, wr: NONE },
        0x0002 | 0x2016 => RdWr { rd: own.rd, wr: NONE },
        // Also what the module keeps beside the address.
        0x203c => RdWr { rd: ALL, wr: own.wr },
        _ => own,
    }
}

const fn for_debug_host(encoding: u32, own: RdWr) -> RdWr {
    match encoding {
        0x0002 | 0x2016 | 0x4000 | 0x6000..=0x6006 => RdWr { rd: own.rd, wr: NONE },
        0x0006 => RdWr { rd: own.rd, wr: ALL },
        0x2012 => RdWr { rd: ALL, wr: NONE },
        0x201a => RdWr { rd: ALL, wr: SUPERVISOR_SHADOW_STACK },
        0x2040 => RdWr { rd: ALL, wr: HLAT_POINTER },
        0x6800 => RdWr { rd: own.rd, wr: CR0 },
        0x6804 => RdWr { rd: own.rd, wr: CR4 },
        _ => own,
    }
}

const fn of_l2_vm(own: &Field, vm: u8) -> Field {
    const CLASS: u64 = 0x3f << 56;
    let encoding = own.id.code();
    Field {
        id: FieldId(own.id.0 & !CLASS | class(vm) << 56),
        masks: Masks {
            host: for_host(encoding, own.masks.host),
            host_debug: for_debug_host(encoding, own.masks.host_debug),
            guest: for_l1(encoding),
            migtd: RdWr { rd: NONE, wr: NONE },
        },
        l2_vm: vm,
        ..*own
    }
}

const fn table(vm: u8) -> [Field; VMCS.len()] {
    let mut fields = [VMCS[0]; VMCS.len()];
    let mut position = 0;
    while position < VMCS.len() {
        fields[position] = of_l2_vm(&VMCS[position], vm);
        position += 1;
    }
    fields
}

static TABLES: [[Field; VMCS.len()]; 3] = [table(1), table(2), table(3)];

/// Where in the table of a VCPU's fields the VMCS of an L2 VM has its place.
const fn place(vm: u8) -> usize {
    let mut position = 0;
    while VP[position].id.class() as u64 != class(vm) {
        position += 1;
    }
    position
}

const fn between(from: usize, to: usize) -> &'static [Field] {
    VP.split_at(to).0.split_at(from).1
}

/// All fields of a VCPU in the order in which reads walk them, where those of L2 VMs stand in their places.
pub const VCPU: &[&[Field]] = &[
    VMCS,
    between(0, place(1)),
    &TABLES[0],
    between(place(1) + 1, place(2)),
    &TABLES[1],
    between(place(2) + 1, place(3)),
    &TABLES[2],
    between(place(3) + 1, VP.len()),
];

#[cfg(test)]
mod tests {
    use super::super::{Context, find_in_context};
    use super::*;

    #[test]
    fn an_identifier_names_the_field_of_its_vm() {
        let rip = |class: u64| FieldId(class << 56 | 0x0020_0003_0000_681e);
        for (class, vm) in [(0, 0), (0x24, 1), (0x2c, 2), (0x34, 3)] {
            let found = find_in_context(Context::Vcpu, rip(class)).expect("a field");
            assert_eq!((found.field.l2_vm, found.field.name), (vm, "Guest RIP"));
        }
        assert!(
            find_in_context(Context::Vcpu, FieldId(rip(0x24).0 | 1)).is_none(),
            "high halves are no fields"
        );
    }
}
