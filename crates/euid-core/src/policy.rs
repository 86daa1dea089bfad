//! The whole policy, pure: facts in, decisions out. No HTTP, no runtime, no clock.
//!
//! Three questions, in the order of a request:
//!
//! 1. [`plan`] (or [`without_identity`], where no usable cookie came): what may the handler see, or is a
//!    refresh due first?
//! 2. [`settle`]: the refresh has an outcome, or the page has waited long enough. What may the handler see?
//! 3. [`resolve`]: the handler has returned. Which cookies does the response write?
//!
//! | cookie says | now | refresh answers | handler sees | cookie |
//! | --- | --- | --- | --- | --- |
//! | none, anchor none or a login | | | `Absent` | – |
//! | none or not usable, anchor `opted out` and not expired | | | `OptedOut` | clear identity, if one came |
//! | unknown version or key id | | | `Absent` | keep |
//! | known key, does not open or parse; anchor is not its lineage; other subject | | | `Absent` | clear identity |
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
//! | identity < refresh_expires | consent withheld | not called | `Withheld` | keep |
//! | any cookie of the layer | consent withdrawn | not called | `Withheld` | clear both |
//!
//! Without consent, `Absent` becomes `Withheld`: handlers may generate on `Absent`. The record is bound to login and subject
//! of the identity. Only a handler or withdrawn consent writes the anchor. No identity is removed because of the time
//! alone: this machine's clock may be wrong, and the cookie's `Max-Age` ends it anyway.

use std::time::Duration;

use crate::clock::UnixMillis;
use crate::error::{ErrorKind, EuidError};
use crate::identity::IdentityTimes;
use crate::outcome::Refreshed;

/// What the request brought where no identity can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented {
    /// No identity cookie.
    Nothing,
    /// One of a version or key that this node does not know.
    UnknownKey,
    /// One under a known key that does not open or parse, or that the anchor does not name.
    Unusable,
}

/// What the anchor says where no identity can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorSays {
    /// No anchor came.
    Nothing,
    /// A login, an opt-out whose time has passed, or nothing that can be read.
    Something,
    /// The person opted out, and the time until which that counts has not passed.
    OptedOut,
}

/// The user that an identity is bound to, compared with the signed-in user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Bound to the signed-in user, or to no user.
    Same,
    /// Bound to another user.
    Other,
    /// Bound to a user, while no user is signed in.
    Nobody,
}

/// What the visitor allows, as the site has looked it up. In tower-euid the hook `EuidLayer::consent`
/// returns it.
///
/// A site that looks consent up finds it in the extensions of each request; in axum `Option<Consent>`
/// extracts it. For the TC string of a consent banner there is [`tcf`](crate::tcf).
///
/// Exhaustive: a fourth answer would need a policy of its own, which every site would have to think about.
///
/// ```
/// # use euid_core as tower_euid;
/// use tower_euid::Consent;
///
/// /// `choice` is what the visitor chose, if they have been asked.
/// fn consent(choice: Option<bool>) -> Consent {
///     match choice {
///         Some(true) => Consent::Granted,
///         Some(false) => Consent::Withdrawn,
///         None => Consent::Withheld,
///     }
/// }
/// assert_eq!(consent(None), Consent::Withheld);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// The identity may be used, and one may be generated.
    Granted,
    /// Unknown, or not now: an identity is kept, but neither refreshed nor handed out. The login of a
    /// handler is written, for later. Handlers see [`Euid::Withheld`](crate::Euid::Withheld), or
    /// [`Euid::OptedOut`](crate::Euid::OptedOut) if the person opted out.
    Withheld,
    /// No longer given: the identity ends, and no login is written. Handlers see
    /// [`Euid::Withheld`](crate::Euid::Withheld).
    Withdrawn,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Proceed(Verdict),
    /// A refresh is due; [`settle`] judges its outcome.
    Refresh,
}

