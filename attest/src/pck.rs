//! Intel's SGX extension of PCK certificates: which platform a certificate speaks for and its TCB.
//!
//! The extension (OID 1.2.840.113741.1.13.1) is a SEQUENCE of (OID, value) pairs.

use der::Tag;

use crate::x509::X509Error;
use crate::x509::asn1::{Element, Walk};

/// The arc of the extension; entries append their own number.
const ARC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

/// What kind of memory protection the platform's SGX has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SgxType(pub u64);

impl SgxType {
    /// Integrity and replay protection by a tree.
    pub const STANDARD: Self = Self(0);
    /// Encryption only.
    pub const SCALABLE: Self = Self(1);
    /// Encryption with integrity.
    pub const SCALABLE_WITH_INTEGRITY: Self = Self(2);
}

/// Contents of the SGX extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PckExtension {
    /// Platform provisioning identifier.
    pub ppid: [u8; 16],
    /// Security versions of the SGX components.
    pub sgx_components: [u8; 16],
    /// Security version of the provisioning certification enclave.
    pub pce_svn: u32,
    /// CPUSVN; equal to the components in practice.
    pub cpu_svn: [u8; 16],
    /// Provisioning certification enclave.
    pub pce_id: [u8; 2],
    /// Platform family.
    pub fmspc: [u8; 6],
    /// Kind of SGX.
    pub sgx_type: SgxType,
    /// Platform instance (Platform CA only).
    pub platform_instance_id: Option<[u8; 16]>,
    /// Processor packages may be added (Platform CA only).
    pub dynamic_platform: Option<bool>,
    /// Intel keeps the platform's root keys (Platform CA only).
    pub cached_keys: Option<bool>,
    /// Hyper-threading is on (Platform CA only).
    pub smt_enabled: Option<bool>,
}

/// The (number, value) pairs of one level of the extension; entries outside the arc are passed over.
fn entries<'a>(
    mut walk: Walk<'a>,
    depth: usize,
) -> impl Iterator<Item = Result<(u8, Element<'a>), X509Error>> {
    core::iter::from_fn(move || {
        while !walk.is_empty() {
            let entry = walk.next().and_then(|pair| {
                let mut pair = pair.inside(Tag::Sequence)?;
                let oid = pair.next()?.expect(Tag::ObjectIdentifier)?;
                let value = pair.next()?;
                pair.end()?;
                Ok(oid
                    .strip_prefix(ARC)
                    .filter(|tail| tail.len() == depth)
                    .and_then(|tail| tail.last())
                    .map(|number| (*number, value)))
            });
            match entry {
                Ok(Some(entry)) => return Some(Ok(entry)),
                Ok(None) => {}
                Err(error) => {
                    if let Ok(empty) = Walk::new(&[]) {
                        walk = empty;
                    }
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

fn octets<const N: usize>(value: &Element<'_>) -> Result<[u8; N], X509Error> {
    value.expect(Tag::OctetString)?.try_into().map_err(|_| X509Error::Unexpected)
}

fn boolean(value: &Element<'_>) -> Result<bool, X509Error> {
    match value.expect(Tag::Boolean)? {
        [0] => Ok(false),
        [0xff] => Ok(true),
        _ => Err(X509Error::Unexpected),
    }
}

impl PckExtension {
    /// Reads the contents of the extension.
    ///
    /// # Errors
    /// Entries of the wrong type or size, and extensions without PPID, TCB, PCEID, FMSPC or SGX type.
    pub fn parse(der: &[u8]) -> Result<Self, X509Error> {
        let (mut ppid, mut tcb, mut pce_id, mut fmspc, mut sgx_type) = (None, None, None, None, None);
        let (mut instance, mut configuration) = (None, [None; 3]);
        for entry in entries(Element::only(der)?.inside(Tag::Sequence)?, 1) {
            let (number, value) = entry?;
            match number {
                1 => ppid = Some(octets(&value)?),
                2 => tcb = Some(Tcb::parse(&value)?),
                3 => pce_id = Some(octets(&value)?),
                4 => fmspc = Some(octets(&value)?),
                5 => {
                    let number = value.expect(Tag::Enumerated)?;
                    let [number] = number else { return Err(X509Error::Unexpected) };
                    sgx_type = Some(SgxType(u64::from(*number)));
                }
                6 => instance = Some(octets(&value)?),
                7 => {
                    for entry in entries(value.inside(Tag::Sequence)?, 2) {
                        let (number, value) = entry?;
                        let place =
                            usize::from(number).checked_sub(1).and_then(|at| configuration.get_mut(at));
                        if let Some(place) = place {
                            *place = Some(boolean(&value)?);
                        }
                    }
                }
                _ => {}
            }
        }
        let [dynamic_platform, cached_keys, smt_enabled] = configuration;
        let tcb = tcb.ok_or(X509Error::Unexpected)?;
        Ok(Self {
            ppid: ppid.ok_or(X509Error::Unexpected)?,
            sgx_components: tcb.components,
            pce_svn: tcb.pce_svn,
            cpu_svn: tcb.cpu_svn,
            pce_id: pce_id.ok_or(X509Error::Unexpected)?,
            fmspc: fmspc.ok_or(X509Error::Unexpected)?,
            sgx_type: sgx_type.ok_or(X509Error::Unexpected)?,
            platform_instance_id: instance,
            dynamic_platform,
            cached_keys,
            smt_enabled,
        })
    }
}

struct Tcb {
    components: [u8; 16],
    pce_svn: u32,
    cpu_svn: [u8; 16],
}

impl Tcb {
    fn parse(value: &Element<'_>) -> Result<Self, X509Error> {
        let (mut components, mut pce_svn, mut cpu_svn) = ([None; 16], None, None);
        for entry in entries(value.inside(Tag::Sequence)?, 2) {
            let (number, value) = entry?;
            match number {
                1..=16 => {
                    let svn = u8::try_from(value.unsigned()?).map_err(|_| X509Error::Unexpected)?;
                    if let Some(place) = components.get_mut(usize::from(number) - 1) {
                        *place = Some(svn);
                    }
                }
                17 => pce_svn = Some(u32::try_from(value.unsigned()?).map_err(|_| X509Error::Unexpected)?),
                18 => cpu_svn = Some(octets(&value)?),
                _ => {}
            }
        }
        let mut all = [0; 16];
        for (place, component) in all.iter_mut().zip(components) {
            *place = component.ok_or(X509Error::Unexpected)?;
        }
        Ok(Self {
            components: all,
            pce_svn: pce_svn.ok_or(X509Error::Unexpected)?,
            cpu_svn: cpu_svn.ok_or(X509Error::Unexpected)?,
        })
    }
}
