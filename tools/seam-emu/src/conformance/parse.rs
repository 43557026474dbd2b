//! From lines to [`model`](super::model): what the format allows, and in words what is wrong otherwise.

use std::sync::Arc;

use serde_json::Value;
use tdvisor_base::{Gpa, Hpa};
use tdx_module_iface::exit::ExitReasonField;
use tdx_module_iface::{Gprs, Reg};

use super::fields::{Fields, Problem, hex, list, number};
use super::library::Library;
use super::model::{
    AccessKind, Action, After, Content, Contents, ControlRegister, ExitCause, Expected, GuestAct, GuestEvent,
    GuestResult, GuestRun, HwMode, IrqPending, MemoryRange, Pattern, Platform, Privilege, RegSet, Seamcall,
    Step, Store,
};
use super::symbols::{Bindings, Registers};

use crate::config::ModuleProfile;
use crate::guest::VmExit;
use crate::processor::Processor;

mod bundle;

/// Most bytes that one step may write or read.
const MAX_STEP_BYTES: u64 = 1 << 26;
/// Most physical memory that a platform may declare.
const MAX_PHYS_MEM: u64 = 1 << 40;
/// Most logical processors that a platform may declare.
const MAX_LPS: usize = 256;
/// Most CMRs: what the module can hold.
const MAX_CMRS: usize = 32;

/// One line.
pub enum Line {
    /// Starts a sequence.
    Header(Box<Header>),
    /// A step of the open sequence.
    Step(Step),
    /// Ends the open sequence.
    End,
}

/// The first line of a sequence.
pub struct Header {
    pub id: std::sync::Arc<str>,
    pub family: std::sync::Arc<str>,
    pub shape: std::sync::Arc<str>,
    pub platform: Platform,
    pub after: After,
}

/// Reads one line.
pub fn line(text: &[u8], next_index: &mut u32, library: &Library) -> Result<Line, Problem> {
    let value: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
    let fields = Fields::new(&value)?;
    if fields.has("seq") {
        fields.only(&["seq", "family", "seed", "shape", "platform", "after", "tds"])?;
        return Ok(Line::Header(Box::new(header(fields)?)));
    }
    if fields.has("end") {
        if fields.optional("truncated").is_some_and(|truncated| truncated != &Value::Bool(false)) {
            return Err("the recorder stopped early (`truncated`)".to_owned());
        }
        return Ok(Line::End);
    }
    step(fields, &mut Reading { next_index, library }).map(Line::Step)
}

fn header(fields: Fields<'_>) -> Result<Header, Problem> {
    let after = match fields.text("after")? {
        "reset" => After::Reset,
        prefix => After::Prefix(prefix.into()),
    };
    Ok(Header {
        id: fields.shared_text("seq")?,
        family: fields.shared_text("family")?,
        shape: fields.shared_text("shape")?,
        platform: platform(fields.object("platform")?).map_err(|problem| format!("`platform`: {problem}"))?,
        after,
    })
}

fn platform(fields: Fields<'_>) -> Result<Platform, Problem> {
    let lp_pkg: Vec<u32> = fields
        .list("lp_pkg")?
        .iter()
        .map(|pkg| pkg.as_u64().and_then(|pkg| u32::try_from(pkg).ok()))
        .collect::<Option<_>>()
        .ok_or("field `lp_pkg`: not a list of package numbers")?;
    if lp_pkg.is_empty() || lp_pkg.len() > MAX_LPS || fields.count::<usize>("num_lps")? != lp_pkg.len() {
        return Err(format!("`num_lps` and `lp_pkg` do not agree, or exceed {MAX_LPS}"));
    }
    let cmrs = fields
        .list("cmrs")?
        .iter()
        .map(|pair| match list(pair)? {
            [base, size] => Ok(MemoryRange { base: Hpa::new(hex(base)?), size: hex(size)? }),
            _ => Err(format!("{pair} is not [base, size]")),
        })
        .collect::<Result<Vec<_>, Problem>>()
        .map_err(|problem| format!("field `cmrs`: {problem}"))?;
    if cmrs.len() > MAX_CMRS {
        return Err(format!("field `cmrs`: more than {MAX_CMRS}"));
    }
    let cpuid_fms = fields.hex_as("cpuid_fms")?;
    let module = match fields.has("module").then(|| fields.text("module")).transpose()? {
        None | Some("1.5.01") => ModuleProfile::V1_5_01,
        Some("1.5.05") => ModuleProfile::V1_5_05,
        Some(other) => return Err(format!("field `module`: no recorded release {other:?}")),
    };
    Ok(Platform {
        module,
        native: fields.has("native").then(|| fields.shared_text("native")).transpose()?,
        processor: Processor::default(),
        max_pa: fields.count("max_pa")?,
        hkid_start_bit: fields.count("hkid_start_bit")?,
        private_hkids: (fields.count("private_hkid_min")?, fields.count("private_hkid_max")?),
        lp_pkg,
        num_pkgs: fields.count("num_pkgs")?,
        phys_mem_bytes: fields.hex_at_most("phys_mem_bytes", MAX_PHYS_MEM)?,
        cmrs,
        seamrr: MemoryRange { base: Hpa::new(fields.hex("seamrr_base")?), size: fields.hex("seamrr_size")? },
        attributes_fixed0: fields.hex("attributes_fixed0")?,
        attributes_fixed1: fields.hex("attributes_fixed1")?,
        xfam_fixed0: fields.hex("xfam_fixed0")?,
        xfam_fixed1: fields.hex("xfam_fixed1")?,
        cpuid_fms,
        tsc_hz: fields.hex("tsc_hz")?,
        num_handoff_pages: if fields.has("num_handoff_pages") {
            fields.count("num_handoff_pages")?
        } else {
            0
        },
        wbinvd_sub_blocks: fields.count("wbinvd_sub_blocks")?,
    })
}

