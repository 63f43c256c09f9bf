//! Traffic between client and server: frames, lists of ids, answers, documents, and compressed payloads.

use format_spec::blob::{BlobInfo, Compression, Compressor, Decompressor};
use format_spec::key::BlobKind;
use format_spec::wire::{self, *};
use format_spec::{ChunkId, FormatError, MAX_CHUNK_LEN};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Input, Seed, Verdict, chosen_by, hostile_json, seed};

/// Frames that came out, and how the stream ended.
type Read = (Vec<Frame>, Result<(), FormatError>);

/// Reads a stream that arrives in pieces of these lengths, over and over.
fn read(stream: &[u8], lens: &[usize]) -> Read {
    let (mut reader, mut frames) = (FrameReader::new(), Vec::new());
    let (mut rest, mut lens) = (stream, lens.iter().cycle());
    while !rest.is_empty() {
        let len = lens.next().copied().unwrap_or(1).clamp(1, rest.len());
        let (piece, more) = rest.split_at(len);
        rest = more;
        let before = reader.buffered();
        reader.push(piece);
        assert_eq!(reader.buffered(), before + piece.len(), "it holds more than came");
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        let limit = FRAME_HEADER_LEN + usize::try_from(MAX_CHUNK_LEN).expect("it fits");
        assert!(reader.buffered() < limit, "it waits for more than a frame can be");
    }
    (frames, reader.finish())
}

/// A stream of frames, in pieces: `[how many lengths] [lengths]* [stream]`. However it is cut, the same
/// frames come out; a stream that came to its end is what writing its frames gives.
///
/// # Panics
/// If not.
pub fn frames(bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    let pieces = input.byte().unwrap_or_default() % 8;
    let lens: Vec<usize> = (0..pieces).filter_map(|_| input.byte()).map(usize::from).collect();
    let stream = input.rest();
    let whole = read(stream, &[usize::MAX]);
    assert_eq!(read(stream, &lens), whole, "the pieces matter");
    assert_eq!(read(stream, &[1, 43, 44, 45]), whole, "the pieces matter");
    let (frames, end) = whole;
    if end.is_err() {
        return Verdict::Refused;
    }
    let mut again = Vec::new();
    for frame in &frames {
        let payload_len = u32::try_from(frame.payload.len()).expect("it came with such a length");
        assert!(payload_len <= frame.info.plain_len && frame.info.plain_len <= MAX_CHUNK_LEN);
        again.extend_from_slice(&FrameHeader { info: frame.info, payload_len }.encode());
        again.extend_from_slice(&frame.payload);
    }
    again.extend_from_slice(&encode_end(u32::try_from(frames.len()).expect("a short stream")));
    assert_eq!(again, stream, "a stream has two encodings");
    Verdict::Accepted
}

/// A list of ids: whole ids, not too many, and one encoding.
///
/// # Panics
/// If not.
pub fn ids(bytes: &[u8]) -> Verdict {
    let Ok(ids) = parse_ids(bytes) else { return Verdict::Refused };
    assert!(ids.len() <= wire::MAX_IDS);
    assert_eq!(encode_ids(&ids), bytes, "a list has two encodings");
    Verdict::Accepted
}

/// Answer of a server about ids: `[number of requested ids, 2 bytes] [answer]`.
///
/// # Panics
/// If an answer of another length passes, or one has two encodings.
pub fn held(bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    let expected = usize::from(input.array().map(u16::from_le_bytes).unwrap_or_default());
    let answer = input.rest();
    let parsed = parse_held(answer, expected);
    if answer.len() != expected {
        assert!(parsed.is_err(), "an answer of another length");
        return Verdict::Refused;
    }
    let Ok(held) = parsed else { return Verdict::Refused };
    assert_eq!(encode_held(&held), answer, "an answer has two encodings");
    Verdict::Accepted
}

