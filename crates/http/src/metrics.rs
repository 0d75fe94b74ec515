//! What the HTTP engine counts.

use crate::rules::caching::{Reason, ResultCode};

stats::metrics! {
    /// One thread's share of the HTTP engine's numbers.
    pub struct Http;

    /// Client connections accepted.
    counter CLIENT_CONNECTIONS = "beltway_http_client_connections_total";
    /// Client connections open now.
    gauge CLIENT_OPEN = "beltway_http_client_connections_open";
    /// Requests whose head was read, or refused.
    counter REQUESTS = "beltway_http_requests_total";
    /// Requests that the server's own page and the embedded origin answered: counted here and nowhere else.
    counter LOCAL_REQUESTS = "beltway_http_local_requests_total";
    /// Transactions under way now.
    gauge ACTIVE = "beltway_http_transactions_active";
    /// Responses by class of status.
    counter RESPONSES_1XX = "beltway_http_responses_total" { class = "1xx" };
    /// Responses by class of status.
    counter RESPONSES_2XX = "beltway_http_responses_total" { class = "2xx" };
    /// Responses by class of status.
    counter RESPONSES_3XX = "beltway_http_responses_total" { class = "3xx" };
    /// Responses by class of status.
    counter RESPONSES_4XX = "beltway_http_responses_total" { class = "4xx" };
    /// Responses by class of status.
    counter RESPONSES_5XX = "beltway_http_responses_total" { class = "5xx" };
    /// Bytes received from clients.
    counter CLIENT_RECEIVED = "beltway_http_client_received_bytes_total" in Bytes;
    /// Bytes sent to clients.
    counter CLIENT_SENT = "beltway_http_client_sent_bytes_total" in Bytes;
    /// Answers of our own making, by whose fault it was.
    counter OWN_CLIENT_FAULT = "beltway_http_own_answers_total" { fault = "client" };
    /// Answers of our own making, by whose fault it was.
    counter OWN_ORIGIN_FAULT = "beltway_http_own_answers_total" { fault = "origin" };
    /// Answers of our own making, by whose fault it was.
    counter OWN_PROXY_FAULT = "beltway_http_own_answers_total" { fault = "proxy" };
    /// Transactions that ended early: the client went away.
    counter CLIENT_GONE = "beltway_http_aborted_total" { by = "client" };
    /// Transactions that ended early: the origin's answer broke off.
    counter ORIGIN_GONE = "beltway_http_aborted_total" { by = "origin" };
    /// Transactions that ended early: a wait on the client reached its limit.
    counter CLIENT_LATE = "beltway_http_timeouts_total" { of = "client" };
    /// Transactions that ended early: a wait on the origin reached its limit.
    counter ORIGIN_LATE = "beltway_http_timeouts_total" { of = "origin" };
    /// Connections to origins opened.
    counter ORIGIN_CONNECTS = "beltway_http_origin_connects_total" { result = "opened" };
    /// Connections to origins that failed.
    counter ORIGIN_CONNECT_FAILURES = "beltway_http_origin_connects_total" { result = "failed" };
    /// Requests sent on a connection that had served before.
    counter ORIGIN_REUSES = "beltway_http_origin_reuses_total";
    /// Requests repeated because a kept connection had been closed under them.
    counter RETRIES = "beltway_http_retries_total" { why = "stale-connection" };
    /// Requests that went to the next origin because one could not be reached.
    counter FAILOVERS = "beltway_http_retries_total" { why = "unreachable" };
    /// Bytes received from origins.
    counter ORIGIN_RECEIVED = "beltway_http_origin_received_bytes_total" in Bytes;
    /// Idle connections to origins kept now.
    gauge ORIGIN_IDLE = "beltway_http_origin_connections_idle";
    /// Requests by what the cache had to do with them.
    counter RESULT_HIT = "beltway_http_results_total" { result = "TCP_HIT" };
    /// Requests by what the cache had to do with them.
    counter RESULT_MEM_HIT = "beltway_http_results_total" { result = "TCP_MEM_HIT" };
    /// Requests by what the cache had to do with them.
    counter RESULT_IMS_HIT = "beltway_http_results_total" { result = "TCP_IMS_HIT" };
    /// Requests by what the cache had to do with them.
    counter RESULT_STALE_HIT = "beltway_http_results_total" { result = "TCP_STALE_HIT" };
    /// Requests by what the cache had to do with them.
    counter RESULT_COLLAPSED_HIT = "beltway_http_results_total" { result = "TCP_CF_HIT" };
    /// Requests by what the cache had to do with them.
    counter RESULT_MISS = "beltway_http_results_total" { result = "TCP_MISS" };
    /// Requests by what the cache had to do with them.
    counter RESULT_REFRESH_UNMODIFIED = "beltway_http_results_total" { result = "TCP_REFRESH_UNMODIFIED" };
    /// Requests by what the cache had to do with them.
    counter RESULT_REFRESH_MODIFIED = "beltway_http_results_total" { result = "TCP_REFRESH_MODIFIED" };
    /// Requests by what the cache had to do with them.
    counter RESULT_REFRESH_FAIL_OLD = "beltway_http_results_total" { result = "TCP_REFRESH_FAIL_OLD" };
    /// Requests by what the cache had to do with them.
    counter RESULT_REFRESH_FAIL_ERR = "beltway_http_results_total" { result = "TCP_REFRESH_FAIL_ERR" };
    /// Requests by what the cache had to do with them.
    counter RESULT_CLIENT_REFRESH_MISS = "beltway_http_results_total" { result = "TCP_CLIENT_REFRESH_MISS" };
    /// Requests by what the cache had to do with them.
    counter RESULT_ONLY_IF_CACHED_MISS = "beltway_http_results_total" { result = "TCP_OFFLINE_MISS" };
    /// Requests by what the cache had to do with them.
    counter RESULT_DENIED = "beltway_http_results_total" { result = "TCP_DENIED" };
    /// Requests by what the cache had to do with them.
    counter RESULT_NONE = "beltway_http_results_total" { result = "NONE" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_DISABLED = "beltway_http_not_stored_total" { reason = "disabled" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_METHOD = "beltway_http_not_stored_total" { reason = "method" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_REQUEST_CONTENT = "beltway_http_not_stored_total" { reason = "request-content" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_KEY_TOO_LONG = "beltway_http_not_stored_total" { reason = "key-too-long" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_REQUEST_NO_STORE = "beltway_http_not_stored_total" { reason = "request-no-store" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_INTERIM = "beltway_http_not_stored_total" { reason = "interim" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_PARTIAL = "beltway_http_not_stored_total" { reason = "partial" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_CONTENT_RANGE = "beltway_http_not_stored_total" { reason = "content-range" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_NOT_MODIFIED = "beltway_http_not_stored_total" { reason = "not-modified" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_STATUS_FORBIDS = "beltway_http_not_stored_total" { reason = "status-forbids" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_STATUS_UNKNOWN = "beltway_http_not_stored_total" { reason = "status-unknown" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_NO_STORE = "beltway_http_not_stored_total" { reason = "no-store" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_PRIVATE = "beltway_http_not_stored_total" { reason = "private" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_AUTHORIZATION = "beltway_http_not_stored_total" { reason = "authorization" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_SET_COOKIE = "beltway_http_not_stored_total" { reason = "set-cookie" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_VARY_STAR = "beltway_http_not_stored_total" { reason = "vary-star" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_VARY_TOO_MANY = "beltway_http_not_stored_total" { reason = "vary-too-many" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_NO_LIFETIME = "beltway_http_not_stored_total" { reason = "no-lifetime" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_NOT_REUSABLE = "beltway_http_not_stored_total" { reason = "not-reusable" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_HEAD_TOO_LARGE = "beltway_http_not_stored_total" { reason = "head-too-large" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_TOO_LARGE = "beltway_http_not_stored_total" { reason = "too-large" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_INCOMPLETE = "beltway_http_not_stored_total" { reason = "incomplete" };
    /// Responses that were not stored, by the reason.
    counter UNSTORED_NO_ROOM = "beltway_http_not_stored_total" { reason = "no-room" };
    /// Stored responses validated in the background, while they were served.
    counter REFRESHES = "beltway_http_refreshes_total";
    /// URLs that PURGE removed.
    counter PURGES = "beltway_http_purges_total";
    /// Fetches that went on without the client that began them.
    counter FILLS_WITHOUT_CLIENT = "beltway_http_fills_without_client_total";
    /// From the first byte of a request to the last of its response taken by the kernel or queued.
    histogram DURATION = "beltway_http_transaction_seconds" in Nanoseconds;
    /// From sending a request to an origin to the first byte of its answer.
    histogram ORIGIN_WAIT = "beltway_http_origin_wait_seconds" in Nanoseconds;
}

impl Http {
    /// The counter for a response of this status.
    #[must_use]
    pub const fn responses(status: u16) -> stats::Counter<Self> {
        match status {
            0..=199 => Self::RESPONSES_1XX,
            200..=299 => Self::RESPONSES_2XX,
            300..=399 => Self::RESPONSES_3XX,
            400..=499 => Self::RESPONSES_4XX,
            _ => Self::RESPONSES_5XX,
        }
    }

    /// The counter for a response that was not stored.
    #[must_use]
    pub const fn not_stored(reason: Reason) -> stats::Counter<Self> {
        match reason {
            Reason::Disabled => Self::UNSTORED_DISABLED,
            Reason::Method => Self::UNSTORED_METHOD,
            Reason::RequestContent => Self::UNSTORED_REQUEST_CONTENT,
            Reason::KeyTooLong => Self::UNSTORED_KEY_TOO_LONG,
            Reason::RequestNoStore => Self::UNSTORED_REQUEST_NO_STORE,
            Reason::Interim => Self::UNSTORED_INTERIM,
            Reason::Partial => Self::UNSTORED_PARTIAL,
            Reason::ContentRange => Self::UNSTORED_CONTENT_RANGE,
            Reason::NotModified => Self::UNSTORED_NOT_MODIFIED,
            Reason::StatusForbids => Self::UNSTORED_STATUS_FORBIDS,
            Reason::StatusUnknown => Self::UNSTORED_STATUS_UNKNOWN,
            Reason::NoStore => Self::UNSTORED_NO_STORE,
            Reason::Private => Self::UNSTORED_PRIVATE,
            Reason::Authorization => Self::UNSTORED_AUTHORIZATION,
            Reason::SetCookie => Self::UNSTORED_SET_COOKIE,
            Reason::VaryStar => Self::UNSTORED_VARY_STAR,
            Reason::VaryTooMany => Self::UNSTORED_VARY_TOO_MANY,
            Reason::NoLifetime => Self::UNSTORED_NO_LIFETIME,
            Reason::NotReusable => Self::UNSTORED_NOT_REUSABLE,
            Reason::HeadTooLarge => Self::UNSTORED_HEAD_TOO_LARGE,
            Reason::TooLarge => Self::UNSTORED_TOO_LARGE,
            Reason::Incomplete => Self::UNSTORED_INCOMPLETE,
            Reason::NoRoom => Self::UNSTORED_NO_ROOM,
        }
    }

    /// The counter for what the cache had to do with a request.
    #[must_use]
    pub const fn result(code: ResultCode) -> stats::Counter<Self> {
        match code {
            ResultCode::Hit => Self::RESULT_HIT,
            ResultCode::MemHit => Self::RESULT_MEM_HIT,
            ResultCode::ImsHit => Self::RESULT_IMS_HIT,
            ResultCode::StaleHit => Self::RESULT_STALE_HIT,
            ResultCode::CollapsedHit => Self::RESULT_COLLAPSED_HIT,
            ResultCode::Miss => Self::RESULT_MISS,
            ResultCode::RefreshUnmodified => Self::RESULT_REFRESH_UNMODIFIED,
            ResultCode::RefreshModified => Self::RESULT_REFRESH_MODIFIED,
            ResultCode::RefreshFailOld => Self::RESULT_REFRESH_FAIL_OLD,
            ResultCode::RefreshFailErr => Self::RESULT_REFRESH_FAIL_ERR,
            ResultCode::ClientRefreshMiss => Self::RESULT_CLIENT_REFRESH_MISS,
            ResultCode::OnlyIfCachedMiss => Self::RESULT_ONLY_IF_CACHED_MISS,
            ResultCode::Denied => Self::RESULT_DENIED,
            ResultCode::None => Self::RESULT_NONE,
        }
    }
}
