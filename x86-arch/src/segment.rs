//! Segment registers and descriptor-table registers (SDM vol. 3, "Protected-Mode Memory Management").

/// A segment register by number (SDM vol. 2, Sreg encoding).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the registers")]
pub enum Seg {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

impl Seg {
    /// The register with this number, if there is one.
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::Es),
            1 => Some(Self::Cs),
            2 => Some(Self::Ss),
            3 => Some(Self::Ds),
            4 => Some(Self::Fs),
            5 => Some(Self::Gs),
            _ => None,
        }
    }
}

/// Attributes of a segment in the VMX access-rights format: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13,
/// D/B 14, G 15, unusable 16 (SDM vol. 3, "Guest Register State").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(transparent)]
pub struct Attributes(pub u32);

impl Attributes {
    /// A segment register that holds a null selector.
    pub const UNUSABLE: Self = Self(1 << 16);
    /// 32-bit flat code, DPL 0, accessed.
    pub const CODE32: Self = Self(0xC09B);
    /// 64-bit code, DPL 0, accessed.
    pub const CODE64: Self = Self(0xA09B);
    /// Flat read-write data, DPL 0, accessed.
    pub const DATA: Self = Self(0xC093);
    /// A busy 32- or 64-bit TSS.
    pub const BUSY_TSS: Self = Self(0x8B);
    /// A local descriptor table.
    pub const LDT: Self = Self(0x82);

    /// Descriptor type, four bits.
    pub const fn kind(self) -> u8 {
        (self.0 & 15) as u8
    }
    /// Code or data (S = 1).
    pub const fn is_code_or_data(self) -> bool {
        self.0 & 1 << 4 != 0
    }
    /// Code (S = 1 and type bit 3).
    pub const fn is_code(self) -> bool {
        self.0 & 0x18 == 0x18
    }
    /// Descriptor privilege level.
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5 & 3) as u8
    }
    /// Present.
    pub const fn present(self) -> bool {
        self.0 & 1 << 7 != 0
    }
    /// 64-bit code.
    pub const fn long(self) -> bool {
        self.0 & 1 << 13 != 0
    }
    /// Default operand size 32, or big stack.
    pub const fn big(self) -> bool {
        self.0 & 1 << 14 != 0
    }
    /// Limit counts pages.
    pub const fn granular(self) -> bool {
        self.0 & 1 << 15 != 0
    }
    /// Null.
    pub const fn unusable(self) -> bool {
        self.0 & 1 << 16 != 0
    }
    /// The attributes with another DPL.
    #[must_use]
    pub const fn with_dpl(self, dpl: u8) -> Self {
        Self(self.0 & !(3 << 5) | (dpl as u32 & 3) << 5)
    }
}

/// A segment register (or LDTR, TR) with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The visible part.
    pub selector: u16,
    /// First linear address.
    pub base: u64,
    /// Last valid offset, in bytes whatever the granularity.
    pub limit: u32,
    /// Everything else of the descriptor.
    pub attributes: Attributes,
}

impl Segment {
    /// A null segment.
    pub const NULL: Self = Self { selector: 0, base: 0, limit: 0, attributes: Attributes::UNUSABLE };

    /// A flat 4 GiB segment.
    pub const fn flat(selector: u16, attributes: Attributes) -> Self {
        Self { selector, base: 0, limit: u32::MAX, attributes }
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableRegister {
    /// Linear address of the first descriptor.
    pub base: u64,
    /// Last valid offset.
    pub limit: u16,
}