/// What reading a step needs beside the step.
struct Reading<'a> {
    /// The number that the next step must have.
    next_index: &'a mut u32,
    library: &'a Library,
}

fn step(fields: Fields<'_>, reading: &mut Reading<'_>) -> Result<Step, Problem> {
    let index: u32 = fields.count("i")?;
    let next_index = &mut *reading.next_index;
    if index != *next_index {
        return Err(format!("step number {index} where {next_index} was due"));
    }
    *next_index = next_index.checked_add(1).ok_or("too many steps in one sequence")?;
    let action = match fields.text("op")? {
        "write_mem" => write_mem(fields, reading.library)?,
        "read_mem" => {
            fields.only(&["i", "op", "pa", "len", "sha256", "hex"])?;
            let (len, must_be) = contents(fields)?;
            Action::ReadMem { at: Hpa::new(fields.hex("pa")?), len, must_be }
        }
        "irq_pending" => {
            fields.only(&["i", "op", "lp", "value"])?;
            Action::IrqPending(IrqPending { lp: fields.count("lp")?, pending: fields.flag("value")? })
        }
        "hw" => {
            fields.only(&["i", "op", "what", "mode"])?;
            Action::Hw(match (fields.text("what")?, fields.text("mode")?) {
                ("rdseed", "ok") => HwMode::RdseedOk,
                ("rdseed", "no-entropy") => HwMode::RdseedNoEntropy,
                ("pconfig", "ok") => HwMode::PconfigOk,
                ("pconfig", "entropy-error") => HwMode::PconfigEntropyError,
                ("pconfig", "device-busy") => HwMode::PconfigDeviceBusy,
                (what, mode) => return Err(format!("unknown hardware mode `{what}` `{mode}`")),
            })
        }
        "seal" => Action::Seal(Box::new(bundle::seal(fields)?)),
        "check_bundle" => Action::CheckBundle(Box::new(bundle::check(fields, reading.library)?)),
        "seamcall" => Action::Seamcall(Box::new(seamcall(fields, reading)?)),
        other => return Err(format!("unknown `op` {other:?}")),
    };
    Ok(Step { index, action })
}

fn write_mem(fields: Fields<'_>, library: &Library) -> Result<Action, Problem> {
    fields.only(&["i", "op", "pa", "len", "pattern", "fill", "set", "hex", "blob"])?;
    let at = Hpa::new(fields.hex("pa")?);
    let bytes: Arc<[u8]> = if fields.has("blob") {
        library.blob(fields.text("blob")?)?
    } else if fields.has("hex") {
        fields.byte_string("hex")?.into()
    } else {
        return Ok(Action::WriteMem { at, content: content(fields)? });
    };
    if bytes.len() as u64 != fields.hex_at_most("len", MAX_STEP_BYTES)? {
        return Err("not `len` bytes".to_owned());
    }
    Ok(Action::WriteMem { at, content: Content::Bytes(bytes) })
}

/// What memory must hold, and how many bytes of it.
fn contents(fields: Fields<'_>) -> Result<(u64, Contents), Problem> {
    let len = fields.hex_at_most("len", MAX_STEP_BYTES)?;
    let contents = if fields.has("hex") {
        Contents::Bytes(fields.byte_string("hex")?)
    } else {
        Contents::Sha256(fields.bytes("sha256")?)
    };
    if matches!(&contents, Contents::Bytes(bytes) if bytes.len() as u64 != len) {
        return Err("field `hex`: not `len` bytes".to_owned());
    }
    Ok((len, contents))
}

