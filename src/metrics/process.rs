//! What the system knows of this process, under the names that every Prometheus client library
//! has for it (`process_*`), and two of etcd's. Read from `/proc` when somebody asks; where there
//! is none, nothing is printed.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::{clock_ticks_per_second, page_size};

/// Reads `/proc/self` at each scrape.
#[derive(Debug)]
pub(super) struct Process;

/// The part of `/proc/self/stat` that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// The name of the program is in brackets, and may hold any character, brackets included.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Numbered from 1 in proc(5), the state, which is the first here, being the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the system started, in seconds since 1970.
fn boot_time_s(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The soft limit of this name in `/proc/self/limits`; one that is unlimited is the highest number.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_ascii_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(family)
}

impl Process {
    fn encode_stat(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let Some(stat) = stat.as_deref().and_then(Stat::parse) else { return Ok(()) };
        let ticks_per_s = clock_ticks_per_second() as f64;
        let (name, help) = ("process_cpu_seconds", "CPU time spent, user and system");
        let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(stat.cpu_ticks as f64 / ticks_per_s).encode(family)?;
        let resident = stat.resident_pages * page_size() as u64;
        gauge(encoder, "process_resident_memory_bytes", "Resident memory", resident)?;
        let reserved = stat.virtual_bytes;
        gauge(encoder, "process_virtual_memory_bytes", "Virtual memory", reserved)?;
        let boot = fs::read_to_string("/proc/stat").ok();
        let Some(boot) = boot.as_deref().and_then(boot_time_s) else { return Ok(()) };
        let (name, help) = ("process_start_time_seconds", "Start of the process since 1970");
        let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(boot as f64 + stat.start_ticks as f64 / ticks_per_s).encode(family)
    }

    fn encode_limits(encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let open = fs::read_dir("/proc/self/fd").map(|open| open.count() as u64);
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Ok(open) = open {
            // The directory itself is open while it is counted.
            let open = open.saturating_sub(1);
            gauge(encoder, "process_open_fds", "Open file descriptors", open)?;
            gauge(encoder, "os_fd_used", "Open file descriptors", open)?;
        }
        if let Some(limit) = soft_limit(&limits, "Max open files") {
            gauge(encoder, "process_max_fds", "Most open file descriptors", limit)?;
            gauge(encoder, "os_fd_limit", "Most open file descriptors", limit)?;
        }
        if let Some(limit) = soft_limit(&limits, "Max address space") {
            gauge(encoder, "process_virtual_memory_max_bytes", "Most virtual memory", limit)?;
        }
        Ok(())
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Self::encode_stat(&mut encoder)?;
        Self::encode_limits(&mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_read_whatever_the_program_is_called() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 5 0 9000 4096000 250 1";
        let read = Stat {
            cpu_ticks: 200,
            start_ticks: 9000,
            virtual_bytes: 4_096_000,
            resident_pages: 250,
        };
        assert_eq!(Stat::parse(stat), Some(read));
        for bad in
            ["", "7 (a", "7 (a) S 1 2", "7 (a) S 1 7 7 0 -1 0 1 0 0 0 x 50 0 0 20 0 5 0 1 2 3"]
        {
            assert_eq!(Stat::parse(bad), None, "{bad:?}");
        }
        assert_eq!(boot_time_s("cpu 1 2\nbtime 1700000000\nprocesses 5\n"), Some(1_700_000_000));
        let limits = "Limit                Soft Limit    Hard Limit    Units\n\
                      Max open files       1024          4096          files\n\
                      Max address space    unlimited     unlimited     bytes\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024));
        assert_eq!(soft_limit(limits, "Max address space"), Some(u64::MAX));
        assert_eq!(soft_limit(limits, "Max nonsense"), None);
    }
}
