//! A proxy before a real registry that passes requests on, counts what goes through, and breaks what a test wants
//! broken; and a proxy of the other kind, which clients ask to connect them (CONNECT).

use crate::events;
use crate::registry::{Answer, Asked, read_head};
use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// What becomes of one exchange.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing: it is passed on.
    Pass,
    /// This answer in place of the registry's.
    Answer(Answer),
    /// So many bytes of the body, then a reset of the connection.
    Reset(usize),
    /// So many bytes of the body, then the end of the connection.
    Cut(usize),
    /// So many bytes of the body, then nothing until the client hangs up or the test opens the gate.
    Hold(usize),
    /// The body one piece of so many bytes at a time, each in a segment of its own.
    Dribble(usize),
    /// Another length than the body has is announced.
    Length(usize),
    /// The answer says another range than it is.
    OtherRange,
}

#[derive(Debug, Default)]
struct Seen {
    asked: Vec<Asked>,
    /// Bytes of bodies, by path.
    bytes: HashMap<String, usize>,
}

/// The proxy before a registry. It works until the test's process ends.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    held: Receiver<()>,
    opened: Arc<Mutex<bool>>,
}

type Rule = dyn Fn(&Asked) -> Fault + Send + Sync;

#[derive(Clone)]
struct Shared {
    upstream: SocketAddr,
    rule: Arc<Rule>,
    seen: Arc<Mutex<Seen>>,
    holding: Sender<()>,
    opened: Arc<Mutex<bool>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultProxy {
    /// Passes on to `upstream` what `rule` does not break.
    pub fn start(upstream: SocketAddr, rule: impl Fn(&Asked) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("own address");
        let (holding, held) = channel();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let opened = Arc::new(Mutex::new(false));
        let shared =
            Shared { upstream, rule: Arc::new(rule), seen: seen.clone(), holding, opened: opened.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let shared = shared.clone();
                // A client that has seen enough hangs up.
                std::thread::spawn(move || drop(shared.exchange(stream)));
            }
        });
        Self { address, seen, held, opened }
    }

    /// `host:port`
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked until now.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.seen).asked.clone()
    }

    /// How often a path that ends in `end` was asked for by GET.
    pub fn gets(&self, end: &str) -> usize {
        lock(&self.seen)
            .asked
            .iter()
            .filter(|asked| asked.method == "GET" && asked.path.ends_with(end))
            .count()
    }

    /// Bytes of bodies that went out under a path that ends in `end`.
    pub fn bytes(&self, end: &str) -> usize {
        lock(&self.seen).bytes.iter().filter(|(path, _)| path.ends_with(end)).map(|(_, count)| count).sum()
    }

    /// Waits until a body is held back.
    pub fn await_hold(&self) {
        self.held.recv_timeout(events::patience()).expect("a body that is held back");
    }

    /// Lets go what is held back, from now on.
    pub fn open_gate(&self) {
        *lock(&self.opened) = true;
    }
}

impl Shared {
    fn exchange(&self, client: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let Some((mut asked, lines)) = read_head(&mut reader) else { return Ok(()) };
        let fault = {
            let mut seen = lock(&self.seen);
            asked.nth = seen.asked.len();
            seen.asked.push(asked.clone());
            (self.rule)(&asked)
        };
        let mut client = client;
        if let Fault::Answer(answer) = &fault {
            return answer.write(&mut client);
        }
        let mut server = TcpStream::connect(self.upstream)?;
        let mut head = String::new();
        for line in lines.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
            head.push_str(&format!("{line}\r\n"));
        }
        server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        let length = asked.headers.get("content-length").map_or(0, |text| text.parse().expect("a length"));
        std::io::copy(&mut reader.take(length), &mut server)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
        let body = answer.split_off(end);
        let head = edited(&String::from_utf8_lossy(&answer), &fault);
        client.write_all(head.as_bytes())?;
        self.body(&mut client, &asked, &body, &fault)
    }

    fn body(&self, client: &mut TcpStream, asked: &Asked, body: &[u8], fault: &Fault) -> std::io::Result<()> {
        let first = match fault {
            Fault::Reset(count) | Fault::Cut(count) | Fault::Hold(count) => body.len().min(*count),
            _ => body.len(),
        };
        let count = |bytes: usize| *lock(&self.seen).bytes.entry(asked.path.clone()).or_default() += bytes;
        if let Fault::Dribble(piece) = fault {
            client.set_nodelay(true)?;
            for piece in body.chunks(*piece) {
                client.write_all(piece)?;
                count(piece.len());
            }
            return Ok(());
        }
        client.write_all(&body[..first])?;
        count(first);
        match fault {
            Fault::Reset(_) => {
                // Data that nobody reads, and no linger: the kernel sends a reset in place of the end.
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                nix::sys::socket::setsockopt(client, nix::sys::socket::sockopt::Linger, &linger)?;
            }
            Fault::Hold(_) => {
                // Nobody may wait for it any more.
                let _ = self.holding.send(());
                self.await_gate(client);
                client.write_all(&body[first..])?;
                count(body.len() - first);
            }
            _ => {}
        }
        Ok(())
    }

    fn await_gate(&self, client: &TcpStream) {
        events::eventually("the gate or the client's end", || {
            let mut byte = [0];
            client.set_nonblocking(true).expect("nonblocking");
            let gone = matches!(client.peek(&mut byte), Ok(0))
                || client.peek(&mut byte).is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock);
            client.set_nonblocking(false).expect("blocking");
            (gone || *lock(&self.opened)).then_some(())
        });
    }
}

fn edited(head: &str, fault: &Fault) -> String {
    let mut text = String::new();
    for line in head.split("\r\n") {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let line = match (fault, name.as_str()) {
            (Fault::Length(length), "content-length") => format!("Content-Length: {length}"),
            (Fault::OtherRange, "content-range") => "Content-Range: bytes 0-1/*".to_owned(),
            _ => line.to_owned(),
        };
        text.push_str(&line);
        text.push_str("\r\n");
    }
    // The head ends with an empty line, which was split in two.
    text.truncate(text.len() - 2);
    text
}

/// A proxy that connects its clients to this machine, whatever name they give.
#[derive(Debug)]
pub struct ConnectProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Starts it; it works until the test's process ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("own address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let seen = seen.clone();
                // Either end may hang up.
                std::thread::spawn(move || drop(connect(stream, &seen)));
            }
        });
        Self { address, asked }
    }

    /// `host:port`
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `host:port` of each connection that it was asked for.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }
}

fn connect(mut client: TcpStream, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let Some((asked, _)) = read_head(&mut reader) else { return Ok(()) };
    assert_eq!(asked.method, "CONNECT");
    lock(seen).push(asked.path.clone());
    let port: u16 = asked.path.rsplit(':').next().and_then(|text| text.parse().ok()).expect("a port");
    let server = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut to, mut from) = (server.try_clone()?, server);
    let mut back = client.try_clone()?;
    let up = std::thread::spawn(move || {
        let _ = std::io::copy(&mut reader, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut from, &mut back);
    let _ = back.shutdown(Shutdown::Both);
    up.join().expect("the other direction");
    Ok(())
}
