//! A flow while its bytes are carried, between sockets or by a Link.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tokio::net::TcpStream;

use crate::forward::bytes::{Before, Carriage, Early, Reached, Side, Traffic, bridge, carry};
use crate::forward::flow::Flow;
use crate::forward::idle::Idle;
use crate::io::now;
use crate::link::Duplex;
use crate::metrics::Ended;
use crate::plan::Hop;
use crate::refusal::Refusal;

impl Flow {
    /// Carries everything between a client's socket and the Backend, and ends.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps each argument twice, in every connection"
    )]
    pub fn carry(
        mut self: Box<Self>,
        client: TcpStream,
        backend: Reached,
        early: Early,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let carriage = {
                let Self { traffic, hop, .. } = &mut *self;
                let longest = hop.as_ref().and_then(|hop| hop.service().policy.idle_timeout);
                let mut idle = longest.map(|t| Box::new(Idle::new(t, now().into())));
                let mut carrying = pin!(match backend {
                    Reached::Socket(backend) =>
                        Either::Left(carry(client, backend, early, traffic)),
                    Reached::Link(link) => {
                        let before =
                            Before { of_socket: early.up.into(), of_link: early.down.into() };
                        Either::Right(Box::pin(bridge(
                            client,
                            *link,
                            before,
                            Side::Client,
                            traffic,
                        )))
                    }
                });
                poll_fn(|cx| {
                    let over = carrying.as_mut().poll(cx).map(Some);
                    watched(cx, over, (traffic, hop.as_mut(), idle.as_deref_mut()))
                })
                .await
            };
            match carriage {
                Some(carriage) => self.carried(carriage),
                None => self.end(Ended::Refused(Refusal::IdleTimeout)),
            }
        }
    }

    /// Carries everything between another node, which passes the connection on, and the Backend's
    /// socket, and ends.
    pub async fn carry_passed(mut self: Box<Self>, link: Duplex, backend: TcpStream) {
        let carriage = {
            let Self { traffic, hop, .. } = &mut *self;
            let longest = hop.as_ref().and_then(|hop| hop.service().policy.idle_timeout);
            let mut idle = longest.map(|t| Box::new(Idle::new(t, now().into())));
            let before = Before::default();
            let mut carrying = pin!(bridge(backend, link, before, Side::Backend, traffic));
            poll_fn(|cx| {
                let over = carrying.as_mut().poll(cx).map(Some);
                watched(cx, over, (traffic, hop.as_mut(), idle.as_deref_mut()))
            })
            .await
        };
        match carriage {
            Some(carriage) => self.carried(carriage),
            None => self.end(Ended::Refused(Refusal::IdleTimeout)),
        }
    }
}

/// What is looked at whenever bytes may have gone through: `over` says whether that is over, and
/// `None` that it has been silent for too long.
fn watched(
    cx: &mut Context<'_>,
    over: Poll<Option<Carriage>>,
    (traffic, hop, idle): (&Traffic, Option<&mut Hop>, Option<&mut Idle>),
) -> Poll<Option<Carriage>> {
    // A probe need not wait for the end of a connection that lives for hours.
    if let Some(hop) = hop.filter(|hop| hop.is_probe())
        && traffic.has_answered()
    {
        hop.answered(now());
    }
    match idle {
        Some(idle) if over.is_pending() => idle.poll(cx, traffic).map(|()| None),
        Some(_) | None => over,
    }
}
