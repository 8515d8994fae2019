use super::client::Client;
use super::*;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;

/// A server whose application sends back what it gets on each stream, until the client leaves.
fn echo() -> (Client<DuplexStream>, JoinHandle<Result<(), SpdyError>>) {
    let (ours, theirs) = duplex(1024);
    let server = tokio::spawn(serve(theirs, |mut opened| async move {
        let mut running = tokio::task::JoinSet::new();
        while let Some(Opened { mut input, output, .. }) = opened.recv().await {
            running.spawn(async move {
                while let Some(chunk) = input.next().await {
                    let Chunk::Bytes(bytes) = chunk else { return };
                    output.send(&bytes).await.unwrap();
                }
                output.finish().await.unwrap();
            });
        }
    }));
    (Client::new(ours), server)
}

#[tokio::test]
async fn streams_are_independent_and_end_alone() {
    let (mut client, _server) = echo();
    let one = client.open(&[("streamtype", "a")]).await;
    let two = client.open(&[("streamtype", "b")]).await;
    client.send(one, b"one", false).await;
    client.send(two, b"two", true).await;
    assert_eq!(client.all_of(two).await, b"two");
    client.send(one, b" more", true).await;
    assert_eq!(client.all_of(one).await, b"one more");
    client.ping(1).await;
    while client.pongs.is_empty() {
        assert!(client.receive().await);
    }
    assert_eq!(client.pongs, [1]);
}

#[tokio::test]
async fn a_long_frame_comes_in_pieces() {
    let (client, _server) = echo();
    let Client { io, .. } = client;
    let (reader, writer) = tokio::io::split(io);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let expected = bytes.clone();
    let mut writer = Client::new(tokio::io::join(tokio::io::empty(), writer));
    let sending = async {
        let stream = writer.open(&[]).await;
        writer.send(stream, &bytes, true).await;
    };
    let mut reader = Client::new(tokio::io::join(reader, tokio::io::sink()));
    let (got, ()) = tokio::join!(reader.all_of(1), sending);
    assert!(got == expected);
}

#[tokio::test]
async fn the_end_of_the_application_is_told() {
    let (ours, theirs) = duplex(1024);
    let server = tokio::spawn(serve(theirs, |mut opened| async move {
        let Opened { input: _input, output, .. } = opened.recv().await.unwrap();
        output.send(b"bye").await.unwrap();
        output.finish().await.unwrap();
    }));
    let mut client = Client::new(ours);
    let stream = client.open(&[]).await;
    client.send(stream, &[7; 500_000], false).await;
    assert_eq!(client.all_of(stream).await, b"bye");
    // GOAWAY, and the end.
    while client.receive().await {}
    assert!(client.resets.is_empty());
    drop(client);
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn streams_that_cannot_be_are_refused() {
    let (mut client, server) = echo();
    // A stream that is given up is forgotten, by either side.
    for _ in 0..3 * MAX_STREAMS {
        let stream = client.open(&[]).await;
        client.reset(stream).await;
        client.ping(1).await;
        while client.pongs.pop().is_none() {
            assert!(client.receive().await);
        }
    }
    assert!(client.resets.is_empty());
    for _ in 0..MAX_STREAMS + 1 {
        client.open(&[]).await;
        client.ping(1).await;
        while client.pongs.pop().is_none() {
            assert!(client.receive().await);
        }
    }
    assert_eq!(client.resets.len(), 1);
    drop(client);
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_connection() {
    for bytes in
        [&b"\x80\x02\0\x06\0\0\0\x04"[..], b"\x80\x03\0\x01\0\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n"]
    {
        let (mut client, server) = echo();
        client.io.write_all(bytes).await.unwrap();
        client.io.shutdown().await.unwrap();
        while client.io.read_u8().await.is_ok() {}
        // The last is data for a stream that there is not, and cut.
        assert!(server.await.unwrap().is_err(), "{bytes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_end_in_a_result(bytes in prop::collection::vec(any::<u8>(), 0..2000), kinds in prop::collection::vec(0u8..12, 0..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, server) = echo();
            let (mut reader, mut writer) = tokio::io::split(client.io);
            let reading = tokio::spawn(async move { while reader.read_u8().await.is_ok() {} });
            // Frames that look right, with rubbish in them.
            for (at, kind) in kinds.iter().enumerate() {
                let part = bytes.get(at * 20..at * 20 + 20).unwrap_or_default();
                let mut frame = vec![0x80, 3, 0, *kind, 0, 0, 0, u8::try_from(part.len()).unwrap()];
                frame.extend_from_slice(part);
                if writer.write_all(&frame).await.is_err() {
                    break;
                }
            }
            let _ = writer.write_all(&bytes).await;
            let _ = writer.shutdown().await;
            drop(writer);
            tokio::time::timeout(std::time::Duration::from_secs(20), async {
                let _ = server.await.unwrap();
            }).await.unwrap();
            reading.abort();
        });
    }
}
