//! The CA at work: who may join, under which name, and who may no more.
//!
//! All of it lies in the cloud's data folder: the CA itself (`ca.key`, `ca.crt`), and in
//! `authority.db` which tokens and names were given out. Every question goes to that file, so that
//! a command line and a running cloud may use the folder at the same time: a token is good as soon
//! as it was printed, and [`Authority::version`] tells a running cloud that somebody was removed.
//!
//! The rules:
//! * A token invites any number of nodes until it expires; made with a name, that one node.
//! * A name belongs to the key it was first given to, until its certificate and the grace are
//!   over. Another key gets it by a token made with that name, which ends the old certificates, or
//!   after the node was removed.
//! * A removed node is out: its certificates are void, and so is the token that it joined with.
//!   It comes back by a token that was made afterwards.
//! * A certificate is renewed for whoever proves to have one of that name.
//!
//! Everything here waits for the disk: call it where that is allowed.

mod book;
mod error;
mod folder;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use edgemesh_core::identity::authority::{LIFETIME, key_hash};
use edgemesh_core::identity::{self, CaHash, Identity, JoinToken, Proved, check_node_name};
use edgemesh_proto::message::{Join, Joined};
use edgemesh_proto::record::{NodeName, Revocation};
use parking_lot::Mutex;

use crate::authority::book::{Book, Entry, Known, Peek};
use crate::authority::folder::Folder;

pub use crate::authority::book::Version;
pub use crate::authority::error::{AuthorityError, JoinRefused};

/// How long a token invites where nobody says otherwise.
pub const TOKEN_TTL: Duration = Duration::from_secs(86_400);

/// Longest life of a token: whoever finds it in a backup should find it expired.
pub const MAX_TOKEN_TTL: Duration = Duration::from_secs(366 * 86_400);

/// A cloud's CA and what it remembers.
#[derive(Debug)]
pub struct Authority {
    ca: identity::Authority,
    book: Mutex<Book>,
    grace: Duration,
}

/// A node was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// What its Revocation record has to say.
    pub revocation: Revocation,
    /// Somebody had that name here.
    pub was_known: bool,
}

impl Authority {
    /// Opens what lies in `data_dir`; where nothing does, a new CA begins at `now` (seconds since
    /// 1970). Names stay taken for `grace` after their certificate, the `offlineGrace`.
    ///
    /// # Errors
    /// Where the folder cannot be used, or half of a CA is missing: that is never replaced by a
    /// new one, which no node would believe.
    pub fn open(data_dir: &Path, now: i64, grace: Duration) -> Result<Self, AuthorityError> {
        let folder = Folder::enter(data_dir)?;
        let ca = folder.ca(now)?;
        let book = Book::open(&folder.book(), ca.ca())?;
        Ok(Self { ca, book: Mutex::new(book), grace })
    }

    /// As [`Authority::open`], where there is one already: nothing is made.
    ///
    /// # Errors
    /// [`AuthorityError::NoneThere`], else as there.
    pub fn existing(data_dir: &Path, now: i64, grace: Duration) -> Result<Self, AuthorityError> {
        match Self::is_in(data_dir) {
            true => Self::open(data_dir, now, grace),
            false => Err(AuthorityError::NoneThere { folder: data_dir.into() }),
        }
    }

    /// Whether there is one in that folder, or its remains.
    pub fn is_in(data_dir: &Path) -> bool {
        Folder::is_used(data_dir)
    }

    /// What tokens pin.
    pub const fn ca(&self) -> CaHash {
        self.ca.ca()
    }

    /// A certificate for the hub, good for dialling by `names`; to be renewed when
    /// [`Identity::is_due`].
    ///
    /// # Errors
    /// For a name that cannot stand in a certificate.
    pub fn hub(&self, names: &[String], now: i64) -> Result<Identity, AuthorityError> {
        Ok(self.ca.hub(names, now, LIFETIME)?)
    }

