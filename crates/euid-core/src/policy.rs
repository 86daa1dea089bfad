//! The whole policy, pure: facts in, decisions out. No HTTP, no runtime, no clock.
//!
//! Three questions, in the order of a request:
//!
//! 1. [`evaluate`] (or [`without_identity`], where no usable identity came): what may the handler see, or is a
//!    refresh due first?
//! 2. [`settle`]: the refresh has an outcome, or the page has waited long enough. What may the handler see?
//! 3. [`resolve`]: the handler has returned. What does the response write?
//!
//! | request brings | now | refresh answers | handler sees | state |
//! | --- | --- | --- | --- | --- |
//! | none of the login that counts | | | `Absent` | – |
//! | an anchor that can't be read, or two that differ | | | `Absent` | keep all |
//! | identity or record of unknown version or key id | | | `Absent` | keep all |
//! | identity under a known key, does not open or parse; other subject | | | `Absent` | clear identity |
//! | bound identity, no user signed in | | | `Absent` | keep |
//! | record of an opt-out, whatever else | | | `OptedOut` | clear identity, if one came |
//! | | 72 h later | | `Absent` | clear identity, if one came |
//! | identity | ≥ refresh_expires | | `Absent` | keep |
//! | identity | < refresh_from | | `Active` | keep |
//! | identity | refresh_from … identity_expires | new pair | `Active(new)` | store |
//! | | | optout | `OptedOut` | clear identity, record the opt-out |
//! | | | invalid_token, expired_token | `Absent` | clear identity |
//! | | | anything else, or not in time | `Active(old)` | keep |
//! | identity | identity_expires … refresh_expires | new pair | `Active(new)` | store |
//! | | | optout | `OptedOut` | clear identity, record the opt-out |
//! | | | invalid_token, expired_token, client_error | `Absent` | clear identity |
//! | | | anything else, or not in time | `Unavailable` | keep |
//! | a handle, and the store does not answer | | | `Unavailable` | keep |
//! | a handle, and no record, or an ended one, or one of another user | | | `Absent` | keep |
//! | identity < refresh_expires | consent withheld | not called | `Withheld` | keep |
//! | any state | consent withdrawn | not called | `Withheld` | clear all |
//!
//! Any state: an identity, a record, an anchor but `none`; the SDK's cookie, if migrated.
//!
//! Each verdict has its [`Reason`], of the row alone; where a row sums up several causes, the caller passes the one that
//! it found.
//!
//! State of any other login is removed, unless "keep all" applies; migrated state stays where the site does not migrate
//! and no anchor comes. Without consent, `Absent` becomes `Withheld`: handlers may generate on `Absent`. The record is
//! bound to login and subject of the identity. Only a handler or withdrawn consent writes the anchor. No identity is
//! removed because of the time alone: this machine's clock may be wrong, and the browser drops it in time anyway. An app
//! does not, so there a page removes what ended more than a day ago (`has_outlived`).

use std::time::Duration;

use crate::clock::UnixMillis;
use crate::consent::Consent;
use crate::error::{ErrorKind, EuidError};
use crate::identity::{Identity, IdentityTimes};
use crate::outcome::Refreshed;
use crate::reason::Reason;

/// The reason why a request has no usable identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The request brought none for the login that counts.
    Nothing,
    /// This node can't judge the request's state: an unknown version or key, or an anchor that can't be read.
    Unreadable,
    /// An identity under a known key does not open or parse.
    Unusable,
}

/// The result of a comparison: the user that an identity is bound to, and the signed-in user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubjectMatch {
    /// Bound to the signed-in user, or to no user.
    Same,
    /// Bound to another user.
    Other,
    /// Bound to a user, while no user is signed in.
    NoUser,
}

/// The verdict on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evaluation {
    Proceed(Verdict),
    /// A refresh is due; [`settle`] judges its outcome.
    Refresh,
}

/// The policy's verdict: what the handler sees, and what happens to the state unless the handler asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub sees: Visibility,
    pub action: Action,
    pub why: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    Absent,
    /// The token that the request brought.
    Active,
    OptedOut,
    Unavailable,
    Withheld,
}

