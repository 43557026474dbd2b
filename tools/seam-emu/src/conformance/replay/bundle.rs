//! Migration bundles: makes those that a recording's host makes, and checks those that the module wrote.

use sha2::{Digest, Sha256};
use tdvisor_base::{Hpa, PAGE_SIZE};
use tdx_module_iface::metadata::{Context, FieldId, Increment, td, vmcs};

use super::Run;
use crate::conformance::bundle::{
    BundleFault, CheckBundle, Key, ListDifference, MetadataPage, Plaintext, Seal,
};
use crate::conformance::symbols::{Symbols, UnboundSymbol};
use crate::machine::HostMemoryError;
use crate::migration::gcm::{GcmKey, IV_BYTES, TAG_BYTES};

/// Why a step about a bundle was not carried out.
pub(super) enum BundleProblem {
    /// The bundle's key uses a name that nothing is bound to.
    Unbound(UnboundSymbol),
    /// The host cannot reach the memory.
    Memory(HostMemoryError),
    /// The bundle is not what it should be.
    Differs(BundleFault),
}

impl From<UnboundSymbol> for BundleProblem {
    fn from(problem: UnboundSymbol) -> Self {
        Self::Unbound(problem)
    }
}

impl From<HostMemoryError> for BundleProblem {
    fn from(problem: HostMemoryError) -> Self {
        Self::Memory(problem)
    }
}

impl From<BundleFault> for BundleProblem {
    fn from(problem: BundleFault) -> Self {
        Self::Differs(problem)
    }
}

fn gcm_key(key: &Key, symbols: &Symbols) -> Result<GcmKey, UnboundSymbol> {
    let [a, b, c, d] = key;
    Ok(GcmKey::new([a.value(symbols)?, b.value(symbols)?, c.value(symbols)?, d.value(symbols)?]))
}

/// The initialisation vector of a run: counter, stream, zero.
fn iv(counter: u64, stream: [u8; 2]) -> [u8; IV_BYTES] {
    let mut iv = [0; IV_BYTES];
    for (to, from) in iv.iter_mut().zip(counter.to_le_bytes().into_iter().chain(stream)) {
        *to = from;
    }
    iv
}

