//! Why there is no connection to a broker, in words.

use std::io;

use edgemesh_core::refusal::Refusal;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError};

use crate::providers::connect::{Place, Unreached};

/// What became of a connection, or of the attempt to make one.
pub(super) fn unreached(error: &ConnectionError, broker: &Place) -> Unreached {
    let failed = |why: String| Unreached {
        refusal: Refusal::ConnectFailed,
        reason: format!("the broker at {broker} {why}").into(),
    };
    match error {
        ConnectionError::Io(error) => match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some(Unreached { refusal, reason }) => {
                Unreached { refusal: *refusal, reason: format!("the broker at {reason}").into() }
            }
            None => failed(of_io(error)),
        },
        ConnectionError::ConnectionRefused(code) => failed(refused(*code).into()),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => {
            Unreached { refusal: Refusal::ConnectTimeout, ..failed("does not answer".into()) }
        }
        ConnectionError::MqttState(error) => failed(of_state(error)),
        // Others come with features of the library that are off, and with its new versions.
        error => failed(format!("does not speak MQTT as expected ({error})")),
    }
}

const fn refused(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::BadUserNamePassword => "refuses the login (bad user name or password)",
        // mosquitto says this of a wrong password too.
        ConnectReturnCode::NotAuthorized => {
            "refuses the login (bad user name or password, or not authorised)"
        }
        ConnectReturnCode::BadClientId => "refuses the client id",
        ConnectReturnCode::RefusedProtocolVersion => "does not speak MQTT 3.1.1",
        ConnectReturnCode::ServiceUnavailable => "says that it is not available",
        ConnectReturnCode::Success => "took the login and broke the connection",
    }
}

fn of_state(error: &StateError) -> String {
    match error {
        StateError::Io(error) => of_io(error),
        StateError::ConnectionAborted => "closed the connection".into(),
        StateError::AwaitPingResp => "has fallen silent".into(),
        StateError::Deserialization(rumqttc::Error::Io(error)) => of_io(error),
        // Others come with new versions of the library.
        error => format!("does not speak MQTT as expected ({error})"),
    }
}

fn of_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed the connection".into(),
        _ => format!("broke the connection ({error})"),
    }
}
