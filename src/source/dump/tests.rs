use super::*;

fn open(bytes: &[u8]) -> Dump {
    Dump::read("dump", Box::new(io::Cursor::new(bytes.to_vec())), Some(bytes.len() as u64), None).unwrap()
}

/// The values, or the refusals in brackets.
fn rows(bytes: &[u8]) -> Vec<String> {
    open(bytes)
        .map(|row| match row {
            Ok(record) => String::from_utf8(record.value.unwrap()).unwrap(),
            Err(Trouble::Refused(refused)) => format!("[{}] {}", refused.record.offset, refused.refusal.detail),
            Err(Trouble::Unreadable { error, .. }) => format!("unreadable: {error}"),
        })
        .collect()
}

#[test]
fn tables_become_objects() {
    let text = b"\xef\xbb\xbfid;summary;id\n1;\"two\nlines; and \"\"quotes\"\"\";\n\n2;short\n3;\xc3\xa4;7";
    assert_eq!(
        rows(text),
        [
            r#"{"id":["1"],"summary":"two\nlines; and \"quotes\""}"#,
            "[1] 2 fields where the headings are 3",
            r#"{"id":["3","7"],"summary":"ä"}"#,
        ]
    );
    assert_eq!(open(text).described(), "CSV, UTF-8, semicolons");
}

#[test]
fn encodings_are_found() {
    assert_eq!(rows(b"id,summary\n1,caf\xe9 \x80"), [r#"{"id":"1","summary":"café €"}"#]);
    assert_eq!(open(b"id\tsummary\n1\tcaf\xe9").described(), "CSV, windows-1252, tabs");
    let late = [b"id,summary\n".to_vec(), b"1,plain words\n".repeat(40_000), b"2,caf\xe9\n3,caf\xe8".to_vec()].concat();
    assert_eq!(rows(&late).last().unwrap(), r#"{"id":"3","summary":"cafè"}"#);
    let broken = rows("id,summary\n1,ä\n2,".bytes().chain([0xe9, b'x', b'\n']).collect::<Vec<_>>().as_slice());
    assert_eq!(broken.len(), 2);
}

#[test]
fn json_in_all_shapes_gives_its_elements() {
    for text in [
        "{\"id\":1}\n\r\n{\"id\":2}",
        "\u{feff}[{\"id\":1},\n {\"id\":2}]\n",
        "{\"result\":[{\"id\":1},{\"id\":2}],\"count\":2}",
        "{\n \"count\" : 2,\n \"tickets\" : [ {\"id\":1} , {\"id\":2} ],\n \"next\": \"x\" }\n",
    ] {
        assert_eq!(rows(text.as_bytes()), ["{\"id\":1}", "{\"id\":2}"], "{text}");
    }
    assert_eq!(rows(b"{\n\"id\": 1\n}\n{\"id\":2}"), ["{\n\"id\": 1\n}", "{\"id\":2}"]);
    assert_eq!(rows(br#"[1,"a]\"",[2,[3]],{"a":"}"}]"#), ["1", "\"a]\\\"\"", "[2,[3]]", "{\"a\":\"}\"}"]);
    assert_eq!(rows(b"[{\"id\":1},{\"id\":"), ["{\"id\":1}", "[1] the file ends inside this element"]);
}

#[test]
fn empty_dumps_have_no_rows() {
    for text in ["", "\n", "id,summary\n", "[]", "{\"result\":[]}"] {
        assert_eq!(rows(text.as_bytes()), [""; 0], "{text}");
    }
}

#[test]
fn gzip_is_unpacked_and_a_broken_one_is_said() {
    use std::io::Write as _;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(b"id,summary\n1,a\n").unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(rows(&packed), [r#"{"id":"1","summary":"a"}"#]);
    assert_eq!(open(&packed).described(), "CSV, UTF-8, commas, gzipped");
    assert!(Dump::read("x", Box::new(io::Cursor::new(packed[..12].to_vec())), None, None).is_err());
}

#[test]
fn profiles_are_suggested() {
    for (text, profile) in [
        ("number,state,sys_mod_count\n", "servicenow"),
        ("Number,Short description\n", "servicenow"),
        ("Summary,Issue key\n", "jira"),
        ("id,summary\n", "generic"),
        ("{\"webhookEvent\":\"jira:issue_updated\"}\n", "jira"),
        ("{\"tickets\":[{\"id\":1,\"requester_id\":2,\"via\":{}}]}", "zendesk"),
        ("[{\"sys_id\":\"a\"}]", "servicenow"),
    ] {
        assert_eq!(open(text.as_bytes()).suggested_profile(), profile, "{text}");
    }
}

#[test]
fn progress_is_counted_in_bytes_of_the_file() {
    let text = b"id,summary\n1,a\n";
    let mut dump = open(text);
    assert!(dump.by_ref().all(|row| row.is_ok()));
    assert_eq!((dump.bytes_read(), dump.bytes_total()), (text.len() as u64, Some(text.len() as u64)));
}

#[test]
fn a_row_without_an_end_ends_the_reading() {
    let endless = io::Cursor::new(b"id,summary\n1,\"".to_vec()).chain(io::repeat(b'x'));
    let mut dump = Dump::read("dump", Box::new(endless), None, None).unwrap();
    assert!(matches!(dump.next(), Some(Err(Trouble::Unreadable { .. }))));
    assert!(dump.next().is_none());
}

#[test]
fn rows_decode_as_live_events_do() {
    use crate::profile::{Decoded, Decoder, Profile};
    let text = "number,state,short_description,opened_at,assignment_group,sys_mod_count\r\n\
                INC0001,6,\"Down, again\",2026-03-02 08:14:00,,3\r\n";
    let mut dump = open(text.as_bytes());
    let decoder = Decoder::new(Profile::load(dump.suggested_profile(), &[], None, None).unwrap());
    let Ok(Decoded::Tickets(tickets)) = decoder.decode(&dump.next().unwrap().unwrap()) else { panic!() };
    assert_eq!(tickets[0].summary.as_deref(), Some("Down, again"));
    assert_eq!((tickets[0].state, tickets[0].group.as_deref()), (Some(crate::ticket::State::Resolved), None));
}
