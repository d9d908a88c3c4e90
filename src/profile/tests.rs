use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::outcome::Reason;
use crate::record::Partition;
use crate::ticket::Worklog;

fn profile(name: &str, options: &str) -> Profile {
    let mut problems = Problems::new();
    let options = document::parse("options", options, &mut problems);
    assert!(problems.is_empty(), "{problems}");
    Profile::load(name, &[], Some(&options), None).unwrap_or_else(|problems| panic!("{problems}"))
}

fn decoder(name: &str) -> Decoder {
    Decoder::new(profile(name, ""))
}

fn record(topic: &str, value: &str) -> Record {
    Record {
        partition: Partition { topic: Arc::from(topic), number: 0 },
        offset: 0,
        timestamp: None,
        key: None,
        headers: Vec::new(),
        value: Some(value.as_bytes().to_vec()),
    }
}

fn tickets(decoder: &Decoder, value: &str) -> Vec<Ticket> {
    match decoder.decode(&record("topic", value)) {
        Ok(Decoded::Tickets(tickets)) => tickets.into_vec(),
        other => panic!("{other:?} from {value}"),
    }
}

fn ticket(decoder: &Decoder, value: &str) -> Ticket {
    let mut tickets = tickets(decoder, value);
    assert_eq!(tickets.len(), 1, "{value}");
    tickets.remove(0)
}

fn ignored(decoder: &Decoder, value: &str) -> &'static str {
    match decoder.decode(&record("topic", value)) {
        Ok(Decoded::Ignored(why)) => why,
        other => panic!("{other:?} from {value}"),
    }
}

fn refused(decoder: &Decoder, value: &[u8]) -> Refusal {
    let mut record = record("topic", "");
    record.value = Some(value.to_vec());
    decoder.decode(&record).expect_err("must be refused")
}

fn time(text: &str) -> Option<jiff::Timestamp> {
    Some(text.parse().unwrap())
}

#[test]
fn an_identity_that_is_too_long_is_refused_and_of_other_short_fields_the_beginning_is_kept() {
    let generic = decoder("generic");
    let long = "é".repeat(700);
    for name in ["id", "key"] {
        let refusal = refused(&generic, format!(r#"{{"id":"1","{name}":"{long}"}}"#).as_bytes());
        assert_eq!(refusal.reason, Reason::Unmappable);
        assert!(refusal.detail.contains("1400 bytes") && !refusal.detail.contains('é'), "{}", refusal.detail);
    }
    let short = format!(r#"{{"id":"1","group":"{long}","service":"{long}","description":"{long}"}}"#);
    let ticket = ticket(&generic, &short);
    assert_eq!([&ticket.group, &ticket.service].map(|field| field.as_ref().unwrap().len()), [1_000, 1_000]);
    assert_eq!(ticket.description.unwrap(), long);
}

/// The ServiceNow ticket that the next fixtures show in each of the ways of the Table API.
fn assert_is_the_outage(ticket: &Ticket, names: bool) {
    assert_eq!(ticket.key, "a1b2c3");
    assert_eq!(ticket.id.as_deref(), Some("INC0070001"));
    assert_eq!(ticket.kind, Some(Kind::Incident));
    assert_eq!(ticket.state, Some(State::Pending));
    assert_eq!(ticket.summary.as_deref(), Some("Checkout is down"));
    assert_eq!(ticket.group.as_deref(), Some(if names { "Web Shop" } else { "9f9f" }));
    assert_eq!(ticket.requester.as_deref(), Some(if names { "Mia Berg" } else { "77aa" }));
    assert_eq!(ticket.priority.as_deref(), Some("2"));
    assert_eq!(ticket.category.as_deref(), Some("software / shop"));
    assert_eq!(ticket.opened_at, time("2026-03-02T08:14:00Z"));
    assert_eq!(ticket.resolved_at, None);
    assert_eq!(ticket.version.unwrap().count, Some(7));
    assert_eq!(ticket.version.unwrap().time, time("2026-03-02T09:00:00Z").map(jiff::Timestamp::as_millisecond));
    assert_eq!(ticket.effort_seconds, Some(5400));
    assert_eq!(ticket.reopened, Some(1));
    assert!(ticket.by_person);
}

const OUTAGE_RAW: &str = r#"{"sys_id":"a1b2c3","number":"INC0070001","sys_class_name":"incident","state":"3","incident_state":"3",
    "short_description":"Checkout is down","description":"","caller_id":{"link":"https://acme.example/api/now/table/sys_user/77aa","value":"77aa"},
    "assignment_group":{"link":"https://acme.example/api/now/table/sys_user_group/9f9f","value":"9f9f"},"category":"software","subcategory":"shop",
    "priority":"2","opened_at":"2026-03-02 08:14:00","resolved_at":"","sys_updated_on":"2026-03-02 09:00:00","sys_updated_by":"mia.berg",
    "sys_mod_count":"7","reopen_count":"1","time_worked":"1970-01-01 01:30:00","active":"true","business_duration":"1970-01-03 00:00:00"}"#;

const OUTAGE_DISPLAY: &str = r#"{"sys_id":"a1b2c3","number":"INC0070001","sys_class_name":"Incident","state":"On Hold",
    "short_description":"Checkout is down","caller_id":{"display_value":"Mia Berg","link":"https://acme.example/api/now/table/sys_user/77aa"},
    "assignment_group":{"display_value":"Web Shop","link":"https://acme.example/x"},"category":"software","subcategory":"shop","priority":"2 - High",
    "opened_at":"2026-03-02 08:14:00","resolved_at":"","sys_updated_on":"2026-03-02 09:00:00","sys_mod_count":"7","reopen_count":"1",
    "time_worked":"1 Hour 30 Minutes","active":"true"}"#;

const OUTAGE_ALL: &str = r#"{"sys_id":{"display_value":"a1b2c3","value":"a1b2c3"},"number":{"display_value":"INC0070001","value":"INC0070001"},
    "sys_class_name":{"display_value":"Incident","value":"incident"},"state":{"display_value":"On Hold","value":"3"},
    "short_description":{"display_value":"Checkout is down","value":"Checkout is down"},
    "caller_id":{"display_value":"Mia Berg","value":"77aa","link":"https://acme.example/x"},"assignment_group":{"display_value":"Web Shop","value":"9f9f"},
    "category":{"display_value":"software","value":"software"},"subcategory":{"display_value":"shop","value":"shop"},
    "priority":{"display_value":"2 - High","value":"2"},"opened_at":{"display_value":"2026-03-02 09:14:00","value":"2026-03-02 08:14:00"},
    "resolved_at":{"display_value":null,"value":""},"sys_updated_on":{"display_value":"2026-03-02 10:00:00","value":"2026-03-02 09:00:00"},
    "sys_mod_count":{"display_value":"7","value":"7"},"reopen_count":{"display_value":"1","value":"1"},
    "time_worked":{"display_value":"1 Hour 30 Minutes","value":"1970-01-01 01:30:00"},"active":{"display_value":"true","value":"true"}}"#;

