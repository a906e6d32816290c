//! `/v1/registrations`: what runs on this machine is signed up, renewed, listed and taken away.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use edgemesh_core::health::Health;
use edgemesh_core::io::now;
use edgemesh_core::mesh::{Checked, Status};
use edgemesh_core::registrations::{Listed, Name, Registration, Rejected};

use crate::agent::admin::{State, fail};
use crate::api;

/// Longest body of a registration, in bytes.
const MAX_BODY: usize = 16 * 1024;

/// Said while nobody can tell which agent keeps it.
const HANDING_OVER: &str = "another agent takes over at this moment; try again in a second";

/// Namespace, Service and id in a path.
type Parts = Path<(String, String, String)>;
type Shared = Extract<Arc<State>>;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/registrations", get(async |Extract(s): Shared| Json(views(&s))))
        .route(
            "/v1/registrations/{namespace}/{service}/{id}",
            get(one).put(register).delete(remove),
        )
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn one(Extract(state): Shared, Path((namespace, service, id)): Parts) -> Response {
    match Name::new(&namespace, &service, &id) {
        Ok(name) => found(view(&state, &name)),
        Err(rejected) => refuse(&rejected),
    }
}

async fn register(
    Extract(state): Shared,
    Path((namespace, service, id)): Parts,
    body: Bytes,
) -> Response {
    let name = match Name::new(&namespace, &service, &id) {
        Ok(name) => name,
        Err(rejected) => return refuse(&rejected),
    };
    let registration = match read(&body) {
        Ok(registration) => registration,
        Err(reason) => return fail(StatusCode::BAD_REQUEST, &reason),
    };
    if !state.keeps() {
        return fail(StatusCode::SERVICE_UNAVAILABLE, HANDING_OVER);
    }
    let begun = now();
    match state.registrations.put(name.clone(), registration, begun).await {
        Err(rejected) => refuse(&rejected),
        Ok(kept) => {
            let named = state.named(begun).await;
            let mut view = view(&state, &name);
            if let (Some(view), Err(error)) = (&mut view, kept) {
                tracing::warn!(error = &error as &dyn std::error::Error, "not kept");
                view.note.get_or_insert_with(|| error.to_string());
            }
            if let (Some(view), Err(reason)) = (&mut view, named) {
                view.note.get_or_insert_with(|| reason.to_owned());
            }
            found(view)
        }
    }
}

async fn remove(Extract(state): Shared, Path((namespace, service, id)): Parts) -> Response {
    let name = match Name::new(&namespace, &service, &id) {
        Ok(name) => name,
        Err(rejected) => return refuse(&rejected),
    };
    if !state.keeps() {
        return fail(StatusCode::SERVICE_UNAVAILABLE, HANDING_OVER);
    }
    match state.registrations.remove(&name).await {
        true => StatusCode::NO_CONTENT.into_response(),
        false => found(None),
    }
}

fn read(body: &[u8]) -> Result<Registration, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    Ok(read)
}

fn refuse(rejected: &Rejected) -> Response {
    fail(StatusCode::BAD_REQUEST, &rejected.to_string())
}

fn found(view: Option<api::RegistrationView>) -> Response {
    let missing = || fail(StatusCode::NOT_FOUND, "no such registration");
    view.map_or_else(missing, |view| Json(view).into_response())
}

fn view(state: &State, name: &Name) -> Option<api::RegistrationView> {
    let listed = state.registrations.list().into_iter().find(|listed| listed.name == *name)?;
    Some(shown(&listed, &state.status.get(), now()))
}

fn views(state: &State) -> Vec<api::RegistrationView> {
    let (status, now) = (state.status.get(), now());
    state.registrations.list().iter().map(|listed| shown(listed, &status, now)).collect()
}

fn shown(listed: &Listed, status: &Status, now: Instant) -> api::RegistrationView {
    let Listed { name, registration, expires } = listed;
    let service = name.service();
    let health = registration.check.as_ref().map(|check| {
        let same = |checked: &&Checked| {
            checked.service == service
                && checked.address == registration.listens()
                && checked.check == *check
        };
        health(status.checked.iter().find(same).map_or(&Health::Unknown, |found| &found.health))
    });
    let object = format!("Registration {name}");
    let remark = status.remarks.iter().find(|remark| remark.object == object);
    let note = remark.map(|remark| remark.reason.clone());
    let well = health.as_ref().is_none_or(|health| health.state == api::HealthState::Healthy);
    api::RegistrationView {
        namespace: service.namespace.into(),
        service: service.name.into(),
        id: name.id().into(),
        address: registration.listens().to_string(),
        service_port: registration.service_port,
        check: registration.check.as_ref().map(ToString::to_string),
        ready: well && note.is_none(),
        health,
        left_seconds: expires.map(|at| at.saturating_duration_since(now).as_secs()),
        note,
    }
}

pub(super) fn health(health: &Health) -> api::HealthView {
    let (state, reason) = match health {
        Health::Unknown => (api::HealthState::Unknown, None),
        Health::Healthy => (api::HealthState::Healthy, None),
        Health::Unhealthy(reason) => (api::HealthState::Unhealthy, Some(reason.to_string())),
    };
    api::HealthView { state, reason }
}
