//! Input from strangers, over the network or on a disk, and the code that reads it: one function for each
//! decoder.
//!
//! A target takes any bytes. It panics if the decoder breaks a promise: that it does not panic, that what it
//! accepts keeps the rules of its format, and that only one encoding of a value is accepted where the format
//! says so. The fuzzers run these functions (`tests/fuzz/README.md`), and so does the suite `fuzz`, on the seeds
//! in the tree and on mutations of them.

pub mod client;
pub mod names;
pub mod records;
pub mod sealed;
pub mod server;
pub mod wire;

use peak_alloc::PeakAlloc;

/// Result of decoding some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They stand for something, and all that can be said of it holds.
    Accepted,
    /// They stand for nothing.
    Refused,
}

impl Verdict {
    fn of(accepted: bool) -> Self {
        if accepted { Self::Accepted } else { Self::Refused }
    }
}

/// A seed: its name in the tree, and its bytes.
pub type Seed = (String, Vec<u8>);

/// Most memory that a target may take: so many bytes, and so many for each byte of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are needed for any input.
    pub fixed: usize,
    /// For each byte of the input.
    pub per_byte: usize,
}

impl Room {
    /// For a parser that keeps what it reads in the form of our types.
    const PLAIN: Self = Self { fixed: 256 << 10, per_byte: 128 };

    /// Bytes that an input of `len` bytes may take.
    pub fn of(self, len: usize) -> usize {
        self.fixed.saturating_add(self.per_byte.saturating_mul(len))
    }
}

/// One decoder.
pub struct Target {
    /// Its name: that of its program for the fuzzer, and of its folder of seeds.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&[u8]) -> Verdict,
    /// Inputs from the real encoders, and what a stranger might make of them. At least one is accepted and one
    /// refused.
    pub seeds: fn() -> Vec<Seed>,
    /// Memory that the decoder may use.
    pub room: Room,
}

/// All of them.
#[rustfmt::skip]
pub const ALL: &[Target] = &[
    Target { name: "assemble", run: records::assemble, seeds: records::manifests_of_pages, room: Room::PLAIN },
    Target { name: "blob_altered", run: sealed::blob_altered, seeds: sealed::blob_edits, room: Room::PLAIN },
    Target { name: "blob_open", run: sealed::blob_open, seeds: sealed::blobs, room: Room::PLAIN },
    Target { name: "class_rule", run: client::class_rule, seeds: client::class_rules, room: Room::PLAIN },
    Target { name: "client_config", run: client::config, seeds: client::configs, room: Room { fixed: 1 << 20, per_byte: 512 } },
    Target { name: "decompress", run: wire::decompress, seeds: wire::payloads, room: Room { fixed: 40 << 20, per_byte: 128 } },
    Target { name: "descriptor", run: records::descriptor, seeds: records::descriptors, room: Room::PLAIN },
    Target { name: "entry", run: records::entry, seeds: records::entries, room: Room::PLAIN },
    Target { name: "entry_path", run: names::entry_path, seeds: names::entry_paths, room: Room::PLAIN },
    Target { name: "file_name", run: names::file_name, seeds: names::file_names, room: Room::PLAIN },
    Target { name: "globs", run: client::globs, seeds: client::patterns, room: Room { fixed: 64 << 20, per_byte: 4096 } },
    Target { name: "id_text", run: names::id_text, seeds: names::id_texts, room: Room::PLAIN },
    Target { name: "index_rows", run: server::index_rows, seeds: server::rows, room: Room::PLAIN },
    Target { name: "key_text", run: names::key_text, seeds: names::key_texts, room: Room::PLAIN },
    Target { name: "list_file", run: client::list_file, seeds: client::lists, room: Room { fixed: 4 << 20, per_byte: 128 } },
    Target { name: "manifest", run: records::manifest, seeds: records::manifests, room: Room::PLAIN },
    Target { name: "name", run: names::name, seeds: names::name_texts, room: Room::PLAIN },
    Target { name: "number_text", run: client::number_text, seeds: client::number_texts, room: Room::PLAIN },
    Target { name: "object_altered", run: sealed::object_altered, seeds: sealed::object_edits, room: Room::PLAIN },
    Target { name: "object_name", run: names::object_name, seeds: names::object_names, room: Room::PLAIN },
    Target { name: "object_open", run: sealed::object_open, seeds: sealed::objects, room: Room::PLAIN },
    // Making a pack again takes the room of a full one.
    Target { name: "pack_footer", run: sealed::pack_footer, seeds: sealed::footers, room: Room { fixed: 40 << 20, per_byte: 128 } },
    Target { name: "pack_open", run: sealed::pack_open, seeds: sealed::packs, room: Room { fixed: 17 << 20, per_byte: 128 } },
    Target { name: "pack_trailer", run: sealed::pack_trailer, seeds: sealed::trailers, room: Room::PLAIN },
    Target { name: "page", run: records::page, seeds: records::pages, room: Room::PLAIN },
    Target { name: "second_names", run: client::second_names, seeds: client::folders, room: Room::PLAIN },
    Target { name: "server_config", run: server::config, seeds: server::configs, room: Room { fixed: 1 << 20, per_byte: 512 } },
    Target { name: "snapshot", run: records::snapshot, seeds: records::snapshots, room: Room::PLAIN },
    Target { name: "snapshot_choice", run: client::snapshot_choice, seeds: client::choices, room: Room::PLAIN },
    Target { name: "state_file", run: client::state_file, seeds: client::states, room: Room { fixed: 2 << 20, per_byte: 256 } },
    Target { name: "wire_frames", run: wire::frames, seeds: wire::streams, room: Room::PLAIN },
    Target { name: "wire_held", run: wire::held, seeds: wire::answers, room: Room::PLAIN },
    Target { name: "wire_ids", run: wire::ids, seeds: wire::id_lists, room: Room::PLAIN },
    Target { name: "wire_json", run: wire::json, seeds: wire::documents, room: Room::PLAIN },
];

