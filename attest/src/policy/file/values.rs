//! What the values of a policy file stand for.

use alloc::string::String;
use alloc::vec::Vec;

use super::PolicyError;
use super::raw::{RawBits, WordOrList, WordOrNumbers};
use crate::UnixSeconds;
use crate::bytes::{hex_array, hex_into};
use crate::policy::{Expected, MaskedBits, ServiceTd, VmId};
use crate::strict::Object;

pub(super) fn list<const N: usize>(texts: &[String], key: &'static str) -> Result<Vec<[u8; N]>, PolicyError> {
    let wanted = "a list, not empty, of hexadecimal values of the register's size";
    if texts.is_empty() {
        return Err(PolicyError::Value { key, wanted });
    }
    texts.iter().map(|text| hex_array(text).ok_or(PolicyError::Value { key, wanted })).collect()
}

pub(super) fn expected(texts: Option<Vec<String>>, key: &'static str) -> Result<Expected, PolicyError> {
    texts.map_or(Ok(Expected::Any), |texts| list(&texts, key).map(Expected::OneOf))
}

pub(super) fn bits(raw: Option<Object<RawBits>>, key: &'static str) -> Result<MaskedBits, PolicyError> {
    let Some(Object(raw)) = raw else { return Ok(MaskedBits::default()) };
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u64::from_str_radix(digits, 16)
            .ok()
            .filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .ok_or(PolicyError::Value { key, wanted: "a mask and a value in hexadecimal" })
    };
    let (mask, value) = (number(&raw.mask)?, number(&raw.value)?);
    if value & !mask != 0 {
        return Err(PolicyError::Value {
            key,
            wanted: "a mask and a value without bits outside of the mask",
        });
    }
    Ok(MaskedBits { mask, value })
}

pub(super) fn service_td(
    raw: Option<WordOrList>,
    key: &'static str,
) -> Result<Option<ServiceTd>, PolicyError> {
    Ok(Some(match raw {
        None => return Ok(None),
        Some(WordOrList::Word(word)) if word == "none" => ServiceTd::None,
        Some(WordOrList::Word(word)) if word == "any" => ServiceTd::Any,
        Some(WordOrList::Word(_)) => {
            return Err(PolicyError::Value { key, wanted: "\"none\", \"any\" or a list" });
        }
        Some(WordOrList::List(texts)) => ServiceTd::OneOf(list(&texts, key)?),
    }))
}

/// The most VMs that a TD has: itself, and three partitions (TDX module ABI specification, TD partitioning).
const VMS_OF_A_TD: u8 = 4;

pub(super) fn vm_id(raw: WordOrNumbers) -> Result<VmId, PolicyError> {
    match raw {
        WordOrNumbers::Word(word) if word == "any" => Ok(VmId::Any),
        WordOrNumbers::Numbers(ids) if !ids.is_empty() && ids.iter().all(|id| *id < VMS_OF_A_TD) => {
            Ok(VmId::OneOf(ids))
        }
        _ => Err(PolicyError::Value { key: "td.vm_id", wanted: "\"any\" or a list of numbers from 0 to 3" }),
    }
}

/// Decodes up to 64 bytes of REPORTDATA.
pub(super) fn report_data(text: &str) -> Result<Vec<u8>, PolicyError> {
    let mut bytes = alloc::vec![0; text.len().min(128) / 2];
    if text.len() > 128 || !hex_into(text.as_bytes(), &mut bytes) {
        return Err(PolicyError::Value { key: "report_data", wanted: "at most 64 bytes in hexadecimal" });
    }
    Ok(bytes)
}

pub(super) fn date(text: &str, key: &'static str) -> Result<UnixSeconds, PolicyError> {
    UnixSeconds::from_rfc3339(text)
        .ok_or(PolicyError::Value { key, wanted: "a time, YYYY-MM-DDThh:mm:ssZ, in quotation marks" })
}
