//! Asserts that every public type is `Send`, `Sync` and `Unpin`. The recorded public API does not list these traits.
//! If a type loses one, this file does not compile.

use euid_core::clock::{Clock, ManualClock, SystemClock, UnixMillis};
use euid_core::dii::{Dii, DiiKind, InvalidDii};
use euid_core::engine::{
    Change, Decision, Engine, Findings, Finish, Lineage, Load, Login, NewLogin, Pending, RefreshCandidate,
    RejectReason, Renewal, Report, RequestContext, Save, SignedIn, Step, StoreAnswer, StoreCall, StoreWrite,
    StoredRefresh, UserCheck, Watch, WriteError,
};
use euid_core::error::Setting;
use euid_core::error::{ConfigError, ErrorKind, EuidError, InvalidIdentity};
use euid_core::identity::{Identity, IdentityTimes, RefreshToken, ResponseKey};
use euid_core::openrtb::{Eid, Eids, MatchMethod};
use euid_core::operator::{Answered, Call, ClockSkew};
use euid_core::store::{Put, StoreKey, Stored, When};
use euid_core::tcf::{ConflictingCookies, Verdict};
use euid_core::{
    AdvertisingToken, Consent, CookieConfig, CookieKey, Environment, Euid, EuidLogoutHandle, GenerateRequest,
    Generated, KeyRing, Operator, OperatorBuilder, Refreshed, SameSite,
};

const fn value<T: Send + Sync + Unpin + 'static>() {}
const fn shared<T: Send + Sync + ?Sized + 'static>() {}

const _: () = {
    shared::<dyn Clock>();
    value::<ManualClock>();
    value::<SystemClock>();
    value::<UnixMillis>();

    value::<Dii>();
    value::<DiiKind>();
    value::<InvalidDii>();

    value::<Change>();
    value::<Decision>();
    value::<Engine>();
    value::<Findings>();
    value::<Finish>();
    value::<Report>();
    value::<Load>();
    value::<Save>();
    value::<StoreCall>();
    value::<StoreAnswer>();
    value::<StoreWrite>();
    value::<StoredRefresh>();
    value::<Lineage>();
    value::<Login>();
    value::<NewLogin>();
    value::<Pending>();
    value::<Renewal>();
    value::<RefreshCandidate>();
    value::<RejectReason>();
    value::<Step>();
    value::<WriteError>();
    value::<UserCheck>();
    value::<Watch>();
    value::<RequestContext<'static>>();
    value::<SignedIn<'static>>();

    value::<Answered>();
    value::<Call>();
    value::<ClockSkew>();
    value::<Environment>();
    value::<Operator>();
    value::<OperatorBuilder>();

    value::<ConfigError>();
    value::<Setting>();
    value::<ErrorKind>();
    value::<EuidError>();
    value::<InvalidIdentity>();

    value::<Identity>();
    value::<IdentityTimes>();
    value::<RefreshToken>();
    value::<ResponseKey>();

    value::<Eid>();
    value::<Eids>();
    value::<MatchMethod>();

    value::<Put>();
    value::<StoreKey>();
    value::<Stored>();
    value::<When>();

    value::<ConflictingCookies>();
    value::<Verdict>();

    value::<AdvertisingToken>();
    value::<Consent>();
    value::<CookieConfig>();
    value::<CookieKey>();
    value::<Euid>();
    value::<EuidLogoutHandle>();
    value::<GenerateRequest>();
    value::<Generated>();
    value::<KeyRing>();
    value::<Refreshed>();
    value::<SameSite>();
};

#[cfg(feature = "axum")]
const _: () = value::<euid_core::EuidLayerMissing>();
