//! TDH.MEM.SEPT.RD (25): shows an entry. RCX GPA and level, RDX TDR (bit 0: L2 attributes too, debug TDs only).

use tdvisor_base::Level;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use super::{Operands, context, target, up_to_root};
use crate::host::steps::{op_states, report_entry};
use crate::host::{Call, Step, invalid};
use crate::lock::Mode;

const L2_ATTRIBUTES: u64 = 1;

pub(in crate::host) fn sept_rd(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let tdr = operands.rdx & !L2_ATTRIBUTES;
    let context = context(call, tdr, const { op_states(TdhLeaf::MEM_SEPT_RD) })?;
    if operands.rdx & L2_ATTRIBUTES != 0 && !context.tdcs.is_debug() {
        return Err(invalid(Operand::RDX));
    }
    let levels = up_to_root(&context.tdcs, Level::L4K);
    let target = target(&context.tdcs, operands.rcx, levels, Mode::Shared, regs)?;
    report_entry(regs, &target.entry.slot());
    if operands.rdx & L2_ATTRIBUTES != 0 {
        regs.r8 = 0;
    }
    Ok(())
}
