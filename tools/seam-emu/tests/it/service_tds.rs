//! What a service TD reaches of the TD that it is bound to, and in which order the module looks at what may be wrong.

use seam_emu::guest::{ExitReason, GuestRegisters};
use seam_emu::testing::{Host, Td};
use seam_emu::{GuestEnv, GuestState, ScriptedGuest, VmExit};
use tdx_module_iface::metadata::{FieldId, td};
use tdx_module_iface::{Gprs, Status, StatusCode, TdgLeaf, TdhLeaf};

/// Bits above an address: they are no part of a handle.
const ABOVE: u64 = 0xfff << 52;

/// A service TD, and what the host told it of its target.
struct Scene {
    host: Host,
    service: Td,
    /// The TDR of its target.
    target: u64,
    known: Gprs,
}

impl Scene {
    fn new() -> Self {
        let host = Host::ready();
        let service = host.td(1);
        let target = host.td_being_built(1, 0).tdr;
        let bind = Gprs { rcx: target, rdx: service.tdr, ..Gprs::ZERO };
        let handle = host.ok(0, TdhLeaf::SERVTD_BIND, bind);
        let known = Gprs { rax: 0, rdx: td::MIG_ENC_KEY.id.0, r9: u64::MAX, ..handle };
        Self { host, service, target, known }
    }

    /// Another service TD of the same build took the place of the one that was bound.
    fn replaced() -> Self {
        let scene = Self::new();
        let other = scene.host.td(1);
        let target = scene.target;
        scene.host.ok(0, TdhLeaf::SERVTD_BIND, Gprs { rcx: target, rdx: other.tdr, ..Gprs::ZERO });
        scene
    }

    /// Reads a field of the target's; the answer, and what the host got at the exit that follows.
    fn reads(&self, mut gprs: Gprs) -> (Gprs, StatusCode) {
        gprs.rax = u64::from(TdgLeaf::SERVTD_RD.0);
        let mut answer = None;
        let mut begun = false;
        let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            if !std::mem::replace(&mut begun, true) {
                state.set_gprs(gprs);
                return VmExit::tdcall();
            }
            answer.get_or_insert(state.gprs());
            VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
        });
        let mut exit = Gprs { rax: u64::from(TdhLeaf::VP_ENTER.0), rcx: self.service.vcpus[0], ..Gprs::ZERO };
        self.host.machine.lp(0).unwrap().seamcall_with(&mut exit, &mut guest).unwrap();
        let code = Status::from_raw(exit.rax).code();
        if code == StatusCode::CROSS_TD_TRAP {
            // The answer is there when the service TD runs again.
            let mut again =
                Gprs { rax: u64::from(TdhLeaf::VP_ENTER.0), rcx: self.service.vcpus[0], ..Gprs::ZERO };
            self.host.machine.lp(0).unwrap().seamcall_with(&mut again, &mut guest).unwrap();
        }
        (answer.expect("the service TD got an answer"), code)
    }

    fn status(&self, gprs: Gprs) -> (StatusCode, StatusCode) {
        let (answer, exit) = self.reads(gprs);
        (Status::from_raw(answer.rax).code(), exit)
    }
}

#[test]
fn a_service_td_that_was_replaced_and_takes_its_target_for_another_learns_of_that_alone() {
    let scene = Scene::replaced();
    let mistaken = Gprs { r10: !scene.known.r10, ..scene.known };
    let (answer, exit) = scene.status(mistaken);
    assert_eq!(answer, StatusCode::TARGET_UUID_MISMATCH);
    assert_ne!(exit, StatusCode::CROSS_TD_TRAP, "the host is not asked");
}

#[test]
fn a_service_td_that_was_replaced_is_refused_and_the_host_is_told() {
    let scene = Scene::replaced();
    let got = scene.status(scene.known);
    assert_eq!(got, (StatusCode::SERVTD_UUID_MISMATCH, StatusCode::CROSS_TD_TRAP));
}

#[test]
fn bits_above_the_address_are_no_part_of_a_handle() {
    let scene = Scene::new();
    let above = Gprs { rcx: scene.known.rcx | ABOVE, ..scene.known };
    assert_eq!(scene.status(above).0, StatusCode::SUCCESS);
}

#[test]
fn whoever_reads_the_first_word_of_a_key_gets_a_new_key_however_the_field_is_named() {
    let scene = Scene::new();
    let read = |id: FieldId| {
        let (answer, _) = scene.reads(Gprs { rdx: id.0, ..scene.known });
        assert_eq!(Status::from_raw(answer.rax).code(), StatusCode::SUCCESS);
        answer.r8
    };
    let key = td::MIG_ENC_KEY.id;
    // Bits of an identifier that do not say which field it is: given out as not architectural, and the size.
    let names = [key.0, key.0 ^ 1 << 63, key.0 ^ 1 << 32];
    let mut keys: Vec<_> = names.iter().map(|name| read(FieldId(*name))).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), names.len(), "each reader got a key of its own");
    // The second word is that of the key which was read last.
    let second = td::MIG_ENC_KEY.element_id(1).unwrap();
    assert_eq!(read(second), read(second));
}
