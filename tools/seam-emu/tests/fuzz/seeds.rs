//! Inputs that somebody wrote: what a host does in order. The search starts from them and from the corpus.

use tdx_module_iface::{TdgLeaf, TdhLeaf};

use super::input::{Input, OP_BYTES, Op};

/// Worlds (see `world`): release 1.5.05 at power-on, with its module up, with TDs; dynamic PAMT with TDs.
const POWER_ON: u8 = 1;
const READY: u8 = 4;
const WITH_TDS: [u8; 3] = [6, 7, 8];

fn operation(kind: u8, second: u8, leaf: usize, registers: &[(u8, u8)]) -> Op {
    let mut op = [0; OP_BYTES];
    (op[0], op[1], op[2]) = (kind, second, leaf as u8);
    for (bytes, (select, index)) in op[4..].chunks_exact_mut(2).zip(registers) {
        (bytes[0], bytes[1]) = (*select, *index);
    }
    Op(op)
}

/// A SEAMCALL on a processor; registers from RCX on, each (0, n) for the leaf's n-th natural value.
fn host(lp: u8, leaf: TdhLeaf, registers: &[(u8, u8)]) -> Op {
    let number = TdhLeaf::ALL.iter().position(|known| *known == leaf).unwrap_or(0);
    operation(0, lp, number, registers)
}

fn guest(leaf: TdgLeaf, registers: &[(u8, u8)]) -> Op {
    let number = TdgLeaf::ALL.iter().position(|known| *known == leaf).unwrap_or(0);
    operation(128, 1, number, registers)
}

