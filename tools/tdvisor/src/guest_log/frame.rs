//! rzCOBS: how frames are told apart and shrunk on the wire.
//!
//! A zero byte ends each frame, and no other byte of an encoded frame is zero. The rest is read backwards, because
//! each block ends, not begins, with the byte that describes it:
//!
//! | byte | the block, in the order of the message |
//! |---|---|
//! | `0x01..=0x7F` | seven bytes; bit *i* set: byte *i* is zero, clear: byte *i* is the next that was sent |
//! | `0x80..=0xFE` | *n* + 7 bytes that were sent, where *n* is the low seven bits, and a zero |
//! | `0xFF` | 134 bytes that were sent |
//!
//! The last block may stand for more than the message had: up to [`PADDING`] zeros follow a message.
//! (Source: the encoder of `defmt` 1.2, and the description of the format in its book.)

/// The longest frame that is read, bytes: on the wire, and again once decoded.
pub const MAX_FRAME: usize = 4096;
/// The most zeros that the encoding leaves behind a message.
pub const PADDING: usize = 6;

/// Cuts the bytes of a serial port into frames.
#[derive(Debug, Default)]
pub struct Deframer {
    encoded: Vec<u8>,
    /// The frame outgrew [`MAX_FRAME`]; the rest of it is dropped.
    overlong: bool,
}

/// A frame that does not follow the encoding, or is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedFrame;

impl Deframer {
    /// Takes the next byte. The frame that it ends, if it ends one; frames without a byte are none.
    pub fn push(&mut self, byte: u8) -> Option<Result<Vec<u8>, MalformedFrame>> {
        if byte != 0 {
            if self.encoded.len() < MAX_FRAME {
                self.encoded.push(byte);
            } else {
                self.overlong = true;
            }
            return None;
        }
        if self.encoded.is_empty() {
            return None;
        }
        let frame = if self.overlong { Err(MalformedFrame) } else { decode(&self.encoded) };
        self.encoded.clear();
        self.overlong = false;
        Some(frame)
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside_frame(&self) -> bool {
        !self.encoded.is_empty()
    }
}

/// Decodes one frame, without the zero that ends it.
fn decode(encoded: &[u8]) -> Result<Vec<u8>, MalformedFrame> {
    // Built from its end; each block adds at most 134 bytes, so the check after a block bounds the length.
    let mut backwards = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter().rev().copied();
    while let Some(control) = bytes.next() {
        match control {
            0 => return Err(MalformedFrame),
            0x01..=0x7F => {
                for bit in (0..7).rev() {
                    let zero = control & (1 << bit) != 0;
                    backwards.push(if zero { 0 } else { bytes.next().ok_or(MalformedFrame)? });
                }
            }
            0x80..=0xFE => {
                backwards.push(0);
                for _ in 0..usize::from(control & 0x7F) + 7 {
                    backwards.push(bytes.next().ok_or(MalformedFrame)?);
                }
            }
            0xFF => {
                for _ in 0..134 {
                    backwards.push(bytes.next().ok_or(MalformedFrame)?);
                }
            }
        }
        if backwards.len() > MAX_FRAME {
            return Err(MalformedFrame);
        }
    }
    backwards.reverse();
    Ok(backwards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(wire: &[u8]) -> Vec<Result<Vec<u8>, MalformedFrame>> {
        let mut deframer = Deframer::default();
        wire.iter().filter_map(|byte| deframer.push(*byte)).collect()
    }

    #[test]
    fn a_block_of_seven_puts_its_zeros_where_the_bits_say() {
        assert_eq!(frames(&[1, 0x7E, 0]), [Ok(vec![1, 0, 0, 0, 0, 0, 0])]);
        assert_eq!(frames(&[1, 0x7D, 0]), [Ok(vec![0, 1, 0, 0, 0, 0, 0])]);
        assert_eq!(frames(&[1, 2, 3, 4, 5, 6, 0x40, 0]), [Ok(vec![1, 2, 3, 4, 5, 6, 0])]);
    }

    #[test]
    fn a_run_without_zeros_ends_with_one_and_a_full_run_does_not() {
        let run: Vec<u8> = (1..=134).collect();
        let mut wire = run[..8].to_vec();
        wire.extend([0x81, 0]);
        assert_eq!(frames(&wire), [Ok([&run[..8], &[0]].concat())]);
        let mut wire = run.clone();
        wire.extend([0xFF, 0]);
        assert_eq!(frames(&wire), [Ok(run)]);
    }

    #[test]
    fn blocks_keep_their_order() {
        let expected = [vec![0; 7], vec![0xFF, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(frames(&[0x7F, 0xFF, 0x7E, 0]), [Ok(expected)]);
    }

    #[test]
    fn a_frame_that_lacks_bytes_is_malformed_and_the_next_is_read() {
        assert_eq!(
            frames(&[0, 0, 1, 0xFF, 0, 0, 1, 0x7E, 0]),
            [Err(MalformedFrame), Ok(vec![1, 0, 0, 0, 0, 0, 0])]
        );
    }

    #[test]
    fn a_frame_without_end_costs_no_more_than_the_limit() {
        let mut deframer = Deframer::default();
        for _ in 0..3 * MAX_FRAME {
            assert_eq!(deframer.push(1), None);
        }
        assert!(deframer.encoded.len() <= MAX_FRAME);
        assert_eq!(deframer.push(0), Some(Err(MalformedFrame)));
        // Seven zeros for one byte: short on the wire, too long decoded.
        assert_eq!(frames(&[vec![0x7F; MAX_FRAME / 2], vec![0]].concat()), [Err(MalformedFrame)]);
    }
}
