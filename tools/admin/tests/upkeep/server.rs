//! A stand-in for the server: answers that were agreed on before, over HTTP on a free loopback port.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use format_spec::ErrorClass;
use format_spec::wire::ErrorBody;
use serde::Serialize;
use serde_json::Value;

/// A running stand-in. What has no answer is refused as any server refuses an unknown path.
#[derive(Default)]
pub(crate) struct Server {
    answers: HashMap<String, (u16, Vec<u8>)>,
}

/// Output of the program, and its requests: method, path and body.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) output: Output,
    pub(crate) asked: Vec<(String, Value)>,
}

impl Server {
    /// Answers `request` (`GET /v1/stats`) with this document.
    pub(crate) fn answers(self, request: &str, answer: &impl Serialize) -> Self {
        self.replies(request, 200, serde_json::to_vec(answer).unwrap())
    }

    /// Answers `request` with these lines.
    pub(crate) fn streams<T: Serialize>(self, request: &str, lines: &[T]) -> Self {
        let lines = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n");
        self.replies(request, 200, lines.collect::<String>().into_bytes())
    }

    /// Refuses `request`.
    pub(crate) fn refuses(self, request: &str, status: u16, body: &ErrorBody) -> Self {
        self.replies(request, status, serde_json::to_vec(body).unwrap())
    }

    fn replies(mut self, request: &str, status: u16, answer: Vec<u8>) -> Self {
        self.answers.insert(request.to_owned(), (status, answer));
        self
    }

    /// Runs the program against it.
    pub(crate) fn admin(self, arguments: &[&str]) -> Done {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, heard) = (Arc::new(self.answers), Arc::clone(&asked));
        // Both threads end with the test, which does not wait for them.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, heard) = (Arc::clone(&answers), Arc::clone(&heard));
                std::thread::spawn(move || talk(&stream.unwrap(), &answers, &heard));
            }
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_astacus-admin"));
        command.args(arguments).env_clear().env("ASTACUS_SERVER", address).env("ASTACUS_TOKEN", "token");
        let output = command.output().expect("the program was built for this test");
        let asked = asked.lock().unwrap().clone();
        Done { output, asked }
    }
}

/// A refusal as the server words it.
pub(crate) fn refusal(code: &str, class: ErrorClass, message: &str) -> ErrorBody {
    ErrorBody { code: code.to_owned(), class, message: message.to_owned(), missing: Vec::new() }
}

/// Answers the requests of one connection until it is closed.
fn talk(stream: &TcpStream, answers: &HashMap<String, (u16, Vec<u8>)>, heard: &Mutex<Vec<(String, Value)>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let request = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let body = read_body(&mut reader);
        let body = serde_json::from_slice(&body).unwrap_or_default();
        heard.lock().unwrap().push((request.clone(), body));
        let (status, answer) = answers.get(&request).cloned().unwrap_or((404, Vec::new()));
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", answer.len());
        let mut stream = stream;
        if stream.write_all(&[head.as_bytes(), &answer].concat()).is_err() {
            return;
        }
    }
}

fn read_body(reader: &mut impl BufRead) -> Vec<u8> {
    let mut len = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            len = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).unwrap();
    body
}
