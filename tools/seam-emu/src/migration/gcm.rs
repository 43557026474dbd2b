//! AES-256-GCM as migration bundles use it: 96-bit initialisation vectors, 128-bit tags.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of an initialisation vector.
pub(crate) const IV_BYTES: usize = 12;
/// Bytes of a tag.
pub(crate) const TAG_BYTES: usize = 16;

/// A migration key.
#[derive(Debug)]
pub(crate) struct GcmKey(LessSafeKey);

/// The tag is not that of the data: a bundle that somebody changed, or of another key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WrongTag;

impl GcmKey {
    /// The key of four 64-bit words, little-endian.
    pub(crate) fn new(words: [u64; 4]) -> Self {
        let mut bytes = [0; KEY_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        match UnboundKey::new(&AES_256_GCM, &bytes) {
            Ok(key) => Self(LessSafeKey::new(key)),
            Err(_) => unreachable!("a key of AES-256-GCM has {KEY_BYTES} bytes"),
        }
    }

    /// Encrypts in place and gives the tag.
    pub(crate) fn seal(&self, iv: [u8; IV_BYTES], aad: &[u8], data: &mut [u8]) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        // Only data of more than 64 GiB is refused.
        if let Ok(sealed) =
            self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(aad), data)
        {
            tag.copy_from_slice(sealed.as_ref());
        }
        tag
    }

    /// Encrypts or decrypts a piece of a message that begins at `offset`, a multiple of 16. Whether what is decrypted
    /// is what somebody encrypted, only the tag of the whole message tells.
    pub(crate) fn cipher(&self, iv: [u8; IV_BYTES], offset: usize, piece: &[u8]) -> Vec<u8> {
        // Counter mode: the key stream of a place does not depend on the data.
        let mut message = vec![0; offset];
        message.extend_from_slice(piece);
        let _ = self.seal(iv, &[], &mut message);
        message.split_off(offset)
    }

    /// The tag of a whole message, from its plaintext.
    pub(crate) fn tag(&self, iv: [u8; IV_BYTES], aad: &[u8], plain: &[u8]) -> [u8; TAG_BYTES] {
        self.seal(iv, aad, &mut plain.to_vec())
    }

    /// Checks the tag and decrypts in place.
    ///
    /// # Errors
    /// [`WrongTag`]; the data is zero then.
    pub(crate) fn open(
        &self,
        iv: [u8; IV_BYTES],
        aad: &[u8],
        data: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), WrongTag> {
        let nonce = Nonce::assume_unique_for_key(iv);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), Tag::from(tag), data, 0..);
        opened.map(|_| ()).map_err(|_| WrongTag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let key = GcmKey::new([1, 2, 3, 4]);
        let mut data = *b"a page of a migration bundle";
        let tag = key.seal([7; IV_BYTES], b"header", &mut data);
        let opened = |aad: &[u8], tag| key.open([7; IV_BYTES], aad, &mut data.clone(), tag);
        assert_eq!(opened(b"header", tag), Ok(()));
        assert_eq!(opened(b"Header", tag), Err(WrongTag));
        assert_eq!(opened(b"header", [0; TAG_BYTES]), Err(WrongTag));
    }

    #[test]
    fn pieces_of_a_message_are_ciphered_one_by_one_as_in_one_run() {
        let key = GcmKey::new([5, 6, 7, 8]);
        let plain: Vec<u8> = (0..96).collect();
        let mut whole = plain.clone();
        let tag = key.seal([3; IV_BYTES], b"header", &mut whole);
        let pieces: Vec<u8> = plain
            .chunks(32)
            .enumerate()
            .flat_map(|(number, piece)| key.cipher([3; IV_BYTES], 32 * number, piece))
            .collect();
        assert_eq!((pieces, key.tag([3; IV_BYTES], b"header", &plain)), (whole, tag));
        assert_eq!(key.cipher([3; IV_BYTES], 64, &key.cipher([3; IV_BYTES], 64, &plain[64..])), plain[64..]);
    }
}
