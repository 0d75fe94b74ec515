//! Where the memory of a tree is: by process, as the kernel counts it, and by room, as the server counts it.
//!
//! Cheap by default: a few lines of `/proc/PID/status` for each process. Only [`account`] with `exact` walks the pages
//! (`smaps_rollup`), to divide what processes share among them; for a server with much memory that takes the kernel some
//! milliseconds, in which the server's new mappings wait.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// Processes of one account at most: a tree has some five, and as many more while generations overlap.
const PROCESSES_MAX: usize = 64;

/// What the numbers of a server have to be asked for: their names contain this.
pub const NUMBERS: [&str; 3] = ["_bytes", "_connections_open", "_connections_idle"];

/// The memory of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// By process, the topmost first.
    pub processes: Vec<ProcessMemory>,
    /// By room of the servers, together as large as what they have for themselves.
    pub rooms: Vec<Room>,
    /// What the kernel holds in TCP sockets, of everybody on this machine or in this container.
    pub kernel_sockets_bytes: u64,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessMemory {
    /// Its name.
    pub name: String,
    /// Its pid.
    pub pid: u32,
    /// A server's generation; 0 for others.
    pub generation: u64,
    /// Resident: its own, files, and what it shares.
    pub resident_bytes: u64,
    /// Of that: its own, that no file is behind.
    pub anonymous_bytes: u64,
    /// Of that: pages of files, such as the program.
    pub file_bytes: u64,
    /// Of that: shared memory.
    pub shared_bytes: u64,
    /// Swapped out.
    pub swapped_bytes: u64,
    /// The most it was ever resident.
    pub resident_most_bytes: u64,
    /// Its share, when what several use is divided among them; `None`: not asked for, or not allowed to see.
    pub proportional_bytes: Option<u64>,
}

/// One room of the servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Room {
    /// Its name.
    pub name: String,
    /// What it takes; `None`: it is part of another.
    pub bytes: Option<u64>,
    /// More on it, in words.
    pub note: String,
}

/// The memory of everybody in `status`, whose servers' numbers are `numbers` (those with [`NUMBERS`] in their names).
#[must_use]
pub fn account(status: &Status, numbers: &[(String, String)], exact: bool) -> Memory {
    let others = status.stub.iter().chain(&status.cop).chain([&status.manager]).map(|process| (process, 0));
    let servers = status.servers.iter().map(|server| (&server.process, server.generation));
    let processes: Vec<_> = others
        .chain(servers)
        .filter(|(process, _)| process.pid != 0)
        .take(PROCESSES_MAX)
        .filter_map(|(process, generation)| {
            let memory = of_process(process.pid, exact)?;
            Some(ProcessMemory { name: process.name.clone(), pid: process.pid, generation, ..memory })
        })
        .collect();
    let rooms = rooms(&processes, numbers);
    Memory { processes, rooms, kernel_sockets_bytes: kernel_sockets() }
}