/// The target with this name.
///
/// # Panics
/// If there is none.
pub fn named(name: &str) -> &'static Target {
    ALL.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("there is no target `{name}`"))
}

impl Target {
    /// Runs it, and measures the memory that it takes at most. That counts only where [`PeakAlloc`] is the
    /// allocator, and while nothing else runs in this process.
    ///
    /// # Panics
    /// If the target does, or takes more than its [`Room`].
    pub fn check(&self, bytes: &[u8]) -> Verdict {
        PeakAlloc.reset_peak_usage();
        let before = PeakAlloc.current_usage();
        let verdict = (self.run)(bytes);
        let taken = PeakAlloc.peak_usage().saturating_sub(before);
        let room = self.room.of(bytes.len());
        assert!(taken <= room, "`{}` took {taken} bytes for {}, of {room} at most", self.name, bytes.len());
        verdict
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn seed(name: &str, bytes: impl Into<Vec<u8>>) -> Seed {
    (name.to_owned(), bytes.into())
}

/// Takes fields off the front of an input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Damage to CBOR that every reader of it must refuse: lengths that nothing follows, deep nesting, another
/// width of the same number, and a cut.
fn hostile_cbor(good: &[u8]) -> Vec<Seed> {
    let (cut, _) = good.split_at(good.len() / 2);
    vec![
        seed("cut", cut),
        seed("and-more", [good, &[0]].concat()),
        seed("claims-2-64-values", [0x9b, 255, 255, 255, 255, 255, 255, 255, 255]),
        seed("claims-2-32-values", [0x9a, 255, 255, 255, 255]),
        seed("claims-2-63-bytes", [0x5b, 127, 255, 255, 255, 255, 255, 255, 255]),
        seed("claims-2-32-fields", [0xba, 255, 255, 255, 255, 0, 1]),
        seed("nested-10000-arrays", vec![0x81; 10_000]),
        seed("nested-10000-endless-arrays", vec![0x9f; 10_000]),
        seed("nested-10000-tags", vec![0xc1; 10_000]),
        // A map with an unknown key, whose value is nested.
        seed("unknown-and-nested", [&[0xa1, 0x18, 99][..], &[0x81; 10_000]].concat()),
        seed("empty", []),
    ]
}

/// Damage to JSON.
fn hostile_json(good: &[u8]) -> Vec<Seed> {
    let (cut, _) = good.split_at(good.len() / 2);
    vec![
        seed("cut", cut),
        seed("and-more", [good, b"{}"].concat()),
        seed("nested-10000-arrays", vec![b'['; 10_000]),
        seed("nested-10000-objects", b"{\"a\":".repeat(10_000)),
        seed("huge-number", [&b"1"[..], &[b'0'; 400]].concat()),
        seed("empty", []),
    ]
}

/// The same seed after a byte that chooses what reads it.
fn chosen_by(choice: u8, seeds: Vec<Seed>) -> Vec<Seed> {
    seeds
        .into_iter()
        .map(|(name, bytes)| (format!("{choice:02}-{name}"), [&[choice][..], &bytes].concat()))
        .collect()
}