/// The state that a response removes, unless a handler asks for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Keep,
    ForgetIdentity,
    EndLogin,
}

/// The change for an identity that is migrated and so not sealed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MigrationAction {
    Keep,
    /// Seal it.
    Seal,
    /// Remove it.
    Forget,
    /// Remove it, with all other state.
    EndLogin,
}

/// The verdict once a refresh has an outcome. `T` is the caller's value for the new pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled<T> {
    /// The handler sees the new token, and the response stores the new pair.
    Renewed(T),
    /// The person opted out: the response forgets the identity and records the opt-out for its login.
    OptedOut,
    /// The same verdict as without a refresh.
    Proceed(Verdict),
}

/// The outcome of a refresh, as far as the policy distinguishes outcomes. `T` is the caller's value for the new pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshOutcome<T> {
    NewPair(IdentityTimes, T),
    OptOut,
    /// `invalid_token`, `expired_token`; or the login has ended in the store. And which of these.
    Ended(Reason),
    ClientError,
    /// Any other outcome, or none in time; and why.
    Failed(Reason),
}

impl<'a> RefreshOutcome<&'a Identity> {
    pub(crate) fn of(answer: &'a Result<Refreshed, EuidError>) -> Self {
        match answer {
            Ok(Refreshed::Identity(identity)) => Self::NewPair(identity.times(), identity),
            Ok(Refreshed::OptedOut) => Self::OptOut,
            Err(error) => match error.kind() {
                ErrorKind::RejectedToken => Self::Ended(Reason::RefreshRejected),
                ErrorKind::LoginEnded => Self::Ended(Reason::LoginEnded),
                ErrorKind::RejectedInput => Self::ClientError,
                kind @ (ErrorKind::Unauthorized
                | ErrorKind::ClockDrift
                | ErrorKind::Undecryptable
                | ErrorKind::WrongScope
                | ErrorKind::Transient
                | ErrorKind::Malformed
                | ErrorKind::UnknownStatus) => Self::Failed(Reason::RefreshFailed(kind)),
            },
        }
    }
}

/// Judges a request without a usable identity. It never causes a refresh. `has_state` tells whether the request brought
/// anything that withdrawn consent must remove; `why` is the cause, of which the policy distinguishes only `presented`.
#[inline]
pub(crate) fn without_identity(presented: Credential, why: Reason, has_state: bool, consent: Consent) -> Verdict {
    if consent == Consent::Withdrawn && has_state {
        return verdict(Visibility::Withheld, Action::EndLogin, Reason::ConsentWithdrawn);
    }
    let action = match presented {
        Credential::Nothing | Credential::Unreadable => Action::Keep,
        Credential::Unusable => Action::ForgetIdentity,
    };
    verdict(Visibility::Absent, action, why).restricted_by(consent)
}

/// Judges a request whose identity is in a store that does not answer. Nothing ends because of that.
pub(crate) fn store_unavailable(consent: Consent) -> Verdict {
    match consent {
        Consent::Granted => verdict(Visibility::Unavailable, Action::Keep, Reason::StoreUnavailable),
        Consent::Withheld => verdict(Visibility::Withheld, Action::Keep, Reason::ConsentWithheld),
        Consent::Withdrawn => verdict(Visibility::Withheld, Action::EndLogin, Reason::ConsentWithdrawn),
    }
}

/// Judges a request with an identity that its anchor names. Jitter may move `times.refresh_from`, and a margin may
/// bring `times.identity_expires` forward: the function does not rely on their order.
pub(crate) fn evaluate(times: &IdentityTimes, subject: SubjectMatch, consent: Consent, now: UnixMillis) -> Evaluation {
    if let Some(verdict) = barred(subject, consent) {
        return Evaluation::Proceed(verdict);
    }
    let keep = |sees, why| Evaluation::Proceed(verdict(sees, Action::Keep, why).restricted_by(consent));
    if !times.is_refreshable(now) {
        keep(Visibility::Absent, Reason::RefreshTokenExpired)
    } else if consent == Consent::Withheld {
        keep(Visibility::Withheld, Reason::ConsentWithheld)
    } else if !times.is_due(now) && times.is_usable(now) {
        keep(Visibility::Active, Reason::Fresh)
    } else {
        Evaluation::Refresh
    }
}

