//! Recognises the data folders of databases by their content, so that a push can warn.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::sets::ClassSet;

/// Locks that processes hold, as the kernel lists them.
const LOCKS: &str = "/proc/locks";

/// The database whose data folder `folder` looks like.
pub(crate) fn looks_like_data(folder: &Path) -> Option<ClassSet> {
    let has = |name: &str| folder.join(name).symlink_metadata().is_ok();
    let all = |names: &[&str]| names.iter().all(|name| has(name));
    if all(&["PG_VERSION", "global"]) {
        Some(ClassSet::Postgresql)
    } else if has("ibdata1") || has("aria_log_control") {
        Some(ClassSet::Mysql)
    } else if has("member/snap/db") || all(&["snap/db", "wal"]) {
        Some(ClassSet::Etcd)
    } else if has("system_schema") || has("data/system_schema") {
        Some(ClassSet::Cassandra)
    } else if has("appendonlydir") || has("appendonly.aof") || has("dump.rdb") {
        Some(ClassSet::Redis)
    } else if all(&["CURRENT", "IDENTITY"]) || (has("CURRENT") && has_manifest(folder)) {
        Some(ClassSet::Rocksdb)
    } else if all(&["commitlogs", "index", "data"]) {
        Some(ClassSet::M3)
    } else {
        has_sqlite(folder).then_some(ClassSet::Sqlite)
    }
}

/// The database that seems to be running on `folder`.
pub(crate) fn looks_live(folder: &Path) -> Option<ClassSet> {
    let set = looks_like_data(folder)?;
    let is_live = match set {
        ClassSet::Postgresql => folder.join("postmaster.pid").exists(),
        ClassSet::Mysql => is_locked(&folder.join("ibdata1")) || is_locked(&folder.join("aria_log_control")),
        ClassSet::Etcd => is_locked(&folder.join("member/snap/db")) || is_locked(&folder.join("snap/db")),
        ClassSet::Rocksdb => is_locked(&folder.join("LOCK")),
        // SQLite has a file that shows writes in progress; the others take no locks.
        ClassSet::Sqlite | ClassSet::Redis | ClassSet::Cassandra | ClassSet::M3 | ClassSet::Logs => true,
    };
    is_live.then_some(set)
}

/// The one line that an operator reads who pushes `folder` as if its files were any files.
pub(crate) fn warning(folder: &Path, set: ClassSet) -> String {
    format!(
        "`{}` looks like the live data folder of a database ({set}): files that are copied while the database writes may not restore to a working database. Read docs/databases/{}, and use --class-set {set} or push a snapshot of the database",
        folder.display(),
        set.page(),
    )
}

fn has_manifest(folder: &Path) -> bool {
    names(folder).any(|name| name.starts_with("MANIFEST-"))
}

fn has_sqlite(folder: &Path) -> bool {
    names(folder).any(|name| {
        let of = name.strip_suffix("-wal").or_else(|| name.strip_suffix("-journal"));
        of.is_some_and(|of| !of.is_empty() && folder.join(of).is_file())
    })
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    // A folder of a million files is no reason to wait.
    found.take(10_000).filter_map(|entry| entry.file_name().into_string().ok())
}

/// True if a process holds a lock on a file. Only looked up: a lock of ours could disturb the database.
fn is_locked(file: &Path) -> bool {
    let Ok(about) = fs::metadata(file) else { return false };
    let Ok(locks) = fs::read_to_string(LOCKS) else { return false };
    locks_inode(&locks, about.ino())
}

/// `1: POSIX  ADVISORY  WRITE 3568 00:2a:1234 0 EOF`, where the inode is the last part of the sixth field.
fn locks_inode(locks: &str, ino: u64) -> bool {
    let fields = locks
        .lines()
        .filter_map(|line| line.split_whitespace().find(|field| field.matches(':').count() == 2));
    fields.filter_map(|field| field.rsplit(':').next()).any(|number| number.parse() == Ok(ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for name in names {
            let path = temp.path().join(name);
            match name.strip_suffix('/') {
                Some(_) => fs::create_dir_all(path).unwrap(),
                None => {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, "").unwrap();
                }
            }
        }
        temp
    }

    #[test]
    fn each_database_is_known_by_what_lies_in_its_folder() {
        let cases: [(&[&str], _); 11] = [
            (&["PG_VERSION", "global/", "postmaster.pid"], Some(ClassSet::Postgresql)),
            (&["ibdata1", "mysql/"], Some(ClassSet::Mysql)),
            (&["member/snap/db", "member/wal/"], Some(ClassSet::Etcd)),
            (&["snap/db", "wal/"], Some(ClassSet::Etcd)),
            (&["system_schema/", "ks/"], Some(ClassSet::Cassandra)),
            (&["dump.rdb"], Some(ClassSet::Redis)),
            (&["CURRENT", "MANIFEST-000004", "000005.log"], Some(ClassSet::Rocksdb)),
            (&["app.sqlite", "app.sqlite-wal"], Some(ClassSet::Sqlite)),
            (&["commitlogs/", "index/", "data/"], Some(ClassSet::M3)),
            (&["PG_VERSION", "CURRENT", "a-wal", "notes.txt"], None),
            (&[], None),
        ];
        for (names, expected) in cases {
            assert_eq!(looks_like_data(folder(names).path()), expected, "{names:?}");
        }
    }

    #[test]
    fn a_database_that_was_stopped_is_no_live_one() {
        let stopped = folder(&["PG_VERSION", "global/"]);
        let running = folder(&["PG_VERSION", "global/", "postmaster.pid"]);

        assert_eq!(looks_live(stopped.path()), None);
        assert_eq!(looks_live(running.path()), Some(ClassSet::Postgresql));
        assert_eq!(looks_live(folder(&["ibdata1"]).path()), None);
    }

    #[test]
    fn the_warning_names_the_folder_the_set_and_the_page() {
        let text = warning(Path::new("/data/pg"), ClassSet::Postgresql);

        for part in ["/data/pg", "--class-set postgresql", "docs/databases/postgresql.md"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_lock_is_known_by_the_inode_of_its_file() {
        let locks =
            "1: POSIX  ADVISORY  WRITE 3568 fe:01:1234 0 EOF\n2: FLOCK  ADVISORY  READ 9 00:2a:77 0 EOF\n";

        assert!(locks_inode(locks, 1234) && locks_inode(locks, 77));
        assert!(!locks_inode(locks, 3568) && !locks_inode(locks, 1));
    }
}
