"""A program that keeps its data in RocksDB, by the C interface of the system's library.

Arguments: a folder. It takes lines, and answers each with one line, or with those of a dump:

    put KEY=VALUE ...   both or none, and on disk before it answers `ok`
    checkpoint FOLDER   a checkpoint of RocksDB's own
    dump                all as KEY=VALUE, and then `ok`
"""

import ctypes
import ctypes.util
import sys

LIBRARY = ctypes.util.find_library("rocksdb")
if LIBRARY is None:
    sys.exit("librocksdb is not installed")
ROCKS = ctypes.CDLL(LIBRARY)

POINTERS = [
    "options_create", "writeoptions_create", "readoptions_create", "writebatch_create", "open",
    "create_iterator", "checkpoint_object_create",
]
for name in POINTERS:
    getattr(ROCKS, "rocksdb_" + name).restype = ctypes.c_void_p
ROCKS.rocksdb_iter_valid.restype = ctypes.c_ubyte
for name in ["iter_key", "iter_value"]:
    getattr(ROCKS, "rocksdb_" + name).restype = ctypes.POINTER(ctypes.c_char)


def call(name, *arguments):
    """Calls a function that may fail, and raises what it says."""
    error = ctypes.c_char_p()
    result = getattr(ROCKS, "rocksdb_" + name)(*arguments, ctypes.byref(error))
    if error.value is not None:
        raise RuntimeError(f"{name}: {error.value.decode()}")
    return result


def pointer(value):
    return ctypes.c_void_p(value)


def sized(text):
    return text, ctypes.c_size_t(len(text))


def open_store(folder):
    """Small tables, so that flushes and compactions never end while it is written to."""
    options = pointer(ROCKS.rocksdb_options_create())
    ROCKS.rocksdb_options_set_create_if_missing(options, 1)
    ROCKS.rocksdb_options_set_write_buffer_size(options, ctypes.c_size_t(256 << 10))
    ROCKS.rocksdb_options_set_target_file_size_base(options, ctypes.c_uint64(128 << 10))
    ROCKS.rocksdb_options_set_max_bytes_for_level_base(options, ctypes.c_uint64(512 << 10))
    ROCKS.rocksdb_options_set_level0_file_num_compaction_trigger(options, 2)
    ROCKS.rocksdb_options_set_paranoid_checks(options, 1)
    return pointer(call("open", options, folder.encode()))


def put(store, pairs):
    batch = pointer(ROCKS.rocksdb_writebatch_create())
    for pair in pairs:
        key, value = pair.split("=", 1)
        ROCKS.rocksdb_writebatch_put(batch, *sized(key.encode()), *sized(value.encode()))
    call("write", store, SYNCED, batch)
    ROCKS.rocksdb_writebatch_destroy(batch)


def checkpoint(store, folder):
    maker = pointer(call("checkpoint_object_create", store))
    # A log of any length stays a log: the tables are flushed only by the store itself.
    call("checkpoint_create", maker, folder.encode(), ctypes.c_uint64(0))
    ROCKS.rocksdb_checkpoint_object_destroy(maker)


def dump(store):
    """Every pair. The checksum of each block that is read is compared."""
    options = pointer(ROCKS.rocksdb_readoptions_create())
    ROCKS.rocksdb_readoptions_set_verify_checksums(options, 1)
    rows = pointer(ROCKS.rocksdb_create_iterator(store, options))
    length = ctypes.c_size_t()

    def text(part):
        start = getattr(ROCKS, "rocksdb_iter_" + part)(rows, ctypes.byref(length))
        return ctypes.string_at(start, length.value).decode()

    ROCKS.rocksdb_iter_seek_to_first(rows)
    while ROCKS.rocksdb_iter_valid(rows):
        print(f"{text('key')}={text('value')}")
        ROCKS.rocksdb_iter_next(rows)
    call("iter_get_error", rows)
    ROCKS.rocksdb_iter_destroy(rows)


SYNCED = pointer(ROCKS.rocksdb_writeoptions_create())
ROCKS.rocksdb_writeoptions_set_sync(SYNCED, 1)
STORE = open_store(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    command, *arguments = line.split()
    if command == "put":
        put(STORE, arguments)
    elif command == "checkpoint":
        checkpoint(STORE, arguments[0])
    elif command == "dump":
        dump(STORE)
    print("ok", flush=True)
