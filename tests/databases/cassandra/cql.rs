//! A client of Cassandra's native protocol, version 4: one statement after the other over one connection.
//!
//! It is written here and not taken from a package: what the suite must know is exactly which writes were
//! acknowledged and when, and drivers retry, pool and page behind that. It needs nothing to be installed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Version 4 of the protocol, in a request.
const REQUEST: u8 = 4;
/// At least one replica has it; with one replica, that one.
const CONSISTENCY_ONE: u16 = 1;
/// Most of the replicas have it.
const CONSISTENCY_QUORUM: u16 = 4;

const ERROR: u8 = 0;
const STARTUP: u8 = 1;
const READY: u8 = 2;
const QUERY: u8 = 7;
const RESULT: u8 = 8;

const KIND_ROWS: u32 = 2;
const GLOBAL_TABLE: u32 = 1;

/// How many replicas must have a write, or answer a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// Any one of them.
    One,
    /// Most of them.
    Quorum,
}

/// The columns of one row as the server sends them; `None` is a null.
pub(crate) type Row = Vec<Option<Vec<u8>>>;

/// A connection that is ready for statements.
#[derive(Debug)]
pub(crate) struct Cql {
    stream: TcpStream,
}

impl Cql {
    /// Connects to a node that needs no password.
    ///
    /// # Errors
    /// If nobody listens there, or not yet for statements.
    pub(crate) fn connect(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        let mut cql = Self { stream };
        let mut body = 1_u16.to_be_bytes().to_vec();
        for text in ["CQL_VERSION", "3.0.0"] {
            body.extend(u16::try_from(text.len()).expect("they are short").to_be_bytes());
            body.extend(text.as_bytes());
        }
        match cql.ask(STARTUP, &body)? {
            (READY, _) => Ok(cql),
            (opcode, body) => Err(refused(opcode, &body)),
        }
    }

    /// Runs a statement, and returns the rows of its result.
    ///
    /// # Errors
    /// If it was not acknowledged. It may have been carried out all the same.
    pub(crate) fn run(&mut self, statement: &str, consistency: Consistency) -> io::Result<Vec<Row>> {
        let mut body = u32::try_from(statement.len()).expect("statements are short").to_be_bytes().to_vec();
        body.extend(statement.as_bytes());
        let consistency = match consistency {
            Consistency::One => CONSISTENCY_ONE,
            Consistency::Quorum => CONSISTENCY_QUORUM,
        };
        body.extend(consistency.to_be_bytes());
        body.push(0);
        match self.ask(QUERY, &body)? {
            (RESULT, body) => rows(&body),
            (opcode, body) => Err(refused(opcode, &body)),
        }
    }

    fn ask(&mut self, opcode: u8, body: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        let mut frame = vec![REQUEST, 0, 0, 0, opcode];
        frame.extend(u32::try_from(body.len()).expect("statements are short").to_be_bytes());
        frame.extend(body);
        self.stream.write_all(&frame)?;
        let mut header = [0; 9];
        self.stream.read_exact(&mut header)?;
        let [_, _, _, _, opcode, len @ ..] = header;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(len)).expect("a frame fits into memory")];
        self.stream.read_exact(&mut body)?;
        Ok((opcode, body))
    }
}

fn refused(opcode: u8, body: &[u8]) -> io::Error {
    let mut body = Body(body);
    let said = match opcode {
        ERROR => body.int().and_then(|code| Ok(format!("{code:#x}: {}", body.string()?))),
        opcode => Ok(format!("answered with opcode {opcode}")),
    };
    io::Error::other(said.unwrap_or_else(|error| error.to_string()))
}

/// The rows of a result; none where it is of another kind.
fn rows(body: &[u8]) -> io::Result<Vec<Row>> {
    let mut body = Body(body);
    if body.int()? != KIND_ROWS {
        return Ok(Vec::new());
    }
    let (flags, columns) = (body.int()?, body.int()?);
    if flags & GLOBAL_TABLE != 0 {
        body.string()?;
        body.string()?;
    }
    for _ in 0..columns {
        if flags & GLOBAL_TABLE == 0 {
            body.string()?;
            body.string()?;
        }
        body.string()?;
        // The type. Only simple ones are asked for, which have no more to say.
        body.take(2)?;
    }
    let rows = body.int()?;
    (0..rows).map(|_| (0..columns).map(|_| body.value()).collect()).collect()
}

/// The rest of an answer.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, len: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?.try_into().expect("four bytes were taken");
        Ok(u32::from_be_bytes(bytes))
    }

    fn string(&mut self) -> io::Result<String> {
        let len = self.take(2)?.try_into().expect("two bytes were taken");
        let text = self.take(usize::from(u16::from_be_bytes(len)))?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// A length below zero, which is one beyond what a frame can hold, stands for null.
    fn value(&mut self) -> io::Result<Option<Vec<u8>>> {
        match i32::try_from(self.int()?) {
            Err(_) => Ok(None),
            Ok(len) => Ok(Some(self.take(usize::try_from(len).expect("it is not below zero"))?.to_vec())),
        }
    }
}
