use super::*;

/// A quote skeleton: header, optional descriptor, zero body, signature data with `auth` and `certification`.
fn skeleton(version: u16, tee: TeeType, body: Option<BodyType>, size: usize, auth: &[u8]) -> Vec<u8> {
    use zerocopy::IntoBytes;
    let mut quote = Header::new(version, tee, [7; 20]).as_bytes().to_vec();
    if let Some(body) = body {
        quote.extend(body.0.to_le_bytes());
        quote.extend((size as u32).to_le_bytes());
    }
    quote.resize(quote.len() + size, 0x42);
    let mut qe = vec![1; EnclaveReport::SIZE + 64];
    qe.extend((auth.len() as u16).to_le_bytes());
    qe.extend(auth);
    qe.extend(5u16.to_le_bytes());
    qe.extend(4u32.to_le_bytes());
    qe.extend(b"PEM\0");
    let mut signature = vec![2; 128];
    if version > 3 {
        signature.extend(6u16.to_le_bytes());
        signature.extend((qe.len() as u32).to_le_bytes());
    }
    signature.extend(qe);
    quote.extend((signature.len() as u32).to_le_bytes());
    quote.extend(signature);
    quote
}

fn every_layout() -> Vec<(u16, TeeType, Option<BodyType>, usize)> {
    vec![
        (3, TeeType::SGX, None, 384),
        (4, TeeType::SGX, None, 384),
        (4, TeeType::TDX, None, 584),
        (5, TeeType::SGX, Some(BodyType::SGX), 384),
        (5, TeeType::TDX, Some(BodyType::TD10), 584),
        (5, TeeType::TDX, Some(BodyType::TD15), 648),
        (5, TeeType::TDX, Some(BodyType::TD15_EX), 885),
    ]
}

#[test]
fn every_version_and_body_is_read_with_any_qe_auth_length_and_padding() {
    for (version, tee, body, size) in every_layout() {
        for auth in [0, 1, 32, 700] {
            let mut bytes = skeleton(version, tee, body, size, &vec![9; auth]);
            bytes.extend([0; 70]);
            let quote = Quote::parse(&bytes).unwrap();
            assert_eq!(quote.header().tee_type(), tee);
            assert_eq!(quote.signed.bytes.len(), 48 + if body.is_some() { 6 } else { 0 } + size);
            assert_eq!(quote.signature.qe_auth.len(), auth);
            assert_eq!(quote.signature.certification.pem(), Some(&b"PEM"[..]));
            assert_eq!(quote.trailing.len(), 70);
            assert_eq!(quote.body().report_data(), &[0x42; 64]);
            quote.check_supported().unwrap();
        }
    }
}

#[test]
fn a_quote_cut_anywhere_is_an_error() {
    for (version, tee, body, size) in every_layout() {
        let bytes = skeleton(version, tee, body, size, &[9; 32]);
        for len in 0..bytes.len() {
            assert!(Quote::parse(&bytes[..len]).is_err(), "version {version}, {len} bytes");
        }
    }
}

#[test]
fn lengths_that_do_not_agree_are_refused() {
    let whole = skeleton(4, TeeType::TDX, None, 584, &[9; 32]);
    let mut longer = whole.clone();
    // One byte more in the signature data than its fields account for.
    let at = 48 + 584;
    let declared = u32::from_le_bytes(whole[at..at + 4].try_into().unwrap());
    longer[at..at + 4].copy_from_slice(&(declared + 1).to_le_bytes());
    assert!(matches!(Quote::parse(&longer), Err(QuoteError::SignatureLength { .. })));
    longer.push(0);
    assert_eq!(Quote::parse(&longer).unwrap_err(), QuoteError::UnaccountedBytes { extra: 1 });
    let mut huge = whole;
    huge[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Quote::parse(&huge), Err(QuoteError::SignatureLength { .. })));
}

#[test]
fn unknown_values_are_kept_until_a_verifier_looks() {
    let mut bytes = skeleton(4, TeeType::TDX, None, 584, &[]);
    bytes[2] = 3;
    let quote = Quote::parse(&bytes).unwrap();
    assert_eq!(quote.header().attestation_key_type(), AttestationKeyType::ECDSA_P384);
    assert_eq!(quote.check_supported().unwrap_err().code(), "quote-attestation-key-type");
}

#[test]
fn version_5_bodies_must_have_the_size_of_their_type_and_fit_the_tee() {
    let bytes = skeleton(5, TeeType::TDX, Some(BodyType::TD10), 648, &[]);
    assert!(matches!(Quote::parse(&bytes), Err(QuoteError::BodySize { .. })));
    let bytes = skeleton(5, TeeType::TDX, Some(BodyType(9)), 648, &[]);
    assert_eq!(Quote::parse(&bytes).unwrap_err(), QuoteError::BodyType(BodyType(9)));
    let bytes = skeleton(5, TeeType::SGX, Some(BodyType::TD10), 584, &[]);
    assert!(matches!(Quote::parse(&bytes), Err(QuoteError::BodyForOtherTee { .. })));
    let bytes = skeleton(3, TeeType::TDX, None, 584, &[]);
    assert!(matches!(Quote::parse(&bytes), Err(QuoteError::TeeType { .. })));
}

#[test]
fn the_platform_of_certification_types_1_to_3_is_read() {
    for (kind, ppid) in [(1, 16), (2, 256), (3, 384)] {
        let mut data = vec![0xaa; ppid];
        data.extend([0xbb; 16]);
        data.extend([0x0d, 0, 1, 2]);
        let id = CertificationData { kind: CertificationType(kind), data: &data }.platform_id().unwrap();
        assert_eq!((id.ppid.len(), id.pce_svn, id.pce_id), (ppid, 13, [1, 2]));
        data.push(0);
        assert!(CertificationData { kind: CertificationType(kind), data: &data }.platform_id().is_none());
    }
}
