//! Quotes and collateral made by the test PKI, the same in every run: a benchmark needs no recorded data.

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::crypto::Ring;
use tdvisor_attest::issue::{CollateralSpec, PlatformSpec, QuoteBody, QuoteSpec, Role, TestPlatform};
use tdvisor_attest::quote::{CertificationType, TdAttributes, TeeType};
use tdvisor_attest::report::{TdReport, ToQuoteBody};
use tdvisor_attest::verify::TrustAnchor;

/// When the evidence is judged.
pub const AT: UnixSeconds = UnixSeconds(1_790_000_000);

/// Quotes and collateral of one platform.
pub struct Evidence {
    pub root: Vec<u8>,
    /// What the root has issued: a verifier of Intel's evidence has the like built in.
    issued: Vec<Vec<u8>>,
    /// Quotes with different REPORTDATA.
    pub quotes: Vec<Vec<u8>>,
    /// The collateral as a service sends it.
    pub json: String,
    pub bundle: Bundle,
}

impl Evidence {
    /// Evidence with this many quotes.
    pub fn new(quotes: usize) -> Self {
        let platform = TestPlatform::new([42; 32], PlatformSpec::default());
        let svn = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let spec = QuoteSpec::default();
        let collateral = CollateralSpec::up_to_date(platform.spec(), TeeType::TDX, &svn, spec.qe_isv_svn, AT);
        let bundle = platform.collateral(&collateral, CertificationType::PCK_CHAIN);
        let quotes = (0..quotes)
            .map(|round| {
                let mut report = TdReport::zeroed();
                report.tee_tcb_info.tee_tcb_svn = svn;
                report.td_info.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE);
                report.mac.report_data = [round as u8; 64];
                platform.quote(&QuoteBody::Td10(report.to_td10()), &spec).expect("a version 4 quote")
            })
            .collect();
        let json = bundle.to_json();
        let [root, ca, signer] =
            [Role::Root, Role::PckCa, Role::TcbSigner].map(|role| platform.pki().certificate(role));
        Self { root, issued: vec![ca, signer], quotes, json, bundle }
    }

    /// The root alone.
    pub fn bare_anchor(&self) -> TrustAnchor {
        TrustAnchor::from_bytes(&self.root).expect("the test root")
    }

    /// The root, and the certificates that it issued.
    pub fn anchor(&self) -> TrustAnchor {
        self.bare_anchor().with_issued(&self.issued, &Ring).expect("what the root issued")
    }
}
