//! `POST /explain`: why a ticket gets its tag, over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;

use crate::config::Config;
use crate::diagnostic::Problems;
use crate::profile::{Decoded, Decoder, Profile};
use crate::record::{Partition, Record};
use crate::status::Status;

/// The profile of events that do not name one.
const DEFAULT_PROFILE: &str = "generic";

/// How events become tickets.
#[derive(Debug)]
pub struct Explainer {
    /// By profile: those of the inputs, and `generic`.
    decoders: BTreeMap<String, Decoder>,
    max_record_bytes: usize,
}

impl Explainer {
    /// The explainer that a configuration asks for; `None` where it does not.
    ///
    /// # Errors
    /// All problems of the profiles.
    pub fn new(config: &Config) -> Result<Option<Self>, Problems> {
        if !config.http.explain {
            return Ok(None);
        }
        let mut decoders = BTreeMap::new();
        for name in config.input.iter().map(|input| input.profile.as_str()).chain([DEFAULT_PROFILE]) {
            let profile = Profile::load(name, &config.patterns.profiles, config.profile.get(name), None)?;
            decoders.insert(name.to_owned(), Decoder::new(profile));
        }
        Ok(Some(Self { decoders, max_record_bytes: config.batch.max_record_bytes }))
    }
}

/// The query of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    profile: Option<String>,
}

/// The route.
pub(super) fn routes(explainer: Explainer, status: Arc<Status>) -> Router {
    let limit = DefaultBodyLimit::max(explainer.max_record_bytes);
    Router::new().route("/explain", post(explain)).layer(limit).with_state((Arc::new(explainer), status))
}

/// Takes one event as its topic holds it, and answers with the explanation of each ticket in it.
async fn explain(
    State((explainer, status)): State<(Arc<Explainer>, Arc<Status>)>,
    Query(asked): Query<Asked>,
    body: Bytes,
) -> Response {
    let name = asked.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    let Some(decoder) = explainer.decoders.get(name) else {
        let known = explainer.decoders.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return (StatusCode::NOT_FOUND, format!("no profile `{name}` here; known: {known}\n")).into_response();
    };
    match tokio::task::block_in_place(|| decoder.decode(&record(&body))) {
        Err(refusal) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{refusal}\n")).into_response(),
        Ok(Decoded::Ignored(why)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, format!("the event carries no ticket: {why}\n")).into_response()
        }
        Ok(Decoded::Tickets(tickets)) => {
            let rules = status.rules();
            let explanations =
                tokio::task::block_in_place(|| tickets.iter().map(|t| rules.explain(t)).collect::<Vec<_>>());
            Json(explanations).into_response()
        }
    }
}

/// The body as a record of a topic.
fn record(body: &Bytes) -> Record {
    Record {
        partition: Partition { topic: "explain".into(), number: 0 },
        offset: 0,
        timestamp: None,
        key: None,
        headers: Vec::new(),
        value: Some(body.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{Classifier, ClassifierOptions, PackSource};
    use crate::metrics::Metrics;

    /// Serves with the built-in packs, and gives the address of `/explain`.
    fn served(settings: &[&str]) -> (tokio::runtime::Runtime, String) {
        let mut all = vec!["kafka.brokers=x".to_owned(), "input=[{topic='t', profile='servicenow'}]".to_owned()];
        all.extend(settings.iter().map(|&setting| setting.to_owned()));
        let (config, _) = Config::load(None, &crate::config::Overrides { set: all, ..Default::default() }).unwrap();
        let options = ClassifierOptions { packs: vec![PackSource::BuiltIn], ..ClassifierOptions::default() };
        let metrics = Metrics::new().unwrap();
        let status = Status::new(
            Arc::new(Classifier::load(&options).unwrap()),
            "none",
            Arc::new(metrics),
            config.http.stuck_after,
        );
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}/explain", listener.local_addr().unwrap());
        runtime.spawn(crate::server::serve(listener, Arc::new(status), Explainer::new(&config).unwrap()));
        (runtime, address)
    }

    fn ask(address: &str, body: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.post(address).send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    #[test]
    fn the_answer_is_that_of_the_command() {
        let (_runtime, address) = served(&["http.explain=true"]);
        let (status, body) = ask(&address, r#"{"id":"7","summary":"Customers cannot check out in the web shop"}"#);
        assert_eq!(status, 200, "{body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&answer[0]["id"], &answer[0]["affects"]), (&"7".into(), &"customer".into()), "{body}");
        assert!(answer[0]["fields"][0]["matches"][0]["file"].is_string(), "{body}");
    }

    #[test]
    fn what_cannot_be_explained_is_said() {
        let (_runtime, address) = served(&["http.explain=true"]);
        for (query, body, status, said) in [
            ("", "{", 422, "EOF while parsing"),
            ("?profile=jira", "{}", 404, "known: generic, servicenow"),
            ("?profil=jira", "{}", 400, "profil"),
        ] {
            let answer = ask(&format!("{address}{query}"), body);
            assert!(answer.0 == status && answer.1.contains(said), "{query} {body}: {answer:?}");
        }
    }

    #[test]
    fn it_is_off_unless_enabled() {
        let (_runtime, address) = served(&[]);
        let (status, body) = ask(&address, "{}");
        assert!(status == 404 && body.contains("[http] explain = true"), "{status} {body}");
    }
}
