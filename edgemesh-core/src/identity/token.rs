//! Join tokens: one printable line that says which cloud, and proves that it invited us.

use std::fmt;
use std::str::FromStr;

use rustls::crypto::SecureRandom;

use crate::identity::hash::{CaHash, from_hex, hex, sha256};
use crate::identity::trust::provider;

const PREFIX: &str = "edgemesh1";

/// Longest text that is looked at.
pub const MAX_TOKEN: usize = 256;

/// `edgemesh1.<SHA-256 of the CA's certificate>.<id>.<secret>`, in hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    ca: CaHash,
    id: TokenId,
    secret: [u8; 32],
}

/// Which token; no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 8]);

/// Why a text is no token. The text itself is not repeated: it may be a good part of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else altogether.
    #[error(
        "this is no join token: it does not begin with `{PREFIX}.`; make one with `edgemesh \
             token create` on the cloud"
    )]
    Other,
    /// Begins like one, but was cut off or altered.
    #[error(
        "the join token is not whole: wanted are four parts joined by dots, of 64, 16 and 64 \
             hexadecimal digits after `{PREFIX}`; copy it again"
    )]
    Broken,
}

impl JoinToken {
    /// A new one for the cloud with this CA.
    pub fn new(ca: CaHash) -> Self {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        fill(&mut id);
        fill(&mut secret);
        Self { ca, id: TokenId(id), secret }
    }

    /// The CA that it pins.
    pub const fn ca(&self) -> CaHash {
        self.ca
    }

    /// Which token it is.
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// What the cloud keeps in place of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(&self.secret)
    }

    /// The line itself, secret and all.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}.{}.{}.{}", self.ca, self.id, hex(&self.secret))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// White space around it does not count: files end with a line break.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('.'));
        let rest = rest.ok_or(TokenError::Other)?;
        let parts: Vec<_> = rest.splitn(4, '.').collect();
        let [ca, id, secret] = *parts else { return Err(TokenError::Broken) };
        let whole = || {
            Some(Self {
                ca: CaHash(from_hex(ca)?),
                id: TokenId(from_hex(id)?),
                secret: from_hex(secret)?,
            })
        };
        whole().ok_or(TokenError::Broken)
    }
}

impl fmt::Debug for JoinToken {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("ca", &self.ca)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        from_hex(text).map(Self).ok_or(TokenError::Broken)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes that nobody can guess.
pub(super) fn fill(bytes: &mut [u8]) {
    let random: &dyn SecureRandom = provider().secure_random;
    random.fill(bytes).expect("the kernel gives random bytes");
}
