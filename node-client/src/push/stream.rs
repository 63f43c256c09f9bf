//! A stream becomes the one file of a snapshot: standard input, or the output of a command.
//!
//! A thread reads it into a short queue; the push cuts, hashes and sends the content, as of any file. The
//! list of its chunks waits in a temporary file for the length, which is known only at the end. A stream
//! cannot be read again: where a push of folders would start again, one of a stream ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Seek, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;

use chunker::EndOfInput;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, after, bounded};
use format_spec::key::{BlobKind, FileDigester};
use format_spec::manifest::{Manifest, Totals};
use format_spec::page::PageBuilder;
use format_spec::{ChunkId, Entry, EntryKind, EntryPath, Extent, FileEnd};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Handle;

use super::chosen::Chosen;
use super::options::{Hooks, PushOptions, Remember};
use super::read::batch::READ_LEN;
use super::report::{Kind, PushReport, Tally};
use super::scan::{Pages, Scanned};
use super::send::session::Session;
use super::send::{Uplink, session};
use super::stop::{Failure, Stop, Stopped, spool_error};
use super::{Push, pace};
use crate::api::{Api, Coming};
use crate::error::ClientError;
use crate::progress::Phase;
use crate::state::Spool;

/// Pieces of the stream that wait to be cut.
const WAITING: usize = 4;
/// How often the end of the push is looked for while nothing comes.
const LOOK: Duration = Duration::from_millis(100);
/// How long a command may take to end after it was asked to.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Permissions of the file: streams are mostly dumps of databases.
const MODE: u32 = 0o600;

/// A stream to push.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The name of the file that it becomes.
    pub name: StreamName,
    /// Where its bytes come from.
    pub source: StreamSource,
}

/// Where the bytes of a stream come from.
#[derive(Debug, Clone)]
pub enum StreamSource {
    /// Standard input. Its end is the end of the stream.
    Input,
    /// Standard output of a program, which is given with its arguments. There is a snapshot only if it ends with 0.
    Command(Vec<OsString>),
}

/// The name of the one file in a snapshot of a stream: 1 to 255 bytes without a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamName(EntryPath);

impl FromStr for StreamName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = EntryPath::new(text.as_bytes().to_vec()).map_err(|error| error.to_string())?;
        let is_name = path.components().count() == 1 && !text.contains(char::is_control);
        is_name
            .then_some(Self(path))
            .ok_or_else(|| "expected the name of one file, without a slash".to_owned())
    }
}

impl std::fmt::Display for StreamName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// Pushes `stream` as `options` say, but for its roots, patterns, classes, freeze and state, which are of folders.
/// Returns once the snapshot is durable. Memory does not depend on the length.
///
/// Must be called from a thread that may block, not from within `runtime`.
///
/// # Errors
/// [`ClientError`]; there is no snapshot then. [`ClientError::Command`] if the command failed.
pub fn run_stream(
    api: &Api,
    runtime: &Handle,
    options: &PushOptions,
    stream: &Stream,
    hooks: &Hooks<'_>,
) -> Result<PushReport, ClientError> {
    let started = hooks.clock.elapsed();
    let push = Push {
        api,
        runtime,
        options,
        hooks,
        chosen: Chosen::nothing()?,
        pace: pace(options),
        place: None,
        stream: Some(stream.name.0.clone()),
    };
    let session = Session::open(api, runtime, options, None, Remember::Nothing, &hooks.cancel);
    let session = session.map_err(for_caller)?;
    let (stop, id) = (Stop::new(hooks.cancel.clone()), session.id);
    let report = push.stream(session, stream, &stop).map_err(|stopped| {
        session::end(api, runtime, id);
        for_caller(stop.reason(stopped))
    })?;
    let seconds = hooks.clock.elapsed().saturating_sub(started).as_secs_f64();
    Ok(PushReport { attempts: 1, seconds, ..report })
}

fn for_caller(failure: Failure) -> ClientError {
    match failure {
        Failure::Client(error) => error,
        Failure::Damaged | Failure::Lost => {
            ClientError::Worker("a stream has neither a state nor late chunks")
        }
    }
}

