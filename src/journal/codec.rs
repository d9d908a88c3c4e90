//! How an entry's value is written into a journal: format version, checksum, postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the format; raised when a stored type changes its shape.
pub const FORMAT: u8 = 2;
/// Bytes before the value: one of format version, four of checksum.
const HEAD: usize = 5;

/// Why a stored value cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Too short to hold version and checksum.
    #[error("the entry has only {0} bytes")]
    Short(usize),
    /// Written by another version of the program.
    #[error("the entry has format {found}, this program reads up to {FORMAT}; it was written by a newer version")]
    Format {
        /// What stands there.
        found: u8,
    },
    /// The bytes are not those that were written.
    #[error("the checksum is wrong: the entry is damaged")]
    Checksum,
    /// The bytes are those that were written, but mean nothing here.
    #[error("the entry cannot be decoded: {0}")]
    Postcard(#[from] postcard::Error),
}

/// One byte of format version, four of CRC-32 (little-endian) over the key and what follows, then the value in postcard's
/// wire format. The key is part of the checksum, so that no value can be taken for that of another key. What is in `buffer`
/// makes room for it.
///
/// # Errors
/// When the value cannot be serialised.
pub fn encode<T: Serialize>(key: &[u8], value: &T, mut buffer: Vec<u8>) -> Result<Vec<u8>, CodecError> {
    buffer.clear();
    buffer.extend([FORMAT, 0, 0, 0, 0]);
    let mut bytes = postcard::to_extend(value, buffer)?;
    let (head, body) = bytes.split_at_mut(HEAD);
    head[1..].copy_from_slice(&checksum(key, body).to_le_bytes());
    Ok(bytes)
}

/// The value that [`encode`] wrote.
///
/// # Errors
/// When the bytes are short, of another format, damaged, or not this type.
pub fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, CodecError> {
    match checked(key, bytes)? {
        (FORMAT, body) => Ok(postcard::from_bytes(body)?),
        (found, _) => Err(CodecError::Format { found }),
    }
}

/// The format of a stored value and the value itself, which is undamaged.
///
/// # Errors
/// When the bytes are too short or damaged.
pub fn checked<'a>(key: &[u8], bytes: &'a [u8]) -> Result<(u8, &'a [u8]), CodecError> {
    let [format, a, b, c, d, body @ ..] = bytes else { return Err(CodecError::Short(bytes.len())) };
    match checksum(key, body) == u32::from_le_bytes([*a, *b, *c, *d]) {
        true => Ok((*format, body)),
        false => Err(CodecError::Checksum),
    }
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_noticed() {
        let bytes = encode(b"key", &("ticket", 7u64), b"what was there".to_vec()).unwrap();
        assert_eq!(decode::<(String, u64)>(b"key", &bytes).unwrap(), ("ticket".to_owned(), 7));
        for at in 1..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(matches!(decode::<(String, u64)>(b"key", &damaged), Err(CodecError::Checksum)), "byte {at}");
        }
        assert!(matches!(decode::<(String, u64)>(b"kex", &bytes), Err(CodecError::Checksum)), "another key");
        assert!(matches!(decode::<u8>(b"", &[FORMAT]), Err(CodecError::Short(1))));
        assert!(matches!(decode::<u8>(b"", &[9, 0, 0, 0, 0]), Err(CodecError::Format { found: 9 })));
    }
}
