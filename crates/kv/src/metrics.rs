//! What the key-value engine counts.

stats::metrics! {
    /// One thread's share of the key-value engine's numbers.
    pub struct Kv;

    /// Client connections accepted.
    counter CLIENT_CONNECTIONS = "beltway_kv_client_connections_total";
    /// Client connections open now.
    gauge CLIENT_OPEN = "beltway_kv_client_connections_open";
    /// Client connections refused because the pool has as many as it may.
    counter CLIENT_REFUSED = "beltway_kv_client_refused_total";
    /// Client connections that ended with an error, or were cut.
    counter CLIENT_ERRORS = "beltway_kv_client_errors_total";
    /// Bytes received from clients.
    counter CLIENT_RECEIVED = "beltway_kv_client_received_bytes_total" in Bytes;
    /// Requests of clients.
    counter COMMANDS = "beltway_kv_commands_total";
    /// Requests answered by the proxy itself.
    counter LOCAL = "beltway_kv_local_answers_total";
    /// Requests refused: unknown, of the wrong form, or not for a proxy.
    counter REFUSED = "beltway_kv_refused_commands_total";
    /// Client connections that were ended because HTTP was spoken on them.
    counter FOREIGN = "beltway_kv_http_clients_total";
    /// Requests that were split among servers.
    counter SPLITS = "beltway_kv_split_commands_total";
    /// Parts that split requests became.
    counter FRAGMENTS = "beltway_kv_fragments_total";
    /// Requests that passed through while they came, on a connection of their own.
    counter STREAMED = "beltway_kv_streamed_commands_total";
    /// Requests sent to servers.
    counter REQUESTS = "beltway_kv_server_requests_total";
    /// Batches they were sent in.
    counter BATCHES = "beltway_kv_server_batches_total";
    /// Connections to servers open now.
    gauge SERVER_OPEN = "beltway_kv_server_connections_open";
    /// Bytes received from servers.
    counter SERVER_RECEIVED = "beltway_kv_server_received_bytes_total" in Bytes;
    /// Connections to servers that failed.
    counter SERVER_FAILURES = "beltway_kv_server_failures_total";
    /// Requests that got an error because no server answered them.
    counter FORWARD_ERRORS = "beltway_kv_forward_errors_total";
    /// Requests whose time was over before a reply came.
    counter TIMED_OUT = "beltway_kv_timeouts_total";
    /// Replies that came too late, or that nobody waited for any more.
    counter LATE = "beltway_kv_late_replies_total";
    /// Requests sent again after a connection failed.
    counter RETRIES = "beltway_kv_retries_total";
    /// Servers taken out of their ring.
    counter EJECTIONS = "beltway_kv_ejections_total";
    /// Servers taken back after a probe.
    counter RESTORATIONS = "beltway_kv_restorations_total";
    /// Bytes that all pools keep of requests and replies, of `kv.memory`.
    gauge MEMORY = "beltway_kv_memory_bytes" in Bytes;
    /// How many they may keep: `kv.memory`.
    gauge MEMORY_MAX = "beltway_kv_memory_max_bytes" in Bytes;
    /// Servers out of their ring now, however many threads use them.
    gauge EJECTED = "beltway_kv_servers_ejected";
}
