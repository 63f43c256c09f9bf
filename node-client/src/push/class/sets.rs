//! Known files of databases: their classes, and names that must never be copied.
//!
//! Each set has a page under `docs/databases/`, which says why.

use std::fmt;
use std::str::FromStr;

use super::Class;

/// Classes of the files of a database that we know, or of logs in general.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassSet {
    /// Apache Cassandra and what shares its files.
    Cassandra,
    /// etcd.
    Etcd,
    /// Logs of programs, known by their names.
    Logs,
    /// M3DB.
    M3,
    /// MySQL and MariaDB.
    Mysql,
    /// PostgreSQL.
    Postgresql,
    /// Redis and Valkey.
    Redis,
    /// RocksDB, LevelDB and what is built on them.
    Rocksdb,
    /// SQLite.
    Sqlite,
}

/// A class, and the patterns of the files that have it.
type Rule = (Class, &'static [&'static str]);

impl ClassSet {
    /// Every set.
    pub const ALL: [Self; 9] = [
        Self::Cassandra,
        Self::Etcd,
        Self::Logs,
        Self::M3,
        Self::Mysql,
        Self::Postgresql,
        Self::Redis,
        Self::Rocksdb,
        Self::Sqlite,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cassandra => "cassandra",
            Self::Etcd => "etcd",
            Self::Logs => "logs",
            Self::M3 => "m3",
            Self::Mysql => "mysql",
            Self::Postgresql => "postgresql",
            Self::Redis => "redis",
            Self::Rocksdb => "rocksdb",
            Self::Sqlite => "sqlite",
        }
    }

    /// Its rules. The first that matches counts.
    pub const fn rules(self) -> &'static [Rule] {
        match self {
            Self::Cassandra => CASSANDRA,
            Self::Etcd => ETCD,
            Self::Logs => LOGS,
            Self::M3 => M3,
            Self::Mysql => MYSQL,
            Self::Postgresql => POSTGRESQL,
            Self::Redis => REDIS,
            Self::Rocksdb => ROCKSDB,
            Self::Sqlite => SQLITE,
        }
    }

    /// Its page in `docs/databases/`.
    pub const fn page(self) -> &'static str {
        match self {
            Self::Cassandra => "cassandra.md",
            Self::Etcd => "etcd.md",
            Self::Logs => "README.md",
            Self::M3 => "m3.md",
            Self::Mysql => "mariadb.md",
            Self::Postgresql => "postgresql.md",
            Self::Redis => "redis.md",
            Self::Rocksdb => "rocksdb.md",
            Self::Sqlite => "sqlite.md",
        }
    }

    /// Patterns of what its owner says never to copy.
    pub const fn excludes(self) -> &'static [&'static str] {
        match self {
            Self::Cassandra | Self::Logs | Self::M3 => &[],
            Self::Etcd => &["**/member/snap/tmp*", "**/member/wal/*.tmp"],
            Self::Mysql => &["*.pid", "*.sock", "*.sock.lock", "ibtmp*", "#innodb_temp"],
            Self::Postgresql => POSTGRESQL_EXCLUDES,
            Self::Redis => &["temp-*.rdb", "temp-rewriteaof-*", "temp-appendonly.aof*"],
            Self::Rocksdb => &["LOCK"],
            // The index of the write-ahead log, which is made again.
            Self::Sqlite => &["*-shm"],
        }
    }
}

/// True if a file of this name lists other files of its folder that are needed: the manifests of RocksDB and
/// LevelDB, Redis' list of append-only files, the files that Cassandra and M3 write when a table is complete,
/// and Cassandra's log of a compaction, which lists the new tables and the old ones that they replace.
pub(crate) fn refers_to_others(name: &[u8]) -> bool {
    let ends = [&b".manifest"[..], b"-checkpoint.db", b"-TOC.txt"];
    name.starts_with(b"MANIFEST")
        || name == b"CURRENT"
        || ends.iter().any(|end| name.ends_with(end))
        || (name.ends_with(b".log") && contains(name, b"_txn_"))
}

