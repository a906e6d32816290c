//! Measures how long there and back takes on a conversation, and answers who measures us.

use std::time::{Duration, Instant};

use edgemesh_proto::message::{Body, Ping};

/// How often the way is measured.
pub const PULSE_EVERY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub struct Pulse {
    number: u64,
    asked: Option<Instant>,
}

/// What a Ping means.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// To be answered with this.
    Answer(Box<Body>),
    /// There and back took so long.
    Took(Duration),
    /// It answers a question that nobody waits for any more.
    Stale,
}

impl Pulse {
    /// The next question.
    pub fn ask(&mut self, now: Instant) -> Body {
        self.number += 1;
        self.asked = Some(now);
        Body::Ping(Ping { number: self.number, answer: false })
    }

    /// What to do about a Ping.
    pub fn heard(&mut self, ping: Ping, now: Instant) -> Heard {
        match ping {
            Ping { number, answer: false } => {
                Heard::Answer(Box::new(Body::Ping(Ping { number, answer: true })))
            }
            Ping { number, answer: true } if number == self.number => match self.asked.take() {
                Some(asked) => Heard::Took(now.saturating_duration_since(asked)),
                None => Heard::Stale,
            },
            Ping { .. } => Heard::Stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::now;

    #[test]
    fn each_question_is_measured_once() {
        let (mut pulse, t0) = (Pulse::default(), now());
        let Body::Ping(first) = pulse.ask(t0) else { panic!() };
        let answered = Ping { answer: true, ..first };
        assert_eq!(
            Pulse::default().heard(first, t0),
            Heard::Answer(Box::new(Body::Ping(answered)))
        );
        let Body::Ping(second) = pulse.ask(t0) else { panic!() };
        let later = t0 + Duration::from_millis(7);
        assert_eq!(pulse.heard(answered, later), Heard::Stale);
        let answered = Ping { answer: true, ..second };
        assert_eq!(pulse.heard(answered, later), Heard::Took(Duration::from_millis(7)));
        assert_eq!(pulse.heard(answered, later), Heard::Stale);
    }
}
