//! What one event loop counts, in the segment of a process's numbers.
//!
//! The loop writes its own cells at the end of each turn ([`crate::Thread::set_cells`]). What belongs to the process and
//! not to a loop (accepts, background work) is told by whoever has them, now and then.

stats::metrics! {
    /// The numbers of one event loop; and, told by one thread for all, those of accepting and of ET_TASK.
    pub struct Loop;

    /// Turns of the event loops.
    gauge TURNS = "beltway_event_turns";
    /// Readiness events delivered.
    gauge EVENTS = "beltway_event_ready_events";
    /// Time the loops worked.
    gauge BUSY = "beltway_event_busy_seconds" in Nanoseconds;
    /// Time the loops slept.
    gauge SLEPT = "beltway_event_slept_seconds" in Nanoseconds;
    /// How long the loops worked from one poll to the next.
    histogram TURN = "beltway_event_turn_seconds" in Nanoseconds;
    /// The longest stretch of work between two polls, in each fifth of a second.
    histogram LONGEST = "beltway_event_longest_turn_seconds" in Nanoseconds;
    /// How many continuations waited in the local queue when their turn came.
    histogram QUEUE = "beltway_event_queue_depth";
    /// How many messages of other threads one turn took.
    histogram MESSAGES = "beltway_event_messages";
    /// How much later than their time timers fired.
    histogram LATENESS = "beltway_event_timer_lateness_seconds" in Nanoseconds;
    /// Futures that have not ended.
    gauge TASKS = "beltway_event_tasks";
    /// Timers that are pending.
    gauge TIMERS = "beltway_event_timers";
    /// Panics contained.
    gauge PANICS = "beltway_event_panics";
    /// Memory of blocks in use.
    gauge BLOCKS_USED = "beltway_buffer_used_bytes" in Bytes;
    /// Memory of blocks kept for the next use.
    gauge BLOCKS_FREE = "beltway_buffer_free_bytes" in Bytes;
    /// Connections handed on to another thread.
    gauge HANDED_ON = "beltway_accept_handed_on";
    /// Pauses of accepting at the connection limit.
    gauge AT_LIMIT = "beltway_accept_paused_at_limit";
    /// Pauses of accepting for want of descriptors.
    gauge NO_DESCRIPTORS = "beltway_accept_paused_without_descriptors";
    /// Background work that waits for a thread.
    gauge BACKGROUND_WAITING = "beltway_background_waiting";
    /// Background work that runs.
    gauge BACKGROUND_RUNNING = "beltway_background_running";
    /// How long the oldest background work runs by now: when it only grows, a thread is stuck.
    gauge BACKGROUND_OLDEST = "beltway_background_oldest_seconds" in Nanoseconds;
    /// Background work that was done.
    gauge BACKGROUND_DONE = "beltway_background_done";
    /// Background work that was refused, the queue being full.
    gauge BACKGROUND_REFUSED = "beltway_background_refused";
    /// Background work whose deadline passed before it was done.
    gauge BACKGROUND_LATE = "beltway_background_late";
}
