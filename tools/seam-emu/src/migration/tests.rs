//! A session between two TDs: what arrives, and what the source is left with when the session is given up.

use tdvisor_base::{Gpa, Hpa};
use tdvisor_test_data::chance::Chance;
use tdx_module_iface::op_state::OpState;
use tdx_module_iface::td_params::{TdParams, attributes};
use tdx_module_iface::{Gprs, StatusCode as C, TdhLeaf};
use zerocopy::{FromZeros, IntoBytes};

use super::mbmd::{BundleKind, Mbmd};
use super::session::Session;
use crate::features::FeatureSet;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::guest::ExitReason;
use crate::td::{Tdcs, Tdr};
use crate::testing::{Host, SCRATCH, Td};
use crate::{GuestEnv, GuestState, MachineConfig, ModuleProfile, ScriptedGuest, VmExit};

/// The guest's page, and the one behind it, which stays pending.
pub(crate) const GPA: u64 = 0x8000_0000;
/// Where the bundle is that crosses: MBMD, list of pages, list of buffers, tags, and the buffers.
pub(crate) const MBMD: u64 = SCRATCH + 0x1_0000;
pub(crate) const LIST: u64 = SCRATCH + 0x1_1000;
const BUFFERS: u64 = SCRATCH + 0x1_2000;
pub(crate) const TAGS: u64 = SCRATCH + 0x1_3000;
const BUFFERS_OF_MEMORY: u64 = SCRATCH + 0x1_4000;
const NEW_PAGES: u64 = SCRATCH + 0x1_5000;
const CONTENTS: u64 = SCRATCH + 0x2_0000;
/// Most pages of a bundle.
const ROOM: u64 = 32;
/// What the guest writes before it moves.
const WORDS: [u8; 16] = *b"before it moved.";

/// R8 with the buffer of the MBMD.
pub(crate) const R8: u64 = MBMD | 48 << 52;
/// Entry of a list of pages: migrate.
const MIGRATE: u64 = 1 << 52;

/// A session under way, the sender's and the receiver's TD on one host.
pub(crate) struct Pair {
    pub(crate) host: Host,
    pub(crate) source: Td,
    pub(crate) destination: Td,
    /// Pages of the bundle under way.
    pub(crate) pages: u64,
}

/// A step of a session: its name, and what it does.
type StepOf = (&'static str, fn(&mut Pair));

/// A session from its beginning to the end of the import.
const STEPS: &[StepOf] = &[
    ("export of the immutable state", |pair| pair.export(TdhLeaf::EXPORT_STATE_IMMUTABLE)),
    ("import of the immutable state", |pair| pair.import(TdhLeaf::IMPORT_STATE_IMMUTABLE)),
    ("write-blocking", Pair::block),
    ("export of memory", Pair::export_memory),
    ("import of memory", Pair::import_memory),
    ("an epoch at the sender", |pair| pair.export_track(0)),
    ("an epoch at the receiver", Pair::import_track),
    ("pause", Pair::pause),
    ("export of the TD", |pair| pair.export(TdhLeaf::EXPORT_STATE_TD)),
    ("import of the TD", |pair| pair.import(TdhLeaf::IMPORT_STATE_TD)),
    ("export of the VCPU", |pair| pair.export(TdhLeaf::EXPORT_STATE_VP)),
    ("import of the VCPU", |pair| pair.import(TdhLeaf::IMPORT_STATE_VP)),
    ("the end of order at the sender", |pair| pair.export_track(1 << 63)),
    ("the end of order at the receiver", Pair::import_track),
    ("the end of the import", |pair| {
        pair.host.ok(0, TdhLeaf::IMPORT_END, Gprs { rcx: pair.destination.tdr, ..Gprs::ZERO });
    }),
];

pub(crate) fn recorded(profile: ModuleProfile) -> MachineConfig {
    MachineConfig { features: FeatureSet::Recorded, profile, ..MachineConfig::small() }
}

pub(crate) fn tdcs_of<'m>(host: &'m Host, td: &Td) -> Tdcs<'m> {
    Tdr::at(host.machine.memory(), Hpa::new(td.tdr)).unwrap().tdcs()
}

impl Pair {
    /// A TD that has run and written, and the shell of one.
    pub(crate) fn new(profile: ModuleProfile) -> Self {
        Self::on(recorded(profile))
    }

