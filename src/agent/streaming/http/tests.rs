use super::super::error::StreamError;
use super::super::process::{End, Pending, Process, Sink, Size, Source, Terminal};
use super::super::running::{input, output};
use super::super::spdy::client::Client as SpdyClient;
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
    // A process ends with the test of its client.
    let mut command = tokio::process::Command::from(command);
    let child = command.kill_on_drop(true).spawn();
    let mut child = child.map_err(SysError::io("execve", ticket.args[0].clone()))?;
    drop(command);
    process.end = Box::pin(async move {
        let status = child.wait().await.unwrap();
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

/// Upgrades a connection to SPDY.
async fn spdy(url: &str, version: &str) -> SpdyClient<TcpStream> {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: {version}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let head = read_head(&mut connection).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains(&format!("x-stream-protocol-version: {version}")), "{head}");
    SpdyClient::new(connection)
}

async fn read_head(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn exec(streams: &Streams, wanted: Wanted, script: &str) -> String {
    let args = ["sh", "-c", script].map(String::from).to_vec();
    streams.exec_url(ExecTicket { container: id(), args, wanted }).unwrap()
}

const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
const OUTPUT: Wanted = Wanted { stdin: false, ..ALL };

async fn opened(client: &mut SpdyClient<TcpStream>, names: &[&str]) -> Vec<u32> {
    let mut numbers = Vec::new();
    for name in names {
        numbers.push(client.open(&[("streamtype", name)]).await);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_over_spdy() {
    let (streams, _) = start().await;
    let mut client = spdy(&exec(&streams, ALL, "cat; echo e >&2; exit 3"), "v4.channel.k8s.io").await;
    let numbers = opened(&mut client, &["error", "stdin", "stdout", "stderr"]).await;
    client.send(numbers[1], b"abc", false).await;
    client.send(numbers[1], b"", true).await;
    assert_eq!(client.all_of(numbers[2]).await, b"abc");
    assert_eq!(client.all_of(numbers[3]).await, b"e\n");
    let status: serde_json::Value = serde_json::from_slice(&client.all_of(numbers[0]).await).unwrap();
    assert_eq!(status["status"], "Failure");
    assert_eq!(status["reason"], "NonZeroExitCode");
    assert_eq!(status["details"]["causes"], serde_json::json!([{"reason": "ExitCode", "message": "3"}]));

    // Versions before the fourth tell a text, or nothing.
    for (script, told) in [("true", ""), ("exit 9", "command terminated with non-zero exit code: 9")] {
        let mut client = spdy(&exec(&streams, OUTPUT, script), "v2.channel.k8s.io").await;
        let numbers = opened(&mut client, &["error", "stdout", "stderr"]).await;
        assert_eq!(client.all_of(numbers[0]).await, told.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_leaves_running_is_not_waited_for() {
    let (streams, _) = start().await;
    let begin = Instant::now();
    let url = exec(&streams, OUTPUT, "sleep 30 & echo $!");
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    let numbers = opened(&mut client, &["error", "stdout", "stderr"]).await;
    let pid = client.all_of(numbers[1]).await;
    assert!(client.all_of(numbers[0]).await.ends_with(b"\"Success\"}"));
    assert!(begin.elapsed() < Duration::from_secs(20));
    let pid = nix::unistd::Pid::from_raw(String::from_utf8(pid).unwrap().trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attached_and_the_end_of_a_container() {
    let (streams, _) = start().await;
    let url = streams.attach_url(AttachTicket { container: id(), wanted: ALL }).unwrap();
    let mut client = spdy(&url, "v4.channel.k8s.io").await;
    let numbers = opened(&mut client, &["error", "stdin", "stdout", "stderr"]).await;
    client.send(numbers[1], b"hello", true).await;
    assert_eq!(client.all_of(numbers[2]).await, b"hello");
    // Its exit code is told elsewhere.
    assert_eq!(client.all_of(numbers[0]).await, br#"{"metadata":{},"status":"Success"}"#);
}

/// A server that sends back twice what it got, once that has ended.
async fn twice() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut all = Vec::new();
                connection.read_to_end(&mut all).await.unwrap();
                connection.write_all(&all).await.unwrap();
                connection.write_all(&all).await.unwrap();
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_spdy() {
    let (streams, _) = start().await;
    let port = twice().await.to_string();
    let ticket = PortForwardTicket { task: id(), ports: Vec::new() };
    let mut client = spdy(&streams.port_forward_url(ticket).unwrap(), "portforward.k8s.io").await;
    let mut pairs = Vec::new();
    for number in 0..20_u32 {
        let request = number.to_string();
        let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", request.as_str())];
        let order = if number % 2 == 0 { ["error", "data"] } else { ["data", "error"] };
        let first = client.open(&headers(order[0])).await;
        let second = client.open(&headers(order[1])).await;
        pairs.push(if number % 2 == 0 { (second, first) } else { (first, second) });
    }
    for (data, error) in &pairs {
        client.send(*error, b"", true).await;
        client.send(*data, format!("number {data};").as_bytes(), true).await;
    }
    for (data, error) in pairs {
        assert_eq!(client.all_of(data).await, format!("number {data};").repeat(2).as_bytes());
        assert_eq!(client.all_of(error).await, b"");
    }
    // Nobody listens there.
    let error = client.open(&[("streamtype", "error"), ("port", "1"), ("requestid", "x")]).await;
    let data = client.open(&[("streamtype", "data"), ("port", "1"), ("requestid", "x")]).await;
    let told = client.all_of(error).await;
    assert!(String::from_utf8(told).unwrap().contains("connection refused"));
    assert_eq!(client.all_of(data).await, b"");
    // A stream that makes no sense is given up.
    let wrong = client.open(&[("streamtype", "data"), ("port", "nonsense")]).await;
    while client.resets.is_empty() {
        assert!(client.receive().await);
    }
    assert_eq!(client.resets, [wrong]);
}

/// Upgrades a connection to WebSocket.
async fn websocket(url: &str, protocol: &str) -> TcpStream {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let head = read_head(&mut connection).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_lowercase().contains("sec-websocket-protocol: v"), "{head}");
    connection
}

/// Sends a binary message, masked with zeros.
async fn say(connection: &mut TcpStream, message: &[u8]) {
    let mut frame = vec![0x82, 0x80 | u8::try_from(message.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(message);
    connection.write_all(&frame).await.unwrap();
}

/// Reads messages until the server closes; what came on each channel.
async fn hear(connection: &mut TcpStream) -> [Vec<u8>; 5] {
    let mut channels: [Vec<u8>; 5] = Default::default();
    loop {
        let first = connection.read_u8().await.unwrap();
        let length = match connection.read_u8().await.unwrap() {
            126 => usize::from(connection.read_u16().await.unwrap()),
            length => usize::from(length),
        };
        let mut message = vec![0; length];
        connection.read_exact(&mut message).await.unwrap();
        match first {
            0x82 => channels[usize::from(message[0])].extend_from_slice(&message[1..]),
            0x88 => return channels,
            other => panic!("frame {other:x}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_over_websocket() {
    let (streams, _) = start().await;
    let url = exec(&streams, ALL, "cat; echo e >&2; exit 3");
    let mut connection = websocket(&url, "v5.channel.k8s.io, v4.channel.k8s.io").await;
    say(&mut connection, b"\0abc").await;
    say(&mut connection, b"\0def").await;
    say(&mut connection, b"\xff\0").await;
    let [_, stdout, stderr, error, _] = hear(&mut connection).await;
    assert_eq!((&stdout[..], &stderr[..]), (&b"abcdef"[..], &b"e\n"[..]));
    let status: serde_json::Value = serde_json::from_slice(&error).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_size_that_was_told_last() {
    let (streams, _) = start().await;
    let script = "until [ \"$(stty size)\" = '30 120' ]; do sleep 0.01; done; echo done";
    let url = exec(&streams, Wanted { stdin: true, stdout: true, stderr: false, tty: true }, script);
    let mut connection = websocket(&url, "v4.channel.k8s.io").await;
    say(&mut connection, b"\x04{\"Width\":80,\"Height\":24}\n{\"Wid").await;
    say(&mut connection, b"\x04th\":120,\"Height\":30}").await;
    assert_eq!(hear(&mut connection).await[1], b"done\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_channels() {
    let (streams, _) = start().await;
    let ports = vec![twice().await];
    let said = ports[0].to_le_bytes();
    let url = streams.port_forward_url(PortForwardTicket { task: id(), ports }).unwrap();
    let mut connection = websocket(&url, "v4.channel.k8s.io").await;
    say(&mut connection, b"\0abc").await;
    say(&mut connection, b"\xff\0").await;
    let channels = hear(&mut connection).await;
    assert_eq!(channels[0], [&said[..], b"abcabc"].concat());
    assert_eq!(channels[1], said);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_leave_nothing() {
    let (streams, _) = start().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let port = twice().await;
    let listeners = tasks();
    for round in 0..60 {
        // A process that reads nothing, one that says nothing, and one that says too much.
        let script = ["exec sleep 1000", "exec cat", "exec yes"][round % 3];
        let mut client = spdy(&exec(&streams, ALL, script), "v4.channel.k8s.io").await;
        let names = ["error", "stdin", "stdout", "stderr"];
        let numbers = opened(&mut client, &names[..round % 5]).await;
        if let Some(stdin) = numbers.get(1) {
            client.send(*stdin, &[b'x'; 50_000], false).await;
        }
        let ticket = PortForwardTicket { task: id(), ports: vec![port] };
        let mut other = spdy(&streams.port_forward_url(ticket).unwrap(), "portforward.k8s.io").await;
        let port = port.to_string();
        for kind in ["data", "error"].iter().take(round % 3) {
            other.open(&[("streamtype", kind), ("port", &port), ("requestid", "1")]).await;
        }
        let mut third = websocket(&exec(&streams, ALL, script), "v4.channel.k8s.io").await;
        if round % 2 == 0 {
            say(&mut third, b"\0input").await;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while tasks() > listeners {
        assert!(Instant::now() < deadline, "{} tasks, before {before}", tasks());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
