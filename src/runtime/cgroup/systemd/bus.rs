//! A connection to systemd over D-Bus: one thread, one call at a time, a deadline for each wait.
//!
//! ```text
//! connect ─> "\0AUTH EXTERNAL .. BEGIN" ─> "OK" ─> calls and answers
//!    private socket: systemd itself answers; it sends signals without being asked
//!    message bus:    Hello, AddMatch and Subscribe come first
//! ```
//! The server takes our identity from the socket (SO_PEERCRED), so that this works in a user namespace too.
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::wire::{self, Call, Kind, Message, Value};
use super::{Error, Manager, Result};
use crate::sys::SysError;

/// runc waits as long for a job; a manager that needs longer for an answer is stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// The lines of the handshake have tens of bytes.
const MAX_LINE: usize = 4096;
/// Signals of other callers' jobs that are kept while we wait for an answer.
const MAX_JOBS: usize = 4096;

/// A socket at which systemd, or a bus that it is on, may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    socket: Socket,
    /// A message bus, not systemd itself.
    bus: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Socket {
    Path(PathBuf),
    Abstract(String),
}

impl Address {
    fn path(path: impl Into<PathBuf>, bus: bool) -> Self {
        Self { socket: Socket::Path(path.into()), bus }
    }

    fn shown(&self) -> String {
        match &self.socket {
            Socket::Path(path) => path.display().to_string(),
            Socket::Abstract(name) => format!("@{name}"),
        }
    }
}

/// Where `manager` may be reached, the nearest first: systemctl's order.
pub(super) fn addresses(manager: Manager, env: impl Fn(&str) -> Option<String>) -> Vec<Address> {
    let env = |name| env(name).filter(|value| !value.is_empty());
    match manager {
        Manager::System => {
            let mut all = vec![Address::path("/run/systemd/private", false)];
            match env("DBUS_SYSTEM_BUS_ADDRESS") {
                Some(list) => all.extend(parse(&list)),
                None => all.push(Address::path("/run/dbus/system_bus_socket", true)),
            }
            all
        }
        Manager::User => {
            let dir = env("XDG_RUNTIME_DIR").map(PathBuf::from);
            let mut all: Vec<_> =
                dir.iter().map(|dir| Address::path(dir.join("systemd/private"), false)).collect();
            match env("DBUS_SESSION_BUS_ADDRESS") {
                Some(list) => all.extend(parse(&list)),
                None => all.extend(dir.map(|dir| Address::path(dir.join("bus"), true))),
            }
            all
        }
    }
}

/// The sockets of `unix:path=/run/x/bus,guid=..;unix:abstract=..` (D-Bus Specification, "Server Addresses");
/// other transports are left out.
fn parse(list: &str) -> Vec<Address> {
    let mut all = Vec::new();
    for keys in list.split(';').filter_map(|one| one.trim().strip_prefix("unix:")) {
        let socket = keys.split(',').find_map(|pair| match pair.split_once('=')? {
            ("path", path) => Some(Socket::Path(unescape(path).into())),
            ("abstract", name) => Some(Socket::Abstract(unescape(name))),
            _ => None,
        });
        all.extend(socket.map(|socket| Address { socket, bus: true }));
    }
    all
}

/// `%2f` is `/`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let escaped = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An open connection.
pub(super) struct Bus {
    stream: UnixStream,
    /// For errors.
    name: String,
    serial: u32,
    /// Received and not parsed yet.
    pending: Vec<u8>,
    /// Ends of jobs that were told while we waited for something else: path and result.
    jobs: Vec<(String, String)>,
}

impl Bus {
    /// Connects to the first of `addresses` that answers.
    ///
    /// # Errors
    /// [`Error::Unreachable`], which names all sockets.
    pub(super) fn connect(addresses: &[Address]) -> Result<Bus> {
        let mut first = None;
        for address in addresses {
            match Self::open(address) {
                Ok(bus) => return Ok(bus),
                Err(error) => first = first.or(Some(error)),
            }
        }
        let shown: Vec<_> = addresses.iter().map(Address::shown).collect();
        match first {
            Some(source) => Err(Error::Unreachable { sockets: shown.join(", "), source: Box::new(source) }),
            None => Err(Error::NoAddress),
        }
    }

    fn open(address: &Address) -> Result<Bus> {
        let name = address.shown();
        let stream = match &address.socket {
            Socket::Path(path) => UnixStream::connect(path),
            Socket::Abstract(name) => {
                SocketAddr::from_abstract_name(name).and_then(|name| UnixStream::connect_addr(&name))
            }
        };
        let stream = stream.map_err(SysError::io("connect", name.as_str()))?;
        let mut bus = Bus { stream, name, serial: 0, pending: Vec::new(), jobs: Vec::new() };
        bus.authenticate()?;
        if address.bus {
            bus.join_bus()?;
        }
        Ok(bus)
    }

    fn authenticate(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // No name: the server takes who we are from the socket. All at once, as sd-bus has it: systemd 252 reads a
        // call that follows a BEGIN closely together with it, and then waits for more before it looks at the call.
        let sent = self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        loop {
            // Whoever refuses us may be gone before all is sent, and has said why.
            let line = match self.line(deadline) {
                Ok(line) => line,
                Err(error) => return Err(sent.err().unwrap_or(error)),
            };
            match line.split(' ').next() {
                Some("OK") => return Ok(()),
                Some("DATA") => {}
                _ => return Err(self.garbled("it refuses the handshake")),
            }
        }
    }