/// What a write stores: the pattern, or a filled range with stores over it.
fn content(fields: Fields<'_>) -> Result<Content, Problem> {
    let len = fields.hex_at_most("len", MAX_STEP_BYTES)?;
    if fields.has("pattern") {
        if fields.has("fill") || fields.has("set") {
            return Err("a pattern cannot be filled".to_owned());
        }
        return Ok(Content::Pattern(Pattern { seed: fields.hex("pattern")?, len }));
    }
    let set = fields
        .list("set")?
        .iter()
        .map(|store| {
            let [offset, size, value] = list(store)? else {
                return Err(format!("{store} is not [offset, size, value]"));
            };
            let store = Store {
                offset: hex(offset)?,
                size: match size.as_u64() {
                    Some(size @ (1 | 2 | 4 | 8)) => size as usize,
                    _ => return Err(format!("{size} is not a size of 1, 2, 4 or 8")),
                },
                value: hex(value)?,
            };
            if store.offset.checked_add(store.size as u64).is_none_or(|end| end > len) {
                return Err(format!("store at {:#x} leaves the written range", store.offset));
            }
            Ok(store)
        })
        .collect::<Result<_, Problem>>()
        .map_err(|problem| format!("field `set`: {problem}"))?;
    Ok(Content::Fill { len, fill: fields.hex_as("fill")?, set })
}

fn registers(fields: Fields<'_>, name: &str) -> Result<(Gprs, RegSet), Problem> {
    let mut gprs = Gprs::ZERO;
    let mut listed = RegSet::default();
    for (reg, value) in fields.object(name)?.iter() {
        let reg_name = reg;
        let reg =
            Reg::from_name(reg_name).ok_or_else(|| format!("field `{name}`: no register `{reg_name}`"))?;
        gprs.set(reg, hex(value).map_err(|problem| format!("field `{name}.{reg_name}`: {problem}"))?);
        listed.insert(reg);
    }
    Ok((gprs, listed))
}

/// Values of registers, some of which may be names.
fn inputs(fields: Fields<'_>, name: &str) -> Result<Registers, Problem> {
    let mut registers = Registers::default();
    for (reg, value) in fields.object(name)?.iter() {
        let known = Reg::from_name(reg).ok_or_else(|| format!("field `{name}`: no register `{reg}`"))?;
        registers.set(known, number(value).map_err(|problem| format!("field `{name}.{reg}`: {problem}"))?);
    }
    Ok(registers)
}

/// Registers that get names.
fn bindings(fields: Fields<'_>) -> Result<Bindings, Problem> {
    if !fields.has("bind") {
        return Ok(Bindings::new());
    }
    fields
        .object("bind")?
        .iter()
        .map(|(reg, name)| {
            let known = Reg::from_name(reg).ok_or_else(|| format!("field `bind`: no register `{reg}`"))?;
            let name = name.as_str().ok_or_else(|| format!("field `bind.{reg}`: {name} is no name"))?;
            Ok((known, name.into()))
        })
        .collect()
}

fn register_set(fields: Fields<'_>, name: &str) -> Result<RegSet, Problem> {
    let mut set = RegSet::default();
    if fields.has(name) {
        for reg in fields.list(name)? {
            let known = reg.as_str().and_then(Reg::from_name);
            set.insert(known.ok_or_else(|| format!("field `{name}`: no register {reg}"))?);
        }
    }
    Ok(set)
}

fn expected(fields: Fields<'_>) -> Result<Expected, Problem> {
    let (values, listed) = registers(fields, "out")?;
    if !listed.contains(Reg::Rax) {
        return Err("field `out`: RAX is missing".to_owned());
    }
    Ok(Expected {
        values,
        listed,
        masked: bindings(fields)?.iter().fold(register_set(fields, "masked")?, |mut set, (reg, _)| {
            set.insert(*reg);
            set
        }),
        soft: register_set(fields, "soft")?,
    })
}

fn seamcall(fields: Fields<'_>, reading: &mut Reading<'_>) -> Result<Seamcall, Problem> {
    fields.only(&[
        "i",
        "lp",
        "op",
        "leaf",
        "in",
        "out",
        "masked",
        "soft",
        "entered",
        "guest_entry",
        "guest",
        "guest_vm",
        "inject",
        "bind",
    ])?;
    let entered = fields.has("entered") && fields.flag("entered")?;
    if !entered && fields.has("guest") {
        return Err("`guest` in a call that did not enter".to_owned());
    }
    Ok(Seamcall {
        lp: fields.count("lp")?,
        leaf: fields.shared_text("leaf")?,
        input: inputs(fields, "in")?,
        expected: expected(fields)?,
        binds: bindings(fields)?,
        guest: if entered { Some(guest_run(fields, reading)?) } else { None },
    })
}

