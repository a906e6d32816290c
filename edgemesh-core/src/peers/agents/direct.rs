//! The direct way to another node: who dials whom, and what becomes of the Link.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use edgemesh_proto::message::{Body, DialBack};
use edgemesh_proto::record::NodeName;

use crate::backends::Way;
use crate::identity::Expect;
use crate::io::{now, unique_id};
use crate::link::{self, ALPN_H2, ALPN_REVERSE, Dialled, Limits, Link, Role};
use crate::peers::agents::{Choice, DIAL_WITHIN, Facts, Known, Peers};
use crate::peers::path::Ask;
use crate::peers::slots::Wanting;
use crate::peers::standing::Stay;
use crate::peers::{Dialler, removal, stagger, while_welcome};

impl Peers {
    /// A peer dialled us and lets us open exchanges.
    pub fn arrived(&self, link: Link) {
        let Some(node) = link.peer().node().cloned() else { return };
        let known = self.known(&node);
        self.stands(&known, link, "it dialled back");
    }

    /// A peer, or the hub for one, asks to be dialled in reversed roles.
    pub fn dial_back(&self, asked: &DialBack) {
        let Some(node) = asked.node.clone() else { return };
        if self.0.parts.choice == Choice::Hub {
            return; // who asked takes the hub as well
        }
        let (this, links, parts) = (self.clone(), asked.links.clone(), &self.0.parts);
        let stop = parts.stop.clone();
        parts.seats.spawn(
            &parts.tasks,
            stop.run_until_cancelled_owned(async move {
                match this.dial(&node, &links, ALPN_REVERSE).await {
                    Ok((_, dialled)) => {
                        let parts = &this.0.parts;
                        let stay = match parts.standing.enter(&dialled.peer, dialled.role) {
                            Ok(stay) => stay,
                            Err(error) => return tracing::warn!("not dialled back: {error}"),
                        };
                        let (limits, handler) = (Limits::REQUESTS, parts.handler.clone());
                        let served = link::serve(dialled, handler, limits, &parts.tasks);
                        while_welcome(served, stay).await;
                    }
                    Err(error) => {
                        tracing::debug!(node = %node.0, "cannot be dialled back: {error}")
                    }
                }
            }),
        );
    }

    /// Tries the direct way, unless somebody is at it or it failed lately.
    pub(super) fn begin(&self, known: &Arc<Known>, links: Vec<Box<str>>) {
        if known.path.lock().ask(now()) != Ask::Try {
            return;
        }
        let (this, known) = (self.clone(), known.clone());
        self.spawn(async move {
            let made = this.make(&known.node, &links).await;
            match made {
                Ok((link, how)) => this.stands(&known, link, &how),
                Err(why) => {
                    let failed = known.path.lock().try_failed(&why, unique_id() as u64, now());
                    if failed {
                        this.ask_back(&known.node).await;
                    }
                }
            }
            known.tried.notify_waiters();
        });
    }

    async fn make(&self, node: &NodeName, links: &[Box<str>]) -> Result<(Link, String), String> {
        let parts = &self.0.parts;
        let (link, dialled) = self.dial(node, links, ALPN_H2).await?;
        let limits = Limits::REQUESTS;
        let made = link::client(dialled, limits, parts.tasks.clone()).await;
        made.map(|made| (made, format!("dialled {link}"))).map_err(|error| error.to_string())
    }