    /// A TD that has run and written, and the shell of one, on a machine of this configuration.
    pub(crate) fn on(config: MachineConfig) -> Self {
        let host = Host::with(config);
        let source = host.td_being_built(1, attributes::MIGRATABLE);
        host.tables(&source, GPA, 0);
        host.add(&source, GPA, b"first");
        host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: source.tdr, ..Gprs::ZERO });
        host.aug(&source, GPA + 0x1000);
        host.run(0, source.vcpus[0], |script| script.env.write(Gpa::new(GPA), &WORDS).unwrap());
        let destination = host.td_with(&TdParams::new_zeroed()).0;
        for (entry, page) in (0..ROOM).zip((CONTENTS..).step_by(0x1000)) {
            host.write(BUFFERS + 8 * entry, &page.to_le_bytes());
        }
        let mut pair = Self { host, source, destination, pages: 0 };
        for td in [pair.source.tdr, pair.destination.tdr] {
            for _ in 0..3 {
                let create = Gprs { rcx: pair.host.page(), rdx: td, ..Gprs::ZERO };
                pair.host.ok(0, TdhLeaf::MIG_STREAM_CREATE, create);
            }
        }
        pair.agree();
        pair.pages = ROOM;
        pair
    }

    /// What migration TDs do: each side gets the key of the other.
    pub(crate) fn agree(&self) {
        let (source, destination) =
            (tdcs_of(&self.host, &self.source), tdcs_of(&self.host, &self.destination));
        for (from, to) in [(&source, &destination), (&destination, &source)] {
            for at in (0..32).step_by(8) {
                to.store_u64(tdcs::MIG_DEC_KEY + at, from.load_u64(tdcs::MIG_ENC_KEY + at));
            }
            to.store(tdcs::MIG_DEC_KEY_SET, Width::B1, 1);
        }
    }

    /// A session before the step of this name.
    pub(crate) fn before(profile: ModuleProfile, name: &str) -> Self {
        let mut pair = Self::new(profile);
        let done = STEPS.iter().position(|(step, _)| *step == name).unwrap();
        pair.steps(&STEPS[..done]);
        pair
    }

    /// Runs steps in order.
    pub(crate) fn steps(&mut self, steps: &[StepOf]) {
        for (_, step) in steps {
            step(self);
        }
    }

    fn state_operands(&self, leaf: TdhLeaf) -> Gprs {
        let rcx = match leaf {
            TdhLeaf::EXPORT_STATE_VP => self.source.vcpus[0],
            TdhLeaf::IMPORT_STATE_VP => self.destination.vcpus[0],
            TdhLeaf::EXPORT_STATE_IMMUTABLE | TdhLeaf::EXPORT_STATE_TD => self.source.tdr,
            _ => self.destination.tdr,
        };
        Gprs { rcx, r8: R8, r9: BUFFERS, ..Gprs::ZERO }
    }

    fn export(&mut self, leaf: TdhLeaf) {
        let out = self.host.ok(0, leaf, self.export_operands(leaf));
        self.pages = out.rdx;
    }

    fn import(&mut self, leaf: TdhLeaf) {
        self.prepare(leaf);
        self.host.ok(0, leaf, self.import_operands(leaf));
        if leaf == TdhLeaf::IMPORT_STATE_IMMUTABLE {
            self.host.tables(&self.destination, GPA, 0);
        }
    }

    /// What an import of state needs beforehand.
    pub(crate) fn prepare(&mut self, leaf: TdhLeaf) {
        if leaf == TdhLeaf::IMPORT_STATE_VP {
            self.host.create_vcpu(&mut self.destination);
        }
    }

    pub(crate) fn export_operands(&self, leaf: TdhLeaf) -> Gprs {
        Gprs { r9: BUFFERS | (ROOM - 1) << 55, ..self.state_operands(leaf) }
    }

    pub(crate) fn import_operands(&self, leaf: TdhLeaf) -> Gprs {
        Gprs { r9: BUFFERS | (self.pages - 1) << 55, ..self.state_operands(leaf) }
    }

    /// A list of the two pages of the guest.
    pub(crate) fn list(&self) -> u64 {
        for (entry, gpa) in [(0, GPA), (1, GPA + 0x1000)] {
            self.host.write(LIST + 8 * entry, &(gpa | MIGRATE).to_le_bytes());
        }
        LIST | 1 << 55
    }

    fn block(&mut self) {
        let list = self.list();
        self.host.ok(0, TdhLeaf::EXPORT_BLOCKW, Gprs { rcx: list, rdx: self.source.tdr, ..Gprs::ZERO });
        self.host.ok(0, TdhLeaf::MEM_TRACK, Gprs { rcx: self.source.tdr, ..Gprs::ZERO });
    }

    fn memory_operands(&self, tdr: u64) -> Gprs {
        let mut gprs = Gprs { rcx: LIST | 1 << 55, rdx: tdr, r8: R8, r9: BUFFERS_OF_MEMORY, ..Gprs::ZERO };
        (gprs.r11, gprs.r12) = (TAGS, TAGS);
        gprs
    }

    pub(crate) fn export_memory_operands(&self) -> Gprs {
        self.list();
        self.buffers();
        self.memory_operands(self.source.tdr)
    }

    /// A list of buffers for two pages.
    fn buffers(&self) {
        for (entry, page) in [(0, CONTENTS), (1, CONTENTS + 0x1000)] {
            self.host.write(BUFFERS_OF_MEMORY + 8 * entry, &page.to_le_bytes());
        }
    }

    fn export_memory(&mut self) {
        self.host.ok(0, TdhLeaf::EXPORT_MEM, self.export_memory_operands());
    }

    pub(crate) fn import_memory_operands(&self) -> Gprs {
        for entry in 0..2 {
            self.host.write(NEW_PAGES + 8 * entry, &self.host.page().to_le_bytes());
        }
        Gprs { r13: NEW_PAGES, ..self.memory_operands(self.destination.tdr) }
    }

    fn import_memory(&mut self) {
        self.host.ok(0, TdhLeaf::IMPORT_MEM, self.import_memory_operands());
    }

    fn export_track(&mut self, flag: u64) {
        let gprs = Gprs { rcx: self.source.tdr, r8: R8, r10: flag, ..Gprs::ZERO };
        self.host.ok(0, TdhLeaf::EXPORT_TRACK, gprs);
    }

    fn import_track(&mut self) {
        self.host.ok(0, TdhLeaf::IMPORT_TRACK, Gprs { rcx: self.destination.tdr, r8: R8, ..Gprs::ZERO });
    }

    fn pause(&mut self) {
        self.host.ok(0, TdhLeaf::EXPORT_PAUSE, Gprs { rcx: self.source.tdr, ..Gprs::ZERO });
    }

    /// Changes the bundle under way as somebody could who has its key.
    pub(crate) fn forge(&self, kind: BundleKind, change: impl FnOnce(&mut Mbmd, &mut Vec<u8>)) {
        let mut mbmd = Mbmd::new_zeroed();
        self.host.machine.host_read(Hpa::new(MBMD), mbmd.as_mut_bytes()).unwrap();
        let mut bytes = vec![0; self.pages as usize * 0x1000];
        self.host.machine.host_read(Hpa::new(CONTENTS), &mut bytes).unwrap();
        let tdcs = tdcs_of(&self.host, &self.source);
        let key = Session(&tdcs).sending_key();
        let mut plain = key.cipher(mbmd.run().iv(), 0, &bytes);
        change(&mut mbmd, &mut plain);
        let iv = mbmd.run().iv();
        mbmd.tag = key.tag(iv, &mbmd.covered(kind), &plain);
        self.host.write(MBMD, mbmd.as_bytes());
        self.host.write(CONTENTS, &key.cipher(iv, 0, &plain));
    }

    fn reads(&self, td: &Td) -> [u8; 16] {
        let mut bytes = [0; 16];
        let ((), exit) =
            self.host.run(0, td.vcpus[0], |script| script.env.read(Gpa::new(GPA), &mut bytes).unwrap());
        assert_eq!(exit.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0));
        bytes
    }
}