impl Push<'_> {
    fn stream(&self, session: Session, stream: &Stream, stop: &Stop) -> Result<PushReport, Stopped> {
        let tally = Tally::default();
        let uplink = self.uplink(&session, stop, &tally);
        let mut chunks = stop.pass(ChunkList::create().map_err(spool_error))?;
        self.hooks.progress.phase(Phase::Sending);
        let mut input = stop.pass(Input::open(&stream.source))?;
        uplink.upload(BlobKind::Chunk, Coming::Send, |feeder| {
            let mut reader = uplink.reader(&session, feeder);
            loop {
                let piece = input.next(stop)?;
                let end = if piece.is_empty() { EndOfInput::Reached } else { EndOfInput::NotReached };
                reader.take(&piece, end, |extent| stop.pass(chunks.push(&extent).map_err(spool_error)))?;
                if piece.is_empty() {
                    break;
                }
            }
            reader.feeder.finish()
        })?;
        input.end(&uplink)?;
        let spool =
            Spool::create(None, session.domain.clone(), session.repository, session.id, session.number);
        let spool = stop.pass(spool.map_err(spool_error))?;
        let mut pages = Pages { builder: PageBuilder::new(session.domain.clone()), spool };
        let entry = self.entry(stream, chunks.bytes);
        let digester = session.domain.file_digester();
        stop.pass(fill(&mut pages, &entry, chunks, digester).map_err(spool_error))?;
        tally.file(Kind::New);
        self.hooks.progress.scanned(entry.size);
        let totals = Totals { files: 1, bytes: entry.size, ..Totals::default() };
        let scanned = Scanned { totals, problems: Vec::new() };
        let (committed, manifest) = self.commit(&uplink, &session, &pages, scanned)?;
        let Manifest { node, totals, problems, .. } = &manifest;
        Ok(tally.report(&committed, node, totals, problems))
    }

    /// The entry of the one file: of the user who pushes, and of the moment at which the stream ended.
    fn entry(&self, stream: &Stream, size: u64) -> Entry {
        Entry {
            path: stream.name.0.clone(),
            kind: EntryKind::File,
            mode: MODE,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: self.hooks.clock.now(),
            size,
            xattrs: Vec::new(),
            target: None,
            link_group: None,
        }
    }
}

/// Writes the entry and its chunks into pages.
fn fill(pages: &mut Pages, entry: &Entry, chunks: ChunkList, mut digest: FileDigester) -> io::Result<()> {
    pages.spool.file(None);
    let Pages { builder, spool } = pages;
    let mut put = |page: Option<format_spec::page::Page>| page.map_or(Ok(()), |page| spool.page(&page));
    put(builder.entry(entry))?;
    chunks.for_each(|extent| {
        digest.push(&extent);
        put(builder.extent(extent))
    })?;
    put(builder.end_file(FileEnd::Whole(digest.finish())))?;
    put(builder.finish())
}

/// The chunks of a stream in order, in a temporary file: 36 bytes for each.
struct ChunkList {
    file: BufWriter<File>,
    bytes: u64,
    count: u64,
}

impl ChunkList {
    fn create() -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(tempfile::tempfile()?), bytes: 0, count: 0 })
    }

    fn push(&mut self, extent: &Extent) -> io::Result<()> {
        let Extent::Chunk { id, len } = extent else { return Err(io::Error::other("a stream has no holes")) };
        self.file.write_all(id.as_bytes())?;
        self.file.write_all(&len.to_le_bytes())?;
        self.bytes += u64::from(*len);
        self.count += 1;
        Ok(())
    }

    fn for_each(self, mut each: impl FnMut(Extent) -> io::Result<()>) -> io::Result<()> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        let mut file = BufReader::new(file);
        for _ in 0..self.count {
            let (mut id, mut len) = ([0; 32], [0; 4]);
            file.read_exact(&mut id)?;
            file.read_exact(&mut len)?;
            each(Extent::Chunk { id: ChunkId::from_bytes(id), len: u32::from_le_bytes(len) })?;
        }
        Ok(())
    }
}

