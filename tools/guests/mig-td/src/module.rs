//! The keys of a target TD, by TDG.SERVTD.RD and WR.

use tdvisor_migration_td::MigrationKey;
use tdvisor_migration_td::mailbox::Target;
use tdx_guest::tdcall::{TdCallError, read_servetd, write_servetd};
use tdx_module_iface::metadata::{Field, td as fields};

/// The only version of migration sessions.
const MIG_VERSION: u64 = 0;
/// Bits of MIG_VERSION.
const VERSION_MASK: u64 = 0xffff;

fn element(field: &Field, index: u32) -> Result<u64, TdCallError> {
    field.element_id(index).map(|id| id.0).ok_or(TdCallError::TdxOperandInvalid)
}

/// The key that the target's module will send with. Reading its first word makes it new.
pub fn sending_key(target: &Target) -> Result<MigrationKey, TdCallError> {
    let mut words = [0; 4];
    for (index, word) in (0..).zip(&mut words) {
        let id = element(&fields::MIG_ENC_KEY, index)?;
        (_, *word, _) = read_servetd(target.handle, id, target.uuid)?;
    }
    Ok(MigrationKey::new(words))
}

/// Gives the target's module the key that it will receive with; its first word, which makes it count, last.
pub fn set_receiving_key(target: &Target, key: &MigrationKey) -> Result<(), TdCallError> {
    write_servetd(target.handle, fields::MIG_VERSION.id.0, MIG_VERSION, VERSION_MASK, target.uuid)?;
    let words = [0, 1, 2, 3].into_iter().zip(key.words());
    for (index, word) in words.rev() {
        let id = element(&fields::MIG_DEC_KEY, index)?;
        write_servetd(target.handle, id, *word, u64::MAX, target.uuid)?;
    }
    Ok(())
}