fn rooms(processes: &[ProcessMemory], numbers: &[(String, String)]) -> Vec<Room> {
    let sum = |name: &str| -> u64 {
        let named = numbers.iter().filter(|(sample, _)| sample.split('{').next() == Some(name));
        named.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    };
    let of_servers = |bytes: fn(&ProcessMemory) -> u64| -> u64 {
        processes.iter().filter(|process| process.generation > 0).map(bytes).sum()
    };
    let (used, free) = (sum("beltway_buffer_used_bytes"), sum("beltway_buffer_free_bytes"));
    let (cache, budget) = (sum("beltway_cache_used_bytes"), sum("beltway_cache_budget_bytes"));
    let connections = [
        ("HTTP clients", sum("beltway_http_client_connections_open")),
        ("idle to origins", sum("beltway_http_origin_connections_idle")),
        ("key-value clients", sum("beltway_kv_client_connections_open")),
        ("to key-value servers", sum("beltway_kv_server_connections_open")),
    ];
    let open = connections.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}"));
    let open: Vec<_> = open.collect();
    let anonymous = of_servers(|process| process.anonymous_bytes);
    let room = |name: &str, bytes, note: String| Room { name: name.to_owned(), bytes, note };
    vec![
        room("buffers", Some(used + free), format!("{} in use, {} kept free", show(used), show(free))),
        room("cache", Some(cache), if budget > 0 { format!("of {}", show(budget)) } else { "none".to_owned() }),
        room("connections", None, if open.is_empty() { "none".to_owned() } else { open.join(", ") } + "; in the heap"),
        // Counted apart by two hands that do not wait for each other: never below zero.
        room("heap", Some(anonymous.saturating_sub(used + free + cache)), "all else that is its own".to_owned()),
        room(
            "program",
            Some(of_servers(|process| process.file_bytes)),
            "pages of files, shared with others".to_owned(),
        ),
        room("numbers", Some(of_servers(|process| process.shared_bytes)), "shared with manager".to_owned()),
    ]
}

/// `None`: it is gone.
fn of_process(pid: u32, exact: bool) -> Option<ProcessMemory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| kib_of(&status, name).unwrap_or(0) * 1024;
    let rollup = exact.then(|| fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()).flatten();
    Some(ProcessMemory {
        resident_bytes: kib("VmRSS:"),
        anonymous_bytes: kib("RssAnon:"),
        file_bytes: kib("RssFile:"),
        shared_bytes: kib("RssShmem:"),
        swapped_bytes: kib("VmSwap:"),
        resident_most_bytes: kib("VmHWM:"),
        proportional_bytes: rollup.and_then(|text| kib_of(&text, "Pss:")).map(|kib| kib * 1024),
        ..ProcessMemory::default()
    })
}

/// The number behind `name` at the start of a line.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// What the kernel says of TCP's memory, which it counts in pages.
fn kernel_sockets() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let mut words = tcp.split_whitespace().skip_while(|word| *word != "mem").skip(1);
    let pages = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    pages.saturating_mul(rustix::param::page_size() as u64)
}

/// Bytes for people.
#[must_use]
pub fn show(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{ProcessStatus, ServerStatus};

    #[test]
    fn the_memory_of_this_process_is_found_and_divided_into_rooms() {
        let process =
            ProcessStatus { name: "traffic_server".to_owned(), pid: std::process::id(), ..Default::default() };
        let server = ServerStatus { process, generation: 3, ..ServerStatus::default() };
        let gone =
            ServerStatus { process: ProcessStatus { pid: u32::MAX, ..Default::default() }, ..Default::default() };
        let status = Status { servers: vec![server, gone], ..Status::default() };
        let number = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let numbers = [
            number("beltway_buffer_used_bytes", "1024"),
            number("beltway_buffer_free_bytes{of=\"x\"}", "2048"),
            number("beltway_buffer_free_bytes_total", "7"),
            number("beltway_http_client_connections_open", "5"),
        ];
        let memory = account(&status, &numbers, true);
        let [one] = &memory.processes[..] else { panic!("{memory:?}") };
        assert!(one.resident_bytes > 100_000 && one.proportional_bytes.unwrap() <= one.resident_bytes, "{one:?}");
        assert_eq!(one.resident_bytes, one.anonymous_bytes + one.file_bytes + one.shared_bytes);
        let room = |name: &str| memory.rooms.iter().find(|room| room.name == name).unwrap();
        assert_eq!(room("buffers").bytes, Some(3072));
        assert_eq!(room("heap").bytes, Some(one.anonymous_bytes - 3072));
        assert_eq!(room("connections").note, "5 HTTP clients; in the heap");
        assert_eq!(account(&status, &numbers, false).processes[0].proportional_bytes, None);
    }

    #[test]
    fn bytes_are_shown_with_one_digit_behind_the_point() {
        for (bytes, shown) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(show(bytes), shown);
        }
    }
}
