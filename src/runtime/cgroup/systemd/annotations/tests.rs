use super::*;

fn one(key: &str, text: &str) -> Result<Property> {
    let annotations =
        HashMap::from([(format!("{PREFIX}{key}"), text.to_owned()), ("other".into(), "x".into())]);
    properties(&annotations).map(|mut all| all.remove(0))
}

#[test]
fn values_are_gvariant_text() {
    let strings = |list: &[&str]| {
        Value::Array("s".into(), list.iter().map(|text| Value::text((*text).to_owned())).collect())
    };
    for (text, value) in [
        ("'inactive-or-failed'", Value::text("inactive-or-failed")),
        (r#" "it's \\ \"so\"" "#, Value::text("it's \\ \"so\"")),
        ("true", Value::Bool(true)),
        ("42", Value::I32(42)),
        ("-0x10", Value::I32(-16)),
        ("uint64 123456789", Value::U64(123_456_789)),
        ("@t 5", Value::U64(5)),
        ("byte 255", Value::Byte(255)),
        ("1.5", Value::Double(1.5)),
        ("double 2", Value::Double(2.0)),
        ("['a.service', 'b.service']", strings(&["a.service", "b.service"])),
        ("@as []", strings(&[])),
        ("[uint32 1, 2]", Value::numbers(&[1, 2])),
        ("@au [1,2]", Value::numbers(&[1, 2])),
        ("[('/dev/null', 'rw')]", Value::pairs(vec![("/dev/null".into(), "rw".into())])),
        ("@a(ss) []", Value::pairs(vec![])),
        ("('x', uint32 3)", Value::Tuple(vec![Value::text("x"), Value::U32(3)])),
        ("<true>", Value::Variant(Value::Bool(true).into())),
    ] {
        assert_eq!(one("Name", text).unwrap(), ("Name".into(), value), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for text in [
        "",
        "word",
        "'open",
        "'a' 'b'",
        "[",
        "[1,",
        "[1, 'a']",
        "[]",
        "{'a': 1}",
        "b'bytes'",
        "@q -1",
        "uint32 -1",
        "300000000000",
        "@s 5",
        "@as 'a'",
        "@a{sv} {}",
        "@",
        "@zz 1",
        "objectpath '/x'",
        "'a\\x'",
        "1.2.3",
        "nan",
        "0x",
        "()",
        "@(ss) ('a')",
        "@(ss) ('a','b','c')",
        "uint32 'a'",
        "@b 1",
        "boolean string 'x'",
    ] {
        assert!(one("Name", text).is_err(), "{text:?}");
    }
    assert!(one("Name", &"[".repeat(100)).is_err());
    assert!(one("Name", &format!("'{}'", "x".repeat(70_000))).is_err());
    for key in ["", "ab", "With-Dash", "Name1", "Näme", "A.B", "A=B"] {
        assert!(one(key, "true").is_err(), "{key:?}");
    }
}

#[test]
fn seconds_become_microseconds() {
    for text in ["90", "uint64 90", "90.0", "byte 90", "@x 90"] {
        assert_eq!(
            one("TimeoutStopSec", text).unwrap(),
            ("TimeoutStopUSec".into(), Value::U64(90_000_000)),
            "{text}"
        );
    }
    for text in ["'90'", "-1", "@t 18446744073709551615", "-1.0"] {
        assert!(one("TimeoutStopSec", text).is_err(), "{text}");
    }
    assert_eq!(one("CPUQuotaPerSecUSec", "@t 7").unwrap().0, "CPUQuotaPerSecUSec");
    assert_eq!(one("BlkSEC", "@t 7").unwrap().0, "BlkSEC");
    // As in runc, only a small letter before it makes it a suffix.
    assert_eq!(one("USec", "@t 7").unwrap(), ("USec".into(), Value::U64(7)));
}

#[test]
fn properties_come_in_the_order_of_their_names() {
    let annotations = ["Wants", "After"].map(|name| (format!("{PREFIX}{name}"), "@as []".to_owned())).into();
    let names: Vec<_> = properties(&annotations).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["After", "Wants"]);
}
