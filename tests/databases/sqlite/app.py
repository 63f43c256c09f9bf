"""A program that keeps its data in SQLite. Arguments: a file, and a journal mode (`wal` or `delete`).

It takes lines, and answers each with one line, or with those of a dump:

    put KEY=VALUE ...   one transaction, on disk before it answers `ok`
    lock, unlock        keep every writer away until it is undone
    check               what `PRAGMA integrity_check` says
    dump                all as KEY=VALUE, and then `ok`
"""

import sqlite3
import sys

# Another program may hold a lock for as long as a push takes.
STORE = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
STORE.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
STORE.execute("PRAGMA synchronous = FULL")
# A small cache and a small log: pages are written, and the log is carried over, all the time.
STORE.execute("PRAGMA cache_size = 20")
STORE.execute("PRAGMA wal_autocheckpoint = 50")
STORE.execute("CREATE TABLE IF NOT EXISTS rows (key INTEGER PRIMARY KEY, value TEXT NOT NULL)")
print("ready", flush=True)
for line in sys.stdin:
    command, *pairs = line.split()
    if command == "put":
        STORE.execute("BEGIN IMMEDIATE")
        STORE.executemany("REPLACE INTO rows VALUES (?, ?)", [pair.split("=", 1) for pair in pairs])
        STORE.execute("COMMIT")
    elif command == "lock":
        STORE.execute("BEGIN IMMEDIATE")
    elif command == "unlock":
        STORE.execute("ROLLBACK")
    elif command == "check":
        for (said,) in STORE.execute("PRAGMA integrity_check"):
            print(said)
        continue
    elif command == "dump":
        for key, value in STORE.execute("SELECT key, value FROM rows"):
            print(f"{key}={value}")
    print("ok", flush=True)