/// What the handler sees, and what happens to the cookies unless the handler says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub sees: Sees,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    Absent,
    /// The token that the cookie brought.
    Active,
    /// The token that the operator has just given.
    ActiveNew,
    OptedOut,
    Unavailable,
    Withheld,
}

/// What a response does to the cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Keep,
    ClearIdentity,
    ClearBoth,
    /// Clear the identity, remember the opt-out in the anchor.
    OptOut,
    /// Clear the identity, record the opt-out for its login.
    RecordOptOut,
    /// Write the refreshed identity.
    Store,
    /// Write the identity of the login, and its anchor.
    Login,
}

/// The outcome of a refresh, as far as the policy tells outcomes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    NewPair(IdentityTimes),
    OptOut,
    /// `invalid_token`, `expired_token`.
    Ended,
    ClientError,
    /// Anything else, or nothing in time.
    Failed,
}

/// What the handler wants. The order is the precedence: a later one beats an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    Login,
    OptOut,
    Logout,
}

impl Answer {
    pub fn of(answer: &Result<Refreshed, EuidError>) -> Self {
        match answer {
            Ok(Refreshed::Identity(identity)) => Self::NewPair(identity.times()),
            Ok(Refreshed::OptedOut) => Self::OptOut,
            Err(error) => match error.kind() {
                ErrorKind::RejectedToken => Self::Ended,
                ErrorKind::RejectedInput => Self::ClientError,
                ErrorKind::Unauthorized
                | ErrorKind::ClockDrift
                | ErrorKind::Undecryptable
                | ErrorKind::Transient
                | ErrorKind::Malformed
                | ErrorKind::UnknownStatus => Self::Failed,
            },
        }
    }
}

/// A request without a usable identity. It never causes a refresh.
pub fn without_identity(presented: Presented, anchor: AnchorSays, consent: Consent) -> Verdict {
    let came = presented != Presented::Nothing;
    if consent == Consent::Withdrawn && (came || anchor != AnchorSays::Nothing) {
        return verdict(Sees::Withheld, Action::ClearBoth);
    }
    let verdict = match (presented, anchor) {
        (Presented::Nothing, AnchorSays::OptedOut) => verdict(Sees::OptedOut, Action::Keep),
        (_, AnchorSays::OptedOut) => verdict(Sees::OptedOut, Action::ClearIdentity),
        (Presented::Nothing | Presented::UnknownKey, _) => verdict(Sees::Absent, Action::Keep),
        (Presented::Unusable, _) => verdict(Sees::Absent, Action::ClearIdentity),
    };
    verdict.under(consent)
}

/// A request with an identity that its anchor names. `times.refresh_from` may be moved by jitter,
/// `times.identity_expires` brought forward by a margin; their order is not relied on.
pub fn plan(times: &IdentityTimes, subject: Subject, consent: Consent, now: UnixMillis) -> Plan {
    if let Some(verdict) = barred(subject, consent) {
        return Plan::Proceed(verdict);
    }
    let proceed = |sees, action| Plan::Proceed(verdict(sees, action).under(consent));
    if !times.is_refreshable(now) {
        proceed(Sees::Absent, Action::Keep)
    } else if consent == Consent::Withheld {
        proceed(Sees::Withheld, Action::Keep)
    } else if !times.is_due(now) && times.is_usable(now) {
        proceed(Sees::Active, Action::Keep)
    } else {
        Plan::Refresh
    }
}

/// A request with the record of an opt-out, remembered `until` then, for the login that the anchor names.
pub fn opted_out(
    until: UnixMillis,
    identity_came: bool,
    subject: Subject,
    consent: Consent,
    now: UnixMillis,
) -> Verdict {
    let sees = if now < until { Sees::OptedOut } else { Sees::Absent };
    match barred(subject, consent).unwrap_or(verdict(sees, Action::ClearIdentity).under(consent)) {
        Verdict { sees, action: Action::ClearIdentity } if !identity_came => verdict(sees, Action::Keep),
        verdict => verdict,
    }
}