impl Run<'_> {
    fn bytes<const N: usize>(&self, at: Hpa) -> Result<[u8; N], HostMemoryError> {
        let mut bytes = [0; N];
        self.machine.host_read(at, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn seal(&self, seal: &Seal) -> Result<(), BundleProblem> {
        let key = gcm_key(&seal.key, &self.symbols.borrow())?;
        let mut data = Vec::new();
        let mut places = Vec::new();
        for part in &seal.parts {
            let start = data.len();
            match &part.plain {
                Plaintext::Pattern(pattern) => data.extend(pattern.bytes()),
                Plaintext::Bytes(bytes) => data.extend_from_slice(bytes),
            }
            places.push((part.at, start..data.len()));
        }
        let tag = key.seal(seal.iv, &seal.aad, &mut data);
        for (at, range) in places {
            self.machine.host_write(at, data.get(range).unwrap_or_default())?;
        }
        self.machine.host_write(seal.tag_at, &tag)?;
        Ok(())
    }

    pub(super) fn check_bundle(&self, bundle: &CheckBundle) -> Result<(), BundleProblem> {
        let key = gcm_key(&bundle.key, &self.symbols.borrow())?;
        let actual: [u8; 32] = self.bytes(bundle.mbmd_at)?;
        if actual != bundle.mbmd {
            return Err(BundleFault::Header { expected: bundle.mbmd, actual }.into());
        }
        let tag: [u8; TAG_BYTES] = self.bytes(bundle.mbmd_at.wrapping_add(32))?;
        let counter = u64::from_le_bytes(actual[16..24].try_into().unwrap_or_default());
        let stream = [actual[4], actual[5]];
        let mut aad = actual;
        aad[16..24].fill(0);
        if bundle.kind.hides_stream() {
            aad[4..6].fill(0);
        }
        let mut data = Vec::new();
        for page in &bundle.pages {
            data.extend(self.bytes::<{ PAGE_SIZE as usize }>(page.at)?);
        }
        key.open(iv(counter, stream), &aad, &mut data, tag).map_err(|_| BundleFault::Tag)?;
        for (number, (page, plain)) in
            bundle.pages.iter().zip(data.chunks_exact(PAGE_SIZE as usize)).enumerate()
        {
            compare_list(&page.list, plain)
                .map_err(|difference| BundleFault::List { page: number, difference })?;
        }
        for entry in &bundle.entries {
            let wrong_tag = BundleFault::EntryTag(entry.index);
            let list = bundle.mac_lists.get(entry.index as usize >> 8).ok_or(wrong_tag.clone())?;
            let at = list.wrapping_add(TAG_BYTES as u64 * (u64::from(entry.index) & 0xff));
            let tag: [u8; TAG_BYTES] = self.bytes(at)?;
            let mut data = match entry.content {
                Some((at, _)) => self.bytes::<{ PAGE_SIZE as usize }>(at)?.to_vec(),
                None => Vec::new(),
            };
            let counter = counter.wrapping_add(1 + u64::from(entry.index));
            key.open(iv(counter, stream), &entry.aad.to_le_bytes(), &mut data, tag).map_err(|_| wrong_tag)?;
            if let Some((_, sha256)) = entry.content
                && Sha256::digest(&data).as_slice() != sha256
            {
                return Err(BundleFault::EntryContent(entry.index).into());
            }
        }
        Ok(())
    }
}

/// The bits of a field that a simulated processor would have had to change: RFLAGS.RF is clear behind an instruction, also
/// where the exception before it was never delivered.
fn processors_own(id: FieldId) -> u64 {
    let is_flags =
        id.context() == Some(Context::Vcpu) && (id.class(), id.code()) == (0, vmcs::GUEST_RFLAGS.id.code());
    if is_flags { x86_arch::flags::RF } else { 0 }
}

/// Whether the values of a field are the platform's (the module's version, CPUID, capability MSRs of VMX), or random or a
/// matter of time (TD_UUID, also in the binding table; the TSC): only their number is compared.
fn is_lenient(id: FieldId) -> bool {
    const CPUID_VALUES: FieldId = td::CPUID_VALUES.id;
    const VMX_MSRS: FieldId = td::VIRTUAL_IA32_VMX_BASIC.id;
    let names = |field: FieldId| (field.class(), field.code()) == (id.class(), id.code());
    id.context() == Some(Context::System)
        || names(td::TD_UUID.id)
        || names(td::VIRTUAL_TSC.id)
        || names(td::SERVTD_BINDINGS_TABLE.id)
        || (id.context() == Some(Context::Td)
            && [CPUID_VALUES.class(), VMX_MSRS.class()].contains(&id.class()))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Compares a decrypted page with the recorded one.
fn compare_list(expected: &MetadataPage, page: &[u8]) -> Result<(), ListDifference> {
    let header = word(page, 0).ok_or(ListDifference::Malformed)?;
    let actual = (header as u16, (header >> 16 & 0xffff) as usize);
    let mut at = 8;
    for (number, sequence) in expected.sequences.iter().enumerate() {
        let found = word(page, at).ok_or(ListDifference::Malformed)?;
        if found != sequence.header {
            return Err(ListDifference::Header(number, sequence.header, found));
        }
        at += 8;
        let id = FieldId(sequence.header);
        let lenient = is_lenient(id);
        for element in 0..sequence.values.len() / 8 {
            let expected = word(&sequence.values, element * 8).ok_or(ListDifference::Malformed)?;
            let found = word(page, at).ok_or(ListDifference::Malformed)?;
            at += 8;
            let step = if id.increment() == Increment::Field { 2 } else { 1 };
            let own = processors_own(id.with_code(id.code() + step * element as u32));
            if (expected ^ found) & !own != 0 && !lenient {
                return Err(ListDifference::Value(number, sequence.header, element, expected, found));
            }
        }
    }
    let size = (expected.bytes, expected.sequences.len());
    if size == actual { Ok(()) } else { Err(ListDifference::Size(size, actual)) }
}
