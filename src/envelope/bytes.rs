//! From bytes to JSON text: character encoding, registry framing, base64.

use crate::outcome::{Reason, Refusal};
use crate::record::Record;
use base64::Engine as _;

/// What the headers say about a record's bytes.
pub enum ContentType {
    /// JSON, or nothing said.
    Json,
    /// A structured CloudEvent in JSON.
    CloudEvent,
    /// A format that cannot be read.
    Unreadable(String),
}

/// The content type of a record by its headers.
pub fn content_type(record: &Record) -> ContentType {
    let Some(Ok(text)) = record.header("content-type").map(std::str::from_utf8) else { return ContentType::Json };
    let format = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let readable = !["avro", "protobuf"].iter().any(|name| format.ends_with(name));
    match format.starts_with("application/cloudevents") {
        _ if !readable => ContentType::Unreadable(format),
        true => ContentType::CloudEvent,
        false => ContentType::Json,
    }
}

/// The JSON text in a value: checked to be UTF-8, without byte order mark or the frame of a schema registry.
pub fn text(value: &[u8]) -> Result<&str, Refusal> {
    let bare = value.strip_prefix(b"\xef\xbb\xbf").unwrap_or(value);
    let bare = if bare.first() == Some(&0) { unframed(bare)? } else { bare };
    simdutf8::basic::from_utf8(bare).map_err(|_| not_utf8(bare))
}

fn not_utf8(bytes: &[u8]) -> Refusal {
    let sound = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    Refusal::new(Reason::Undecodable, format!("not UTF-8 from byte {sound}"))
}

/// What follows the five bytes of a schema registry, where that is JSON. No JSON text begins with a zero byte.
fn unframed(framed: &[u8]) -> Result<&[u8], Refusal> {
    let body = framed.get(5..).unwrap_or_default();
    let first = body.iter().find(|b| !b.is_ascii_whitespace());
    match first {
        Some(b'{' | b'[') => Ok(body),
        _ => Err(Refusal::new(Reason::Undecodable, "framed by a schema registry, but no JSON: Avro or Protobuf")),
    }
}

/// The bytes of a JSON text that holds base64.
pub fn base64(encoded: &str) -> Result<Vec<u8>, Refusal> {
    let text: Option<String> = serde_json::from_str(encoded).ok();
    let bytes = text.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text.trim()).ok());
    bytes.ok_or_else(|| Refusal::new(Reason::BadEnvelope, "`data_base64` is not base64"))
}
