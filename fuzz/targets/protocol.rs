//! Messages between the runtime and a container's init, in both directions.
#![no_main]
use corten::runtime::protocol::{Channel, ToChild, ToParent};
use corten::sys::socket;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (ours, theirs) = socket::pair().expect("a pair of sockets");
    // Longer ones are the kernel's to refuse.
    if socket::send(&theirs, bytes, &[]).is_err() || socket::send(&theirs, bytes, &[]).is_err() {
        return;
    }
    drop(theirs);
    let channel = Channel::new(ours);
    if let Ok(Some((message, fd))) = channel.receive::<ToParent>() {
        assert!(fd.is_none());
        let again = serde_json::to_vec(&message).expect("a message has a JSON form");
        assert_eq!(serde_json::from_slice::<ToParent>(&again).expect("it can be read"), message);
    }
    let _ = channel.receive::<ToChild>();
});