/// A TD crosses on this machine, and reads there what it wrote before.
pub(crate) fn crosses(config: MachineConfig) {
    let mut pair = Pair::on(config);
    pair.steps(STEPS);
    assert_eq!(pair.reads(&pair.destination), WORDS);
}

#[test]
fn a_td_crosses_with_its_memory_and_runs_on() {
    for profile in ModuleProfile::ALL {
        let mut pair = Pair::new(profile);
        pair.steps(STEPS);
        assert_eq!(pair.reads(&pair.destination), WORDS, "{profile:?}");
        // The page that was pending is: its guest takes it.
        let exit = pair.host.accept(0, pair.destination.vcpus[0], GPA + 0x1000);
        assert_eq!(exit.rax, u64::from(ExitReason::EXTERNAL_INTERRUPT.0));
        // The source does not run any more.
        let gprs = Gprs { rcx: pair.source.vcpus[0], ..Gprs::ZERO };
        assert_eq!(pair.host.status(0, TdhLeaf::VP_ENTER, gprs).code(), C::OP_STATE_INCORRECT);
    }
}

#[test]
fn a_session_that_is_given_up_after_any_step_leaves_the_source_as_it_was() {
    for done in 1..STEPS.len() - 1 {
        let mut pair = Pair::new(ModuleProfile::V1_5_01);
        let what = STEPS[done - 1].0;
        pair.steps(&STEPS[..done]);
        let give_up = Gprs { rcx: pair.source.tdr, ..Gprs::ZERO };
        let in_order = done < 13;
        if !in_order {
            // The TD may run on there, unless the receiver says that it does not.
            let refused = pair.host.status(0, TdhLeaf::EXPORT_ABORT, Gprs { r8: R8, ..give_up });
            assert!(refused.is_error(), "{what}");
            let token = Gprs { rcx: pair.destination.tdr, r8: R8, ..Gprs::ZERO };
            let out = pair.host.status(0, TdhLeaf::IMPORT_ABORT, token);
            assert!(out.is_fatal() && !out.is_error(), "{what}: {out}");
        }
        pair.host.ok(0, TdhLeaf::EXPORT_ABORT, Gprs { r8: if in_order { 0 } else { R8 }, ..give_up });
        assert_eq!(pair.reads(&pair.source), WORDS, "{what}");
        if done > 2 {
            let list = pair.list();
            let restore = Gprs { rcx: list, rdx: pair.source.tdr, ..Gprs::ZERO };
            if done > 3 {
                pair.host.ok(0, TdhLeaf::EXPORT_RESTORE, restore);
            } else {
                for gpa in [GPA, GPA + 0x1000] {
                    let gprs = Gprs { rcx: gpa, rdx: pair.source.tdr, ..Gprs::ZERO };
                    pair.host.ok(0, TdhLeaf::EXPORT_UNBLOCKW, gprs);
                }
            }
        }
        let write = |script: &mut crate::testing::Script<'_, '_>| script.env.write(Gpa::new(GPA), b"again");
        assert!(pair.host.run(0, pair.source.vcpus[0], write).0.is_ok(), "{what}");
        // Another session begins with new keys.
        pair.agree();
        pair.export(TdhLeaf::EXPORT_STATE_IMMUTABLE);
    }
}