fn guest_run(fields: Fields<'_>, reading: &mut Reading<'_>) -> Result<GuestRun, Problem> {
    let mut events = Vec::new();
    for (number, value) in fields.list("guest")?.iter().enumerate() {
        if events.last().is_some_and(GuestEvent::leaves_guest) {
            return Err(format!("guest event {number} follows the TD exit"));
        }
        events
            .push(guest_event(value, reading).map_err(|problem| format!("guest event {number}: {problem}"))?);
    }
    if !events.last().is_some_and(GuestEvent::leaves_guest) {
        return Err("`guest` does not end with a TD exit".to_owned());
    }
    Ok(GuestRun {
        vm: vm(fields, "guest_vm")?,
        entry: inputs(fields, "guest_entry")?,
        inject: if fields.has("inject") { Some(fields.hex_as("inject")?) } else { None },
        events,
    })
}

fn guest_event(value: &Value, reading: &mut Reading<'_>) -> Result<GuestEvent, Problem> {
    let fields = Fields::new(value)?;
    if fields.has("host") {
        return Ok(GuestEvent::Host(step(fields.object("host")?, reading)?));
    }
    if fields.has("irq_pending") {
        let irq = IrqPending { lp: fields.count("lp")?, pending: fields.flag("irq_pending")? };
        return Ok(GuestEvent::IrqPending(irq));
    }
    let result = guest_result(fields)?;
    Ok(GuestEvent::Guest {
        same_rip: fields.has("same_rip") && fields.flag("same_rip")?,
        vm: vm(fields, "vm")?,
        privilege: privilege(fields)?,
        event: guest_act(fields)?,
        after: if matches!(result, GuestResult::EntersL2 { .. } | GuestResult::LeavesL2) {
            Some(registers(fields, "regs")?.0)
        } else {
            None
        },
        result,
    })
}

/// The number of a VM; 0 where none is named.
fn vm(fields: Fields<'_>, name: &str) -> Result<u8, Problem> {
    if fields.has(name) { fields.count(name) } else { Ok(0) }
}

fn privilege(fields: Fields<'_>) -> Result<Privilege, Problem> {
    match fields.has("cpl").then(|| fields.count::<u8>("cpl")).transpose()? {
        None | Some(0) => Ok(Privilege::Supervisor),
        Some(3) => Ok(Privilege::User),
        Some(other) => Err(format!("field `cpl`: {other} is neither 0 nor 3")),
    }
}

fn guest_result(fields: Fields<'_>) -> Result<GuestResult, Problem> {
    Ok(match fields.text("result")? {
        "ret" => GuestResult::Ret,
        "retry" => GuestResult::Retry,
        "exit" => GuestResult::Exit,
        "inject" => GuestResult::Inject {
            vector: fields.hex_as("vector")?,
            error_code: if fields.has("error_code") { Some(fields.hex_as("error_code")?) } else { None },
        },
        "ok" => GuestResult::Ok,
        "resume" => GuestResult::Resume,
        "emulated" => GuestResult::Emulated,
        "l2" => GuestResult::EntersL2 { vm: fields.count("to_vm")? },
        "l1" => GuestResult::LeavesL2,
        other => return Err(format!("unknown `result` {other:?}")),
    })
}

fn guest_act(fields: Fields<'_>) -> Result<GuestAct, Problem> {
    if fields.has("tdcall") {
        return Ok(GuestAct::Tdcall {
            leaf: fields.shared_text("tdcall")?,
            input: inputs(fields, "in")?,
            expected: if fields.has("out") { Some(expected(fields)?) } else { None },
            binds: bindings(fields)?,
        });
    }
    if fields.has("access") {
        let kind = match fields.text("kind")? {
            "r" => AccessKind::Read,
            "w" => AccessKind::Write,
            "x" => AccessKind::Fetch,
            other => return Err(format!("unknown access kind {other:?}")),
        };
        return Ok(GuestAct::Access { gpa: Gpa::new(fields.hex("access")?), kind });
    }
    if fields.has("write") {
        return Ok(GuestAct::Write { gpa: Gpa::new(fields.hex("write")?), content: content(fields)? });
    }
    if fields.has("read") {
        let (len, must_be) = contents(fields)?;
        return Ok(GuestAct::Read { gpa: Gpa::new(fields.hex("read")?), len, must_be });
    }
    let expected = if fields.has("out") { Some(emulation(fields)?) } else { None };
    Ok(GuestAct::Exit { cause: exit_cause(fields)?, expected })
}

