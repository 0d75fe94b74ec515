//! The machine a measurement was made on, as far as it explains the numbers.

use std::fs;

use serde::Serialize;

/// Hardware and kernel.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) cpu: String,
    /// Cores that are online.
    pub(crate) cores: usize,
    /// Kernel release.
    pub(crate) kernel: String,
    /// TCP's congestion control, which decides how large answers flow.
    pub(crate) congestion_control: String,
}

impl Machine {
    /// Looks around.
    pub(crate) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned()));
        Self {
            cpu: cpu.unwrap_or_default(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease"),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control"),
        }
    }
}
