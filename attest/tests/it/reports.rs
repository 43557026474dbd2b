//! A TDREPORT that a TDX machine made: its hashes cover what the structures say that they cover.

use tdvisor_attest::report::{ReportError, TdReport};
use tdvisor_test_data::vectors;

/// The start of MRTD in the recorded report, as its source publishes it.
const MRTD_BEGINS: [u8; 8] = [0xbb, 0x12, 0x49, 0xbd, 0xe9, 0x60, 0xef, 0x9b];

fn recorded(name: &str) -> Vec<u8> {
    let path = vectors::folder(vectors::ATTESTATION).join("reports").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
#[ignore = "needs recordings"]
fn the_hashes_of_a_real_report_cover_239_bytes_of_tcb_info_and_all_of_tdinfo() {
    let bytes = recorded("tdreport-intel-test.bin");
    let report = TdReport::from_bytes(&bytes).expect("a report of a TD");
    assert_eq!(report.check_hashes(), Ok(()));
    assert_eq!(report.td_info.mr_td.get(..8), Some(MRTD_BEGINS.as_slice()));

    let with_bit = |at: usize| {
        let mut changed = bytes.clone();
        if let Some(byte) = changed.get_mut(at) {
            *byte ^= 1;
        }
        TdReport::from_bytes(&changed).expect("a report of a TD").check_hashes()
    };
    assert_eq!(with_bit(256), Err(ReportError::TeeTcbInfoHash), "the first byte of TEE_TCB_INFO");
    assert_eq!(with_bit(494), Err(ReportError::TeeTcbInfoHash), "its last byte");
    assert_eq!(with_bit(495), Ok(()), "the reserved bytes behind it are covered by nothing");
    assert_eq!(with_bit(511), Ok(()), "up to TDINFO");
    assert_eq!(with_bit(512), Err(ReportError::TdInfoHash), "the first byte of TDINFO");
    assert_eq!(with_bit(1023), Err(ReportError::TdInfoHash), "its last byte");
}

#[test]
#[ignore = "needs recordings"]
fn bytes_that_are_no_report_of_a_td_are_refused_by_their_type() {
    let bytes = recorded("tdreport-go.bin");
    assert!(matches!(TdReport::from_bytes(&bytes), Err(ReportError::Type(_))));
}