    /// What a message bus wants before it forwards calls and signals.
    fn join_bus(&mut self) -> Result<()> {
        const BUS: Call<'_> = Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
        };
        self.call(BUS, &[])?;
        let jobs = "type='signal',sender='org.freedesktop.systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
        self.call(Call { member: "AddMatch", ..BUS }, &[Value::text(jobs)])?;
        self.call(super::manager("Subscribe"), &[]).map(drop)
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// [`Error::Refused`] with the name and the words of systemd's own error.
    pub(super) fn call(&mut self, call: Call<'_>, arguments: &[Value]) -> Result<Message> {
        let deadline = Instant::now() + PATIENCE;
        self.serial += 1;
        let serial = self.serial;
        let bytes = wire::call(serial, call, arguments);
        self.send(&bytes)?;
        loop {
            let message = self.message(deadline)?;
            match &message.kind {
                Kind::Reply { to } if *to == serial => return Ok(message),
                Kind::Error { to, name } if *to == serial => {
                    return Err(Error::Refused {
                        call: call.member.to_owned(),
                        name: name.clone(),
                        message: message.text().unwrap_or_default(),
                    });
                }
                _ => self.note(&message),
            }
        }
    }

    /// Calls a method that answers with the path of a job, and waits for the job's result: `done`, or why not.
    ///
    /// # Errors
    /// Those of the call; [`Error::TimedOut`].
    pub(super) fn job(&mut self, call: Call<'_>, arguments: &[Value]) -> Result<String> {
        let answer = self.call(call, arguments)?;
        let job = answer.text().ok_or_else(|| self.garbled("a job has no path"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.jobs.iter().position(|(path, _)| *path == job) {
                return Ok(self.jobs.swap_remove(at).1);
            }
            let message = self.message(deadline)?;
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Message) {
        if let Some(job) = message.job_removed()
            && self.jobs.len() < MAX_JOBS
        {
            self.jobs.push(job);
        }
    }

    fn message(&mut self, deadline: Instant) -> Result<Message> {
        loop {
            if let Some(head) = self.pending.first_chunk() {
                let length = wire::length(head).map_err(|reason| self.garbled(reason))?;
                if self.pending.len() >= length {
                    let rest = self.pending.split_off(length);
                    let whole = std::mem::replace(&mut self.pending, rest);
                    return wire::parse(&whole).map_err(|reason| self.garbled(reason));
                }
            }
            self.fill(deadline)?;
        }
    }

    fn line(&mut self, deadline: Instant) -> Result<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                let line = std::mem::replace(&mut self.pending, rest);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.pending.len() > MAX_LINE {
                return Err(self.garbled("it does not speak D-Bus"));
            }
            self.fill(deadline)?;
        }
    }

    /// Waits for some more bytes.
    fn fill(&mut self, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::TimedOut { socket: self.name.clone() });
        }
        let failed = |error| SysError::io("read", self.name.as_str())(error);
        self.stream.set_read_timeout(Some(left)).map_err(failed)?;
        let mut page = [0; 4096];
        match self.stream.read(&mut page) {
            Ok(0) => Err(self.garbled("it hangs up")),
            Ok(count) => {
                self.pending.extend_from_slice(&page[..count]);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(Error::TimedOut { socket: self.name.clone() })
            }
            Err(error) => Err(failed(error).into()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = self
            .stream
            .set_write_timeout(Some(PATIENCE))
            // The standard library sends to sockets with MSG_NOSIGNAL.
            .and_then(|()| self.stream.write_all(bytes));
        Ok(sent.map_err(SysError::io("write", self.name.as_str()))?)
    }

    fn garbled(&self, reason: &'static str) -> Error {
        Error::Garbled { socket: self.name.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(manager: Manager, env: &[(&str, &str)]) -> Vec<String> {
        let of = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        addresses(manager, of).iter().map(Address::shown).collect()
    }

    #[test]
    fn systemd_itself_is_asked_before_a_bus() {
        let system = ["/run/systemd/private", "/run/dbus/system_bus_socket"];
        assert_eq!(shown(Manager::System, &[("XDG_RUNTIME_DIR", "/run/user/7")]), system);
        let user = shown(Manager::User, &[("XDG_RUNTIME_DIR", "/run/user/7")]);
        assert_eq!(user, ["/run/user/7/systemd/private", "/run/user/7/bus"]);
        let bus = [("DBUS_SESSION_BUS_ADDRESS", "tcp:host=x;unix:guid=1,path=/tmp/a%20b;unix:abstract=c")];
        assert_eq!(shown(Manager::User, &bus), ["/tmp/a b", "@c"]);
        assert!(shown(Manager::User, &[("XDG_RUNTIME_DIR", "")]).is_empty());
    }

    #[test]
    fn where_nobody_listens_all_sockets_are_named() {
        let nowhere = [Address::path("/nonexistent/private", false), Address::path("/nonexistent/bus", true)];
        let error = Bus::connect(&nowhere).err().unwrap();
        let text = crate::error::chain(&error);
        assert!(text.contains("/nonexistent/private, /nonexistent/bus"), "{text}");
        assert!(text.contains("no such file or directory"), "{text}");
    }

    #[test]
    fn one_who_answers_something_else_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let error = Bus::connect(&[Address::path(&path, false)]).err().unwrap();
        server.join().unwrap();
        assert!(crate::error::chain(&error).contains("refuses the handshake"), "{error:?}");
    }
}
