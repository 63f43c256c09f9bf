//! Cost of each stage of a push and a restore on one core: cut, hash, compress, seal and back.
//!
//! `cargo bench -p benches --bench stages`

use std::hint::black_box;

use benches::{Content, Random, write_content};
use chunker::{Algorithm, Chunker, Params, Splitter};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use format_spec::aead::{Aead, AwsLc, RustCrypto};
use format_spec::blob::{BlobInfo, BlobSealer, Compression, Compressor, Decompressor};
use format_spec::key::{BlobKind, DomainKey, MasterKey};
use format_spec::{ChunkId, PackId, RepositoryId};

const LEN: u64 = 32 << 20;

fn domain() -> DomainKey {
    MasterKey::from_bytes([7; 32]).domain(&"bench".parse().expect("a plain name"))
}

fn data(content: Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_content(content, &mut Random::new(1), LEN, &mut bytes).expect("writing to memory does not fail");
    bytes
}

/// The data as a repository with default lengths cuts it.
fn chunks(data: &[u8]) -> Vec<&[u8]> {
    let chunker = chunker();
    let mut rest = data;
    let mut chunks = Vec::new();
    while let Some(len) = chunker.cut(rest, chunker::EndOfInput::Reached) {
        let (chunk, tail) = rest.split_at(len);
        chunks.push(chunk);
        rest = tail;
    }
    chunks
}

fn chunker() -> Chunker {
    let algorithm = Algorithm::FastCdc { min: 64 << 10, avg: 256 << 10, max: 1 << 20 };
    Chunker::new(Params::new(algorithm).expect("default lengths"), domain().gear_table())
}

fn cut_and_hash(c: &mut Criterion) {
    let data = data(Content::Sstable);
    let chunks = chunks(&data);
    let domain = domain();
    let mut group = c.benchmark_group("stage");
    group.throughput(Throughput::Bytes(LEN)).sample_size(20);
    group.bench_function("cut", |b| {
        let mut splitter = Splitter::new(chunker());
        b.iter(|| {
            let mut split = splitter.split(data.as_slice(), LEN);
            while let Some(chunk) = split.next_chunk().expect("memory does not fail") {
                black_box(chunk.len());
            }
        });
    });
    group.bench_function("hash", |b| {
        b.iter(|| {
            for chunk in &chunks {
                black_box(domain.id_of(BlobKind::Chunk, chunk));
            }
        });
    });
    group.bench_function("pack name", |b| b.iter(|| PackId::of(black_box(&data))));
    group.finish();
}

fn compression(c: &mut Criterion) {
    let mut group = c.benchmark_group("compress");
    group.throughput(Throughput::Bytes(LEN)).sample_size(10);
    for content in [Content::Sstable, Content::Log] {
        let data = data(content);
        let chunks = chunks(&data);
        for level in [1, 2, 3] {
            let mut compressor = Compressor::new(level).expect("a valid level");
            let mut compress = |chunk: &[u8]| compressor.compress(chunk).expect("enough memory").1.len();
            let stored: usize = chunks.iter().map(|chunk| compress(chunk)).sum();
            let name = format!("{content:?} level {level} keeps {} %", stored * 100 / data.len());
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                b.iter(|| chunks.iter().map(|chunk| compress(chunk)).sum::<usize>());
            });
        }
        decompression(&mut group, content, &chunks);
    }
    group.finish();
}

fn decompression(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    content: Content,
    chunks: &[&[u8]],
) {
    let mut compressor = Compressor::new(3).expect("a valid level");
    let mut pack = |chunk: &&[u8]| {
        let (compression, payload) = compressor.compress(chunk).expect("enough memory");
        (compression, payload.to_vec(), u32::try_from(chunk.len()).expect("a chunk is short"))
    };
    let packed: Vec<(Compression, Vec<u8>, u32)> = chunks.iter().map(&mut pack).collect();
    let mut decompressor = Decompressor::new().expect("enough memory");
    group.bench_function(BenchmarkId::from_parameter(format!("{content:?} back")), |b| {
        b.iter(|| {
            for (compression, payload, len) in &packed {
                black_box(decompressor.decompress(*compression, payload, *len).expect("our own frame").len());
            }
        });
    });
}

fn sealing(c: &mut Criterion) {
    let payload = data(Content::Sstable).split_off((LEN / 2).try_into().expect("a small number"));
    let pieces: Vec<&[u8]> = payload.chunks(128 << 10).collect();
    let keys = MasterKey::from_bytes([7; 32]).seal_keys(1);
    let sealer =
        BlobSealer::new(keys, RepositoryId::from_bytes([1; 16]), "bench".parse().expect("a plain name"));
    let info = |piece: &[u8]| BlobInfo {
        kind: BlobKind::Chunk,
        id: ChunkId::from_bytes([5; 32]),
        plain_len: u32::try_from(piece.len()).expect("a piece is short"),
        compression: Compression::Raw,
    };
    let mut group = c.benchmark_group("seal");
    group.throughput(Throughput::Bytes(LEN / 2)).sample_size(20);
    group.bench_function("blob, as stored", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            for piece in &pieces {
                out.clear();
                black_box(sealer.seal(&info(piece), piece, &mut out));
            }
        });
    });
    group.bench_function("aes-256-gcm, aws-lc", |b| engine::<AwsLc>(b, &pieces));
    group.bench_function("aes-256-gcm, aes-gcm crate", |b| engine::<RustCrypto>(b, &pieces));
    group.finish();
}

fn engine<A: Aead>(b: &mut criterion::Bencher<'_>, pieces: &[&[u8]]) {
    let mut buffer = vec![0; 128 << 10];
    b.iter(|| {
        for piece in pieces {
            let target = buffer.get_mut(..piece.len()).expect("pieces fit");
            target.copy_from_slice(piece);
            black_box(A::seal(&[1; 32], &[2; 12], b"", target));
        }
    });
}

criterion_group!(stages, cut_and_hash, compression, sealing);
criterion_main!(stages);