#[test]
fn a_bundle_that_an_interrupt_ends_begins_anew_or_goes_on() {
    const RESUME: u64 = 1 << 63;
    let (export, import) = (TdhLeaf::EXPORT_STATE_VP, TdhLeaf::IMPORT_STATE_VP);
    for goes_on in [false, true] {
        let mut pair = Pair::before(ModuleProfile::V1_5_01, "export of the VCPU");
        let interrupted = |pair: &Pair, leaf, gprs| {
            pair.host.machine.set_interrupt_pending(0, true);
            assert_eq!(pair.host.status(0, leaf, gprs).code(), C::INTERRUPTED_RESUMABLE, "{leaf}");
            pair.host.machine.set_interrupt_pending(0, false);
        };
        let operands = pair.export_operands(export);
        interrupted(&pair, export, operands);
        let r10 = if goes_on { RESUME } else { 0 };
        pair.pages = pair.host.ok(0, export, Gprs { r10, ..operands }).rdx;
        pair.prepare(import);
        let operands = pair.import_operands(import);
        interrupted(&pair, import, operands);
        pair.host.ok(0, import, Gprs { r10: RESUME, ..operands });
    }
}

/// A number with a taste for borders.
fn value(chance: &mut Chance) -> u64 {
    match chance.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << chance.below(64),
        3 => chance.below(0x1_0000),
        _ => chance.next(),
    }
}

/// Spoils a few words of a bundle's contents or of its MBMD.
fn spoil(chance: &mut Chance, mbmd: &mut Mbmd, plain: &mut [u8]) {
    for _ in 0..=chance.index(3) {
        let word = match chance.index(8) {
            0 => {
                let at = 8 * chance.index(4);
                &mut mbmd.as_mut_bytes()[at..at + 8]
            }
            // The headers are at the beginning.
            1..4 => {
                let at = (0x1000 * chance.index(plain.len() / 0x1000)) + 8 * chance.index(8);
                &mut plain[at..at + 8]
            }
            _ => {
                let at = 8 * chance.index(plain.len() / 8);
                &mut plain[at..at + 8]
            }
        };
        let old = u64::from_le_bytes(word.try_into().unwrap());
        let new = if chance.index(2) == 0 { old ^ 1 << chance.index(64) } else { value(chance) };
        word.copy_from_slice(&new.to_le_bytes());
    }
}

