//! How a value is written into a journal: format version, checksum, postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the record format; raised when a stored type changes its shape.
pub const FORMAT: u8 = 1;

/// Why a stored record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Too short to hold version and checksum.
    #[error("the record has only {0} bytes")]
    Short(usize),
    /// Written by another version of the program.
    #[error("the record has format {found}, this program reads {FORMAT}")]
    Format {
        /// What stands there.
        found: u8,
    },
    /// The bytes are not those that were written.
    #[error("the checksum is wrong: the record is damaged")]
    Checksum,
    /// The bytes are those that were written, but mean nothing here.
    #[error("the record cannot be decoded: {0}")]
    Postcard(#[from] postcard::Error),
}

/// One byte of format version, four of CRC-32 (little-endian) over the rest, then the value in postcard's wire format.
///
/// # Errors
/// When the value cannot be serialised.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = postcard::to_extend(value, vec![FORMAT, 0, 0, 0, 0])?;
    let (head, body) = bytes.split_at_mut(5);
    head[1..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    Ok(bytes)
}

/// The value that [`encode`] wrote.
///
/// # Errors
/// When the bytes are short, of another format, damaged, or not this type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let [format, a, b, c, d, body @ ..] = bytes else { return Err(CodecError::Short(bytes.len())) };
    if *format != FORMAT {
        return Err(CodecError::Format { found: *format });
    }
    if crc32fast::hash(body) != u32::from_le_bytes([*a, *b, *c, *d]) {
        return Err(CodecError::Checksum);
    }
    Ok(postcard::from_bytes(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_noticed() {
        let bytes = encode(&("ticket", 7u64)).unwrap();
        assert_eq!(decode::<(String, u64)>(&bytes).unwrap(), ("ticket".to_owned(), 7));
        for at in 1..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(matches!(decode::<(String, u64)>(&damaged), Err(CodecError::Checksum)), "byte {at}");
        }
        assert!(matches!(decode::<u8>(&[FORMAT]), Err(CodecError::Short(1))));
        assert!(matches!(decode::<u8>(&[9, 0, 0, 0, 0]), Err(CodecError::Format { found: 9 })));
    }
}
