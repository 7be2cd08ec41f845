//! The mask on each frame of a client (RFC 6455, section 5.3). The bench `unmask` compiles this file too.

pub(crate) type Mask = [u8; 4];

/// Takes the mask off, or puts it on. The loop over whole masks is one that the compiler turns into vector
/// instructions.
pub(crate) fn unmask(bytes: &mut [u8], mask: Mask) {
    let (chunks, rest) = bytes.as_chunks_mut::<4>();
    for chunk in chunks {
        *chunk = (u32::from_ne_bytes(*chunk) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