#[test]
fn a_bundle_of_somebody_who_has_the_key_ends_the_import_at_worst() {
    let mut chance = Chance::new(0x5eed_5eed_5eed_5eed);
    let mut refused = 0;
    for round in 0..240 {
        let (step, leaf, kind) = [
            (1, TdhLeaf::IMPORT_STATE_IMMUTABLE, BundleKind::ImmutableState),
            (9, TdhLeaf::IMPORT_STATE_TD, BundleKind::TdState),
            (11, TdhLeaf::IMPORT_STATE_VP, BundleKind::VcpuState),
        ][round % 3];
        let mut pair =
            Pair::new(if round % 2 == 0 { ModuleProfile::V1_5_01 } else { ModuleProfile::V1_5_05 });
        pair.steps(&STEPS[..step]);
        pair.prepare(leaf);
        let operands = pair.import_operands(leaf);
        pair.forge(kind, |mbmd, plain| spoil(&mut chance, mbmd, plain));
        let status = pair.host.status(0, leaf, operands);
        if !status.is_success() {
            refused += 1;
            let state = tdcs_of(&pair.host, &pair.destination).op_state();
            assert!(status.is_fatal() && state == OpState::FailedImport, "{leaf}: {status} {state:?}");
        }
        // Whatever is there now can be asked, run and taken apart.
        for leaf in [TdhLeaf::IMPORT_TRACK, TdhLeaf::IMPORT_COMMIT, TdhLeaf::IMPORT_END] {
            pair.host.call(0, leaf, Gprs { rcx: pair.destination.tdr, r8: R8, ..Gprs::ZERO });
        }
        tdcs_of(&pair.host, &pair.destination).set_op_state(OpState::Runnable);
        for tdvpr in &pair.destination.vcpus {
            let enter = Gprs { rcx: *tdvpr, ..Gprs::ZERO };
            let mut guest = ScriptedGuest(|_: &mut GuestState, _: &GuestEnv<'_>| {
                VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
            });
            let mut gprs = Gprs { rax: u64::from(TdhLeaf::VP_ENTER.0), ..enter };
            pair.host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
            pair.host.call(0, TdhLeaf::VP_FLUSH, enter);
        }
        pair.host.ok(0, TdhLeaf::MNG_VPFLUSHDONE, Gprs { rcx: pair.destination.tdr, ..Gprs::ZERO });
    }
    assert!(refused > 40, "only {refused} bundles were refused");
}

#[test]
fn a_bundle_does_not_cross_between_releases() {
    let of = |profile| Pair::before(profile, "import of the immutable state");
    for (from, to) in [
        (ModuleProfile::V1_5_01, ModuleProfile::V1_5_05),
        (ModuleProfile::V1_5_05, ModuleProfile::V1_5_01),
        (ModuleProfile::V1_5_05, ModuleProfile::V1_5Late),
        (ModuleProfile::V2_0, ModuleProfile::V1_5Late),
    ] {
        let (from, to) = (of(from), of(to));
        let mut bundle = vec![0; (CONTENTS - MBMD + ROOM * 0x1000) as usize];
        from.host.machine.host_read(Hpa::new(MBMD), &mut bundle).unwrap();
        to.host.write(MBMD, &bundle);
        let (sender, receiver) = (tdcs_of(&from.host, &from.source), tdcs_of(&to.host, &to.destination));
        for at in (0..32).step_by(8) {
            let key = sender.load_u64(tdcs::MIG_ENC_WORKING_KEY + at);
            receiver.store_u64(tdcs::MIG_DEC_KEY + at, key);
        }
        let leaf = TdhLeaf::IMPORT_STATE_IMMUTABLE;
        let gprs = Gprs { r9: from.import_operands(leaf).r9, ..to.import_operands(leaf) };
        let status = to.host.status(0, leaf, gprs);
        assert!(status.is_fatal() && status.cause() != C::INCORRECT_MBMD_MAC, "{status}");
    }
}
