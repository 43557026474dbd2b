//! What the receiver takes of fields that a sender made up who has the key.

use tdx_module_iface::TdhLeaf;
use tdx_module_iface::metadata::{Field, FieldId, td, vp};

use crate::ModuleProfile;
use crate::migration::mbmd::BundleKind;
use crate::migration::tests::Pair;

/// The value of a field in a bundle: it is behind the word that names the field.
fn value_of<'a>(plain: &'a mut [u8], field: &Field) -> &'a mut [u8] {
    let names = |word: &[u8]| {
        let id = FieldId(u64::from_le_bytes(word.try_into().unwrap()));
        (id.class(), id.code(), id.context()) == (field.id.class(), field.id.code(), field.id.context())
    };
    let at = plain.chunks_exact(8).position(names).expect("the bundle has the field");
    &mut plain[8 * (at + 1)..][..8]
}

/// One import of a session.
#[derive(Clone, Copy)]
struct Import {
    step: &'static str,
    leaf: TdhLeaf,
    kind: BundleKind,
}

const IMMUTABLE: Import = Import {
    step: "import of the immutable state",
    leaf: TdhLeaf::IMPORT_STATE_IMMUTABLE,
    kind: BundleKind::ImmutableState,
};
const VCPU: Import =
    Import { step: "import of the VCPU", leaf: TdhLeaf::IMPORT_STATE_VP, kind: BundleKind::VcpuState };

impl Import {
    /// Whether the receiver takes a bundle in which a field has this value.
    fn takes(self, field: &Field, value: u64) -> bool {
        let mut pair = Pair::before(ModuleProfile::V1_5_01, self.step);
        pair.prepare(self.leaf);
        let operands = pair.import_operands(self.leaf);
        pair.forge(self.kind, |_, plain| value_of(plain, field).copy_from_slice(&value.to_le_bytes()));
        let status = pair.host.status(0, self.leaf, operands);
        assert!(status.is_success() || status.is_fatal(), "{status}");
        status.is_success()
    }
}

#[test]
fn counts_are_judged_with_the_bits_that_their_fields_do_not_have() {
    assert!(IMMUTABLE.takes(&td::NUM_L2_VMS, 0));
    for beyond in [1 << 16, 1 << 32, 1 << 63] {
        assert!(!IMMUTABLE.takes(&td::NUM_L2_VMS, beyond), "{beyond:#x}");
    }
}

#[test]
fn no_td_with_l2_vms_migrates() {
    for vms in 1..=3 {
        assert!(!IMMUTABLE.takes(&td::NUM_L2_VMS, vms), "{vms} L2 VMs");
    }
}

#[test]
fn an_xcr0_that_xsetbv_refuses_is_refused_of_a_sender_too() {
    for (xcr0, is_one) in [(1, true), (3, true), (0, false), (2, false), (5, false), (1 << 9, false)] {
        assert_eq!(VCPU.takes(&vp::XCR0, xcr0), is_one, "XCR0 {xcr0:#x}");
    }
}
