//! What a host may want to log or to count, as values.

/// What became of the state that a request brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Findings {
    /// An identity opened under a key that is not the newest.
    pub old_key: bool,
    /// Why state was not used, if some was not.
    pub rejected: Option<Rejected>,
}

/// Why the state of a request was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// It is of a version or under a key that this node does not know.
    UnknownKey,
    /// It is not the text of a sealed identity.
    Undecodable,
    /// It does not open under its key.
    Forged,
    /// Its login has ended: the anchor does not name it.
    LoginEnded,
    /// It is bound to another user than the one signed in.
    OtherUser,
    /// It is bound to a user, and none is signed in.
    NoUser,
}

/// The user that the state of a request is bound to, compared with the signed-in user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UserCheck {
    /// It is bound to the signed-in user, or to none.
    Same,
    /// It must not be used for this request.
    Rejected(Rejected),
    /// There is no identity that this engine can read, and no record of an opt-out.
    Unreadable,
}

/// Why a response could not write its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unwritten {
    /// Name and value are more than browsers keep.
    TooLarge,
    /// Its refresh token has expired already.
    Expired,
    /// The operating system gave no random bytes.
    NoRandomness,
    /// The response has so many headers that there may be no room.
    HeadersFull,
}

impl Findings {
    pub(super) const NONE: Self = Self { old_key: false, rejected: None };

    pub(super) fn rejected(reason: Rejected) -> Self {
        Self { rejected: Some(reason), ..Self::NONE }
    }

    /// Whether there is nothing to report.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.old_key && self.rejected.is_none()
    }
}
