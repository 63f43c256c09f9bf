//! CPU time of a push: each stage alone, over the same bytes, in CPU seconds per GB of source data (user and
//! system time of this process, so waiting for a disk costs nothing).
//!
//! `cargo bench -p benches --bench budget [-- --mib 512]`

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;

use benches::{Content, Random, Scratch, write_content};
use chunker::{Chunker, EndOfInput, Params};
use clap::Parser;
use format_spec::blob::{BlobInfo, BlobSealer, Compressor, Decompressor};
use format_spec::key::{BlobKind, DomainKey, MasterKey};
use format_spec::{ChunkId, PackId, RepositoryId};

/// A pack's length, for the write stage.
const PACK_LEN: usize = 32 << 20;

/// Processor time of each stage of a push
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    scratch: Scratch,
    /// How much data
    #[arg(long, default_value_t = 512)]
    mib: u64,
}

fn main() {
    let arguments = Arguments::parse();
    let scratch = arguments.scratch.folder();
    let stages = Stages::prepare(scratch.path(), arguments.mib << 20);
    say("| stage | CPU s per GB of source |");
    say("|---|---|");
    stages.measure("read", Stages::read);
    stages.measure("cut", Stages::cut);
    stages.measure("hash", Stages::hash);
    for level in [1, 3] {
        stages.measure(&format!("compress, level {level}"), |stages| stages.compress(level));
    }
    stages.measure("send and receive, loopback", Stages::send);
    stages.measure("check: decompress and hash", Stages::check);
    stages.measure("seal", Stages::seal);
    stages.measure("write: name, write, sync packs", Stages::write);
    stages.measure("restore: open", Stages::open);
    stages.measure("restore: write files", Stages::restore);
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn say(line: &str) {
    println!("{line}");
}

struct Piece {
    info: BlobInfo,
    payload: Vec<u8>,
    blob: Vec<u8>,
}

struct Stages {
    dir: std::path::PathBuf,
    source: Vec<u8>,
    lens: Vec<usize>,
    pieces: Vec<Piece>,
    domain: DomainKey,
    sealer: BlobSealer,
    chunker: Chunker,
}

impl Stages {
    fn prepare(dir: &Path, len: u64) -> Self {
        let mut source = Vec::new();
        let mut random = Random::new(1);
        write_content(Content::Sstable, &mut random, len / 2, &mut source).expect("memory");
        write_content(Content::Log, &mut random, len / 2, &mut source).expect("memory");
        File::create(dir.join("source")).and_then(|mut file| file.write_all(&source)).expect("a source file");
        let master = MasterKey::from_bytes([7; 32]);
        let cluster = "bench".parse().expect("a plain name");
        let domain = master.domain(&cluster);
        let sealer = BlobSealer::new(master.seal_keys(1), RepositoryId::from_bytes([1; 16]), cluster);
        let chunker = Chunker::new(Params::default(), domain.gear_table());
        let mut stages = Self {
            dir: dir.to_owned(),
            source,
            lens: Vec::new(),
            pieces: Vec::new(),
            domain,
            sealer,
            chunker,
        };
        stages.lens = stages.cut();
        let mut compressor = Compressor::new(3).expect("a valid level");
        stages.pieces = stages.chunks().map(|plain| stages.piece(&mut compressor, plain)).collect();
        stages
    }

    fn piece(&self, compressor: &mut Compressor, plain: &[u8]) -> Piece {
        let (compression, payload) = compressor.compress(plain).expect("enough memory");
        let info = BlobInfo {
            kind: BlobKind::Chunk,
            id: self.domain.id_of(BlobKind::Chunk, plain),
            plain_len: u32::try_from(plain.len()).expect("a chunk is short"),
            compression,
        };
        let mut blob = Vec::new();
        self.sealer.seal(&info, payload, &mut blob);
        Piece { info, payload: payload.to_vec(), blob }
    }

    fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.source.as_slice();
        self.lens.iter().map(move |len| {
            let (chunk, tail) = rest.split_at(*len);
            rest = tail;
            chunk
        })
    }

    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "figures for people")]
    fn measure<T>(&self, name: &str, stage: impl Fn(&Self) -> T) {
        let before = cpu_seconds();
        std::hint::black_box(stage(self));
        let seconds = cpu_seconds() - before;
        say(&format!("| {name} | {:.2} |", seconds * 1e9 / self.source.len() as f64));
    }

    fn read(&self) {
        let mut file = File::open(self.dir.join("source")).expect("the source");
        let mut buffer = vec![0; 256 << 10];
        while file.read(&mut buffer).expect("a readable file") > 0 {}
    }

    fn cut(&self) -> Vec<usize> {
        let mut rest = self.source.as_slice();
        let mut lens = Vec::new();
        while let Some(len) = self.chunker.cut(rest, EndOfInput::Reached) {
            lens.push(len);
            rest = rest.get(len..).expect("a cut lies within");
        }
        lens
    }

    fn hash(&self) -> Vec<ChunkId> {
        self.chunks().map(|plain| self.domain.id_of(BlobKind::Chunk, plain)).collect()
    }

    fn compress(&self, level: i32) -> usize {
        let mut compressor = Compressor::new(level).expect("a valid level");
        self.chunks().map(|plain| compressor.compress(plain).expect("enough memory").1.len()).sum()
    }

    fn send(&self) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut buffer = vec![0; 256 << 10];
                while stream.read(&mut buffer).expect("bytes") > 0 {}
            });
            let mut stream = TcpStream::connect(address).expect("a connection");
            for piece in &self.pieces {
                stream.write_all(&piece.payload).expect("bytes");
            }
        });
    }

    fn check(&self) {
        let mut decompressor = Decompressor::new().expect("enough memory");
        for Piece { info, payload, .. } in &self.pieces {
            let plain =
                decompressor.decompress(info.compression, payload, info.plain_len).expect("our own frame");
            assert_eq!(self.domain.id_of(BlobKind::Chunk, plain), info.id);
        }
    }

    fn seal(&self) {
        let mut blob = Vec::new();
        for piece in &self.pieces {
            blob.clear();
            self.sealer.seal(&piece.info, &piece.payload, &mut blob);
        }
    }

    fn write(&self) {
        let stored: Vec<u8> = self.pieces.iter().flat_map(|piece| &piece.blob).copied().collect();
        for (number, pack) in stored.chunks(PACK_LEN).enumerate() {
            let path = self.dir.join(format!("pack-{number}-{}", PackId::of(pack).to_hex()));
            let mut file = File::create(path).expect("a pack");
            file.write_all(pack).and_then(|()| file.sync_data()).expect("a written pack");
        }
    }

    fn open(&self) -> usize {
        let open = |piece: &Piece| self.sealer.open(&piece.info, &piece.blob).expect("our own blob").len();
        self.pieces.iter().map(open).sum()
    }

    fn restore(&self) {
        let file = File::create(self.dir.join("restored")).expect("a file");
        let mut at = 0;
        for chunk in self.chunks() {
            file.write_all_at(chunk, at).expect("a written chunk");
            at += u64::try_from(chunk.len()).expect("a length");
        }
    }
}

/// User and system time of this process so far, in seconds; the kernel counts in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}