    /// Dials the first of `links` that answers as `node`.
    async fn dial(
        &self,
        node: &NodeName,
        links: &[Box<str>],
        alpn: &'static [u8],
    ) -> Result<(Box<str>, Dialled), String> {
        if links.is_empty() {
            return Err(format!("{} names no address at which it can be dialled", node.0));
        }
        let parts = &self.0.parts;
        let dialler = Dialler { dial: &parts.dial, tls: &parts.tls, within: DIAL_WITHIN };
        let tries = links.iter().cloned().map(|link| async move {
            let failed = |error: &dyn fmt::Display| format!("{link}: {error}");
            let found = tokio::net::lookup_host(&*link).await.map_err(|error| failed(&error))?;
            let tries = found.map(|address| dialler.dial(address, Expect::Node(node), alpn));
            let dialled = stagger::first(tries).await.map_err(|error| failed(&error))?;
            Ok::<_, String>((link, dialled))
        });
        let (link, dialled) = stagger::first(tries).await?;
        match parts.standing.is_revoked(&dialled.peer) {
            true => Err(removal(node).text),
            false => Ok((link, dialled)),
        }
    }

    /// Who cannot be dialled may be able to dial us.
    async fn ask_back(&self, node: &NodeName) {
        let uplink = &self.0.parts.uplink;
        let links = uplink.links();
        if links.is_empty() || self.0.parts.choice == Choice::Hub {
            return;
        }
        // The hub passes on what names another node.
        uplink.say(Body::DialBack(DialBack { node: Some(node.clone()), links })).await;
    }

    /// From now on the direct way works, until the Link ends.
    fn stands(&self, known: &Arc<Known>, link: Link, how: &str) {
        let address = link.peer().address;
        let stay = match self.0.parts.standing.enter(link.peer(), Role::Opens) {
            Ok(stay) => stay,
            Err(error) => {
                tracing::warn!("a Link is not used: {error}");
                return link.cut(); // the one before goes on
            }
        };
        tracing::info!(node = %known.node.0, %address, "direct Link: {how}");
        // The one before is as good, and drains by itself once nobody takes it any more.
        if let Some(before) = known.direct.put(link.clone()) {
            before.close();
        }
        let mut facts = known.facts.lock(); // whoever notes the hub now looks at the Link first
        *facts = Facts {
            by_hub: false,
            ever_tried: true,
            address: Some(address),
            since: Some(SystemTime::now()),
        };
        known.path.lock().stands(how, now());
        if let Some(live) = self.live(&known.node) {
            live.works(Way::Direct, "");
        }
        drop(facts);
        known.tried.notify_waiters();
        (self.0.parts.made)(link.clone(), known.node.clone());
        self.watch(known, link, stay);
    }

    /// Makes one more in this thread, behind the back of who calls.
    pub(super) fn make_another(&self, known: Arc<Known>, wanting: Wanting) {
        let (_, links) = self.record(&known.node);
        let this = self.clone();
        self.spawn(async move {
            let made = this.make(&known.node, &links).await.and_then(|(link, _)| {
                let entered = this.0.parts.standing.enter(link.peer(), Role::Opens);
                entered.map(|stay| (link, stay)).map_err(|error| error.to_string())
            });
            match made {
                Ok((link, stay)) => {
                    known.direct.made(wanting, Some(link.clone()));
                    this.watch(&known, link, stay);
                }
                Err(why) => {
                    tracing::debug!(node = %known.node.0, "no Link for this lane: {why}");
                    known.direct.made(wanting, None);
                }
            }
        });
    }

    /// Notes when a direct Link ends; cuts it when its node is removed.
    fn watch(&self, known: &Arc<Known>, link: Link, stay: Stay) {
        let (this, known) = (self.clone(), known.clone());
        self.spawn(async move {
            tokio::select! {
                () = link.closed() => {}
                () = stay.over() => link.cut(),
            }
            this.broke(&known);
        });
    }

    /// A direct Link ended. Another may stand in its place already, or that of a lane takes it.
    fn broke(&self, known: &Arc<Known>) {
        if known.direct.stands() {
            return;
        }
        tracing::info!(node = %known.node.0, "the direct Link ended");
        known.facts.lock().since = Some(SystemTime::now());
        known.path.lock().failed("the direct Link ended", unique_id() as u64, now());
        if let Some(live) = self.live(&known.node) {
            live.forget();
        }
    }
}