const OUTAGE_TYPED: &str = r#"{"sys_id":{"value":"a1b2c3"},"number":{"display_value":"INC0070001","value":"INC0070001","display_value_internal":"x"},
    "sys_class_name":{"value":"incident"},"state":{"display_value":"On Hold","value":3.0},"short_description":{"value":"Checkout is down"},
    "caller_id":{"display_value":"Mia Berg","value":"77aa"},"assignment_group":{"display_value":"Web Shop","value":"9f9f"},
    "category":{"value":"software"},"subcategory":{"value":"shop"},"priority":{"value":2.0},"opened_at":{"value":"2026-03-02 08:14:00"},
    "sys_updated_on":{"value":"2026-03-02 09:00:00"},"sys_mod_count":{"value":7.0},"reopen_count":{"value":1},"time_worked":{"value":5400},
    "active":{"value":true}}"#;

#[test]
fn servicenow_reads_alike_in_every_display_variant() {
    let decoder = decoder("servicenow");
    for (text, names) in [(OUTAGE_RAW, false), (OUTAGE_DISPLAY, true), (OUTAGE_ALL, true), (OUTAGE_TYPED, true)] {
        assert_is_the_outage(&ticket(&decoder, text), names);
    }
    assert_eq!(ticket(&decoder, OUTAGE_RAW).description.as_deref(), Some(""));
    assert_eq!(ticket(&decoder, OUTAGE_DISPLAY).description, None);
}