const fn leave() -> Op {
    Op([172, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

const fn enter(lp: u8) -> Op {
    Op([0, lp, 0, 0, 0, lp, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// Reads or writes guest memory at the n-th natural address.
const fn access(write: u8, index: u8) -> Op {
    Op([186, 1, 0, index, write, 0, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn code(place: u8, bytes: &[u8]) -> Op {
    let mut op = [0xf4; OP_BYTES];
    (op[0], op[1]) = (218, place);
    for (to, from) in op[2..].iter_mut().zip(bytes) {
        *to = *from;
    }
    Op(op)
}

fn a_guest_at_work() -> Vec<Op> {
    let mut ops = vec![enter(0)];
    ops.extend((0..4).map(|page| guest(TdgLeaf::MEM_PAGE_ACCEPT, &[(0, page)])));
    ops.extend([access(1, 0), access(0, 1), access(0, 9), access(0, 40), leave()]);
    ops.extend([enter(0), guest(TdgLeaf::MR_RTMR_EXTEND, &[(0, 0), (0, 1)])]);
    ops.extend([
        guest(TdgLeaf::MR_REPORT, &[(0, 0), (0, 0), (0, 0)]),
        guest(TdgLeaf::MR_VERIFYREPORT, &[(0, 0)]),
    ]);
    ops.extend((0..64).map(|field| guest(TdgLeaf::VM_RD, &[(0, 0), (0, field)])));
    ops.extend((0..64).map(|field| guest(TdgLeaf::VP_RD, &[(0, 0), (0, field)])));
    ops.extend((0..64).map(|field| guest(TdgLeaf::SYS_RD, &[(0, 0), (0, field)])));
    ops.extend([guest(TdgLeaf::SYS_RDALL, &[(0, 0), (0, 0), (0, 0)]), guest(TdgLeaf::VP_INFO, &[])]);
    ops.extend([guest(TdgLeaf::VP_VMCALL, &[(0, 0)]), enter(0), guest(TdgLeaf::VP_CPUIDVE_SET, &[(0, 3)])]);
    ops.extend([guest(TdgLeaf::VP_VEINFO_GET, &[]), leave(), enter(1), access(0, 16), leave()]);
    ops
}

fn large_pages() -> Vec<Op> {
    let at = |leaf| host(0, leaf, &[(0, 0x50), (0, 0), (4, 1)]);
    let mut ops =
        vec![at(TdhLeaf::MEM_PAGE_AUG), enter(0), guest(TdgLeaf::MEM_PAGE_ACCEPT, &[(0, 0x50)]), leave()];
    ops.push(host(0, TdhLeaf::MEM_SEPT_RD, &[(0, 0x50), (0, 0)]));
    let pool = host(0, TdhLeaf::MEM_PAGE_DEMOTE, &[(0, 0x50), (0, 0), (3, 60), (9, 0), (9, 0), (9, 0)]);
    ops.extend([at(TdhLeaf::MEM_RANGE_BLOCK), at(TdhLeaf::MEM_RANGE_BLOCK), at(TdhLeaf::MEM_RANGE_UNBLOCK)]);
    ops.extend([pool, host(0, TdhLeaf::MEM_TRACK, &[(0, 0)]), pool]);
    ops.extend([at(TdhLeaf::MEM_RANGE_BLOCK), host(0, TdhLeaf::MEM_TRACK, &[(0, 0)])]);
    ops.extend([at(TdhLeaf::MEM_PAGE_PROMOTE), at(TdhLeaf::MEM_RANGE_BLOCK)]);
    ops.extend([host(0, TdhLeaf::MEM_TRACK, &[(0, 0)]), at(TdhLeaf::MEM_PAGE_REMOVE)]);
    let small = |leaf| host(1, leaf, &[(0, 1), (0, 0), (3, 70)]);
    ops.extend([small(TdhLeaf::MEM_RANGE_BLOCK), host(0, TdhLeaf::MEM_TRACK, &[(0, 0)])]);
    ops.extend([small(TdhLeaf::MEM_PAGE_RELOCATE), small(TdhLeaf::MEM_RANGE_BLOCK)]);
    ops.extend([host(0, TdhLeaf::MEM_TRACK, &[(0, 0)]), small(TdhLeaf::MEM_RANGE_UNBLOCK)]);
    ops
}

fn a_td_is_torn_down() -> Vec<Op> {
    let mut ops = vec![host(0, TdhLeaf::VP_FLUSH, &[(0, 0)]), host(1, TdhLeaf::VP_FLUSH, &[(0, 1)])];
    ops.push(host(0, TdhLeaf::MNG_VPFLUSHDONE, &[(0, 0)]));
    ops.extend([host(0, TdhLeaf::PHYMEM_CACHE_WB, &[(0, 0)]), host(1, TdhLeaf::PHYMEM_CACHE_WB, &[(0, 0)])]);
    ops.push(host(0, TdhLeaf::MNG_KEY_FREEID, &[(0, 0)]));
    ops.extend((1..80).map(|page| host(0, TdhLeaf::PHYMEM_PAGE_RECLAIM, &[(18, page)])));
    ops.push(host(0, TdhLeaf::PHYMEM_PAGE_RECLAIM, &[(18, 0)]));
    ops
}

fn a_td_is_built(params: u8) -> Vec<Op> {
    let mut ops = vec![host(0, TdhLeaf::MNG_CREATE, &[(0, 0), (0, 3)])];
    ops.extend([host(0, TdhLeaf::MNG_KEY_CONFIG, &[(3, 0)]), host(1, TdhLeaf::MNG_KEY_CONFIG, &[(3, 0)])]);
    ops.extend((0..9).map(|page| host(0, TdhLeaf::MNG_ADDCX, &[(0, page), (3, 0)])));
    ops.push(host(0, TdhLeaf::MNG_INIT, &[(3, 0), (0, params)]));
    ops.push(host(0, TdhLeaf::VP_CREATE, &[(0, 0), (3, 0)]));
    ops.extend((10..15).map(|page| host(0, TdhLeaf::VP_ADDCX, &[(0, page), (3, 2)])));
    ops.push(host(0, TdhLeaf::VP_INIT, &[(3, 2), (0, 9)]));
    for (page, level) in [(20, 0x90), (21, 0x80), (22, 0x70)] {
        ops.push(host(0, TdhLeaf::MEM_SEPT_ADD, &[(0, level), (3, 0), (0, page), (9, 0), (9, 0), (9, 0)]));
    }
    ops.push(host(0, TdhLeaf::MEM_PAGE_ADD, &[(0, 8), (3, 0), (0, 23), (0, 0)]));
    ops.extend([host(0, TdhLeaf::MR_EXTEND, &[(0, 0), (3, 0)]), host(0, TdhLeaf::MR_FINALIZE, &[(3, 0)])]);
    ops.extend((0..64).map(|field| host(0, TdhLeaf::MNG_RD, &[(3, 0), (0, field)])));
    ops.extend((0..64).map(|field| host(0, TdhLeaf::VP_RD, &[(3, 2), (0, field)])));
    ops.extend([host(0, TdhLeaf::VP_ENTER, &[(3, 2)]), guest(TdgLeaf::VP_VMCALL, &[(0, 0)])]);
    ops
}

fn the_module_comes_up() -> Vec<Op> {
    let mut ops = vec![host(0, TdhLeaf::SYS_INIT, &[])];
    ops.extend([host(0, TdhLeaf::SYS_LP_INIT, &[]), host(1, TdhLeaf::SYS_LP_INIT, &[])]);
    ops.extend([host(0, TdhLeaf::SYS_INFO, &[]), host(0, TdhLeaf::SYS_RDALL, &[(0, 0), (0, 0), (9, 0)])]);
    ops.extend([
        host(0, TdhLeaf::SYS_CONFIG, &[(0, 0), (0, 0), (0, 1)]),
        host(0, TdhLeaf::SYS_KEY_CONFIG, &[]),
    ]);
    ops.extend((0..5).map(|_| host(0, TdhLeaf::SYS_TDMR_INIT, &[])));
    ops.extend(a_td_is_built(0));
    ops.push(host(0, TdhLeaf::SYS_SHUTDOWN, &[]));
    ops
}

fn instructions() -> Vec<Op> {
    let pieces: [&[u8]; 8] = [
        &[0xb8, 0, 0, 0, 0, 0x0f, 0xa2, 0x66, 0x0f, 0x01, 0xcc],
        &[0xb8, 6, 0, 0, 0, 0xb9, 0, 0, 0, 0x80, 0x66, 0x0f, 0x01, 0xcc],
        &[0xb8, 0, 0x80, 0, 0x80, 0x89, 0x00, 0x8b, 0x18, 0xf4],
        &[0xb9, 0x10, 0, 0, 0, 0x0f, 0x32, 0x0f, 0x30, 0xe6, 0x80],
        &[0x0f, 0x20, 0xe0, 0x0f, 0x22, 0xe0, 0x0f, 0x22, 0xc0],
        &[0xeb, 0xfe],
        &[0x0f, 0x0b, 0xcc, 0xcd, 0x20],
        &[0x0f, 0x01, 0xc1, 0x0f, 0x09, 0x0f, 0x01, 0xd1],
    ];
    let mut ops = Vec::new();
    for (place, piece) in (0..).zip(pieces) {
        ops.extend([enter(0), code(place * 2, piece), code(0x80 | place, &[]), leave()]);
    }
    ops
}

pub fn seeds() -> Vec<Input> {
    let mut seeds = vec![Input { world: POWER_ON, ops: the_module_comes_up() }];
    seeds.extend((0..8).map(|params| Input { world: READY, ops: a_td_is_built(params) }));
    for world in WITH_TDS {
        for ops in [a_guest_at_work(), large_pages(), a_td_is_torn_down(), instructions()] {
            seeds.push(Input { world, ops });
        }
    }
    seeds
}
