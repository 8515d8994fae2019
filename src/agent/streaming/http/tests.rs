use super::super::error::StreamError;
use super::super::process::{End, Pending, Process, Sink, Size, Source, Terminal};
use super::super::running::{input, output};
use super::super::{AttachTicket, ExecTicket, PortForwardTicket, serve};
use super::*;
use crate::engine::names::Id;
use crate::sys::SysError;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Processes of this machine take the place of those in containers.
#[derive(Debug)]
struct Fake;

impl Backend for Fake {
    fn exec(&self, ticket: ExecTicket) -> Pending<Process> {
        Box::pin(async move { spawn(&ticket) })
    }

    fn attach(&self, ticket: AttachTicket) -> Pending<Process> {
        let args = ["sh", "-c", "cat; echo end >&2; exit 7"].map(String::from).to_vec();
        let ticket = ExecTicket { container: ticket.container, args, wanted: ticket.wanted };
        Box::pin(async move {
            let mut process = spawn(&ticket)?;
            let end = process.end;
            process.end = Box::pin(async move { end.await.map(|_| End::Container) });
            Ok(process)
        })
    }

    fn connect(&self, task: Id, port: u16) -> Pending<TcpStream> {
        Box::pin(async move {
            TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| StreamError::Connect {
                task: task.to_string(),
                port,
                source: SysError::io("connect", port.to_string())(error),
            })
        })
    }
}

fn spawn(ticket: &ExecTicket) -> Result<Process, StreamError> {
    let mut command = Command::new(&ticket.args[0]);
    command.args(&ticket.args[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let wanted = ticket.wanted;
    let mut process = Process {
        stdin: None,
        stdout: None,
        stderr: None,
        size: None,
        end: Box::pin(std::future::pending()),
    };
    if wanted.tty {
        let pty = nix::pty::openpty(None, None).unwrap();
        command
            .stdin(pty.slave.try_clone().unwrap())
            .stdout(pty.slave.try_clone().unwrap())
            .stderr(pty.slave);
        let terminal = Terminal::new(pty.master)?;
        process.stdin = wanted.stdin.then(|| Sink::Terminal(Arc::clone(&terminal)));
        process.stdout = Some(Source::Terminal(Arc::clone(&terminal)));
        process.size = Some(Size::Terminal(terminal));
    } else {
        if wanted.stdin {
            let (ours, theirs) = input()?;
            command.stdin(theirs);
            process.stdin = Some(Sink::Pipe(ours));
        }
        if wanted.stdout {
            let (ours, theirs) = output()?;
            command.stdout(theirs);
            process.stdout = Some(Source::Pipe(ours));
        }
        if wanted.stderr {
            let (ours, theirs) = output()?;
            command.stderr(theirs);
            process.stderr = Some(Source::Pipe(ours));
        }
    }
    let mut child = command.spawn().map_err(SysError::io("execve", ticket.args[0].clone()))?;
    drop(command);
    process.end = Box::pin(async move {
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap();
        Ok(End::Code(u8::try_from(code).unwrap()))
    });
    Ok(process)
}

async fn start() -> (Arc<Streams>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let streams = Arc::new(Streams::new(Duration::from_secs(60)));
    streams.address.set(address).unwrap();
    let door = Door { streams: Arc::clone(&streams), backend: Arc::new(Fake) };
    tokio::spawn(serve(listener, Arc::new(door)));
    (streams, address)
}

fn id() -> Id {
    Id::parse(&"ab".repeat(32)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_no_stream_leaves_the_token_alone() {
    let (streams, address) = start().await;
    let url = streams
        .exec_url(ExecTicket { container: id(), args: vec!["true".into()], wanted: Wanted::default() })
        .unwrap();
    let path = url.strip_prefix(&format!("http://{address}")).unwrap().to_owned();
    let ask = async |head: String| {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).await.unwrap();
        String::from_utf8(answer[9..].to_vec()).unwrap()
    };
    let upgrade = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    assert_eq!(ask(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await, "400");
    assert_eq!(ask(format!("PUT {path} HTTP/1.1\r\n{upgrade}\r\n")).await, "405");
    let unknown = "X-Stream-Protocol-Version: v99.channel.k8s.io\r\n";
    assert_eq!(ask(format!("POST {path} HTTP/1.1\r\n{upgrade}{unknown}\r\n")).await, "403");
    let known = "X-Stream-Protocol-Version: v99.channel.k8s.io, v4.channel.k8s.io\r\n";
    assert_eq!(ask(format!("POST {path} HTTP/1.1\r\n{upgrade}{known}\r\n")).await, "101");
    // It serves once, and a wrong one, or one for another kind of stream, is answered alike.
    assert_eq!(ask(format!("POST {path} HTTP/1.1\r\n{upgrade}{known}\r\n")).await, "404");
    assert_eq!(ask(format!("POST /exec/{} HTTP/1.1\r\n{upgrade}\r\n", "0".repeat(64))).await, "404");
    let ticket = PortForwardTicket { task: id(), ports: Vec::new() };
    let other = streams.port_forward_url(ticket).unwrap().replace("/portforward/", "/exec/");
    let path = other.strip_prefix(&format!("http://{address}")).unwrap();
    assert_eq!(ask(format!("POST {path} HTTP/1.1\r\n{upgrade}\r\n")).await, "404");
}
