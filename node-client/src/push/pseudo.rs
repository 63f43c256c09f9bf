//! File systems that hold no data of anybody: their files are views of the kernel, and some never end.

use std::collections::BTreeSet;

/// All mounts that this process sees.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Their types. Not among them: `tmpfs`, which holds data, and `autofs`, behind which data appears.
const TYPES: [&str; 22] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// The devices of such file systems that are mounted.
#[derive(Debug, Default)]
pub(crate) struct Pseudo(BTreeSet<u64>);

impl Pseudo {
    /// Those of this machine; none if the kernel does not tell.
    pub(crate) fn mounted() -> Self {
        Self::parse(&std::fs::read(MOUNTS).unwrap_or_default())
    }

    /// `36 35 98:0 /from /to rw,noatime master:1 - ext3 /dev/root rw`: the device is the third field, the type stands
    /// behind the dash.
    fn parse(mounts: &[u8]) -> Self {
        let device = |line: &[u8]| {
            let line = String::from_utf8_lossy(line);
            let (about, file_system) = line.split_once(" - ")?;
            let kind = file_system.split(' ').next().filter(|kind| TYPES.contains(kind));
            let (major, minor) = about.split(' ').nth(2)?.split_once(':')?;
            let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
            kind.map(|_| u64::from(major) << 32 | u64::from(minor))
        };
        Self(mounts.split(|byte| *byte == b'\n').filter_map(device).collect())
    }

    /// True if the device is that of one.
    pub(crate) fn has(&self, dev: u64) -> bool {
        self.0.contains(&dev)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_views_of_the_kernel_are_known() {
        let mounts = b"22 1 0:21 / /proc rw,nosuid shared:12 - proc proc rw\n\
            23 1 254:0 / / rw - ext4 /dev/vda rw\n\
            24 22 0:5 / /dev rw master:1 shared:2 - devtmpfs udev rw,size=1k\n\
            25 24 0:30 / /dev/shm rw - tmpfs proc rw\nodd\n26 1 x:y / /a rw - sysfs sysfs rw\n";

        let pseudo = Pseudo::parse(mounts);

        assert_eq!(pseudo.0, BTreeSet::from([21, 5]));
        let proc = crate::identity::Device::of(std::path::Path::new("/proc"));
        assert!(Pseudo::mounted().has(proc.dev) && !Pseudo::mounted().has(254 << 32));
    }
}
