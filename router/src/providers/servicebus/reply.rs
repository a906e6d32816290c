//! What the ServiceBus answers: to programs of its machine always with status 200, and in the body what
//! came of the call.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use edgemesh_core::forward::inbox::AnswerBody;
use edgemesh_core::refusal::Refusal;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use tokio::time::timeout;

use crate::providers::servicebus::call::Refused;
use crate::providers::whole::{Unread, whole};

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 12 * 1024 * 1024;
/// KubeEdge's words for an answer of the target, whatever it says.
const ANSWERED: &str = "receive response from cloud successfully";

/// In this order, as KubeEdge writes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Reply {
    code: u16,
    msg: Cow<'static, str>,
    body: String,
    /// Of a body that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

impl Reply {
    /// The answer of the target, with its own status; never a part of it.
    pub(super) async fn of(answer: Response<AnswerBody>, within: Duration) -> Self {
        let code = answer.status().as_u16();
        let bytes = match timeout(within, whole(answer.into_body(), MAX_ANSWER)).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(Unread::TooLarge)) => {
                let most = MAX_ANSWER / (1024 * 1024);
                return Self::said(502, format!("the answer is larger than {most} MiB"));
            }
            Ok(Err(Unread::Broken(error))) => {
                return Self::said(502, format!("the answer broke off before its end: {error}"));
            }
            Err(_) => return Self::said(504, "the answer did not come to its end in time"),
        };
        let (body, encoding) = match String::from_utf8(bytes.into()) {
            Ok(text) => (text, None),
            Err(error) => (STANDARD.encode(error.as_bytes()), Some("base64")),
        };
        Self { code, msg: ANSWERED.into(), body, encoding }
    }

    /// The call was not made.
    pub(super) fn refused(refused: &Refused) -> Self {
        match refused {
            Refused::Invalid => Self::said(400, "invalid params"),
            Refused::NotAllowed(url) => {
                let rule = "is not allowed and please make a rule for this url in the cloud";
                Self::said(400, format!("url {url} {rule}"))
            }
            Refused::TooLarge => Self::said(413, "the request is larger than 5000000 bytes"),
            Refused::TooSlow => Self::said(408, "the request did not come to its end in time"),
        }
    }

    /// There is no answer.
    pub(super) fn failed(refusal: Refusal, reason: &str) -> Self {
        Self::said(refusal.row().http, reason.to_owned())
    }

    /// It was not asked by a program of this machine. A page reads no more than that.
    pub(super) fn forbidden() -> Response<Full<Bytes>> {
        let why = "the ServiceBus answers to programs of its own machine only";
        let mut response = Self::said(403, why).into_response();
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    }

    fn said(code: u16, msg: impl Into<Cow<'static, str>>) -> Self {
        Self { code, msg: msg.into(), body: String::new(), encoding: None }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        // Numbers and texts can always be written.
        let text = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Full::new(text.into()));
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}