/// The verdict on an identity or a record of an opt-out that consent or subject exclude, whatever it holds.
fn barred(subject: Subject, consent: Consent) -> Option<Verdict> {
    let verdict = match (consent, subject) {
        (Consent::Withdrawn, _) => verdict(Sees::Withheld, Action::ClearBoth),
        (_, Subject::Other) => verdict(Sees::Absent, Action::ClearIdentity),
        (_, Subject::Nobody) => verdict(Sees::Absent, Action::Keep),
        (Consent::Granted | Consent::Withheld, Subject::Same) => return None,
    };
    Some(verdict.under(consent))
}

/// The verdict on an identity that another kind of cookie brought: whatever would keep or store it is a login,
/// as the layer has no cookies for it yet.
pub fn taken_over(Verdict { sees, action }: Verdict) -> Verdict {
    let action = match (sees, action) {
        (Sees::Active | Sees::Unavailable, Action::Keep) | (_, Action::Store) => Action::Login,
        (_, Action::RecordOptOut) => Action::OptOut,
        (_, Action::ClearIdentity) => Action::ClearBoth,
        (_, action) => action,
    };
    verdict(sees, action)
}

/// After [`Plan::Refresh`]: `times` are those of the cookie, `now` is read again after the wait.
pub fn settle(times: &IdentityTimes, now: UnixMillis, answer: Answer) -> Verdict {
    let ended = verdict(Sees::Absent, Action::ClearIdentity);
    match answer {
        Answer::NewPair(new) if new.is_usable(now) && new.is_refreshable(now) => {
            verdict(Sees::ActiveNew, Action::Store)
        }
        Answer::OptOut => verdict(Sees::OptedOut, Action::RecordOptOut),
        Answer::Ended => ended,
        _ if !times.is_refreshable(now) => verdict(Sees::Absent, Action::Keep),
        _ if times.is_usable(now) => verdict(Sees::Active, Action::Keep),
        // No operator can read the refresh token any more, and the advertising token has expired.
        Answer::ClientError => ended,
        // A new pair that has expired by this machine's clock is a failure: one of the clocks is wrong.
        Answer::NewPair(_) | Answer::Failed => verdict(Sees::Unavailable, Action::Keep),
    }
}

/// What the response writes: withdrawn consent, then the handler's wish, then what was planned.
pub fn resolve(planned: Action, wish: Option<Wish>, consent: Consent) -> Action {
    match (consent, wish) {
        // No login is written; the previous identity ends all the same.
        (Consent::Withdrawn, Some(_)) => Action::ClearBoth,
        // `planned` was made with the same consent, so it clears the cookies that came.
        (Consent::Withdrawn, None) => planned,
        (_, Some(Wish::Logout)) => Action::ClearBoth,
        (_, Some(Wish::OptOut)) => Action::OptOut,
        (_, Some(Wish::Login)) => Action::Login,
        (_, None) => planned,
    }
}

/// How long after `refresh_from` a refresh is due for this login, so that a cohort spreads: by
/// `chance` of 2^32 up to `most`, and up to a tenth of the time in which it can be done.
pub fn jitter(times: &IdentityTimes, chance: u32, most: Duration) -> Duration {
    let usable = times.identity_expires.as_millis().saturating_sub(times.refresh_from.as_millis());
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).min(u64::try_from(usable / 10).unwrap_or(0));
    // `chance` in 2^32 of `most`.
    Duration::from_millis(((u128::from(most) * u128::from(chance)) >> u32::BITS) as u64)
}

/// From when on a pair that arrives at `now` by a refresh is due: as its own `refresh_from` says, but not within a minute
/// or a tenth of what its token has left, whichever is less. A clock that is ahead of the operator's would else refresh on
/// every page.
pub fn refresh_again_from(times: &IdentityTimes, now: UnixMillis) -> UnixMillis {
    let pause = REFRESH_PAUSE.min(times.identity_expires.saturating_since(now) / 10);
    times.refresh_from.max(now.saturating_add(pause))
}