/// A payload: `[compression] [claimed length of the plaintext, 4 bytes] [payload]`. What comes out has that length
/// and compresses to something that gives it back.
///
/// # Panics
/// If not.
pub fn decompress(bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    let head = (input.byte().and_then(Compression::from_code), input.array().map(u32::from_le_bytes));
    let (Some(compression), Some(plain_len)) = head else { return Verdict::Refused };
    let mut decompressor = Decompressor::new().expect("there is memory");
    let Ok(plain) = decompressor.decompress(compression, input.rest(), plain_len) else {
        return Verdict::Refused;
    };
    assert_eq!(u32::try_from(plain.len()), Ok(plain_len), "another length than was claimed");
    assert!(plain_len <= MAX_CHUNK_LEN);
    let mut compressor = Compressor::new(1).expect("a level that zstd has");
    let (compression, payload) = compressor.compress(plain).expect("there is memory");
    let mut other = Decompressor::new().expect("there is memory");
    let again = other.decompress(compression, payload, plain_len);
    assert!(again.is_ok_and(|again| again == plain), "it does not come back");
    Verdict::Accepted
}

/// A document of type `T`: written again it stands for the same, in the same bytes from then on.
fn document<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Verdict {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return Verdict::Refused };
    let once = serde_json::to_vec(&value).expect("wire documents are plain JSON");
    let again: T = serde_json::from_slice(&once).expect("what was written is read");
    let twice = serde_json::to_vec(&again).expect("wire documents are plain JSON");
    assert_eq!(once, twice, "a document changes when it is passed on");
    Verdict::Accepted
}

const DOCUMENTS: &[fn(&[u8]) -> Verdict] = &[
    document::<OpenSession>,
    document::<SessionOpened>,
    document::<SessionRenewed>,
    document::<BlobsStored>,
    document::<Committed>,
    document::<SnapshotInfo>,
    document::<SnapshotList>,
    document::<SnapshotKey>,
    document::<VerifyRequest>,
    document::<VerifyReport>,
    document::<OperationEvent<VerifyReport>>,
    document::<Status>,
    document::<ErrorBody>,
    document::<FileProblems>,
];

/// A JSON body: `[which document] [body]`.
///
/// # Panics
/// If one does not survive being passed on.
pub fn json(bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    let which = usize::from(input.byte().unwrap_or_default());
    let document = DOCUMENTS.get(which % DOCUMENTS.len());
    document.map_or(Verdict::Refused, |document| document(input.rest()))
}

fn header(plain_len: u32, payload_len: u32) -> [u8; FRAME_HEADER_LEN] {
    let id = ChunkId::from_bytes([1; 32]);
    let info = BlobInfo { kind: BlobKind::Chunk, id, plain_len, compression: Compression::Raw };
    FrameHeader { info, payload_len }.encode()
}

/// Seeds of [`frames`].
pub fn streams() -> Vec<Seed> {
    let end = |frames| encode_end(frames);
    let two = [&header(5, 5)[..], b"hello", &header(9, 1), b"x", &end(2)].concat();
    let in_pieces = |stream: &[u8]| [&[3, 1, 7, 44][..], stream].concat();
    vec![
        seed("two-frames", in_pieces(&two)),
        seed("no-frame", in_pieces(&end(0))),
        seed("miscounted", in_pieces(&end(3))),
        seed("no-end", in_pieces(&[&header(5, 5)[..], b"hello"].concat())),
        seed("goes-on", in_pieces(&[&two[..], b"more"].concat())),
        seed("claims-4-gib", in_pieces(&header(u32::MAX, u32::MAX))),
        seed("claims-a-chunk", in_pieces(&header(MAX_CHUNK_LEN, MAX_CHUNK_LEN))),
        seed("payload-over-plaintext", in_pieces(&header(4, 5))),
        seed("odd-end", in_pieces(&[&[255, 1][..], &[0; 42]].concat())),
        seed("empty", []),
    ]
}

/// Seeds of [`ids`].
pub fn id_lists() -> Vec<Seed> {
    let two = [ChunkId::from_bytes([1; 32]), ChunkId::from_bytes([2; 32])];
    vec![seed("two", encode_ids(&two)), seed("none", []), seed("63-bytes", [7; 63])]
}

/// Seeds of [`held`].
pub fn answers() -> Vec<Seed> {
    let said = encode_held(&[Held::Here, Held::Missing, Held::Coming]);
    vec![
        seed("three", [&[3, 0][..], &said].concat()),
        seed("too-few", [&[4, 0][..], &said].concat()),
        seed("claims-65535", [&[255, 255][..], &said].concat()),
        seed("unknown", [1, 0, 9]),
        seed("empty", []),
    ]
}

