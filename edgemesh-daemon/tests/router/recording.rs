//! Recordings of KubeEdge's router: what a client asked for, what it saw, and what was delivered.

use std::path::Path;

use serde_json::Value;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../router/tests/vectors/router");

pub(crate) fn recorded() -> Vec<String> {
    let files = std::fs::read_dir(VECTORS).unwrap();
    let mut names: Vec<_> = files
        .filter_map(|file| {
            let name = file.unwrap().file_name().into_string().unwrap();
            Some(name.strip_prefix("case-")?.strip_suffix(".json")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

/// A recording.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) value: Value,
}

impl Case {
    pub(crate) fn read(name: &'static str) -> Self {
        let file = Path::new(VECTORS).join(format!("case-{name}.json"));
        Self { name, value: serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap() }
    }

    /// What is sent: the recording has small bodies as hexadecimals, of large ones the length.
    pub(crate) fn payload(&self, of: &str, text: &str, length: &str) -> Vec<u8> {
        let part = &self.value[of];
        match (part[text].as_str(), part[length].as_u64()) {
            (Some(hex), _) => bytes(hex),
            (None, length) => vec![b'z'; usize::try_from(length.unwrap_or(0)).unwrap()],
        }
    }

    /// Status and body that the client saw.
    pub(crate) fn answer(&self) -> (u16, String) {
        let raw = self.value["client_response"]["raw"].as_str().unwrap_or_default();
        let (head, body) = raw.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or(0), body.to_owned())
    }

    pub(crate) fn deliveries(&self) -> Vec<String> {
        let list = |key: &str| self.value[key].as_array().cloned().unwrap_or_default();
        let http = list("arrived_at_http_apps").into_iter().map(|one| {
            let text = |key: &str| one[key].as_str().unwrap().to_owned();
            format!("{} {}", text("method"), text("request_uri"))
        });
        let mqtt = list("arrived_at_mqtt")
            .into_iter()
            .map(|one| format!("{} {}", one["topic"].as_str().unwrap(), one["len"]));
        http.chain(mqtt).collect()
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