fn contains(name: &[u8], part: &[u8]) -> bool {
    name.windows(part.len()).any(|window| window == part)
}

// Commit logs are preallocated and written through memory maps, and are replayed at the start.
// `*-Statistics.db` and `*-Summary.db` get new content under the old name: they stay `auto`. The log of a
// compaction is appended to. Its last line tells the next start to delete the old tables, so it may only be
// stored in its state when the tables were frozen: with a later line, the new ones might be short.
const CASSANDRA: &[Rule] = &[
    (Class::Logged, &["CommitLog-*.log"]),
    (Class::AppendOnly, &["*_txn_*.log"]),
    (Class::Auto, &["*-Statistics.db", "*-Summary.db"]),
    (
        Class::Immutable,
        &[
            "*-Data.db",
            "*-Index.db",
            "*-Filter.db",
            "*-CompressionInfo.db",
            "*-Digest.*",
            "*-CRC.db",
            "*-TOC.txt",
            "*-Partitions.db",
            "*-Rows.db",
            "*-SAI+*.db",
            "*-SI_*.db",
        ],
    ),
];

// The log is allocated ahead and written in place. The store reuses pages in place, and no log repairs a mixture.
const ETCD: &[Rule] = &[
    (Class::Logged, &["*.wal"]),
    (Class::Mutable, &["**/member/snap/db"]),
    (Class::Immutable, &["*.snap", "*.snap.db"]),
];

const LOGS: &[Rule] = &[(Class::AppendOnly, &["*.log", "*.aof", "*.jsonl"])];

const M3: &[Rule] = &[(Class::Immutable, &["fileset-*-*.db"]), (Class::Logged, &["commitlog-*.db"])];

// No log repairs MyISAM. That of InnoDB repairs a copy only if all files are of one moment: its checkpoint moves while
// they are copied, and what it left behind is lost without a word. So a copy of a server that writes is torn.
const MYSQL: &[Rule] = &[
    (Class::AppendOnly, &["*-bin.[0-9]*", "binlog.[0-9]*", "*-relay-bin.[0-9]*"]),
    (
        Class::Mutable,
        &[
            "*.MYD",
            "*.MYI",
            "*.CSV",
            "*.ibd",
            "ibdata*",
            "ib_logfile*",
            "#ib_redo*",
            "undo*",
            "*.ibu",
            "*.MAD",
            "*.MAI",
            "aria_log*",
        ],
    ),
];

const POSTGRESQL: &[Rule] = &[(Class::Logged, &["*"])];

// Patterns that `pg_basebackup` skips: these files are rebuilt at the start, or belong to the running server.
const POSTGRESQL_EXCLUDES: &[&str] = &[
    "postmaster.pid",
    "postmaster.opts",
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "pg_internal.init*",
    "pgsql_tmp*",
    "**/pg_dynshmem/*",
    "**/pg_notify/*",
    "**/pg_replslot/*",
    "**/pg_serial/*",
    "**/pg_snapshots/*",
    "**/pg_stat_tmp/*",
    "**/pg_subtrans/*",
];

const REDIS: &[Rule] =
    &[(Class::Immutable, &["*.rdb", "*.base.aof"]), (Class::AppendOnly, &["*.incr.aof", "appendonly.aof"])];

const ROCKSDB: &[Rule] = &[
    (Class::Immutable, &["*.sst", "*.ldb", "*.blob", "OPTIONS-*"]),
    (Class::AppendOnly, &["MANIFEST-*", "[0-9]*.log", "LOG", "LOG.old.*"]),
];

const SQLITE: &[Rule] = &[(
    Class::Mutable,
    &["*-wal", "*-journal", "*.sqlite", "*.sqlite3", "*.db", "*.db3", "*.sqlite-*", "*.sqlite3-*"],
)];

impl fmt::Display for ClassSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ClassSet {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|set| set.name() == name);
        known.ok_or_else(|| format!("expected one of: {}", Self::ALL.map(Self::name).join(", ")))
    }
}
