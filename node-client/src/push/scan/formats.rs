//! Formats of files that are known to be written in place: growth of these is never taken for appending.
//!
//! Formats are recognized by name, or by the first bytes. An unknown format has to earn trust by full
//! comparisons (`change`), so a format that is missing here costs at most two reads, and never a byte.

use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use format_spec::EntryPath;

use crate::globs::Globs;

/// Bytes at the start of a file that are looked at: the superblock of ext4 ends before that.
const HEAD_LEN: usize = 4096;

/// Names of files that databases and machines write in place.
const NAMES: [&str; 24] = [
    // PostgreSQL: relations, their parts and forks; the log is allocated ahead and used again.
    "**/{base,pg_tblspc}/**/[0-9]*",
    "**/global/[0-9]*",
    "**/global/pg_control",
    "**/{pg_xact,pg_multixact,pg_commit_ts,pg_subtrans}/**",
    "**/{pg_wal,pg_xlog}/**",
    // InnoDB, Aria, MyISAM.
    "*.{ibd,ibu,MYD,MYI,MAD,MAI}",
    "ibdata[0-9]*",
    "ib_logfile*",
    "#ib_redo*",
    "undo[0-9_]*",
    "aria_log*",
    // SQLite.
    "*.{sqlite,sqlite3,db3}",
    "*.{sqlite,sqlite3,db,db3}-{wal,shm,journal}",
    // LMDB, bolt.
    "*.mdb",
    "*.{bolt,boltdb}",
    "**/member/snap/db",
    // Berkeley DB.
    "*.bdb",
    "__db.[0-9]*",
    // Disks of virtual machines.
    "*.{qcow,qcow2,vmdk,vdi,vhd,vhdx,hdd}",
    "*.{img,raw,iso}",
    // Databases of other programs that grow and are written in place.
    "*.{mdf,ldf,ndf,dbf,fdb,gdb}",
    "*.{accdb,h5,hdf5}",
    "*.{wt,turtle}",
    "*.{fpt,dbt}",
];

/// Bytes that a format has at one place, and the place.
const MAGICS: [(usize, &[u8]); 14] = [
    (0, b"SQLite format 3\0"),
    // LMDB: the magic of its first page; bolt: the same.
    (16, &[0xde, 0xc0, 0xef, 0xbe]),
    (16, &[0xed, 0xda, 0x0c, 0xed]),
    // MyISAM and Aria indexes.
    (0, &[0xfe, 0xfe, 0x07]),
    (0, &[0xff, 0xfe, 0xfe]),
    // Berkeley DB: trees and hashes.
    (12, &[0x62, 0x31, 0x05, 0x00]),
    (12, &[0x61, 0x15, 0x06, 0x00]),
    // Disks: qcow2, VMDK, VHDX, VDI; partitions; LUKS.
    (0, b"QFI\xfb"),
    (0, b"KDMV"),
    (0, b"vhdxfile"),
    (64, &[0x7f, 0x10, 0xda, 0xbe]),
    (510, &[0x55, 0xaa]),
    (512, b"EFI PART"),
    (0, b"LUKS\xba\xbe"),
];

/// File systems in a file.
const FILE_SYSTEMS: [(usize, &[u8]); 2] = [(0, b"XFSB"), (1080, &[0x53, 0xef])];

/// Size of PostgreSQL's pages unless it was built otherwise, and the version that their heads tell.
const POSTGRESQL_PAGE: (usize, [u8; 2]) = (8192, [0x04, 0x20]);
/// InnoDB's first page of a table space says what it is.
const INNODB_SPACE_HEADER: [u8; 2] = [0x00, 0x08];

static BY_NAME: LazyLock<Globs> =
    LazyLock::new(|| Globs::new("built in", &NAMES).expect("the tests have built them"));

/// True if the open file at `path` is of a format that is written in place.
pub(crate) fn is_written_in_place(path: &EntryPath, file: &OwnedFd) -> bool {
    if BY_NAME.matches(path) {
        return true;
    }
    let mut head = [0; HEAD_LEN];
    let read = rustix::io::pread(file, &mut head, 0).unwrap_or(0);
    has_known_head(head.get(..read).unwrap_or_default())
}

fn has_known_head(head: &[u8]) -> bool {
    let has = |(at, magic): &(usize, &[u8])| head.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    MAGICS.iter().chain(&FILE_SYSTEMS).any(has) || is_postgresql_page(head) || is_innodb_space(head)
}

/// `pd_lsn 8 · checksum 2 · flags 2 · lower 2 · upper 2 · special 2 · size and version 2`, see `bufpage.h`.
fn is_postgresql_page(head: &[u8]) -> bool {
    let number = |at: usize| match head.get(at..at + 2) {
        Some([low, high]) => usize::from(u16::from_le_bytes([*low, *high])),
        _ => 0,
    };
    let (page_len, version) = POSTGRESQL_PAGE;
    let (lower, upper, special) = (number(12), number(14), number(16));
    let is_in_order = 24 <= lower && lower <= upper && upper <= special && special <= page_len;
    head.get(18..20) == Some(&version) && is_in_order
}

/// Page number 0, no neighbours, and a type, see `fil0fil.h`.
fn is_innodb_space(head: &[u8]) -> bool {
    head.get(4..8) == Some(&[0; 4])
        && head.get(24..26) == Some(&INNODB_SPACE_HEADER)
        && head.get(34..38).is_some_and(|id| head.get(38..42) == Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> bool {
        BY_NAME.matches(&EntryPath::new(path.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn files_that_databases_write_in_place_are_known_by_name() {
        for path in [
            "var/lib/postgresql/15/main/base/16384/16385",
            "var/lib/postgresql/15/main/base/16384/16385.1",
            "pg/base/5/1247_fsm",
            "pg/global/1262",
            "pg/pg_wal/000000010000000000000001",
            "pg/pg_xact/0000",
            "var/lib/mysql/test/t.ibd",
            "var/lib/mysql/ibdata1",
            "var/lib/mysql/test/t.MYD",
            "var/lib/mysql/#innodb_redo/#ib_redo7",
            "app/data.sqlite3",
            "app/cache.db-wal",
            "var/lib/etcd/member/snap/db",
            "vm/disk.qcow2",
            "ldap/data.mdb",
        ] {
            assert!(named(path), "{path}");
        }
        for path in
            ["var/log/syslog", "base/readme", "app/app.log", "redis/appendonly.aof", "ks/nb-1-big-Data.db"]
        {
            assert!(!named(path), "{path}");
        }
    }

    #[test]
    fn files_that_are_written_in_place_are_known_by_their_first_bytes() {
        let mut page = vec![0; 8192];
        for (at, value) in [(12, 40_u16), (14, 8000), (16, 8192), (18, 0x2004)] {
            page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        let mut space = vec![0; 16384];
        space[24..26].copy_from_slice(&[0, 8]);
        space[34..42].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 9]);
        let mut bolt = vec![0; 64];
        bolt[16..20].copy_from_slice(&[0xed, 0xda, 0x0c, 0xed]);
        let mut disk = vec![0; 4096];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);

        for head in [&page, &space, &bolt, &disk, &b"SQLite format 3\0".to_vec()] {
            assert!(has_known_head(head), "{:?}", &head[..16]);
        }
        for head in [&b""[..], b"2026-11-30 log line\n", &[0; 4096]] {
            assert!(!has_known_head(head), "{head:?}");
        }
    }

    #[test]
    fn cut_heads_are_no_reason_to_fail() {
        let head = [0x55_u8; 600];
        for len in 0..head.len() {
            let _ = has_known_head(&head[..len]);
        }
    }
}