/// Judges a request with the record of an opt-out, remembered `until` then, for the login that the anchor names.
pub(crate) fn opted_out(
    until: UnixMillis,
    identity_came: bool,
    subject: SubjectMatch,
    consent: Consent,
    now: UnixMillis,
) -> Verdict {
    let (sees, why) = if now < until {
        (Visibility::OptedOut, Reason::OptedOut)
    } else {
        (Visibility::Absent, Reason::OptOutForgotten)
    };
    match barred(subject, consent).unwrap_or(verdict(sees, Action::ForgetIdentity, why).restricted_by(consent)) {
        Verdict { sees, action: Action::ForgetIdentity, why } if !identity_came => verdict(sees, Action::Keep, why),
        verdict => verdict,
    }
}

/// The verdict on an identity, or the record of an opt-out, that consent or the subject excludes, whatever its
/// content.
fn barred(subject: SubjectMatch, consent: Consent) -> Option<Verdict> {
    let verdict = match (consent, subject) {
        (Consent::Withdrawn, _) => verdict(Visibility::Withheld, Action::EndLogin, Reason::ConsentWithdrawn),
        (_, SubjectMatch::Other) => verdict(Visibility::Absent, Action::ForgetIdentity, Reason::OtherUser),
        (_, SubjectMatch::NoUser) => verdict(Visibility::Absent, Action::Keep, Reason::NoUser),
        (Consent::Granted | Consent::Withheld, SubjectMatch::Same) => return None,
    };
    Some(verdict.restricted_by(consent))
}

/// Applies the verdict to an identity that is migrated: a verdict that keeps the identity seals it, because there is no
/// state for it yet.
pub(crate) fn as_migration(Verdict { sees, action, .. }: Verdict) -> MigrationAction {
    match (sees, action) {
        (Visibility::Active | Visibility::Unavailable, Action::Keep) => MigrationAction::Seal,
        (_, Action::Keep) => MigrationAction::Keep,
        (_, Action::ForgetIdentity) => MigrationAction::Forget,
        (_, Action::EndLogin) => MigrationAction::EndLogin,
    }
}

/// Judges the outcome of a refresh, after [`Evaluation::Refresh`]: `times` are those of the identity, `now` is read
/// again after the wait.
pub(crate) fn settle<T>(times: &IdentityTimes, now: UnixMillis, answer: RefreshOutcome<T>) -> Settled<T> {
    let keep = |sees, why| Settled::Proceed(verdict(sees, Action::Keep, why));
    let ended = |why| Settled::Proceed(verdict(Visibility::Absent, Action::ForgetIdentity, why));
    // No operator can read the refresh token any more.
    let is_unreadable = matches!(answer, RefreshOutcome::ClientError);
    let failed = match answer {
        RefreshOutcome::NewPair(new, pair) if new.is_usable(now) && new.is_refreshable(now) => {
            return Settled::Renewed(pair);
        }
        RefreshOutcome::OptOut => return Settled::OptedOut,
        RefreshOutcome::Ended(why) => return ended(why),
        // A new pair that has expired by this machine's clock is a failure: one of the clocks is wrong.
        RefreshOutcome::NewPair(..) => Reason::NewTokenExpired,
        RefreshOutcome::ClientError => Reason::RefreshFailed(ErrorKind::RejectedInput),
        RefreshOutcome::Failed(why) => why,
    };
    if !times.is_refreshable(now) {
        keep(Visibility::Absent, Reason::RefreshTokenExpired)
    } else if times.is_usable(now) {
        keep(Visibility::Active, failed)
    } else if is_unreadable {
        ended(Reason::RefreshRejected)
    } else {
        keep(Visibility::Unavailable, failed)
    }
}

