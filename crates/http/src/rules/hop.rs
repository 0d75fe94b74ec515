//! Which fields end at this hop (RFC 9110 §7.6.1).
//!
//! Some always do; and a message's `Connection` may name more. What it names is removed, with one exception: a
//! sender cannot use `Connection` to take away what *we* put into the message, or what framing and routing rest on.

use crate::wire::field::{FieldSet, Known};
use crate::wire::h1::Fields;
use crate::wire::list;

/// Removed in both directions. `Host`, `Content-Length` and their like are not here: they are written anew.
pub const HOP_BY_HOP: FieldSet = FieldSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
    // RFC 9110 §11.7: credentials and challenges between a client and its next proxy, which is us.
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::ProxyAuthenticationInfo,
]);

/// What `Connection` cannot take away: routing and framing, the record of the way, and what §7.6.1 itself calls
/// never appropriate as an option.
pub const NOT_NOMINABLE: FieldSet = FieldSet::of(&[
    Known::Host,
    Known::ContentLength,
    Known::Via,
    Known::Forwarded,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedProto,
    Known::XForwardedPort,
    Known::XRealIp,
    Known::CdnLoop,
    Known::CacheControl,
    Known::Date,
]);

/// Does `Connection` name this field, and may it? `present` and `nominates` come first, so that nearly all heads never
/// get here.
pub(crate) fn is_nominated(fields: &Fields, buf: &[u8], known: Known, name: &[u8]) -> bool {
    !NOT_NOMINABLE.has(known)
        && fields.find(Known::Connection, buf).flat_map(list::elements).any(|option| option.eq_ignore_ascii_case(name))
}
