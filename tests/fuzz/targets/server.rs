//! Input of a server from its own disk: rows of the index and its configuration.

use format_spec::wire::ChunkerSpec;
use repo_server::config::{Config, TlsFlags};
use repo_server::rows::{ChunkRow, PackNumber, PackRow, Totals};

use super::{Seed, Verdict, seed, text};

/// A row of any table: what is accepted has one encoding.
///
/// # Panics
/// If it has two.
pub fn index_rows(bytes: &[u8]) -> Verdict {
    let again = [
        ChunkRow::decode(bytes).map(|row| row.encode()),
        PackRow::decode(bytes).map(|row| row.encode()),
        Totals::decode(bytes).map(|row| row.encode()),
        PackNumber::from_key(bytes).map(|number| number.key().to_vec()),
    ];
    let found: Vec<_> = again.into_iter().flatten().collect();
    assert!(found.iter().all(|again| again == bytes), "a row has two encodings");
    Verdict::of(!found.is_empty())
}

/// A configuration: it never lets other machines in without TLS, and the chunks that it asks for have lengths that
/// ascend and are powers of two.
///
/// # Panics
/// If not.
pub fn config(bytes: &[u8]) -> Verdict {
    let Some(Ok(config)) = text(bytes).map(toml::from_str::<Config>) else { return Verdict::Refused };
    let address = config.listen(None);
    if let Ok(None) = config.tls.settings(&TlsFlags::default(), address, "host") {
        assert!(address.ip().is_loopback(), "it listens on {address}");
    }
    if let Some(Ok(spec)) = config.chunker.as_ref().map(|chunker| chunker.spec()) {
        let ChunkerSpec::FastCdc { min_len, avg_len, max_len } = spec else { panic!("another chunker") };
        assert!(min_len < avg_len && avg_len < max_len && max_len <= format_spec::MAX_CHUNK_LEN);
        assert!([min_len, avg_len, max_len].iter().all(|len| len.is_power_of_two()));
    }
    Verdict::Accepted
}

/// A row of zeros as long as `fits` wants it: the lengths of rows are not repeated here.
fn zeros(fits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let rows = (0..256).map(|len| vec![0; len]);
    rows.into_iter().find(|row| fits(row)).expect("a row of zeros is a row")
}

/// Seeds of [`index_rows`].
pub fn rows() -> Vec<Seed> {
    let chunk = zeros(|row| ChunkRow::decode(row).is_some());
    let totals = zeros(|row| Totals::decode(row).is_some());
    let pack = [&[3; 32][..], &(1_u64 << 25).to_le_bytes(), b"cluster-1"].concat();
    vec![
        seed("chunk", chunk.clone()),
        seed("totals", totals),
        seed("pack", pack),
        seed("pack-of-an-odd-cluster", [&[3; 40][..], b"../.."].concat()),
        seed("pack-of-no-cluster", [3; 40]),
        seed("pack-of-not-utf-8", [255; 41]),
        seed("number", [0, 0, 0, 7]),
        seed("chunk-of-ones", vec![255; chunk.len()]),
        seed("long", [0; 300]),
        seed("empty", []),
    ]
}

/// Damage to TOML.
pub(super) fn hostile_toml() -> Vec<Seed> {
    vec![
        seed("unknown-key", "lisen = 1\n"),
        seed("not-utf-8", [b'a', b'=', 0xff]),
        seed("nested-5000-arrays", format!("listen = {}", "[".repeat(5000))),
        seed("nested-5000-tables", format!("listen = {}", "{a=".repeat(5000))),
        seed("nested-5000-keys", format!("{}a = 1", "a.".repeat(5000))),
        seed("huge-number", format!("[chunker]\nmin_kib = 1{}", "0".repeat(400))),
        seed("negative", "[chunker]\nmin_kib = -1"),
        seed("cut", "[index]\nengine = \"fja"),
    ]
}

/// Seeds of [`config`].
pub fn configs() -> Vec<Seed> {
    let mut seeds = vec![
        seed("empty", []),
        seed(
            "whole",
            "listen = \"127.0.0.1:5515\"\n[index]\nengine = \"fjall\"\n[chunker]\nmin_kib = 64\navg_kib = 256\nmax_kib = 1024\n",
        ),
        seed("all-machines", "listen = \"0.0.0.0:5515\"\n"),
        seed("v6", "listen = \"[::1]:0\"\n"),
        seed("odd-chunks", "[chunker]\nmin_kib = 3\navg_kib = 4294967295\nmax_kib = 0\n"),
        seed("odd-engine", "[index]\nengine = \"rocks\"\n"),
    ];
    seeds.extend(hostile_toml());
    seeds
}