/// Decides what the response writes. Precedence: withdrawn consent > the change that the handler asks for > the planned
/// change. `end` is the end of the login.
pub(crate) fn resolve<C>(planned: C, asked: Option<C>, consent: Consent, end: C) -> C {
    match (consent, asked) {
        // No login is written, but the previous identity still ends.
        (Consent::Withdrawn, Some(_)) => end,
        // `planned` was made with the same consent, so it ends the login that came.
        (Consent::Withdrawn, None) => planned,
        (_, Some(asked)) => asked,
        (_, None) => planned,
    }
}

/// The delay after `refresh_from` until this login's refresh is due, which spreads the refreshes of a cohort: `chance`
/// in 2^32 of the longest delay, which is `most` or a tenth of the time in which a refresh can be done, whichever is
/// less.
pub(crate) fn jitter(times: &IdentityTimes, chance: u32, most: Duration) -> Duration {
    let usable = times.identity_expires.as_millis().saturating_sub(times.refresh_from.as_millis());
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).min(u64::try_from(usable / 10).unwrap_or(0));
    // `chance` in 2^32 of `most`.
    Duration::from_millis(((u128::from(most) * u128::from(chance)) >> u32::BITS) as u64)
}

/// The time from which the next refresh of a pair that arrives at `now` is due: its own `refresh_from`, but not within
/// a minute or a tenth of its token's remaining time, whichever is less. Otherwise a clock ahead of the operator's
/// would refresh on every page.
pub(crate) fn refresh_again_from(times: &IdentityTimes, now: UnixMillis) -> UnixMillis {
    times.refresh_from.max(after_pause(times, now))
}

/// The earliest time at which a pair that arrives at `now` is due.
fn after_pause(times: &IdentityTimes, now: UnixMillis) -> UnixMillis {
    now.saturating_add(REFRESH_PAUSE.min(times.identity_expires.saturating_since(now) / 10))
}

/// The time from which a refresh is due that is made `ahead` of its time, without [`jitter`]. It is never further ahead
/// than the token is usable after `refresh_from`, so that a pair can be made due [later](due_later).
pub(crate) fn refresh_ahead(times: &IdentityTimes, ahead: Duration) -> UnixMillis {
    times.refresh_from.saturating_sub(ahead.min(times.identity_expires.saturating_since(times.refresh_from)))
}

/// Whether a pair that arrives at `now` is due, or will be [ahead](refresh_ahead) of its time before
/// [`refresh_again_from`] allows any refresh.
pub(crate) fn is_due_at_once(times: &IdentityTimes, ahead: Duration, now: UnixMillis) -> bool {
    times.is_due(now) || (!ahead.is_zero() && refresh_ahead(times, ahead) < after_pause(times, now))
}

/// The `refresh_from` with which a pair that arrives at `now` is due, [ahead](refresh_ahead) of its time, at
/// [`refresh_again_from`] and not before.
pub(crate) fn due_later(times: &IdentityTimes, ahead: Duration, now: UnixMillis) -> UnixMillis {
    let again = refresh_again_from(times, now);
    let half = times.identity_expires.saturating_since(again) / 2;
    again.saturating_add(ahead.min(half))
}

/// The longest wait of [`refresh_again_from`].
const REFRESH_PAUSE: Duration = Duration::from_secs(60);

/// Whether a page removes a value that ended at `end`, because its client does not.
pub(crate) fn has_outlived(end: UnixMillis, now: UnixMillis) -> bool {
    now.saturating_since(end) > LINGERS
}

/// How long after its end a value stays that a client does not delete. A node whose clock is ahead must not remove one that
/// is valid.
const LINGERS: Duration = Duration::from_secs(86_400);

/// The same times, with the token's end brought forward.
pub(crate) fn with_margin(mut times: IdentityTimes, margin: Duration) -> IdentityTimes {
    times.identity_expires = times.identity_expires.saturating_sub(margin);
    times
}

const fn verdict(sees: Visibility, action: Action, why: Reason) -> Verdict {
    Verdict { sees, action, why }
}

