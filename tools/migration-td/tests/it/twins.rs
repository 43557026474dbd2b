//! Whom a migration TD takes for one of its kind, and what configures that.

use tdvisor_attest::quote::TdAttributes;
use tdvisor_attest::report::{TdInfo, TdReport};
use tdvisor_migration_td::{Configuration, NotMeasured, Trust, Untrusting};

fn own(mr_config_id: [u8; 48]) -> TdInfo {
    let mut own = TdReport::zeroed().td_info;
    own.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE);
    own.mr_config_id = mr_config_id;
    own
}

#[test]
fn a_configuration_is_the_one_that_mrconfigid_measures_or_none() {
    let bytes = Configuration::encode(18, b"a root");
    let measured = own(Configuration::mr_config_id(&bytes));
    assert!(Configuration::measured(&bytes, &measured).is_ok());
    for bit in 0..8 * bytes.len() {
        let mut altered = bytes.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Configuration::measured(&altered, &measured), Err(NotMeasured::Hash), "bit {bit}");
    }
    assert_eq!(Configuration::measured(&[], &measured), Err(NotMeasured::Hash));
    // Without a measurement nothing that a host hands over counts, and there is Intel's root.
    assert_eq!(Configuration::measured(&bytes, &own([0; 48])), Err(NotMeasured::Hash));
    assert!(Configuration::measured(&[], &own([0; 48])).is_ok());
}

#[test]
fn what_is_measured_has_to_be_a_configuration() {
    let refused =
        |bytes: &[u8]| Configuration::measured(bytes, &own(Configuration::mr_config_id(bytes))).unwrap_err();
    assert_eq!(refused(b""), NotMeasured::Form);
    assert_eq!(refused(b"TDVMIGC1\x11\0\0"), NotMeasured::Form);
    assert_eq!(refused(b"TDVMIGC2\x11\0\0\0"), NotMeasured::Form);
    assert_eq!(refused(&Configuration::encode(0, b"")), NotMeasured::Form);
}

#[test]
fn a_td_that_can_be_debugged_or_whose_root_is_none_trusts_nobody() {
    let built_in = Configuration::measured(&[], &own([0; 48])).unwrap();
    assert!(Trust::in_twins(&own([0; 48]), &built_in).is_ok());
    for bit in [TdAttributes::DEBUG, 1 << 4] {
        let mut debugged = own([0; 48]);
        debugged.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE | bit);
        assert_eq!(Trust::in_twins(&debugged, &built_in).map(drop), Err(Untrusting::Debug));
    }
    let bytes = Configuration::encode(18, b"no certificate");
    let measured = own(Configuration::mr_config_id(&bytes));
    let configuration = Configuration::measured(&bytes, &measured).unwrap();
    assert_eq!(Trust::in_twins(&measured, &configuration).map(drop), Err(Untrusting::Root));
}