/// Seeds of [`decompress`].
pub fn payloads() -> Vec<Seed> {
    let compressed = |plain: &[u8]| {
        let mut compressor = Compressor::new(1).expect("a level that zstd has");
        compressor.compress(plain).expect("there is memory").1.to_vec()
    };
    let of = |code: u8, claimed: u32, payload: &[u8]| [&[code][..], &claimed.to_le_bytes(), payload].concat();
    let text = compressed(&b"the same line again\n".repeat(50));
    let bomb = compressed(&vec![0; 1 << 20]);
    // Magic, a descriptor with an 8-byte content size, and a claim of 2^64 - 1 bytes.
    let claim = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0];
    vec![
        seed("raw", of(0, 5, b"hello")),
        seed("raw-too-short", of(0, 6, b"hello")),
        seed("zstd", of(1, 1000, &text)),
        seed("zstd-of-another-length", of(1, 999, &text)),
        seed("bomb", of(1, 1 << 20, &bomb)),
        seed("bomb-that-claims-little", of(1, 10, &bomb)),
        seed("claims-4-gib", of(1, u32::MAX, &bomb)),
        seed("claims-a-chunk", of(1, MAX_CHUNK_LEN, &text)),
        seed("frame-claims-2-64", of(1, 1000, &claim)),
        seed("empty", []),
    ]
}

/// Seeds of [`json`].
pub fn documents() -> Vec<Seed> {
    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    let snapshot = format!(
        r#"{{"id":"{ID}","cluster":"c","nodes":["n"],"created":"2026-01-01T00:00:00Z","state":"partial","files":1,"bytes":2,"problems":3,"pushes":[{{"node":"n","unchanged":1,"appended":2,"whole":3,"new":4,"gone":5,"resumed":6,"bytes_read":7,"bytes_hashed":8,"bytes_sent":9,"bytes_stored":10,"fallbacks":[{{"reason":"why","files":1}}],"moment":{{"freeze_ms":1,"moved_on":2,"fuzzy":3,"torn":4,"restless":5}}}}]}}"#
    );
    let manifest = format!("manifest:{}", "ab".repeat(32));
    let chunk = format!("chunk:{}", "cd".repeat(32));
    let failed = format!(r#"{{"code":"c","class":"conflict","message":"m","missing":["{chunk}"]}}"#);
    let report = format!(
        r#"{{"snapshots":1,"pages":2,"references":3,"packs":4,"bytes_read":5,"findings":[{{"object":"o","problem":"p","snapshots":["{ID}"]}}]}}"#
    );
    let good = [
        format!(r#"{{"cluster":"c","node":"n","base":"{manifest}","adopt":"{ID}"}}"#),
        format!(
            r#"{{"session":"{ID}","fencing_token":1,"ttl_ms":2,"repository":"{ID}","domain_key":"","chunker":{{"algorithm":"fixed","len":4096}},"base":"unknown"}}"#
        ),
        r#"{"ttl_ms":18446744073709551615}"#.to_owned(),
        r#"{"stored":1,"known":2,"stored_bytes":3}"#.to_owned(),
        format!(r#"{{"snapshot":{snapshot},"manifest":"{manifest}","durability":"local"}}"#),
        snapshot.clone(),
        format!(r#"{{"snapshots":[{snapshot}]}}"#),
        format!(r#"{{"domain_key":"{}"}}"#, "ef".repeat(32)),
        r#"{"level":"read"}"#.to_owned(),
        report.clone(),
        format!(r#"{{"report":{report}}}"#),
        format!(
            r#"{{"server":"s","repository":"{ID}","engine":"fjall","snapshots":1,"packs":2,"chunks":3,"stored_bytes":4,"open_sessions":5}}"#
        ),
        failed,
        r#"{"node":"n","problems":[{"path":"/a","state":"missing","reason":"vanished"},{"path":"/b","state":"fuzzy"}],"next":"3-61"}"#
            .to_owned(),
    ];
    let mut seeds = Vec::new();
    for (choice, body) in (0_u8..).zip(&good) {
        seeds.extend(chosen_by(choice, vec![seed("whole", body.as_bytes())]));
    }
    let first = good.first().map(String::as_bytes).unwrap_or_default();
    seeds.extend(chosen_by(0, hostile_json(first)));
    seeds.extend(chosen_by(6, hostile_json(snapshot.as_bytes())));
    seeds.push(seed("empty", []));
    seeds
}
