//! What an application asks of the ServiceBus.

use std::fmt;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    /// What Rules know it by, to the letter.
    pub(super) target_url: String,
    /// What is sent.
    pub(super) request: Request<Full<Bytes>>,
}

/// Why a call is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no JSON object of the form that is wanted, or its method is none.
    Invalid,
    /// No Rule takes calls for this URL.
    NotAllowed(String),
    /// It has too many bytes.
    TooLarge,
    /// They did not come in time.
    TooSlow,
}

#[derive(Default)]
struct Form<'f> {
    method: Option<String>,
    target_url: Option<String>,
    payload: Option<&'f RawValue>,
}

/// An object, as Go reads one: the case of its keys means nothing, and of two the later counts.
impl<'de> Deserialize<'de> for Form<'de> {
    fn deserialize<D: Deserializer<'de>>(form: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Form<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Form<'de>, M::Error> {
                let mut form = Form::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.to_ascii_lowercase().as_str() {
                        // `null` says nothing.
                        "method" => form.method = map.next_value::<Option<_>>()?.or(form.method),
                        "targeturl" => {
                            form.target_url = map.next_value::<Option<_>>()?.or(form.target_url);
                        }
                        "payload" => form.payload = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(form)
            }
        }
        form.deserialize_map(Object)
    }
}

impl Call {
    /// Reads the body of a request.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refused> {
        let form: Form<'_> = serde_json::from_slice(body).map_err(|_| Refused::Invalid)?;
        let method = match form.method.as_deref() {
            None | Some("") => Method::POST,
            Some(text) => Method::from_bytes(text.to_ascii_uppercase().as_bytes())
                .ok()
                .filter(|method| *method != Method::CONNECT)
                .ok_or(Refused::Invalid)?,
        };
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        let payload = form.payload.map_or("null", RawValue::get);
        if payload.starts_with('"') {
            let text: String = serde_json::from_str(payload).map_err(|_| Refused::Invalid)?;
            *request.body_mut() = Full::new(text.into());
        } else if payload != "null" {
            *request.body_mut() = Full::new(compact(payload).into());
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        Ok(Self { target_url: form.target_url.unwrap_or_default(), request })
    }
}

/// The same JSON without blanks. Not parsed: numbers and the order of keys stay what they were.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keeps = |c: &char| {
        let kept = in_string || !c.is_ascii_whitespace();
        in_string ^= *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        kept
    };
    json.chars().filter(keeps).collect()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn calls() {
        for (body, want) in [
            (r#"{"method":"PUT","targetURL":"u","payload":"a\nb"}"#, "PUT u - a\nb"),
            (
                r#"{"targetURL":"u","payload":{"b": [1, 2.0], "a": "x \" y"}}"#,
                "POST u json {\"b\":[1,2.0],\"a\":\"x \\\" y\"}",
            ),
            (r#"{"method":"get","targetURL":"u","payload":null}"#, "GET u - "),
            (r#"{"method":"","targetURL":"u"}"#, "POST u - "),
            (
                r#"{"targetURL":"u","payload":12345678901234567890123}"#,
                "POST u json 12345678901234567890123",
            ),
            (r#"{"targetURL":"u","payload":""}"#, "POST u - "),
            (r#"{"payload":"x"}"#, "POST  - x"),
            (r#"{"method":"G T","targetURL":"u"}"#, "invalid"),
            (r#"{"method":"CONNECT","targetURL":"u"}"#, "invalid"),
            (r#"{"method":1,"targetURL":"u"}"#, "invalid"),
            (r#"{"Method":"put","TARGETURL":"u","PayLoad":"x"}"#, "PUT u - x"),
            (r#"{"targetUrl":"a","targeturl":"u","method":"GET","METHOD":null}"#, "GET u - "),
            (r#"{"other":{"method":"PUT"},"targetURL":"u"}"#, "POST u - "),
            (r#"["PUT","u","x"]"#, "invalid"),
            ("\"u\"", "invalid"),
            ("not json", "invalid"),
            ("", "invalid"),
        ] {
            let got = match Call::parse(body.as_bytes()) {
                Ok(Call { target_url, request }) => {
                    let kind = request.headers().get(CONTENT_TYPE).map_or("-", |_| "json");
                    let method = request.method().clone();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    format!("{method} {target_url} {kind} {}", str::from_utf8(&body).unwrap())
                }
                Err(_) => "invalid".into(),
            };
            assert_eq!(got, want, "{body}");
        }
    }

    #[test]
    fn blanks_in_texts_stay() {
        let text = "{ \"a\\\\\" : \" \\\" , \" ,\n\t\"b\" : [ 1 , 2 ] }";
        assert_eq!(compact(text), "{\"a\\\\\":\" \\\" , \",\"b\":[1,2]}");
    }
}