impl Verdict {
    /// Without consent, `Absent` becomes `Withheld`: a handler that sees `Absent` may generate.
    #[inline]
    fn restricted_by(self, consent: Consent) -> Self {
        match (self.sees, consent) {
            (Visibility::Absent, Consent::Withheld | Consent::Withdrawn) => {
                verdict(Visibility::Withheld, self.action, Reason::of_consent(consent))
            }
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const TIMES: IdentityTimes = times(100, 200, 300);
    const CONSENTS: [Consent; 3] = [Consent::Granted, Consent::Withheld, Consent::Withdrawn];
    const SUBJECTS: [SubjectMatch; 3] = [SubjectMatch::Same, SubjectMatch::Other, SubjectMatch::NoUser];
    const PRESENTED: [Credential; 3] = [Credential::Nothing, Credential::Unreadable, Credential::Unusable];

    const WITHDRAWN: Verdict = verdict(Visibility::Withheld, Action::EndLogin, Reason::ConsentWithdrawn);
    const FAILED: RefreshOutcome<()> = RefreshOutcome::Failed(Reason::WaitedTooLong);

    const fn times(refresh_from: i64, identity_expires: i64, refresh_expires: i64) -> IdentityTimes {
        IdentityTimes {
            refresh_from: at(refresh_from),
            identity_expires: at(identity_expires),
            refresh_expires: at(refresh_expires),
        }
    }

    const fn at(millis: i64) -> UnixMillis {
        UnixMillis::from_millis(millis)
    }

    fn answers() -> Vec<RefreshOutcome<()>> {
        let ended = [Reason::RefreshRejected, Reason::LoginEnded].map(RefreshOutcome::Ended);
        let mut answers = vec![RefreshOutcome::OptOut, RefreshOutcome::ClientError, FAILED];
        answers.extend(ended);
        for moment in [0, 150, 1000] {
            answers.push(RefreshOutcome::NewPair(times(moment, moment, moment), ()));
            answers.push(RefreshOutcome::NewPair(times(moment, moment, 1000), ()));
            answers.push(RefreshOutcome::NewPair(times(moment, 1000, 1000), ()));
        }
        answers
    }

    #[test]
    fn policy_table_holds_without_a_usable_identity() {
        for (consent, sees, why) in [
            (Consent::Granted, Visibility::Absent, Reason::NoLogin),
            (Consent::Withheld, Visibility::Withheld, Reason::ConsentWithheld),
        ] {
            for (presented, action) in [
                (Credential::Nothing, Action::Keep),
                (Credential::Unreadable, Action::Keep),
                (Credential::Unusable, Action::ForgetIdentity),
            ] {
                for has_state in [false, true] {
                    let got = without_identity(presented, Reason::NoLogin, has_state, consent);
                    assert_eq!(got, verdict(sees, action, why), "{presented:?} {has_state} {consent:?}");
                }
            }
        }
    }

    #[test]
    fn withdrawn_consent_clears_all_state() {
        for presented in PRESENTED {
            let got = without_identity(presented, Reason::NoLogin, true, Consent::Withdrawn);
            assert_eq!(got, WITHDRAWN, "{presented:?}");
        }
        let nothing = without_identity(Credential::Nothing, Reason::NoLogin, false, Consent::Withdrawn);
        assert_eq!(nothing, Verdict { action: Action::Keep, ..WITHDRAWN });
        for subject in SUBJECTS {
            for now in 0..400 {
                let got = evaluate(&TIMES, subject, Consent::Withdrawn, at(now));
                assert_eq!(got, Evaluation::Proceed(WITHDRAWN));
            }
        }
    }

    #[test]
    fn policy_table_holds_with_an_identity_at_every_millisecond() {
        for now in 0..400 {
            let granted = evaluate(&TIMES, SubjectMatch::Same, Consent::Granted, at(now));
            let withheld = evaluate(&TIMES, SubjectMatch::Same, Consent::Withheld, at(now));
            let keep = |sees, why| Evaluation::Proceed(verdict(sees, Action::Keep, why));
            let expected_granted = match now {
                0..100 => keep(Visibility::Active, Reason::Fresh),
                100..300 => Evaluation::Refresh,
                _ => keep(Visibility::Absent, Reason::RefreshTokenExpired),
            };
            assert_eq!(granted, expected_granted, "{now}");
            assert_eq!(withheld, keep(Visibility::Withheld, Reason::ConsentWithheld), "{now}");

            for (subject, action, why) in [
                (SubjectMatch::Other, Action::ForgetIdentity, Reason::OtherUser),
                (SubjectMatch::NoUser, Action::Keep, Reason::NoUser),
            ] {
                let granted = evaluate(&TIMES, subject, Consent::Granted, at(now));
                assert_eq!(granted, Evaluation::Proceed(verdict(Visibility::Absent, action, why)), "{now}");
                let withheld = evaluate(&TIMES, subject, Consent::Withheld, at(now));
                let expected = verdict(Visibility::Withheld, action, Reason::ConsentWithheld);
                assert_eq!(withheld, Evaluation::Proceed(expected), "{now}");
            }
        }
    }

    #[test]
    fn policy_table_holds_for_a_recorded_opt_out() {
        for now in [0, 99, 100, 101] {
            for consent in CONSENTS {
                let absent = |action, why| match consent {
                    Consent::Granted => verdict(Visibility::Absent, action, why),
                    _ => verdict(Visibility::Withheld, action, Reason::ConsentWithheld),
                };
                for subject in SUBJECTS {
                    for (arrived, clear) in [(true, Action::ForgetIdentity), (false, Action::Keep)] {
                        let expected = match (consent, subject) {
                            (Consent::Withdrawn, _) => WITHDRAWN,
                            (_, SubjectMatch::Other) => absent(clear, Reason::OtherUser),
                            (_, SubjectMatch::NoUser) => absent(Action::Keep, Reason::NoUser),
                            _ if now < 100 => verdict(Visibility::OptedOut, clear, Reason::OptedOut),
                            _ => absent(clear, Reason::OptOutForgotten),
                        };
                        let got = opted_out(at(100), arrived, subject, consent, at(now));
                        assert_eq!(got, expected, "{now} {arrived} {consent:?} {subject:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn migrated_identity_begins_a_login_waits_or_ends() {
        for (sees, planned, migration) in [
            (Visibility::Active, Action::Keep, MigrationAction::Seal),
            (Visibility::Unavailable, Action::Keep, MigrationAction::Seal),
            (Visibility::Absent, Action::ForgetIdentity, MigrationAction::Forget),
            (Visibility::Withheld, Action::EndLogin, MigrationAction::EndLogin),
            // The identity is kept: no user is signed in, or consent is withheld.
            (Visibility::Absent, Action::Keep, MigrationAction::Keep),
            (Visibility::Withheld, Action::Keep, MigrationAction::Keep),
        ] {
            assert_eq!(as_migration(verdict(sees, planned, Reason::Fresh)), migration);
        }
    }

    #[test]
    fn policy_table_holds_for_every_refresh_answer_at_every_millisecond() {
        let proceed = |sees, action, why| Settled::Proceed(verdict(sees, action, why));
        let ended = |why| proceed(Visibility::Absent, Action::ForgetIdentity, why);
        for now in 0..400 {
            for answer in answers() {
                let why = match answer {
                    RefreshOutcome::NewPair(..) => Reason::NewTokenExpired,
                    RefreshOutcome::ClientError => Reason::RefreshFailed(ErrorKind::RejectedInput),
                    _ => Reason::WaitedTooLong,
                };
                let expected = match answer {
                    RefreshOutcome::NewPair(new, ()) if at(now) < new.identity_expires => Settled::Renewed(()),
                    RefreshOutcome::OptOut => Settled::OptedOut,
                    RefreshOutcome::Ended(why) => ended(why),
                    RefreshOutcome::ClientError if (200..300).contains(&now) => ended(Reason::RefreshRejected),
                    RefreshOutcome::NewPair(..) | RefreshOutcome::Failed(_) | RefreshOutcome::ClientError => {
                        match now {
                            0..200 => proceed(Visibility::Active, Action::Keep, why),
                            200..300 => proceed(Visibility::Unavailable, Action::Keep, why),
                            _ => proceed(Visibility::Absent, Action::Keep, Reason::RefreshTokenExpired),
                        }
                    }
                };
                assert_eq!(settle(&TIMES, at(now), answer), expected, "{now} {answer:?}");
            }
        }
    }

    /// Moments that often coincide, and any others.
    fn moment() -> impl Strategy<Value = UnixMillis> {
        prop_oneof![4 => 0..4_i64, 1 => any::<i64>()].prop_map(at)
    }

    /// In any order, as margin and jitter may leave them.
    fn any_times() -> impl Strategy<Value = IdentityTimes> {
        [moment(), moment(), moment()].prop_map(|[refresh_from, identity_expires, refresh_expires]| IdentityTimes {
            refresh_from,
            identity_expires,
            refresh_expires,
        })
    }

    fn any_answer() -> impl Strategy<Value = RefreshOutcome<()>> {
        prop_oneof![select(answers()), any_times().prop_map(|times| RefreshOutcome::NewPair(times, ()))]
    }

    proptest! {
        #[test]
        fn token_is_never_shown_at_or_after_its_expiry(
            times in any_times(),
            now in moment(),
            subject in select(&SUBJECTS[..]),
            consent in select(&CONSENTS[..]),
            answer in any_answer(),
        ) {
            let planned = evaluate(&times, subject, consent, now);
            let settled = settle(&times, now, answer);
            let shows_old = |verdict: Verdict| verdict.sees == Visibility::Active;
            if matches!(planned, Evaluation::Proceed(verdict) if shows_old(verdict))
                || matches!(settled, Settled::Proceed(verdict) if shows_old(verdict))
            {
                prop_assert!(now < times.identity_expires);
            }
            if settled == Settled::Renewed(()) {
                prop_assert!(matches!(answer, RefreshOutcome::NewPair(new, ()) if now < new.identity_expires));
            }
        }

        #[test]
        fn refresh_token_is_never_sent_at_or_after_its_expiry(
            times in any_times(),
            now in moment(),
            subject in select(&SUBJECTS[..]),
            consent in select(&CONSENTS[..]),
        ) {
            prop_assert!(evaluate(&times, subject, consent, now) != Evaluation::Refresh || now < times.refresh_expires);
        }

        #[test]
        fn identity_is_never_removed_by_time_or_a_transient_failure(times in any_times(), now in moment()) {
            let settled = settle(&times, now, FAILED);
            prop_assert!(matches!(settled, Settled::Proceed(Verdict { action: Action::Keep, .. })), "{:?}", settled);
            for consent in [Consent::Granted, Consent::Withheld] {
                let planned = evaluate(&times, SubjectMatch::Same, consent, now);
                let removes = matches!(planned, Evaluation::Proceed(Verdict { action, .. }) if action != Action::Keep);
                prop_assert!(!removes, "{:?}", planned);
            }
        }

        #[test]
        fn refreshed_pair_is_due_before_its_expiry_and_not_before_refresh_from(times in any_times(), now in moment()) {
            let from = refresh_again_from(&times, now);
            prop_assert!(from >= times.refresh_from);
            if times.refresh_from < times.identity_expires && now < times.identity_expires {
                prop_assert!(from < times.identity_expires);
            }
        }
    }

    #[test]
    fn change_of_the_handler_beats_the_plan_and_withdrawn_consent_beats_both() {
        for planned in ["keep", "forget identity", "end login", "record opt-out", "renew"] {
            for requested in [None, Some("login"), Some("opt-out"), Some("end login")] {
                for consent in [Consent::Granted, Consent::Withheld] {
                    assert_eq!(resolve(planned, requested, consent, "end login"), requested.unwrap_or(planned));
                }
                let withdrawn = resolve(planned, requested, Consent::Withdrawn, "end login");
                assert_eq!(withdrawn, if requested.is_some() { "end login" } else { planned });
            }
        }
    }

    #[test]
    fn pair_that_is_due_ahead_as_it_arrives_is_due_later_and_not_on_every_page() {
        let seconds = Duration::from_secs;
        for (from, expires, ahead) in
            [(900, 3_600, 60), (900, 3_600, 890), (900, 3_600, 3_000), (900, 3_600, 1 << 40), (5, 10, 60), (0, 10, 3)]
        {
            let arrived = times(from * 1000, expires * 1000, expires * 1000);
            let (ahead, now) = (seconds(ahead), UnixMillis::from_millis(0));
            let due = |refresh_from| refresh_ahead(&IdentityTimes { refresh_from, ..arrived }, ahead);
            let later = due_later(&arrived, ahead, now);
            assert!(later <= arrived.identity_expires, "{arrived:?} {ahead:?}");
            assert!(due(later) > now, "{arrived:?} {ahead:?}");
            assert!(
                due(later) >= refresh_again_from(&arrived, now).saturating_sub(Duration::from_millis(1)),
                "{arrived:?}"
            );
        }
        for (ahead, now, is_due) in [
            (0, 899_999, false),
            (0, 900_000, true),
            (840, 0, false), // due after a minute
            (841, 0, true),
            (60, 780_000, false),
            (60, 780_001, true),
        ] {
            let times = times(900_000, 3_600_000, 9_000_000);
            assert_eq!(is_due_at_once(&times, seconds(ahead), UnixMillis::from_millis(now)), is_due, "{ahead} {now}");
        }
        assert_eq!(refresh_ahead(&times(900, 3_600, 9_000), Duration::ZERO), UnixMillis::from_millis(900));
        assert_eq!(refresh_ahead(&times(900, 3_600, 9_000), Duration::from_millis(600)), UnixMillis::from_millis(300));
        assert_eq!(refresh_ahead(&times(3_600, 3_600, 9_000), seconds(600)), UnixMillis::from_millis(3_600));
    }

    #[test]
    fn jitter_is_below_a_tenth_of_the_span_and_below_the_cap_and_spread_over_both() {
        let span = times(1_000, 101_000, 200_000);
        let minute = Duration::from_secs(60);
        assert_eq!(jitter(&span, 0, minute), Duration::ZERO);
        assert_eq!(jitter(&span, u32::MAX, minute), Duration::from_millis(9_999));
        assert_eq!(jitter(&span, u32::MAX / 2, minute), Duration::from_millis(4_999));
        assert_eq!(jitter(&span, u32::MAX, Duration::from_secs(1)), Duration::from_millis(999));
        assert_eq!(jitter(&span, u32::MAX, Duration::ZERO), Duration::ZERO);
        let endless = times(i64::MIN, i64::MAX, i64::MAX);
        assert!(jitter(&endless, u32::MAX, Duration::MAX) < Duration::from_millis(u64::MAX / 10));
        assert_eq!(jitter(&times(5, 5, 5), u32::MAX, minute), Duration::ZERO);
    }

    #[test]
    fn refreshed_pair_is_not_due_within_a_minute_or_a_tenth_of_its_life() {
        let now = at(1_000_000);
        for (refresh_from, identity_expires, from) in [
            (1_900_000, 4_600_000, 1_900_000),
            (900_000, 4_600_000, 1_060_000),
            (1_000_001, 1_600_000, 1_060_000),
            (900_000, 1_100_000, 1_010_000),
            (0, 1_000_005, 1_000_000),
        ] {
            assert_eq!(refresh_again_from(&times(refresh_from, identity_expires, 9_000_000), now), at(from));
        }
    }

    #[test]
    fn refresh_error_gives_its_effect_on_the_identity() {
        let failed = |kind| (kind, RefreshOutcome::Failed(Reason::RefreshFailed(kind)));
        for (kind, answer) in [
            (ErrorKind::RejectedToken, RefreshOutcome::Ended(Reason::RefreshRejected)),
            (ErrorKind::LoginEnded, RefreshOutcome::Ended(Reason::LoginEnded)),
            (ErrorKind::RejectedInput, RefreshOutcome::ClientError),
            failed(ErrorKind::Unauthorized),
            failed(ErrorKind::ClockDrift),
            failed(ErrorKind::Undecryptable),
            failed(ErrorKind::WrongScope),
            failed(ErrorKind::Transient),
            failed(ErrorKind::Malformed),
            failed(ErrorKind::UnknownStatus),
        ] {
            assert_eq!(RefreshOutcome::of(&Err(EuidError::new(kind, "x"))), answer, "{kind:?}");
        }
        assert_eq!(RefreshOutcome::of(&Ok(Refreshed::OptedOut)), RefreshOutcome::OptOut);
    }
}
