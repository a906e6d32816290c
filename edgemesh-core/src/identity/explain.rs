//! One sentence for a handshake that failed, with the cause and what to do, at either end of it.
//!
//! The end that refuses knows why; the other gets a TLS alert, a byte. Our verifiers cause each
//! alert for one reason only, so that the byte can be read as that reason again.

use std::error::Error;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::fmt_http_date;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage};

use crate::identity::name::Subject;

/// What went wrong in a handshake, found in `error` or what caused it.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return of_tls(tls);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            match io.get_ref() {
                Some(inner) if inner.is::<TlsError>() => {
                    at = Some(inner);
                    continue;
                }
                Some(_) | None => return of_io(io),
            }
        }
        at = error.source();
    }
    error.to_string()
}

fn of_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => {
            format!(
                "the other side closed the connection during the handshake ({error}): it is \
                 stopping, or something else than EdgeMesh listens there"
            )
        }
        _ => error.to_string(),
    }
}

fn of_tls(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(error) => of_certificate(error),
        TlsError::AlertReceived(alert) => of_alert(*alert),
        TlsError::NoCertificatesPresented => "the other side showed no certificate: it has not \
             joined this cloud; join it with a token"
            .into(),
        TlsError::NoApplicationProtocol => {
            "the other side speaks TLS, but no protocol of EdgeMesh: correct the address, or run \
             the same version on both ends"
                .into()
        }
        TlsError::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge,
        ) => "the other side speaks no TLS but plain text or another protocol: correct the \
             address or port"
            .into(),
        TlsError::PeerIncompatible(what) => {
            format!(
                "the other side speaks no TLS 1.3 as EdgeMesh does ({what:?}): it is something else"
            )
        }
        TlsError::InvalidMessage(_)
        | TlsError::InappropriateMessage { .. }
        | TlsError::InappropriateHandshakeMessage { .. }
        | TlsError::PeerMisbehaved(_)
        | TlsError::PeerSentOversizedRecord
        | TlsError::DecryptError => {
            format!(
                "the other side breaks the rules of TLS ({error}): bytes were damaged on the \
                     way, or it is something else than EdgeMesh"
            )
        }
        _ => error.to_string(), // rustls may add to its list
    }
}

/// Why we refused the other side's certificate.
fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "its certificate expired on {}, {} before what is now ({}), longer than offlineGrace \
             allows: join that node again with a new token; if the time is wrong, set this \
             machine's clock",
            date(*not_after),
            days(time.as_secs().saturating_sub(not_after.as_secs())),
            date(*time),
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate begins on {} only, and this machine's clock says {}: set this \
             machine's clock, else the cloud's",
            date(*not_before),
            date(*time),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "{} answers, not {}: the address leads to somebody else",
            presented.first().map_or_else(|| "somebody else".into(), |name| who(name)),
            match expected {
                ServerName::DnsName(name) => who(name.as_ref()),
                other => other.to_str().into_owned(),
            },
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate names this cloud, but this cloud's CA did not give it to that \
             machine: it is forged or stolen, or of a CA that was replaced; join that node again \
             with a token"
                .into()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for this use: the hub's cannot dial; run an agent with an \
             identity of its own"
                .into()
        }
        CertificateError::BadEncoding => {
            "its certificate is none of EdgeMesh: something else is at that end".into()
        }
        CertificateError::Other(other) => other.0.to_string(),
        _ => format!("its certificate cannot be accepted: {error}"), // rustls may add to its list
    }
}

/// Why the other side refused us.
fn of_alert(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::CertificateUnknown => {
            "we belong to another cloud than the other side, or the token is for another one: \
             join with a token of that cloud, or correct the address"
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the other side's CA did not give us our certificate: its CA was replaced, or our key \
             is not that of our certificate; join again with a token"
        }
        AlertDescription::CertificateExpired => {
            "by the other side's clock our certificate expired longer ago than offlineGrace \
             allows, or begins later: join again with a new token; if our certificate is fine, \
             set the clock of the other side"
        }
        AlertDescription::CertificateRequired => {
            "the other side wants a certificate and we have none: this node has not joined; give \
             it a token"
        }
        AlertDescription::BadCertificate => {
            "we are not whom the other side expected at this address: correct the address that it \
             dials"
        }
        AlertDescription::UnsupportedCertificate => {
            "the other side does not take our certificate for this use: the hub's cannot dial"
        }
        AlertDescription::NoApplicationProtocol => {
            "the other side knows no protocol that we offered: correct the address, or run the \
             same version on both ends"
        }
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
            "the other side speaks no TLS 1.3 as EdgeMesh does: something else listens there"
        }
        _ => return format!("the other side ended the handshake with the TLS alert {alert:?}"),
    };
    format!("refused by the other side: {why}")
}

/// `edge-1.node.edgemesh` as people say it.
fn who(dns: &str) -> String {
    Subject::from_dns(dns).map_or_else(|| dns.to_owned(), |subject| subject.to_string())
}

fn date(time: UnixTime) -> String {
    /// Beyond the year 9999 there is no such text.
    const MOST: u64 = 253_402_300_799;
    fmt_http_date(UNIX_EPOCH + Duration::from_secs(time.as_secs().min(MOST)))
}

fn days(seconds: u64) -> String {
    match seconds / 86_400 {
        0 => format!("{} minutes", seconds / 60),
        1 => "1 day".into(),
        days => format!("{days} days"),
    }
}