    /// A new token, good for `ttl`; with `node`, for the node of that name only, whoever had the
    /// name before.
    ///
    /// # Errors
    /// [`AuthorityError::Ttl`], a name that no node can have, too many tokens, or the disk.
    pub fn create_token(
        &self,
        ttl: Duration,
        node: Option<&NodeName>,
        now: i64,
    ) -> Result<JoinToken, AuthorityError> {
        if ttl.is_zero() || ttl > MAX_TOKEN_TTL {
            return Err(AuthorityError::Ttl);
        }
        if let Some(node) = node {
            named(node)?;
        }
        let token = JoinToken::new(self.ca());
        self.book.lock().add_token(&token, node, now, after(now, ttl))?;
        Ok(token)
    }

    /// Answers a Join: with a token, or without one to renew, where `from` is what the Link
    /// proved of who asks. Who is let in is logged here; whoever asks logs who is not, since that may
    /// be anybody, and as often as he likes.
    ///
    /// # Errors
    /// [`JoinRefused`], to be told to who asks.
    pub fn join(
        &self,
        join: &Join,
        from: Option<&Proved>,
        now: i64,
    ) -> Result<Joined, JoinRefused> {
        let node = &*join.node.0;
        let answer = match join.token.is_empty() {
            true => self.renew(join, from, now),
            false => self.admit(join, now),
        };
        match &answer {
            Ok(_) if join.token.is_empty() => tracing::debug!(node, "certificate renewed"),
            Ok(_) => tracing::info!(node, "node joined"),
            Err(refused) => tracing::debug!(node, label = refused.label(), "{refused}"),
        }
        answer
    }

    fn admit(&self, join: &Join, now: i64) -> Result<Joined, JoinRefused> {
        let token: JoinToken = join.token.parse()?;
        if token.ca() != self.ca() {
            let (pinned, ours) = (token.ca().id(), self.ca().id());
            return Err(JoinRefused::OtherCloud { pinned, ours });
        }
        let mut book = self.book.lock();
        let entry = book.begin()?;
        let Some(invited) = entry.token(&token)? else { return Err(JoinRefused::UnknownToken) };
        if now >= invited.expires {
            return Err(JoinRefused::ExpiredToken { ago: now.abs_diff(invited.expires) });
        }
        if let Some(only) = invited.node.as_ref().filter(|only| **only != join.node) {
            return Err(JoinRefused::OtherNode { only: only.clone() });
        }
        let key = checked(join)?;
        let known = entry.node(&join.node)?;
        if invited.number <= known.barred {
            return Err(JoinRefused::Removed { node: join.node.clone() });
        }
        let is_taken = known.key.is_some_and(|other| other != key)
            && now <= after(known.not_after, self.grace);
        if is_taken && invited.node.is_none() {
            return Err(JoinRefused::NameTaken { node: join.node.clone() });
        }
        // Who had the name has it no more: two machines cannot both have it.
        let removed = if is_taken { ended(known.removed, now) } else { known.removed };
        let known = Known { key: Some(key), token: Some(token.id()), removed, ..known };
        let joined = self.grant(&entry, join, known, now)?;
        entry.commit()?;
        Ok(joined)
    }

    fn renew(&self, join: &Join, from: Option<&Proved>, now: i64) -> Result<Joined, JoinRefused> {
        let from = from.filter(|from| !from.is_hub).ok_or(JoinRefused::NoToken)?;
        if from.node != join.node {
            let (is, asked) = (from.node.clone(), join.node.clone());
            return Err(JoinRefused::AnotherName { is, asked });
        }
        let key = checked(join)?;
        let mut book = self.book.lock();
        let entry = book.begin()?;
        let known = entry.node(&join.node)?;
        if from.issued < known.removed {
            return Err(JoinRefused::Removed { node: join.node.clone() });
        }
        let joined = self.grant(&entry, join, Known { key: Some(key), ..known }, now)?;
        entry.commit()?;
        Ok(joined)
    }