/// The most that [`refresh_again_from`] waits.
const REFRESH_PAUSE: Duration = Duration::from_secs(60);

const fn verdict(sees: Sees, action: Action) -> Verdict {
    Verdict { sees, action }
}

impl Verdict {
    /// Without consent, `Absent` becomes `Withheld`: a handler that sees `Absent` may generate.
    fn under(self, consent: Consent) -> Self {
        match (self.sees, consent) {
            (Sees::Absent, Consent::Withheld | Consent::Withdrawn) => Self { sees: Sees::Withheld, ..self },
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
    const SUBJECTS: [Subject; 3] = [Subject::Same, Subject::Other, Subject::Nobody];
    const ANCHORS: [AnchorSays; 3] = [AnchorSays::Nothing, AnchorSays::Something, AnchorSays::OptedOut];
    const PRESENTED: [Presented; 3] = [Presented::Nothing, Presented::UnknownKey, Presented::Unusable];
    const ACTIONS: [Action; 7] = [
        Action::Keep,
        Action::ClearIdentity,
        Action::ClearBoth,
        Action::OptOut,
        Action::RecordOptOut,
        Action::Store,
        Action::Login,
    ];
    const WISHES: [Option<Wish>; 4] = [None, Some(Wish::Login), Some(Wish::OptOut), Some(Wish::Logout)];

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

    fn answers() -> Vec<Answer> {
        let mut answers = vec![Answer::OptOut, Answer::Ended, Answer::ClientError, Answer::Failed];
        for moment in [0, 150, 1000] {
            answers.push(Answer::NewPair(times(moment, moment, moment)));
            answers.push(Answer::NewPair(times(moment, moment, 1000)));
            answers.push(Answer::NewPair(times(moment, 1000, 1000)));
        }
        answers
    }

    #[test]
    fn every_row_without_a_usable_identity() {
        for consent in [Consent::Granted, Consent::Withheld] {
            for (presented, anchor, sees, action) in [
                (Presented::Nothing, AnchorSays::Nothing, Sees::Absent, Action::Keep),
                (Presented::Nothing, AnchorSays::Something, Sees::Absent, Action::Keep),
                (Presented::Nothing, AnchorSays::OptedOut, Sees::OptedOut, Action::Keep),
                (Presented::UnknownKey, AnchorSays::Nothing, Sees::Absent, Action::Keep),
                (Presented::UnknownKey, AnchorSays::Something, Sees::Absent, Action::Keep),
                (Presented::UnknownKey, AnchorSays::OptedOut, Sees::OptedOut, Action::ClearIdentity),
                (Presented::Unusable, AnchorSays::Nothing, Sees::Absent, Action::ClearIdentity),
                (Presented::Unusable, AnchorSays::Something, Sees::Absent, Action::ClearIdentity),
                (Presented::Unusable, AnchorSays::OptedOut, Sees::OptedOut, Action::ClearIdentity),
            ] {
                let got = without_identity(presented, anchor, consent);
                let withheld = consent == Consent::Withheld && sees == Sees::Absent;
                let sees = if withheld { Sees::Withheld } else { sees };
                assert_eq!(got, verdict(sees, action), "{presented:?} {anchor:?} {consent:?}");
            }
        }
    }

    #[test]
    fn withdrawn_consent_clears_whatever_came() {
        for presented in PRESENTED {
            for anchor in ANCHORS {
                let got = without_identity(presented, anchor, Consent::Withdrawn);
                let nothing = (presented, anchor) == (Presented::Nothing, AnchorSays::Nothing);
                let action = if nothing { Action::Keep } else { Action::ClearBoth };
                let expected = verdict(Sees::Withheld, action);
                assert_eq!(got, expected, "{presented:?} {anchor:?}");
            }
        }
        for subject in SUBJECTS {
            for now in 0..400 {
                let got = plan(&TIMES, subject, Consent::Withdrawn, at(now));
                assert_eq!(got, Plan::Proceed(verdict(Sees::Withheld, Action::ClearBoth)));
            }
        }
    }

    #[test]
    fn every_row_with_an_identity_at_every_millisecond() {
        for now in 0..400 {
            let granted = plan(&TIMES, Subject::Same, Consent::Granted, at(now));
            let withheld = plan(&TIMES, Subject::Same, Consent::Withheld, at(now));
            let expected_granted = match now {
                0..100 => Plan::Proceed(verdict(Sees::Active, Action::Keep)),
                100..300 => Plan::Refresh,
                _ => Plan::Proceed(verdict(Sees::Absent, Action::Keep)),
            };
            assert_eq!(granted, expected_granted, "{now}");
            assert_eq!(withheld, Plan::Proceed(verdict(Sees::Withheld, Action::Keep)), "{now}");

            for (consent, sees) in [(Consent::Granted, Sees::Absent), (Consent::Withheld, Sees::Withheld)] {
                let other = plan(&TIMES, Subject::Other, consent, at(now));
                assert_eq!(other, Plan::Proceed(verdict(sees, Action::ClearIdentity)), "{now}");
                let nobody = plan(&TIMES, Subject::Nobody, consent, at(now));
                assert_eq!(nobody, Plan::Proceed(verdict(sees, Action::Keep)), "{now}");
            }
        }
    }

    #[test]
    fn every_row_of_the_record_of_an_opt_out() {
        for now in [0, 99, 100, 101] {
            for consent in CONSENTS {
                let absent = if consent == Consent::Granted { Sees::Absent } else { Sees::Withheld };
                for subject in SUBJECTS {
                    for (came, clear) in [(true, Action::ClearIdentity), (false, Action::Keep)] {
                        let expected = match (consent, subject) {
                            (Consent::Withdrawn, _) => verdict(Sees::Withheld, Action::ClearBoth),
                            (_, Subject::Other) => verdict(absent, clear),
                            (_, Subject::Nobody) => verdict(absent, Action::Keep),
                            _ if now < 100 => verdict(Sees::OptedOut, clear),
                            _ => verdict(absent, clear),
                        };
                        let got = opted_out(at(100), came, subject, consent, at(now));
                        assert_eq!(got, expected, "{now} {came} {consent:?} {subject:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_taken_over_becomes_a_login_or_ends_for_good() {
        for (sees, planned, action) in [
            (Sees::Active, Action::Keep, Action::Login),
            (Sees::Unavailable, Action::Keep, Action::Login),
            (Sees::ActiveNew, Action::Store, Action::Login),
            (Sees::OptedOut, Action::RecordOptOut, Action::OptOut),
            (Sees::Absent, Action::ClearIdentity, Action::ClearBoth),
            (Sees::Withheld, Action::ClearBoth, Action::ClearBoth),
            // It is kept: no user is signed in, or consent is withheld.
            (Sees::Absent, Action::Keep, Action::Keep),
            (Sees::Withheld, Action::Keep, Action::Keep),
        ] {
            assert_eq!(taken_over(verdict(sees, planned)), verdict(sees, action));
        }
    }

    #[test]
    fn every_row_of_an_answer_at_every_millisecond() {
        let ended = verdict(Sees::Absent, Action::ClearIdentity);
        for now in 0..400 {
            for answer in answers() {
                let expected = match answer {
                    Answer::NewPair(new) if at(now) < new.identity_expires => verdict(Sees::ActiveNew, Action::Store),
                    Answer::OptOut => verdict(Sees::OptedOut, Action::RecordOptOut),
                    Answer::Ended => ended,
                    Answer::ClientError if (200..300).contains(&now) => ended,
                    Answer::NewPair(_) | Answer::Failed | Answer::ClientError => match now {
                        0..200 => verdict(Sees::Active, Action::Keep),
                        200..300 => verdict(Sees::Unavailable, Action::Keep),
                        _ => verdict(Sees::Absent, Action::Keep),
                    },
                };
                assert_eq!(settle(&TIMES, at(now), answer), expected, "{now} {answer:?}");
            }
        }
    }

    /// Moments that often coincide, and any at all.
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

    fn any_answer() -> impl Strategy<Value = Answer> {
        prop_oneof![select(answers()), any_times().prop_map(Answer::NewPair)]
    }

    proptest! {
        #[test]
        fn no_token_is_handed_out_at_or_past_its_end(
            times in any_times(),
            now in moment(),
            subject in select(&SUBJECTS[..]),
            consent in select(&CONSENTS[..]),
            answer in any_answer(),
        ) {
            let planned = plan(&times, subject, consent, now);
            let settled = settle(&times, now, answer);
            if matches!(planned, Plan::Proceed(Verdict { sees: Sees::Active, .. })) || settled.sees == Sees::Active {
                prop_assert!(now < times.identity_expires);
            }
            if settled.sees == Sees::ActiveNew {
                prop_assert!(matches!(answer, Answer::NewPair(new) if now < new.identity_expires));
            }
        }

        #[test]
        fn refresh_token_at_or_past_its_end_is_never_sent(
            times in any_times(),
            now in moment(),
            subject in select(&SUBJECTS[..]),
            consent in select(&CONSENTS[..]),
        ) {
            prop_assert!(plan(&times, subject, consent, now) != Plan::Refresh || now < times.refresh_expires);
        }

        #[test]
        fn no_identity_is_removed_because_of_the_time_or_a_transient_failure(times in any_times(), now in moment()) {
            prop_assert_eq!(settle(&times, now, Answer::Failed).action, Action::Keep);
            for consent in [Consent::Granted, Consent::Withheld] {
                let planned = plan(&times, Subject::Same, consent, now);
                let removes = matches!(planned, Plan::Proceed(Verdict { action, .. }) if action != Action::Keep);
                prop_assert!(!removes, "{:?}", planned);
            }
        }

        #[test]
        fn refreshed_pair_is_due_within_its_life_and_not_at_once(times in any_times(), now in moment()) {
            let from = refresh_again_from(&times, now);
            prop_assert!(from >= times.refresh_from);
            if times.refresh_from < times.identity_expires && now < times.identity_expires {
                prop_assert!(from < times.identity_expires);
            }
        }
    }

    #[test]
    fn a_wish_beats_the_plan_and_withdrawn_consent_beats_a_wish() {
        for planned in ACTIONS {
            for wish in WISHES {
                for consent in [Consent::Granted, Consent::Withheld] {
                    let expected = match wish {
                        Some(Wish::Logout) => Action::ClearBoth,
                        Some(Wish::OptOut) => Action::OptOut,
                        Some(Wish::Login) => Action::Login,
                        None => planned,
                    };
                    assert_eq!(resolve(planned, wish, consent), expected);
                }
                let withdrawn = resolve(planned, wish, Consent::Withdrawn);
                assert_eq!(withdrawn, if wish.is_some() { Action::ClearBoth } else { planned });
            }
        }
        assert!(Wish::Logout > Wish::OptOut && Wish::OptOut > Wish::Login);
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
    fn an_error_is_taken_by_what_it_means_for_the_identity() {
        for (kind, answer) in [
            (ErrorKind::RejectedToken, Answer::Ended),
            (ErrorKind::RejectedInput, Answer::ClientError),
            (ErrorKind::Unauthorized, Answer::Failed),
            (ErrorKind::ClockDrift, Answer::Failed),
            (ErrorKind::Undecryptable, Answer::Failed),
            (ErrorKind::Transient, Answer::Failed),
            (ErrorKind::Malformed, Answer::Failed),
            (ErrorKind::UnknownStatus, Answer::Failed),
        ] {
            assert_eq!(Answer::of(&Err(EuidError::new(kind, "x"))), answer, "{kind:?}");
        }
        assert_eq!(Answer::of(&Ok(Refreshed::OptedOut)), Answer::OptOut);
    }
}
