//! What a quote speaks for: an SGX enclave report or a TD report, in the four layouts of version 5.
//!
//! Offsets are those of Intel's QuoteStructures.h; sizes are asserted.

use core::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::TdAttributes;

/// Body type of a version 5 quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BodyType(pub u16);

impl BodyType {
    /// SGX enclave report, 384 bytes.
    pub const SGX: Self = Self(1);
    /// TD report of TDX 1.0, 584 bytes.
    pub const TD10: Self = Self(2);
    /// TD report of TDX 1.5, 648 bytes.
    pub const TD15: Self = Self(3);
    /// Extended TD report of TDX 1.5, 885 bytes.
    pub const TD15_EX: Self = Self(4);

    /// Bytes of a body of this type; `None` for a type this crate does not know.
    #[must_use]
    pub const fn size(self) -> Option<u32> {
        Some(match self {
            Self::SGX => 384,
            Self::TD10 => 584,
            Self::TD15 => 648,
            Self::TD15_EX => 885,
            _ => return None,
        })
    }
}

impl fmt::Display for BodyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SGX => f.write_str("SGX enclave report"),
            Self::TD10 => f.write_str("TD report 1.0"),
            Self::TD15 => f.write_str("TD report 1.5"),
            Self::TD15_EX => f.write_str("TD report 1.5 extended"),
            Self(other) => write!(f, "unknown body type {other}"),
        }
    }
}

/// SGX REPORT body, 384 bytes: the body of SGX quotes and the report of every quoting enclave.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EnclaveReport {
    /// Security versions of the processor's components.
    pub cpu_svn: [u8; 16],
    /// Which extended features the state save area carries.
    pub misc_select: U32,
    /// Reserved.
    pub reserved1: [u8; 28],
    /// ATTRIBUTES: flags (8 bytes) and XFRM (8 bytes).
    pub attributes: [u8; 16],
    /// Measurement of the enclave.
    pub mr_enclave: [u8; 32],
    /// Reserved.
    pub reserved2: [u8; 32],
    /// Hash of the key that signed the enclave.
    pub mr_signer: [u8; 32],
    /// Reserved.
    pub reserved3: [u8; 96],
    /// Product number given by the signer.
    pub isv_prod_id: U16,
    /// Security version given by the signer.
    pub isv_svn: U16,
    /// Reserved.
    pub reserved4: [u8; 60],
    /// Data chosen by the enclave.
    pub report_data: [u8; 64],
}

impl EnclaveReport {
    /// Bytes of an enclave report.
    pub const SIZE: usize = 384;

    /// A report of zeros, to be filled in.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }

    /// ATTRIBUTES.DEBUG: the enclave can be read by its host.
    #[must_use]
    pub const fn is_debug(&self) -> bool {
        self.attributes[0] & 2 != 0
    }
}

pub use tdx_module_iface::report::Measurement;

/// TD report of TDX 1.0, 584 bytes: the part that all TD bodies share.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TdReport10 {
    /// `[0]` SVN of the TDX module, `[1]` its major version, `[2]` SEAM loader, the rest zero.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mr_seam: Measurement,
    /// Signer of the TDX module; zero for Intel's.
    pub mr_signer_seam: Measurement,
    /// Attributes of the TDX module; zero for Intel's.
    pub seam_attributes: U64,
    /// Attributes of the TD.
    pub td_attributes: TdAttributes,
    /// Extended features the TD may use.
    pub xfam: U64,
    /// Measurement of the TD's initial contents.
    pub mr_td: Measurement,
    /// Software-defined configuration identifier.
    pub mr_config_id: Measurement,
    /// Software-defined owner.
    pub mr_owner: Measurement,
    /// Software-defined configuration of the owner.
    pub mr_owner_config: Measurement,
    /// Runtime-extendable measurements RTMR0 to RTMR3.
    pub rtmr: [Measurement; 4],
    /// Data chosen by the TD.
    pub report_data: [u8; 64],
}

/// TD report of TDX 1.5, 648 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TdReport15 {
    /// The fields of TDX 1.0; here `tee_tcb_svn` is the TCB when the TD was launched.
    pub base: TdReport10,
    /// The TCB now: it differs from the launch TCB after a TD-preserving update.
    pub tee_tcb_svn2: [u8; 16],
    /// Hash of the bound service TDs; zero if there is none.
    pub mr_service_td: Measurement,
}

/// Extended TD report of TDX 1.5, 885 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TdReport15Ex {
    /// The fields of TDX 1.5.
    pub base: TdReport15,
    /// Index of the partitioned guest that asked; 0 for the TD itself.
    pub vm_id: u8,
    /// Identity of the TD over migrations.
    pub td_id: [u8; 32],
    /// Hash over the bound devices.
    pub dev_info: Measurement,
    /// Service TD hash when the TD was created.
    pub init_servtd_hash: Measurement,
    /// Service TD attributes when the TD was created.
    pub init_servtd_attributes: U64,
    /// CPUSVN where the TD was created.
    pub init_cpu_svn: [u8; 16],
    /// TEE_TCB_SVN where the TD was created.
    pub init_tee_tcb_svn: [u8; 16],
    /// FMSPC where the TD was created, zero-extended.
    pub init_tee_fmspc: [u8; 12],
    /// Hash of the service TDs bound now.
    pub cur_servtd_hash: Measurement,
    /// Attributes of the service TDs bound now.
    pub cur_servtd_attributes: U64,
}

const _: () = assert!(size_of::<EnclaveReport>() == EnclaveReport::SIZE);
const _: () = assert!(size_of::<TdReport10>() == 584);
const _: () = assert!(size_of::<TdReport15>() == 648);
const _: () = assert!(size_of::<TdReport15Ex>() == 885);

/// The body of a quote, borrowed.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// An SGX enclave.
    Sgx(&'a EnclaveReport),
    /// A TD of TDX 1.0.
    Td10(&'a TdReport10),
    /// A TD of TDX 1.5.
    Td15(&'a TdReport15),
    /// A TD of TDX 1.5 with the extended report.
    Td15Ex(&'a TdReport15Ex),
}

impl<'a> Body<'a> {
    /// The fields that all TD reports share; `None` for an enclave.
    #[must_use]
    pub const fn td(&self) -> Option<&'a TdReport10> {
        match self {
            Self::Sgx(_) => None,
            Self::Td10(td) => Some(td),
            Self::Td15(td) => Some(&td.base),
            Self::Td15Ex(td) => Some(&td.base.base),
        }
    }

    /// The fields that TDX 1.5 added.
    #[must_use]
    pub const fn td15(&self) -> Option<&'a TdReport15> {
        match self {
            Self::Sgx(_) | Self::Td10(_) => None,
            Self::Td15(td) => Some(td),
            Self::Td15Ex(td) => Some(&td.base),
        }
    }

    /// The body type that version 5 gives this layout.
    #[must_use]
    pub const fn body_type(&self) -> BodyType {
        match self {
            Self::Sgx(_) => BodyType::SGX,
            Self::Td10(_) => BodyType::TD10,
            Self::Td15(_) => BodyType::TD15,
            Self::Td15Ex(_) => BodyType::TD15_EX,
        }
    }

    /// REPORTDATA.
    #[must_use]
    pub const fn report_data(&self) -> &'a [u8; 64] {
        match self {
            Self::Sgx(enclave) => &enclave.report_data,
            Self::Td10(td) => &td.report_data,
            Self::Td15(td) => &td.base.report_data,
            Self::Td15Ex(td) => &td.base.base.report_data,
        }
    }
}
