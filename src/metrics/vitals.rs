//! What the kernel knows of this process, under the names that Prometheus' own clients use.

use std::fs;

use super::catalogue::{CPU, MAX_FDS, OPEN_FDS, RESIDENT, STARTED, THREADS, VIRTUAL};
use super::exposition::Exposition;

/// What is read of `/proc`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vitals {
    cpu_seconds: f64,
    resident: u64,
    virtual_size: u64,
    open_files: u64,
    most_files: u64,
    threads: u64,
    started: f64,
}

impl Vitals {
    /// As they are now; `None` where the kernel does not tell.
    pub fn now() -> Option<Vitals> {
        let read = |path: &str| fs::read_to_string(path).ok();
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count();
        // One of them is the folder that is being read.
        let open_files = u64::try_from(open_files).ok()?.saturating_sub(1);
        Vitals::of(
            &read("/proc/self/stat")?,
            &read("/proc/self/status")?,
            &read("/proc/self/limits")?,
            &read("/proc/stat")?,
            open_files,
        )
    }

    fn of(stat: &str, status: &str, limits: &str, machine: &str, open_files: u64) -> Option<Vitals> {
        // The second field is the name, which may have blanks; the third one stands behind its parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let most = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let booted = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
        Some(Vitals {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS,
            resident: kib("VmRSS:")?,
            virtual_size: kib("VmSize:")?,
            open_files,
            most_files: most.split_whitespace().next()?.parse().unwrap_or(u64::MAX),
            threads: fields.get(17)?.parse().ok()?,
            started: booted + ticks(22)? / TICKS,
        })
    }

    /// Shows them.
    pub fn show(&self, page: &mut Exposition) {
        page.one(&CPU, self.cpu_seconds);
        page.one(&RESIDENT, self.resident);
        page.one(&VIRTUAL, self.virtual_size);
        page.one(&OPEN_FDS, self.open_files);
        page.one(&MAX_FDS, self.most_files);
        page.one(&THREADS, self.threads);
        page.one(&STARTED, self.started);
    }
}

/// Of a second: what Linux shows to programs, whatever it counts in itself.
const TICKS: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_where_the_kernel_writes_it() {
        let stat = "4711 (a b) c) S 1 4711 4711 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 12345 1000000 300 18446744073709551615";
        let status = "Name:\ta\nVmSize:\t    2000 kB\nVmRSS:\t     300 kB\nThreads:\t9\n";
        let limits =
            "Limit  Soft  Hard  Units\nMax open files            1024                 4096                 files\n";
        let vitals = Vitals::of(stat, status, limits, "cpu 1 2\nbtime 1700000000\n", 12).unwrap();
        let expected = Vitals {
            cpu_seconds: 3.0,
            resident: 300 * 1024,
            virtual_size: 2000 * 1024,
            open_files: 12,
            most_files: 1024,
            threads: 9,
            started: 1_700_000_123.45,
        };
        assert_eq!(vitals, expected);
        assert_eq!(Vitals::of("nonsense", status, limits, "", 0), None);
    }
}
