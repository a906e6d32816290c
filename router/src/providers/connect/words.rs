//! Why a connection was not made, in words that help whoever wrote the Rule.

use std::io;

use rustls::{CertificateError, Error as TlsError};

/// The name was not resolved.
pub(super) fn of_look_up(error: &io::Error) -> String {
    format!("its name cannot be resolved ({error})")
}

/// Nobody took the connection.
pub(super) fn of_dial(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there (connection refused)".into(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("no way leads there ({error})")
        }
        _ => format!("cannot connect ({error})"),
    }
}

/// TLS failed.
pub(super) fn of_handshake(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match tls {
        Some(TlsError::InvalidCertificate(why)) => {
            format!("its certificate is not accepted: {}", of_certificate(why))
        }
        Some(TlsError::InvalidMessage(_)) => "it does not speak TLS".into(),
        Some(error) => format!("TLS failed: {error}"),
        None => format!("it broke the TLS handshake ({error})"),
    }
}

fn of_certificate(why: &CertificateError) -> String {
    use CertificateError as E;
    match why {
        // By the key of another authority of the same name, such as one that was set up again.
        E::UnknownIssuer | E::BadSignature => {
            "no authority that this machine trusts has signed it".into()
        }
        E::Expired | E::ExpiredContext { .. } => "it has expired".into(),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "it is not valid yet; is the clock of this machine right?".into()
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => "it is for another name".into(),
        // Others come with new versions of the library.
        other => other.to_string(),
    }
}
