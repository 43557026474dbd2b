//! Keys on their way.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use zeroize::Zeroize;

use crate::hello::Role;

/// 64-bit words of a migration key.
pub const KEY_WORDS: usize = 4;
const KEY_BYTES: usize = 8 * KEY_WORDS;
const TAG_BYTES: usize = 16;
/// Bytes of a [`Sealed`].
pub const SEALED_BYTES: usize = KEY_BYTES + TAG_BYTES;

/// A migration key in clear: MIG_ENC_KEY of the one side, MIG_DEC_KEY of the other. Gone from memory when it is dropped.
#[derive(PartialEq, Eq)]
pub struct MigrationKey([u64; KEY_WORDS]);

impl MigrationKey {
    /// The key as TDG.SERVTD.RD read it, word by word.
    pub const fn new(words: [u64; KEY_WORDS]) -> Self {
        Self(words)
    }

    /// The words for TDG.SERVTD.WR. The first one makes the key count, so it is to be written last.
    pub const fn words(&self) -> &[u64; KEY_WORDS] {
        &self.0
    }
}

impl core::fmt::Debug for MigrationKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("MigrationKey(..)")
    }
}

impl Drop for MigrationKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A migration key that only the peer can read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sealed([u8; SEALED_BYTES]);

impl Sealed {
    /// What the peer sent; `None` for another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes of the sealed key.
    pub const fn bytes(&self) -> &[u8; SEALED_BYTES] {
        &self.0
    }
}

/// The key of one direction. It encrypts once, so its nonce is a constant.
pub(crate) struct DirectionKey([u8; KEY_BYTES]);

impl DirectionKey {
    pub(crate) const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&self.0.into())
    }
}

impl Drop for DirectionKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What the tag covers beside the key: who sends, and the conversation.
fn covered(from: Role, conversation: &[u8; 48]) -> [u8; 49] {
    let mut all = [from.byte(); 49];
    all.iter_mut().skip(1).zip(conversation).for_each(|(to, from)| *to = *from);
    all
}

pub(crate) fn seal(
    key: DirectionKey,
    from: Role,
    conversation: &[u8; 48],
    secret: &MigrationKey,
) -> Option<Sealed> {
    let mut sealed = [0; SEALED_BYTES];
    let (text, tag) = sealed.split_at_mut_checked(KEY_BYTES)?;
    text.chunks_exact_mut(8).zip(secret.0).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
    let aad = covered(from, conversation);
    let made = key.cipher().encrypt_inout_detached(&Nonce::default(), &aad, text.into());
    match made {
        Ok(made) => {
            tag.copy_from_slice(&made);
            Some(Sealed(sealed))
        }
        Err(_) => {
            sealed.zeroize();
            None
        }
    }
}

pub(crate) fn open(
    key: DirectionKey,
    from: Role,
    conversation: &[u8; 48],
    sealed: &Sealed,
) -> Option<MigrationKey> {
    let (text, tag) = sealed.0.split_at_checked(KEY_BYTES)?;
    let (mut text, tag): ([u8; KEY_BYTES], [u8; TAG_BYTES]) = (text.try_into().ok()?, tag.try_into().ok()?);
    let aad = covered(from, conversation);
    let tag = Tag::from(tag);
    let opened =
        key.cipher().decrypt_inout_detached(&Nonce::default(), &aad, text.as_mut_slice().into(), &tag);
    let mut words = [0; KEY_WORDS];
    words.iter_mut().zip(text.chunks_exact(8)).for_each(|(to, from)| {
        *to = from.try_into().map_or(0, u64::from_le_bytes);
    });
    text.zeroize();
    let key = MigrationKey(words);
    opened.ok().map(|()| key)
}
