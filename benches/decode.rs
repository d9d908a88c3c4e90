//! Decoding and mapping of invented ServiceNow incidents: 3.3 KB, 91 fields, about 25 of them wanted.

mod support;

use std::fmt::Write as _;

use customer_reach::profile::{Decoded, Decoder, Profile};
use customer_reach::record::Record;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use support::records;

fn main() {
    divan::main();
}

fn decode(bencher: Bencher<'_, '_>, records: &[Record]) {
    let decoder = Decoder::new(Profile::load("servicenow", &[], None, None).expect("the built-in profile is sound"));
    let bytes: usize = records.iter().filter_map(|record| record.value.as_ref()).map(Vec::len).sum();
    bencher.counter(ItemsCount::new(records.len())).counter(BytesCount::new(bytes)).bench(|| {
        let tickets = records.iter().map(|record| match decoder.decode(record) {
            Ok(Decoded::Tickets(tickets)) => tickets.iter().filter(|ticket| ticket.summary.is_some()).count(),
            _ => 0,
        });
        assert_eq!(tickets.sum::<usize>(), records.len());
    });
}

#[divan::bench]
fn flat(bencher: Bencher<'_, '_>) {
    decode(bencher, &records(|row| row));
}

#[divan::bench]
fn debezium(bencher: Bencher<'_, '_>) {
    let wrap = |row: String| {
        let mut change = String::from(r#"{"before":null,"after":"#);
        write!(change, r#"{row},"source":{{"connector":"mysql","table":"incident","ts_ms":1772439240000}},"#)
            .expect("writing to a string succeeds");
        change + r#""op":"u","ts_ms":1772439240123}"#
    };
    decode(bencher, &records(wrap));
}
