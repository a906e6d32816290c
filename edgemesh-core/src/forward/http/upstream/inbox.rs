//! Hands one message to the Router of this process.

use http::header::{CONNECTION, EXPECT, UPGRADE};
use http::{Request, Response};

use crate::forward::http::source::Source;
use crate::forward::http::upload::{Outgoing, Upload};
use crate::forward::http::upstream::{Answer, Attempt, Failure, Keep};
use crate::forward::inbox::{Delivery, Undelivered};
use crate::refusal::{Culprit, Refusal};

impl Attempt<'_> {
    /// Delivers, once; who takes what is outside of the mesh says why not.
    pub(super) async fn send_to_inbox(
        &self,
        mut request: Request<Upload>,
    ) -> Result<Answer, Failure> {
        // What its connection could become ends with it.
        request.headers_mut().remove(UPGRADE);
        request.headers_mut().remove(CONNECTION);
        request.headers_mut().remove(EXPECT); // its body is wanted
        let failure =
            |refusal, sent, backends_fault| Failure { refusal, again: None, sent, backends_fault };
        let (Some(inbox), Some(rule)) = (self.shared.inbox.get(), self.hop.rule()) else {
            return Err(failure(Refusal::Unsupported, false, false));
        };
        let uploaded = request.body().uploaded();
        let (rule, request) = (rule.clone(), request.map(Outgoing));
        let delivering = inbox.deliver(Delivery { rule, request });
        match self.head(&uploaded, delivering).await? {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let response = Response::from_parts(head, Source::Inbox(body));
                Ok(Answer { response, keep: Keep::Nothing, again: None })
            }
            Err(Undelivered { refusal, sent, reason }) => {
                self.hop.note(&reason);
                Err(failure(refusal, sent, refusal.row().culprit == Culprit::Backend))
            }
        }
    }
}
