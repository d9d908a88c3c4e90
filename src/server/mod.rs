//! `/metrics`, health, and the status page. No ticket text ever passes here but by `POST /explain`, which is off unless it
//! is enabled, and answers with the text that it was sent.

mod explain;
mod status;

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

pub use explain::Explainer;

use crate::status::Status;

/// The status page: one file without a request to anywhere else.
const PAGE: &str = include_str!("status.html");

/// Serves until the runtime ends; with `explainer`, also `POST /explain`.
pub async fn serve(listener: tokio::net::TcpListener, status: Arc<Status>, explainer: Option<Explainer>) {
    let explain = explainer.map_or(Router::new(), |explainer| explain::routes(explainer, status.clone()));
    let routes = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/status.json", get(async |State(status): State<Arc<Status>>| Json(status::summary(&status))))
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .fallback(async || {
            (StatusCode::NOT_FOUND, "not found; there are /, /metrics, /livez, /readyz, /status.json, and POST /explain with `[http] explain = true`\n")
        })
        .with_state(status)
        .merge(explain);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the server ended");
    }
}

async fn ready(State(status): State<Arc<Status>>) -> Response {
    match status.not_ready() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> Response {
    status.metrics.lag.reset();
    for (partition, lag) in status.source.state().lag() {
        status.metrics.lag.with_label_values(&[&*partition.topic, &partition.number.to_string()]).set(lag);
    }
    match status.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