    /// Signs, and notes for whom.
    fn grant(
        &self,
        entry: &Entry<'_>,
        join: &Join,
        known: Known,
        now: i64,
    ) -> Result<Joined, JoinRefused> {
        // Of the name's next second, if its certificates of this one are void.
        let begin = now.max(known.removed);
        let chain = self
            .ca
            .sign(&join.csr, &join.node, begin, LIFETIME)
            .map_err(|error| JoinRefused::BadRequest(error.to_string()))?;
        let not_after = after(begin, LIFETIME);
        entry.set_node(&join.node, &Known { not_after, ..known }, now, self.grace)?;
        let chain = chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
        Ok(Joined { chain })
    }

    /// Removes a node. Of one that is not known here the certificates are void as well: it may have
    /// joined before this folder lost its book.
    ///
    /// # Errors
    /// A name that no node can have, or the disk.
    pub fn remove(&self, node: &NodeName, now: i64) -> Result<Removal, AuthorityError> {
        named(node)?;
        let mut book = self.book.lock();
        let entry = book.begin()?;
        let was_known = entry.knows(node)?;
        let known = entry.node(node)?;
        if let Some(token) = known.token {
            entry.delete_token(token)?;
        }
        let removed = ended(known.removed, now);
        let barred = entry.newest_token()?;
        let known = Known { key: None, token: None, removed, barred, ..known };
        entry.set_node(node, &known, now, self.grace)?;
        entry.commit()?;
        Ok(Removal { revocation: Revocation { before: removed }, was_known })
    }

    /// Every Revocation there is, by the node's name.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn revocations(&self) -> Result<BTreeMap<Box<str>, Revocation>, AuthorityError> {
        self.book.lock().revocations()
    }

    /// Differs from an earlier one if something was changed since, here or by another process:
    /// then look at [`Authority::revocations`] again. Cheap enough for every second.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn version(&self) -> Result<Version, AuthorityError> {
        self.book.lock().version()
    }

    /// The CA as one text, to be kept as secret as its key; [`restore`] takes it back.
    pub fn export(&self) -> String {
        self.ca.to_pem()
    }
}

/// Puts an exported CA into `data_dir`, while no cloud runs there. Its nodes then find their cloud
/// again. A CA that was made there in the meantime gives way as long as no node has joined it.
///
/// # Errors
/// [`AuthorityError::InUse`] where it may not give way; and where `pem` is no CA.
pub fn restore(data_dir: &Path, pem: &str) -> Result<CaHash, AuthorityError> {
    let ca = identity::Authority::from_pem(pem)?;
    let folder = Folder::enter(data_dir)?;
    let wanted = ca.ca();
    // The book knows whether anyone depends on the CA there, also if that is damaged or gone.
    let there = match Book::peek(&folder.book())? {
        Some(Peek { has_nodes: false, .. }) => None,
        Some(Peek { ca, .. }) => Some(ca),
        None => match folder.ca_there() {
            Ok(there) => there.map(|there| there.ca().to_string()),
            Err(AuthorityError::Missing { .. } | AuthorityError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        },
    };
    if let Some(there) = there.filter(|there| *there != wanted.to_string()) {
        let (folder, wanted) = (data_dir.into(), wanted.id());
        return Err(AuthorityError::InUse { folder, there, wanted });
    }
    folder.put(&ca)?;
    Ok(wanted)
}

/// The hash of the key that a request is for; checks what can be checked without the CA.
fn checked(join: &Join) -> Result<[u8; 32], JoinRefused> {
    check_node_name(&join.node.0)
        .map_err(|why| JoinRefused::BadName { node: join.node.clone(), why })?;
    key_hash(&join.csr).map_err(|error| JoinRefused::BadRequest(error.to_string()))
}

/// When the certificates of a name end that were issued up to `now`, one of this very second too.
fn ended(removed: i64, now: i64) -> i64 {
    removed.max(now.saturating_add(1))
}

fn named(node: &NodeName) -> Result<(), AuthorityError> {
    check_node_name(&node.0)
        .map_err(|why| identity::IdentityError::Name { name: node.to_string(), why }.into())
}

fn after(time: i64, span: Duration) -> i64 {
    time.saturating_add(i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}
