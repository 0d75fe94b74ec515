//! What the HTTP engine counts.

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
}