/// A stream that is being read.
struct Input {
    pieces: Receiver<io::Result<Vec<u8>>>,
    command: Option<Running>,
}

impl Input {
    fn open(source: &StreamSource) -> Result<Self, ClientError> {
        let (to, pieces) = bounded(WAITING);
        let command = match source {
            StreamSource::Input if io::stdin().is_terminal() => {
                let why = "--stdin reads a pipe or a file, and standard input is a terminal";
                return Err(ClientError::Usage(why.to_owned()));
            }
            StreamSource::Input => {
                read_in_a_thread(io::stdin(), to)?;
                None
            }
            StreamSource::Command(words) => {
                let (running, output) = Running::start(words)?;
                read_in_a_thread(output, to)?;
                Some(running)
            }
        };
        Ok(Self { pieces, command })
    }

    /// The next piece; an empty one is the end.
    fn next(&mut self, stop: &Stop) -> Result<Vec<u8>, Stopped> {
        loop {
            stop.check()?;
            match self.pieces.recv_timeout(LOOK) {
                Ok(Ok(piece)) => return Ok(piece),
                Ok(Err(source)) => {
                    let path = PathBuf::from(if self.command.is_some() {
                        "output of the command"
                    } else {
                        "standard input"
                    });
                    return Err(stop.fail(ClientError::Disk { action: "read", path, source }));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(stop.fail(ClientError::Worker("the reader of a stream")));
                }
            }
        }
    }

    /// Waits until a command has ended.
    fn end(mut self, uplink: &Uplink<'_>) -> Result<(), Stopped> {
        let Some(command) = &mut self.command else { return uplink.stop.check() };
        loop {
            match uplink.stop.pass(command.ended())? {
                Some(status) if status.success() => return uplink.stop.check(),
                Some(status) => return Err(uplink.stop.fail(command.failed(status))),
                None => uplink.wait(LOOK)?,
            }
        }
    }
}

/// Reads until the end, which is an empty piece. The thread outlives a push that ends early: nothing can wake up who
/// reads a terminal or a pipe.
fn read_in_a_thread(
    mut from: impl Read + Send + 'static,
    to: Sender<io::Result<Vec<u8>>>,
) -> Result<(), ClientError> {
    let limit = u64::try_from(READ_LEN).expect("a length fits in 64 bits");
    let read = move || loop {
        let mut piece = Vec::with_capacity(READ_LEN);
        let read = from.by_ref().take(limit).read_to_end(&mut piece);
        let is_last = !matches!(read, Ok(1..));
        // The receiver may be gone.
        if to.send(read.map(|_| piece)).is_err() || is_last {
            return;
        }
    };
    let started = std::thread::Builder::new().name("stream".to_owned()).spawn(read);
    started.map(drop).map_err(|source| ClientError::Thread { name: "stream", source })
}

/// A running command. It is ended when this is dropped before its own end.
struct Running {
    child: Child,
    name: String,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts a program with its arguments. Its standard error and input are ours.
    fn start(words: &[OsString]) -> Result<(Self, ChildStdout), ClientError> {
        let none = || ClientError::Usage("--command needs a program behind `--`".to_owned());
        let (program, arguments) = words.split_first().ok_or_else(none)?;
        let name = program.display().to_string();
        let started = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn();
        let mut child = started.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ClientError::NotFound(format!("no such command: `{name}`")),
            _ => ClientError::Disk { action: "run", path: PathBuf::from(program), source },
        })?;
        let output = child.stdout.take().ok_or(ClientError::Worker("a command without output"))?;
        Ok((Self { child, name, status: None }, output))
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Result<Option<ExitStatus>, ClientError> {
        let waited = self.child.try_wait();
        let path = || PathBuf::from(&self.name);
        self.status =
            waited.map_err(|source| ClientError::Disk { action: "wait for", path: path(), source })?;
        Ok(self.status)
    }

    fn failed(&self, status: ExitStatus) -> ClientError {
        ClientError::Command { command: self.name.clone(), status }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_some() {
            return;
        }
        // It may have ended, but its number is its own as long as it was not waited for.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let looks = LAST_WORDS.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            let _ = after(LOOK).recv();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
