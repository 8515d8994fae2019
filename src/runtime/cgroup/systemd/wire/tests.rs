use super::*;

const MANAGER: Call<'_> = Call {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "GetUnit",
};

fn head(bytes: &[u8]) -> &[u8; HEAD] {
    bytes.first_chunk().unwrap()
}

#[test]
fn a_call_is_aligned_and_counts_its_lengths() {
    let bytes = call(7, MANAGER, &[Value::text("a.scope")]);
    assert_eq!(&bytes[..4], b"l\x01\x00\x01");
    assert_eq!(bytes[4..8], 12_u32.to_le_bytes(), "length, seven letters and a NUL");
    assert_eq!(bytes[8..12], 7_u32.to_le_bytes());
    assert_eq!(length(head(&bytes)), Ok(bytes.len()));
    assert!(bytes.ends_with(b"\x07\0\0\0a.scope\0"));
    let parsed = parse(&bytes).unwrap();
    assert_eq!((parsed.kind.clone(), parsed.text().as_deref()), (Kind::Other, Some("a.scope")));
}

#[test]
fn containers_of_values_are_aligned_by_their_elements() {
    let write = |value: &Value| {
        let mut writer = Writer::default();
        writer.value(value);
        writer.0
    };
    // The padding before the first element of eight bytes is not counted.
    assert_eq!(
        write(&Value::Array("t".into(), vec![Value::U64(1)])),
        b"\x08\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"
    );
    assert_eq!(write(&Value::Array("(ss)".into(), vec![])), b"\0\0\0\0\0\0\0\0");
    assert_eq!(write(&Value::bytes(&[5, 6])), b"\x02\0\0\0\x05\x06");
    assert_eq!(write(&Value::Variant(Value::Bool(true).into())), b"\x01b\0\0\x01\0\0\0");
    let pairs = Value::pairs(vec![("a".into(), "b".into())]);
    assert_eq!(pairs.signature(), "a(ss)");
    assert_eq!(write(&pairs), b"\x0e\0\0\0\0\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0");
}

/// In the form in which systemd sends it.
#[test]
fn the_end_of_a_job_is_understood() {
    let mut body = Writer::default();
    for value in [Value::U32(91), Value::text("/job/91"), Value::text("x.scope"), Value::text("done")] {
        body.value(&value);
    }
    let mut message = Writer(vec![b'l', SIGNAL, 1, 1]);
    message.length(body.0.len());
    message.u32(5);
    message.u32(0);
    for (code, kind, text) in [(PATH, "o", "/p"), (INTERFACE, "s", "i"), (MEMBER, "s", "JobRemoved")] {
        message.align(8);
        message.0.push(code);
        message.signature(kind);
        message.text(text);
    }
    message.align(8);
    message.0.push(SIGNATURE);
    message.signature("g");
    message.signature("uoss");
    let length_of_fields = u32::try_from(message.0.len() - HEAD).unwrap();
    message.0[12..16].copy_from_slice(&length_of_fields.to_le_bytes());
    message.align(8);
    message.0.extend(body.0);
    assert_eq!(length(head(&message.0)), Ok(message.0.len()));
    let parsed = parse(&message.0).unwrap();
    assert_eq!(parsed.job_removed(), Some(("/job/91".into(), "done".into())));
    // Cut anywhere, it is refused or says nothing, and nothing panics.
    for end in 0..message.0.len() {
        if let Ok(cut) = parse(&message.0[..end]) {
            assert_eq!(cut.job_removed(), None, "{end}");
        }
    }
}

#[test]
fn garbage_is_refused() {
    assert!(length(b"HTTP/1.1 400 Bad").is_err());
    assert!(length(b"l\x02\0\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\0").is_err());
    assert!(parse(b"").is_err());
    assert!(parse(b"l\x02\0\x01\0\0\0\0\x01\0\0\0\x10\0\0\0").is_err());
}
