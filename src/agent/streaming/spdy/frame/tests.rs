use super::*;
use proptest::prelude::*;

mod fixture;

fn header(bytes: &[u8]) -> Result<Header, SpdyError> {
    Header::parse(bytes[..HEADER].try_into().unwrap())
}

#[test]
fn headers_of_frames() {
    assert_eq!(
        header(b"\x80\x03\0\x06\0\0\0\x04").unwrap(),
        Header::Control { kind: PING, flags: 0, length: 4 }
    );
    assert_eq!(
        header(b"\0\0\0\x05\x01\0\x01\x02").unwrap(),
        Header::Data { stream: 5, fin: true, length: 258 }
    );
    assert_eq!(
        header(b"\x7f\xff\xff\xff\0\xff\xff\xff").unwrap(),
        Header::Data { stream: MASK, fin: false, length: (1 << 24) - 1 }
    );
    assert!(matches!(header(b"\x80\x02\0\x06\0\0\0\x04"), Err(SpdyError::Version(2))));
    assert!(matches!(header(b"\x80\x03\0\x01\0\x01\0\x01"), Err(SpdyError::TooLong(0x1_0001))));
    assert!(matches!(header(b"\0\0\0\0\0\0\0\x01"), Err(SpdyError::Malformed(_))));
}

#[test]
fn what_is_sent() {
    assert_eq!(reset(7, Status::Cancel), b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x07\0\0\0\x05");
    assert_eq!(ping(2), b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x02");
    assert_eq!(go_away(9), b"\x80\x03\0\x07\0\0\0\x08\0\0\0\x09\0\0\0\0");
    assert_eq!(widest_window(), b"\x80\x03\0\x04\0\0\0\x0c\0\0\0\x01\0\0\0\x07\x7f\xff\xff\xff");
    assert_eq!(window_update(1, 1 << 30), b"\x80\x03\0\x09\0\0\0\x08\0\0\0\x01\x40\0\0\0");
    assert_eq!(data(3, true, 70_000), *b"\0\0\0\x03\x01\x01\x11\x70");
    let reply = reply(1, &mut Deflater::new().unwrap()).unwrap();
    assert_eq!(
        &reply[..8],
        b"\x80\x03\0\x02\0\0\0"
            .iter()
            .chain(&[u8::try_from(reply.len() - 8).unwrap()])
            .copied()
            .collect::<Vec<u8>>()
    );
    // Its zlib header names the dictionary.
    assert_eq!(&reply[12..18], b"\x78\xbb\xe3\xc6\xa7\xc2");
}

#[test]
fn a_stream_that_a_go_client_opens() {
    // SYN_STREAM of stream 1 with "streamtype: error", as spdystream writes it.
    let frame = fixture::SYN_STREAM;
    let Header::Control { kind, flags, length } = header(frame).unwrap() else { panic!() };
    assert_eq!(length, frame.len() - HEADER);
    let mut inflater = Inflater::new();
    let control = Control::parse(kind, flags, &frame[HEADER..], &mut inflater).unwrap();
    assert_eq!(
        control,
        Control::Open {
            stream: 1,
            fin: false,
            unidirectional: false,
            headers: vec![("streamtype".into(), "error".into())]
        }
    );
    // The next one goes on with the window of the first.
    let frame = fixture::SECOND_SYN_STREAM;
    let control = Control::parse(SYN_STREAM, FIN, &frame[HEADER..], &mut inflater).unwrap();
    let headers = vec![("streamtype".into(), "stdout".into())];
    assert_eq!(control, Control::Open { stream: 3, fin: true, unidirectional: false, headers });
}

#[test]
fn control_frames() {
    let mut inflater = Inflater::new();
    let mut parse = |kind, payload: &[u8]| Control::parse(kind, 0, payload, &mut inflater);
    assert_eq!(parse(PING, b"\0\0\0\x01").unwrap(), Control::Ping { id: 1 });
    assert_eq!(parse(RST_STREAM, b"\0\0\0\x03\0\0\0\x05").unwrap(), Control::Reset { stream: 3 });
    assert_eq!(parse(GOAWAY, b"\0\0\0\x03\0\0\0\0").unwrap(), Control::GoAway);
    assert_eq!(parse(99, b"anything").unwrap(), Control::Other);
    for (kind, payload) in [
        (PING, &b""[..]),
        (RST_STREAM, b"\0\0\0\x03"),
        (RST_STREAM, b"\0\0\0\0\0\0\0\x05"),
        (SYN_STREAM, b"\0\0\0\x01\0\0\0\0\0"),
        (SYN_STREAM, b"\0\0\0\x01\0\0\0\0\0\0rubbish"),
        (HEADERS, b"\0\0"),
    ] {
        assert!(parse(kind, payload).is_err(), "{kind} {payload:?}");
    }
}

proptest! {
    #[test]
    fn anything_is_a_frame_or_an_error(
        bytes in prop::array::uniform8(any::<u8>()),
        payload in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        // Neither panics nor takes more than a block's bound.
        if let Ok(Header::Control { kind, flags, length }) = Header::parse(bytes) {
            prop_assert!(length <= MAX_CONTROL);
            let _ = Control::parse(kind, flags, &payload, &mut Inflater::new());
        }
        let mut inflater = Inflater::new();
        for kind in 0..12 {
            let _ = Control::parse(kind, bytes[4], &payload, &mut inflater);
        }
    }

    #[test]
    fn a_changed_block_is_a_block_or_an_error(at in 0usize..200, to in any::<u8>()) {
        let mut block = Deflater::new().unwrap()
            .write(&[("streamtype", "data"), ("port", "8080"), ("requestid", "17")]).unwrap();
        let at = at % block.len();
        block[at] = to;
        let mut inflater = Inflater::new();
        let _ = inflater.read(&block);
        let _ = inflater.read(&block);
    }
}
