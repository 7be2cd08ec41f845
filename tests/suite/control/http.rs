//! A small HTTP client: one request at a time over one connection, and every byte of it in the test's hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::DEADLINE;

/// A connection to the control plane.
pub(super) struct Http {
    pub(super) stream: TcpStream,
    /// What every request says besides.
    pub(super) headers: String,
    held: Vec<u8>,
    addr: SocketAddr,
    /// Whether the server has said that it closes this connection.
    closing: bool,
}

/// A whole response.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Http {
    pub(super) fn connect(addr: SocketAddr) -> Http {
        let headers = format!("Host: {addr}\r\n");
        Http { stream: connect(addr), headers, held: Vec::new(), addr, closing: false }
    }

    /// Adds a header to every request from now on.
    pub(super) fn with(mut self, header: &str) -> Http {
        self.headers.push_str(header);
        self.headers.push_str("\r\n");
        self
    }

    /// Sends a request with a body and returns the response.
    #[track_caller]
    pub(super) fn send(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Response {
        if std::mem::take(&mut self.closing) {
            self.stream = connect(self.addr);
            self.held.clear();
        }
        self.write(method, path, headers, body);
        self.response(method == "HEAD")
    }

    /// Sends a request and does not wait.
    pub(super) fn write(&mut self, method: &str, path: &str, headers: &[&str], body: &[u8]) {
        let mut request = format!("{method} {path} HTTP/1.1\r\n{}Content-Length: {}\r\n", self.headers, body.len());
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        // The server may have answered and closed before it has the whole body.
        let _ = self.stream.write_all(request.as_bytes()).and_then(|()| self.stream.write_all(body));
    }

    #[track_caller]
    pub(super) fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    /// The status of a request to a server that may close the connection first.
    pub(super) fn get_status(&mut self, path: &str) -> Option<u16> {
        self.write("GET", path, &[], b"");
        while !self.held.contains(&b'\n') {
            if !self.more() {
                return None;
            }
        }
        std::str::from_utf8(&self.held).ok()?.split(' ').nth(1)?.parse().ok()
    }

    #[track_caller]
    pub(super) fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send("POST", path, &[], body.as_ref())
    }

    /// Reads one response.
    #[track_caller]
    pub(super) fn response(&mut self, without_body: bool) -> Response {
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let mut response = Response { status, head, body: Vec::new() };
        self.closing = response.header("connection") == Some("close");
        if without_body || status == 204 {
            return response;
        }
        if response.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                response.body.extend(chunk);
            }
        } else {
            let length = response.header("content-length").and_then(|length| length.parse().ok()).expect("a length");
            response.body = self.take(length);
        }
        response
    }

    /// Reads the head of a response.
    #[track_caller]
    pub(super) fn head(&mut self) -> String {
        let end = loop {
            match self.held.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => assert!(self.more(), "the connection ended before a response"),
            }
        };
        String::from_utf8(self.held.drain(..end).collect()).unwrap()
    }

    /// Reads one chunk of a body; `None`: that was the last.
    #[track_caller]
    pub(super) fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            match self.held.windows(2).position(|bytes| bytes == b"\r\n") {
                Some(at) => break at,
                None => assert!(self.more(), "the connection ended within a body"),
            }
        };
        let line: Vec<u8> = self.held.drain(..end + 2).collect();
        let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let chunk = self.take(length);
        assert_eq!(self.take(2), b"\r\n");
        (length > 0).then_some(chunk)
    }

    /// Whether the server has closed the connection; waits for that or for bytes.
    pub(super) fn is_closed(&mut self) -> bool {
        !self.more()
    }

    #[track_caller]
    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.held.len() < length {
            assert!(self.more(), "the connection ended within a body");
        }
        self.held.drain(..length).collect()
    }

    /// Reads more; `false`: the connection has ended, in order or not.
    #[track_caller]
    fn more(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => self.more(),
            Ok(count) => {
                self.held.extend_from_slice(&bytes[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no response came"),
            Err(_) => false,
        }
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, DEADLINE).expect("the control plane accepts");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Response {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    #[track_caller]
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON, which it says to be.
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        assert!(self.header("content-type").is_some_and(|kind| kind.contains("json")), "no JSON: {self:?}");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Checks that it is a problem with this code.
    #[track_caller]
    pub(super) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{} {}", self.status, self.text());
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{problem}");
        assert_eq!((problem["status"].as_u64(), problem["type"].as_str()), (Some(status.into()), Some("about:blank")));
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{problem}");
    }
}