#[test]
fn envelopes_nest() {
    let decoder = decoder("servicenow");
    let quoted = serde_json::to_string(OUTAGE_RAW).unwrap();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, OUTAGE_RAW);
    let change = format!(
        r#"{{"before":null,"after":{OUTAGE_RAW},"source":{{"table":"incident","ts_ms":5}},"op":"c","ts_ms":6}}"#
    );
    for text in [
        format!(r#"{{"schema":{{"type":"struct"}},"payload":{OUTAGE_RAW}}}"#),
        format!(r#"{{"schema":null,"payload":{change}}}"#),
        format!(r#"{{"specversion":"1.0","id":"1","source":"/x","type":"row","data":{change}}}"#),
        format!(
            r#"{{"specversion":"1.0","id":"1","source":"/x","type":"row","data":{{"schema":{{}},"payload":{change}}}}}"#
        ),
        format!(r#"{{"specversion":"1.0","id":"1","source":"/x","type":"row","data":{quoted}}}"#),
        format!(r#"{{"specversion":"1.0","id":"1","source":"/x","type":"row","data_base64":"{base64}"}}"#),
        format!(r#"{{"result":[{OUTAGE_RAW}]}}"#),
        format!(r#"{{"result":{OUTAGE_RAW}}}"#),
        format!(r#"{{"entries":[{{"values":{OUTAGE_RAW}}}]}}"#),
        format!("[{OUTAGE_RAW}]"),
        format!("\u{feff} {OUTAGE_RAW}"),
        format!("\0\0\0\0\x07{OUTAGE_RAW}"),
        change,
    ] {
        assert_is_the_outage(&ticket(&decoder, &text), false);
    }
    assert_eq!(tickets(&decoder, &format!(r#"{{"records":[{OUTAGE_RAW},{OUTAGE_ALL}]}}"#)).len(), 2);
}

#[test]
fn debezium_deletes_truncates_and_leaves_out() {
    let decoder = decoder("servicenow");
    let deleted = ticket(
        &decoder,
        r#"{"op":"d","before":{"sys_id":"a1"},"after":null,"source":{"table":"incident","ts_ms":1700000000000}}"#,
    );
    assert!(deleted.deleted);
    assert_eq!((deleted.key.as_str(), deleted.kind), ("a1", Some(Kind::Incident)));
    assert_eq!(deleted.version.unwrap().time, Some(1_700_000_000_000));
    let flat = r#"{"sys_id":"a1","description":"__debezium_unavailable_value","state":"6","__deleted":"true","__op":"d","__table":"incident","__source_ts_ms":1700000000001}"#;
    let flat = ticket(&decoder, flat);
    assert!(flat.deleted);
    assert_eq!((flat.description, flat.state), (None, Some(State::Resolved)));
    assert!(!ticket(&decoder, r#"{"sys_id":"a1","__deleted":"false","__op":"u"}"#).deleted);
    assert_eq!(
        ignored(&decoder, r#"{"op":"t","before":null,"after":null,"source":{"table":"incident"}}"#),
        "a truncation or message of the database"
    );
    assert_eq!(
        ignored(&decoder, r#"{"op":"m","source":{},"message":{"prefix":"x"}}"#),
        "a truncation or message of the database"
    );
    assert_eq!(ignored(&decoder, r#"{"schema":{},"payload":null}"#), "an empty payload");
    assert_eq!(refused(&decoder, br#"{"op":"u","before":null,"after":7}"#).reason, Reason::BadEnvelope);
}

#[test]
fn cloud_events_in_headers() {
    let decoder = decoder("servicenow");
    let mut binary = record("topic", OUTAGE_RAW);
    binary.headers =
        vec![("ce_specversion".into(), b"1.0".to_vec()), ("content-type".into(), b"application/json".to_vec())];
    assert!(matches!(decoder.decode(&binary), Ok(Decoded::Tickets(_))));
    binary.value = None;
    assert_eq!(decoder.decode(&binary), Ok(Decoded::Ignored("a tombstone")));
    let announce = |format: &str, value: &str| {
        let mut record = record("topic", value);
        record.headers = vec![("Content-Type".into(), format.as_bytes().to_vec())];
        decoder.decode(&record)
    };
    let event = format!(r#"{{"specversion":"1.0","data":{OUTAGE_RAW}}}"#);
    assert!(matches!(announce("Application/CloudEvents+JSON; charset=utf-8", &event), Ok(Decoded::Tickets(_))));
    assert_eq!(announce("application/cloudevents+json", OUTAGE_RAW).unwrap_err().reason, Reason::BadEnvelope);
    assert_eq!(announce("application/cloudevents+avro", "Obj").unwrap_err().reason, Reason::Undecodable);
}

#[test]
fn what_the_envelope_knows_makes_kind_and_state() {
    let decoder = decoder("servicenow");
    let row = r#"{"sys_id":"a1","state":"3"}"#;
    let view = |topic: &str, header: Option<&str>| {
        let mut record = record(topic, row);
        record.headers = header.map(|table| ("snow.table".to_owned(), table.as_bytes().to_vec())).into_iter().collect();
        match decoder.decode(&record).unwrap() {
            Decoded::Tickets(tickets) => (tickets[0].kind, tickets[0].state),
            Decoded::Ignored(why) => panic!("{why}"),
        }
    };
    assert_eq!(view("x", None), (None, None));
    assert_eq!(view("x", Some("incident")), (Some(Kind::Incident), Some(State::Pending)));
    assert_eq!(view("x", Some("change_request")), (Some(Kind::Change), Some(State::Closed)));
    assert_eq!(view("itsm.incidents", None), (Some(Kind::Incident), Some(State::Pending)));
    assert_eq!(view("snow-sc_req_item", None), (Some(Kind::Request), Some(State::Closed)));
    let by_number = |number: &str| ticket(&decoder, &format!(r#"{{"number":"{number}","state":"4"}}"#)).state;
    assert_eq!(by_number("CHG0001"), Some(State::Cancelled));
    assert_eq!(by_number("SCTASK0001"), Some(State::Closed));
    assert_eq!(by_number("INC0001"), Some(State::Pending));
}

#[test]
fn a_record_watcher_sends_what_changed() {
    let decoder = decoder("servicenow");
    let text = r#"{"table_name":"incident","sys_id":"a1","operation":"update","changes":["urgency","state"],
        "record":{"urgency":{"display_value":"1 - High","value":"1"},"state":{"display_value":"Resolved","value":"6"}}}"#;
    let mut record = record("amb", text);
    record.timestamp = Some(1_700_000_000_000);
    let Ok(Decoded::Tickets(tickets)) = decoder.decode(&record) else { panic!() };
    let expected = Ticket {
        key: "a1".into(),
        version: Some(crate::ticket::Version { count: None, time: Some(1_700_000_000_000) }),
        kind: Some(Kind::Incident),
        state: Some(State::Resolved),
        by_person: true,
        ..Ticket::default()
    };
    assert_eq!(tickets[0], expected);
    assert!(ticket(&decoder, r#"{"table_name":"incident","sys_id":"a1","operation":"delete","record":{}}"#).deleted);
}

#[test]
fn an_event_log_has_labels_question_marks_and_days_first() {
    let decoder = decoder("servicenow");
    let row = r#"{"number":"INC0099","incident_state":"Awaiting User Info","sys_mod_count":"4","caller_id":"Caller 11","opened_at":"5/3/2026 17:05",
        "sys_updated_at":"15/3/2026 08:01","category":"Category 5","subcategory":"?","cmdb_ci":"?","priority":"3 - Moderate","resolved_at":"16/3/2026 09:00","assignment_group":"?"}"#;
    let ticket = ticket(&decoder, row);
    assert_eq!(ticket.key, "INC0099");
    assert_eq!(ticket.state, Some(State::Pending));
    assert_eq!(ticket.opened_at, time("2026-03-05T17:05:00Z"));
    assert_eq!(ticket.updated_at, time("2026-03-15T08:01:00Z"));
    assert_eq!((ticket.ci, ticket.group, ticket.category.as_deref()), (None, None, Some("Category 5")));
    assert_eq!((ticket.requester.as_deref(), ticket.priority.as_deref()), (Some("Caller 11"), Some("3")));
    assert_eq!(ticket.version.unwrap().count, Some(4));
}

#[test]
fn an_export_with_labels() {
    let decoder = Decoder::new(profile("servicenow", "timezone = \"Europe/Berlin\""));
    let row = r#"{"Number":"CHG0001","Short description":"New router","State":"Implement","Opened":"2026-07-01 10:00:00",
        "Assignment group":"Network","Updated":"2026-07-01 11:00:00","Priority":"4 - Low","Time worked":"600"}"#;
    let ticket = ticket(&decoder, row);
    assert_eq!(
        (ticket.id.as_deref(), ticket.kind, ticket.state),
        (Some("CHG0001"), Some(Kind::Change), Some(State::Open))
    );
    assert_eq!(ticket.opened_at, time("2026-07-01T08:00:00Z"));
    assert_eq!(ticket.effort_seconds, Some(600));
}

#[test]
fn customers_of_servicenow() {
    let decoder = decoder("servicenow");
    for (text, external) in [
        (r#"{"number":"CS01","contact":{"sys_id":"1","name":"Ann","email":"ann@buyer.example"}}"#, Some(true)),
        (r#"{"number":"CS01","contact":"","account":""}"#, None),
        (r#"{"number":"INC1","caller_id":{"sys_id":"1","sys_class_name":"customer_contact"}}"#, Some(true)),
        (
            r#"{"number":"INC1","caller_id":{"link":"https://acme.example/api/now/table/customer_contact/1","value":"1"}}"#,
            Some(true),
        ),
        (r#"{"number":"INC1","caller_id":{"sys_id":"1","roles":"itil,snc_internal"}}"#, Some(false)),
        (r#"{"number":"INC1","caller_id":"77"}"#, None),
    ] {
        assert_eq!(ticket(&decoder, text).requester_external, external, "{text}");
    }
    assert_eq!(
        ticket(&decoder, r#"{"number":"CS01","contact":{"name":"Ann","email":"ann@buyer.example"}}"#)
            .requester_email
            .as_deref(),
        Some("ann@buyer.example")
    );
}

#[test]
fn automation_is_no_touch() {
    let decoder = Decoder::new(profile("servicenow", "automation_users = [\"robo*\"]"));
    for (user, person) in [("mia.berg", true), ("system", false), ("Robot 7", false), ("SNOW Integration", false)] {
        assert_eq!(
            ticket(&decoder, &format!(r#"{{"number":"INC1","sys_updated_by":"{user}"}}"#)).by_person,
            person,
            "{user}"
        );
    }
}

#[test]
fn sites_have_states_and_flags_of_their_own() {
    let options = "declared_field = \"u_reach\"\ndeclared_values = { public = \"customer\" }\n\
                   states = { 12 = \"pending\", change = { 12 = \"closed\" } }";
    let decoder = Decoder::new(profile("servicenow", options));
    let incident = ticket(&decoder, r#"{"number":"INC1","state":"12","u_reach":"Public"}"#);
    assert_eq!((incident.state, incident.declared), (Some(State::Pending), Some(Affects::Customer)));
    assert_eq!(ticket(&decoder, r#"{"number":"CHG1","state":"12"}"#).state, Some(State::Closed));
    assert_eq!(ticket(&decoder, r#"{"number":"CHG1","state":"-100","active":"false"}"#).state, Some(State::Closed));
}

#[test]
fn a_time_sheet_row_is_a_worklog() {
    let decoder = decoder("servicenow");
    let row = r#"{"sys_id":"w1","task":{"value":"a1","link":"x"},"time_in_seconds":"900","sys_created_on":"2026-03-02 08:14:00"}"#;
    let ticket = ticket(&decoder, row);
    let millis = time("2026-03-02T08:14:00Z").map(jiff::Timestamp::as_millisecond);
    let worklog =
        Worklog { id: "w1".into(), seconds: 900, version: crate::ticket::Version { count: None, time: millis } };
    assert_eq!((ticket.key.as_str(), ticket.version, ticket.worklogs), ("a1", None, vec![worklog]));
}

const ISSUE: &str = r#"{"id":"20001","key":"SHOP-7","fields":{"project":{"key":"SHOP"},"issuetype":{"name":"[System] Incident"},
    "status":{"name":"In Review","statusCategory":{"key":"indeterminate"}},"resolution":null,"summary":"Basket is empty",
    "description":{"type":"doc","version":1,"content":[{"type":"paragraph","content":[{"type":"text","text":"Hello "},
        {"type":"mention","attrs":{"text":"@Mia"}},{"type":"hardBreak"},{"type":"text","text":"see"}]},
        {"type":"bulletList","content":[{"type":"listItem","content":[{"type":"paragraph","content":[{"type":"text","text":"one"}]}]},
        {"type":"listItem","content":[{"type":"paragraph","content":[{"type":"text","text":"two"}]}]}]}]},
    "reporter":{"accountId":"qm:5:6","displayName":"Ann Buyer","emailAddress":"ann@buyer.example","accountType":"customer"},
    "priority":{"name":"High","id":"2"},"components":[{"name":"Basket"}],"timespent":5400,"aggregatetimespent":9000,
    "timetracking":{"timeSpent":"1h 30m","timeSpentSeconds":5400},"created":"2026-03-02T09:14:00.000+0100","updated":"2026-03-02T10:00:00.500+0100",
    "customfield_10300":[{"id":"1","name":"Buyer Ltd"}]}}"#;

#[test]
fn jira_issues_bare_and_in_webhooks() {
    let decoder = Decoder::new(profile("jira", "organizations_field = \"customfield_10300\""));
    let webhook = format!(
        r#"{{"timestamp":1772442000600,"webhookEvent":"jira:issue_updated","user":{{"accountType":"atlassian","displayName":"Mia"}},
        "issue":{ISSUE},"changelog":{{"id":"1","items":[]}}}}"#
    );
    let wrapped = format!(r#"{{"startAt":0,"issues":[{ISSUE}]}}"#);
    for text in [ISSUE, &webhook, &wrapped] {
        let ticket = ticket(&decoder, text);
        assert_eq!((ticket.key.as_str(), ticket.id.as_deref()), ("20001", Some("SHOP-7")));
        assert_eq!((ticket.kind, ticket.state), (Some(Kind::Incident), Some(State::Open)));
        assert_eq!(ticket.description.as_deref(), Some("Hello @Mia\nsee\none\ntwo"));
        assert_eq!(ticket.requester.as_deref(), Some("Ann Buyer"));
        assert_eq!((ticket.requester_external, ticket.organization.as_deref()), (Some(true), Some("Buyer Ltd")));
        assert_eq!((ticket.service.as_deref(), ticket.priority.as_deref()), (Some("Basket"), Some("High")));
        assert_eq!((ticket.effort_seconds, ticket.opened_at), (Some(5400), time("2026-03-02T08:14:00Z")));
        assert_eq!(ticket.version.unwrap().time, Some(1_772_442_000_500));
        assert!(ticket.by_person && ticket.worklogs.is_empty());
    }
}

#[test]
fn jira_states() {
    let decoder = decoder("jira");
    for (status, category, resolution, state) in [
        ("To Do", "new", "null", State::New),
        ("Anything", "indeterminate", "null", State::Open),
        ("Waiting for customer", "indeterminate", "null", State::Pending),
        ("Waiting for support", "indeterminate", "null", State::Open),
        ("Fertig", "done", r#"{"name":"Done"}"#, State::Resolved),
        ("Fertig", "done", "null", State::Closed),
        ("Closed", "done", r#"{"name":"Done"}"#, State::Closed),
        ("Done", "done", r#"{"name":"Won't Do"}"#, State::Cancelled),
        ("Declined", "done", r#"{"name":"Done"}"#, State::Cancelled),
        ("Reopened", "new", "null", State::Open),
    ] {
        let text = format!(
            r#"{{"id":"1","fields":{{"status":{{"name":"{status}","statusCategory":{{"key":"{category}"}}}},"resolution":{resolution}}}}}"#
        );
        assert_eq!(ticket(&decoder, &text).state, Some(state), "{text}");
    }
}

#[test]
fn jira_worklogs_come_without_their_issue() {
    let decoder = decoder("jira");
    let event = |name: &str| {
        format!(
            r#"{{"timestamp":1772442009000,"webhookEvent":"{name}","worklog":{{"id":"501","issueId":"20001","timeSpent":"1w",
            "timeSpentSeconds":144000,"updated":"2026-03-02T09:00:00.000+0000","author":{{"displayName":"Mia"}}}}}}"#
        )
    };
    for (name, seconds, time) in
        [("worklog_created", 144_000, 1_772_442_000_000), ("worklog_deleted", 0, 1_772_442_009_000)]
    {
        let ticket = ticket(&decoder, &event(name));
        let version = crate::ticket::Version { count: None, time: Some(time) };
        assert_eq!((ticket.key.as_str(), ticket.id, ticket.version), ("20001", None, None));
        assert_eq!(ticket.worklogs, [Worklog { id: "501".into(), seconds, version }], "{name}");
    }
}

#[test]
fn jira_events_beside_issues() {
    let decoder = decoder("jira");
    for name in ["sprint_started", "user_created", "jira:version_released", "comment_created"] {
        ignored(&decoder, &format!(r#"{{"webhookEvent":"{name}","timestamp":1772442009000,"comment":{{"id":"1"}}}}"#));
    }
    let comment = r#"{"webhookEvent":"comment_created","timestamp":1772442009000,"comment":{"id":"1"},"issue":{"id":"20001","key":"SHOP-7","fields":{}}}"#;
    let touch = ticket(&decoder, comment);
    assert_eq!((touch.by_person, touch.version.unwrap().time, touch.state), (true, Some(1_772_442_009_000), None));
    assert!(ticket(&decoder, r#"{"webhookEvent":"jira:issue_deleted","issue":{"id":"20001","key":"SHOP-7"}}"#).deleted);
    let robot =
        r#"{"webhookEvent":"jira:issue_updated","user":{"displayName":"Sync","accountType":"app"},"issue":{"id":"1"}}"#;
    assert!(!ticket(&decoder, robot).by_person);
}

#[test]
fn a_jira_export() {
    let decoder = decoder("jira");
    let row = r#"{"Summary":"Basket","Issue key":"SHOP-7","Issue id":"20001","Issue Type":"Service Request","Status":"Done","Resolution":"",
        "Created":"30/Jul/18 23:33","Updated":"02/Oct/26 11:12 AM","Labels":["a","b"],"Time Spent":"3600","Reporter":"Ann"}"#;
    let ticket = ticket(&decoder, row);
    assert_eq!((ticket.key.as_str(), ticket.kind, ticket.state), ("20001", Some(Kind::Request), Some(State::Closed)));
    assert_eq!(ticket.updated_at, time("2026-10-02T11:12:00Z"));
    assert_eq!((ticket.effort_seconds, ticket.category.as_deref()), (Some(3600), Some("a")));
    let relative = r#"{"id":"1","fields":{"updated":"Today 12:51 AM","created":"01/Mar/23 11:34 AM"}}"#;
    let bare = self::ticket(&decoder, relative);
    assert_eq!((bare.updated_at, bare.opened_at), (None, None));
}

#[test]
fn zendesk_tickets_and_events() {
    let decoder = Decoder::new(profile("zendesk", "total_time_field = 360001\nrequesters_external = true"));
    let row = r#"{"id":35,"status":"open","type":"incident","priority":"high","subject":"Parcel","raw_subject":"{{dc.parcel}}","description":"Where is it?",
        "requester_id":2097,"organization_id":509,"via":{"channel":"web","source":{"from":{},"rel":null}},
        "custom_fields":[{"id":360000,"value":"x"},{"id":360001,"value":"745"}],"generated_timestamp":1772442010,
        "created_at":"2026-03-02T08:14:00Z","updated_at":"2026-03-02T09:00:00Z"}"#;
    let event = r#"{"type":"zen:event-type:ticket.status_changed","account_id":1,"id":"c-e","time":"2026-03-02T09:00:10.672717030Z","subject":"zen:ticket:35",
        "zendesk_event_version":"2022-11-06","detail":{"id":"35","status":"OPEN","priority":"HIGH","type":"INCIDENT","requester_id":"2097","organization_id":"509",
        "subject":"Parcel","description":"Where is it?","created_at":"2026-03-02T08:14:00Z","updated_at":"2026-03-02T09:00:00Z"},"event":{"current":"OPEN","previous":"NEW"}}"#;
    let page = format!(r#"{{"tickets":[{row}],"end_of_stream":true}}"#);
    for (text, effort) in [(row, Some(745)), (&page, Some(745)), (event, None)] {
        let ticket = ticket(&decoder, text);
        assert_eq!((ticket.key.as_str(), ticket.kind, ticket.state), ("35", Some(Kind::Incident), Some(State::Open)));
        assert_eq!((ticket.summary.as_deref(), ticket.requester.as_deref()), (Some("Parcel"), Some("2097")));
        assert_eq!((ticket.effort_seconds, ticket.requester_external), (effort, Some(true)));
        assert_eq!(ticket.version.unwrap().time.map(|t| t / 1000), Some(1_772_442_010));
        assert_eq!((ticket.follows, ticket.merged_into, ticket.deleted), (None, None, false));
    }
}

#[test]
fn zendesk_ends() {
    let decoder = decoder("zendesk");
    assert!(ticket(&decoder, r#"{"id":1,"status":"deleted"}"#).deleted);
    let merged =
        r#"{"type":"zen:event-type:ticket.merged","id":"e","detail":{"id":"1"},"event":{"target_ticket_id":"2"}}"#;
    let merged = ticket(&decoder, merged);
    assert_eq!((merged.merged_into.as_deref(), merged.state), (Some("2"), Some(State::Closed)));
    let follow_up = r#"{"id":9,"status":"solved","via":{"source":{"rel":"follow_up","from":{"ticket_id":5}}}}"#;
    let follow_up = ticket(&decoder, follow_up);
    assert_eq!((follow_up.follows.as_deref(), follow_up.state), (Some("5"), Some(State::Resolved)));
    assert!(ticket(&decoder, r#"{"type":"zen:event-type:ticket.soft_deleted","id":"e","detail":{"id":"1"}}"#).deleted);
    ignored(&decoder, r#"{"type":"zen:event-type:user.created","id":"e","detail":{"id":"1"}}"#);
    let side_loaded = r#"{"id":9,"requester":{"id":1,"name":"Ann","role":"end-user","email":"ann@buyer.example"}}"#;
    let side_loaded = ticket(&decoder, side_loaded);
    assert_eq!((side_loaded.requester_external, side_loaded.requester.as_deref()), (Some(true), Some("Ann")));
}

#[test]
fn generic_reads_its_fields_from_json_and_headings() {
    let decoder = decoder("generic");
    for text in [
        r#"{"id":17,"kind":"incident","state":"resolved","summary":"s","description":null,"requester_email":"a@b.example","service":"shop",
            "opened_at":"2026-03-02T08:14:00Z","effort_seconds":5400,"version":"7","affects":"customer"}"#,
        r#"{"ID":"17","Kind":"Incident","State":"Resolved","Summary":"s","Requester Email":"a@b.example","Service":"shop",
            "Opened At":"1772439240","Effort Seconds":"5400","Version":"7","Affects":"Customer","Description":"","Group":""}"#,
    ] {
        let ticket = ticket(&decoder, text);
        assert_eq!((ticket.key.as_str(), ticket.id.as_deref()), ("17", Some("17")));
        assert_eq!((ticket.kind, ticket.state), (Some(Kind::Incident), Some(State::Resolved)));
        assert_eq!(ticket.requester_email.as_deref(), Some("a@b.example"));
        assert_eq!(ticket.opened_at, time("2026-03-02T08:14:00Z"));
        assert_eq!((ticket.effort_seconds, ticket.version.unwrap().count), (Some(5400), Some(7)));
        assert_eq!((ticket.declared, ticket.group), (Some(Affects::Customer), None));
    }
}

#[test]
fn versions_fall_back_on_times() {
    let decoder = decoder("generic");
    let version = |text: &str, timestamp| {
        let record = Record { timestamp, ..record("topic", text) };
        match decoder.decode(&record).unwrap() {
            Decoded::Tickets(tickets) => tickets[0].version.map(|v| (v.count, v.time)),
            Decoded::Ignored(why) => panic!("{why}"),
        }
    };
    assert_eq!(version(r#"{"id":"1"}"#, None), Some((None, None)));
    assert_eq!(version(r#"{"id":"1"}"#, Some(5)), Some((None, Some(5))));
    assert_eq!(version(r#"{"id":"1","version":3}"#, Some(5)), Some((Some(3), None)));
    assert_eq!(version(r#"{"id":"1","updated_at":"junk"}"#, Some(5)), Some((None, Some(5))));
    assert_eq!(version(r#"{"id":"1","version":"2026-03-02T08:14:00Z"}"#, None), Some((None, Some(1_772_439_240_000))));
}

#[test]
fn hostile_documents_are_refused_without_their_text() {
    let decoder = decoder("servicenow");
    let deep = "[".repeat(100_000);
    let deep_field = format!(r#"{{"number":"INC1","description":{}"#, "{\"a\":".repeat(300));
    for (text, reason) in [
        (b"\xff\xfe{}".as_slice(), Reason::Undecodable),
        (b"", Reason::Undecodable),
        (b"\0", Reason::Undecodable),
        (b"\0\0\0\0\x01Obj", Reason::Undecodable),
        (b"secret words", Reason::Undecodable),
        (b"\"secret words\"", Reason::Undecodable),
        (b"17", Reason::Undecodable),
        (b"{}", Reason::Unmappable),
        (b"[{}]", Reason::Unmappable),
        (br#"{"number":""}"#, Reason::Unmappable),
        (br#"{"number":{"display_value":null,"value":""}}"#, Reason::Unmappable),
        (br#"{"number":[[[]]]}"#, Reason::Unmappable),
        (br#"{"number":"INC1"} secret"#, Reason::Undecodable),
        (br#"{"number":"INC1","opened_at":1e999}"#, Reason::Undecodable),
        (br#"{"number":"INC1","__status":"failure","__error":{"message":"secret"}}"#, Reason::VendorError),
        (br#"{"error":{"message":"secret"},"status":"failure"}"#, Reason::VendorError),
        (deep.as_bytes(), Reason::Undecodable),
        (deep_field.as_bytes(), Reason::Undecodable),
    ] {
        let refusal = refused(&decoder, text);
        assert_eq!(refusal.reason, reason, "{refusal}");
        assert!(!refusal.detail.contains("secret"), "{refusal}");
    }
    let nested = (0..9).fold(OUTAGE_RAW.to_owned(), |inner, _| format!(r#"{{"schema":1,"payload":{inner}}}"#));
    assert_eq!(refused(&decoder, nested.as_bytes()).reason, Reason::BadEnvelope);
}

#[test]
fn lone_surrogates_matter_only_where_somebody_reads() {
    let decoder = decoder("servicenow");
    let refusal = refused(&decoder, br#"{"number":"INC1","short_description":"secret \ud800 words"}"#);
    assert_eq!(refusal.reason, Reason::Undecodable);
    assert!(refusal.detail.contains("`short_description`"), "{refusal}");
    assert!(!refusal.detail.contains("secret"), "{refusal}");
    assert_eq!(ticket(&decoder, r#"{"number":"INC1","u_other":"\ud800"}"#).key, "INC1");
}

#[test]
fn odd_values_cost_their_field_and_not_the_ticket() {
    let decoder = decoder("servicenow");
    let text = r#"{"number":"INC1","state":{"x":1},"opened_at":"tickets[0]_updated_at","priority":true,"time_worked":-5,"reopen_count":"many",
        "assignment_group":[{"name":""},{"name":"Net"}],"caller_id":[],"sys_mod_count":99999999999999999999,"cmdb_ci":"a\u0000b","number":"INC2"}"#;
    let ticket = ticket(&decoder, text);
    assert_eq!(ticket.key, "INC2");
    assert_eq!((ticket.state, ticket.opened_at, ticket.effort_seconds, ticket.reopened), (None, None, None, None));
    assert_eq!((ticket.group.as_deref(), ticket.requester.as_deref()), (Some("Net"), None));
    assert_eq!(ticket.version.unwrap().count, None);
    assert_eq!(ticket.ci.as_deref(), Some("a\0b"));
}

#[test]
fn problems_of_profiles_and_options_are_all_found() {
    let load = |name: &str, options: &str| {
        let options = document::parse("config.toml", options, &mut Problems::new());
        Profile::load(name, &[], Some(&options), None).expect_err("must have problems").to_string()
    };
    assert!(load("servicenov", "").contains("did you mean `servicenow`?"));
    let found =
        load("servicenow", "timezon = \"UTC\"\ntimezone = \"Mars\"\nkind = \"incidnt\"\nrequesters_external = 1");
    for part in ["`timezone`?", "`Mars` is no known time zone", "did you mean `incident`?", "config.toml:4:23"] {
        assert!(found.contains(part), "{part} in {found}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("own.toml"),
        "[fields]\nid = \"a..b\"\nsumary = \"x\"\n[[state]]\npaths = \"{nothing}\"\nvalues = { a = \"opn\" }",
    )
    .unwrap();
    let found = Profile::load("own", &[folder.path().to_owned()], None, None).expect_err("broken").to_string();
    for part in ["`a..b` is no path", "did you mean `summary`?", "`nothing` is not declared", "did you mean `open`?"] {
        assert!(found.contains(part), "{part} in {found}");
    }
    assert!(Profile::names(&[folder.path().to_owned()]).contains(&"own".to_owned()));
}

#[test]
fn every_shipped_profile_loads() {
    for name in Profile::names(&[]) {
        Decoder::new(profile(&name, ""));
    }
}

/// JSON that is nearly what some vendor sends.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let seeds = prop::sample::select(vec![
        OUTAGE_RAW.to_owned(),
        OUTAGE_ALL.to_owned(),
        OUTAGE_TYPED.to_owned(),
        format!(r#"{{"specversion":"1.0","id":"1","source":"/x","type":"row","data":{{"op":"u","after":{OUTAGE_RAW}}}}}"#),
        r#"{"webhookEvent":"worklog_created","worklog":{"id":"1","issueId":"2","timeSpentSeconds":60}}"#.to_owned(),
        r#"{"issue":{"id":"1","key":"A-1","fields":{"description":{"type":"doc","content":[{"type":"text","text":"x"}]}}}}"#.to_owned(),
        r#"{"tickets":[{"id":1,"custom_fields":[{"id":1,"value":"7"}],"via":{"channel":"web"}}]}"#.to_owned(),
    ]);
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "null",
        "1e9",
        "\\ud800",
        "\u{0}",
        "-",
        "9999999999999999999",
    ]);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), pieces, 0usize..12), 0..6);
    (seeds, edits).prop_map(|(seed, edits)| {
        let mut bytes = seed.into_bytes();
        for (at, piece, cut) in edits {
            let at = at.index(bytes.len().max(1)).min(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece.bytes());
        }
        bytes
    })
}

proptest! {
    #[test]
    fn nothing_panics(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), nearly_json()]) {
        thread_local! {
            static DECODERS: Vec<Decoder> = Profile::names(&[]).iter().map(|name| decoder(name)).collect();
        }
        let mut record = record("topic", "");
        record.value = Some(bytes);
        DECODERS.with(|decoders| decoders.iter().for_each(|decoder| drop(decoder.decode(&record))));
    }
}