/// What an emulated instruction leaves: registers that are not listed keep their value.
fn emulation(fields: Fields<'_>) -> Result<Expected, Problem> {
    let (values, listed) = registers(fields, "out")?;
    let masked = register_set(fields, "masked")?;
    Ok(Expected { values, listed, masked, soft: RegSet::default() })
}

/// Exit information; what is absent is zero.
fn vm_exit(fields: Fields<'_>) -> Result<VmExit, Problem> {
    fields.only(&["reason", "qual", "gla", "gpa", "ii", "ie", "il", "iinfo", "idt", "idte"])?;
    let wide = |name: &str| if fields.has(name) { fields.hex(name) } else { Ok(0) };
    let narrow = |name: &str| if fields.has(name) { fields.hex_as(name) } else { Ok(0) };
    let reason = ExitReasonField(fields.hex_as("reason")?);
    Ok(VmExit {
        reason,
        qualification: wide("qual")?,
        gpa: Gpa::new(wide("gpa")?),
        gla: wide("gla")?,
        interruption_info: narrow("ii")?,
        interruption_error: narrow("ie")?,
        idt_vectoring_info: narrow("idt")?,
        idt_vectoring_error: narrow("idte")?,
        instruction_length: narrow("il")?,
        instruction_info: narrow("iinfo")?,
        ..VmExit::plain(reason.basic())
    })
}

fn exit_cause(fields: Fields<'_>) -> Result<ExitCause, Problem> {
    const PLAIN: [(&str, ExitCause); 10] = [
        ("hlt", ExitCause::Hlt),
        ("wbinvd", ExitCause::Wbinvd),
        ("invd", ExitCause::Invd),
        ("vmcall", ExitCause::Vmcall),
        ("monitor", ExitCause::Monitor),
        ("mwait", ExitCause::Mwait),
        ("vmxon", ExitCause::Vmxon),
        ("seamcall_insn", ExitCause::Seamcall),
        ("nmi", ExitCause::Nmi),
        ("triple_fault", ExitCause::TripleFault),
    ];
    if let Some((_, cause)) = PLAIN.iter().find(|(name, _)| fields.has(name)) {
        return Ok(*cause);
    }
    if fields.has("ext_interrupt") {
        let info = if fields.has("info") { fields.hex_as("info")? } else { 0 };
        return Ok(ExitCause::ExternalInterrupt { info });
    }
    if fields.has("io") {
        return Ok(ExitCause::Io { qualification: fields.object("io")?.hex("qual")? });
    }
    if fields.has("cpuid") {
        let cpuid = fields.object("cpuid")?;
        return Ok(ExitCause::Cpuid { leaf: cpuid.hex("rax")?, subleaf: cpuid.hex("rcx")? });
    }
    if fields.has("rdmsr") {
        return Ok(ExitCause::Rdmsr { index: fields.hex_as("rdmsr")? });
    }
    if fields.has("wrmsr") {
        return Ok(ExitCause::Wrmsr { index: fields.hex_as("wrmsr")?, value: fields.hex("value")? });
    }
    if fields.has("mov_cr") {
        let mov = fields.object("mov_cr")?;
        let register = match mov.count::<u8>("cr")? {
            0 => ControlRegister::Cr0,
            4 => ControlRegister::Cr4,
            other => return Err(format!("field `mov_cr.cr`: no control register {other}")),
        };
        let (value, after) = (mov.hex("value")?, fields.hex("cr_after")?);
        return Ok(ExitCause::MovToControl { register, value, after });
    }
    if fields.has("xsetbv") {
        let xsetbv = fields.object("xsetbv")?;
        return Ok(ExitCause::Xsetbv { index: xsetbv.hex("rcx")?, value: xsetbv.hex("value")? });
    }
    if fields.has("vmexit") {
        let regs = if fields.has("regs") { registers(fields, "regs")?.0 } else { Gprs::ZERO };
        return Ok(ExitCause::VmExit { exit: vm_exit(fields.object("vmexit")?)?, regs });
    }
    if fields.has("entry_failure") {
        return Ok(ExitCause::EntryFailure { reason: fields.hex_as("entry_failure")? });
    }
    let names: Vec<&str> = fields.iter().map(|(name, _)| name).collect();
    Err(format!("no known event among the fields {names:?}"))
}
