//! What the container may take, by its control groups (cgroups(7)), version 2 or 1.
//!
//! A limit of a group above counts as well, so the least of all those around the process is taken. Groups that are named
//! but not shown, as where a container sees the names of the machine around it, are left out.

/// Reads a file by its path: `sys/fs/cgroup/memory.max`.
pub type Read<'r> = &'r dyn Fn(&str) -> Option<String>;

/// Bytes of memory; `None` where there is no limit, or none can be seen.
pub fn memory(read: Read<'_>) -> Option<u64> {
    let second = folders(read, "").filter_map(|folder| read(&format!("{folder}/memory.max")));
    let first = folders(read, "memory").filter_map(|folder| read(&format!("{folder}/memory.limit_in_bytes")));
    let limits = second.chain(first).filter_map(|text| text.trim().parse::<u64>().ok());
    limits.filter(|limit| *limit < UNLIMITED).min()
}

/// Cores; `None` where there is no limit, or none can be seen.
pub fn cores(read: Read<'_>) -> Option<f64> {
    let second = folders(read, "").filter_map(|folder| {
        let text = read(&format!("{folder}/cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ')?;
        share(quota, period)
    });
    let first = folders(read, "cpu").filter_map(|folder| {
        let file = |name: &str| read(&format!("{folder}/cpu.cfs_{name}_us"));
        share(file("quota")?.trim(), file("period")?.trim())
    });
    second.chain(first).reduce(f64::min)
}

fn share(quota: &str, period: &str) -> Option<f64> {
    let quota: f64 = quota.parse().ok()?;
    let period: f64 = period.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The folders of the process's group and of those around it: of a controller of version 1, or without one of version 2.
fn folders(read: Read<'_>, controller: &str) -> impl Iterator<Item = String> {
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let of = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|one| one == controller).then(|| path.trim_matches('/').to_owned())
    };
    let path = groups.lines().find_map(of).unwrap_or_default();
    let base = match controller {
        "" => BASE.to_owned(),
        name => format!("{BASE}/{name}"),
    };
    let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    (0..=parts.len()).rev().map(move |depth| {
        let inside = parts.iter().take(depth);
        inside.fold(base.clone(), |folder, part| format!("{folder}/{part}"))
    })
}

const BASE: &str = "sys/fs/cgroup";

/// Version 1 writes the largest number of pages for no limit.
const UNLIMITED: u64 = 1 << 60;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn limits(files: &[(&'static str, &'static str)]) -> (Option<u64>, Option<f64>) {
        let files: HashMap<&str, &str> = files.iter().copied().collect();
        let read = |path: &str| files.get(path).map(|text| (*text).to_owned());
        (memory(&read), cores(&read))
    }

    #[test]
    fn the_least_limit_around_the_container_counts_in_either_version() {
        let second = [
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "268435456\n"),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ];
        assert_eq!(limits(&second), (Some(256 << 20), Some(0.5)));
        let nested = [
            ("proc/self/cgroup", "0::/kubepods.slice/pod1.slice/portcullis\n"),
            ("sys/fs/cgroup/kubepods.slice/pod1.slice/portcullis/memory.max", "max\n"),
            ("sys/fs/cgroup/kubepods.slice/pod1.slice/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/kubepods.slice/memory.max", "4294967296\n"),
            ("sys/fs/cgroup/kubepods.slice/cpu.max", "max 100000\n"),
        ];
        assert_eq!(limits(&nested), (Some(1 << 30), None));
        // As Docker shows it: by the names of the machine around it, and mounted as if there were none.
        let first = [
            ("proc/self/cgroup", "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/docker/1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits(&first), (Some(128 << 20), Some(2.0)));
    }

    #[test]
    fn no_limit_is_none() {
        let none = [
            ("proc/self/cgroup", "4:memory:/\n3:cpu,cpuacct:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits(&none), (None, None));
        assert_eq!(limits(&[]), (None, None));
        assert_eq!(limits(&[("sys/fs/cgroup/memory.max", "nonsense"), ("sys/fs/cgroup/cpu.max", "0 0")]), (None, None));
    }
}
