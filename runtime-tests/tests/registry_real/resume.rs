//! Pulls that are broken off, and pulls at the same time: a proxy before the registry counts and breaks.
use super::*;
use runtime_tests::events;
use runtime_tests::fault_proxy::{Fault, FaultProxy};
use runtime_tests::registry::Answer;
use runtime_tests::terminal::OnTerminal;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An image with one layer of so many bytes that cannot be packed, different for each `seed`.
pub(super) fn large(seed: u64, size: usize) -> Image {
    let mut state = seed;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) as u8
    })
    .take(size)
    .collect();
    Image { layers: vec![Tar::new().file("data", 0o644, &bytes).finish()], config: json!({"Cmd": ["/x"]}) }
}

const SIZE: usize = 6 << 20;

/// A registry with the image, and the name and the size of its layer's blob.
fn world(image: &Image) -> (World, String, usize) {
    let world = World::new();
    world.fill(image, "t/app:v");
    let (name, bytes) = image.blobs().blobs.swap_remove(0);
    (world, name, bytes.len())
}

/// Breaks only what ends in `end`, as the `nth` request for it says.
fn breaking(
    world: &World,
    end: &str,
    fault: impl Fn(usize) -> Fault + Send + Sync + 'static,
) -> (FaultProxy, String) {
    let (end, count) = (end.to_owned(), AtomicUsize::new(0));
    let proxy = FaultProxy::start(world.registry.address(), move |asked| {
        if asked.path.ends_with(&end) { fault(count.fetch_add(1, Ordering::SeqCst)) } else { Fault::Pass }
    });
    let reference = format!("{}/t/app:v", proxy.address());
    (proxy, reference)
}

fn partial(world: &World, blob: &str) -> PathBuf {
    world.path("root/partial").join(blob.trim_start_matches("sha256:"))
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let (world, blob, size) = world(&large(1, SIZE));
    let (proxy, reference) =
        breaking(&world, &blob, |nth| if nth == 0 { Fault::Hold(4 << 20) } else { Fault::Pass });
    let mut child = world.command("root", &["pull", &reference]).stderr(Stdio::null()).spawn().expect("pull");
    proxy.await_hold();
    let file = partial(&world, &blob);
    let kept = events::eventually("what came is in the store", || {
        let length = file.metadata().map_or(0, |meta| meta.len());
        (length >= 3 << 20).then_some(length)
    });
    child.kill().expect("SIGKILL");
    child.wait().expect("end");
    let kept = kept.max(file.metadata().expect("partial blob").len());

    let pulled = world.corten("root", &["pull", "--format", "json", &reference]).ok().json();
    assert_eq!(pulled["bytes"], json!(size as u64 - kept), "the rest alone");
    let ranges: Vec<_> = proxy
        .asked()
        .into_iter()
        .filter(|asked| asked.path.ends_with(&blob))
        .map(|asked| asked.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, [None, Some(format!("bytes={kept}-"))]);
    assert_eq!(proxy.bytes(&blob), (4 << 20) + size - usize::try_from(kept).expect("a length"));
    assert!(!file.exists());
    assert_eq!(std::fs::read_dir(world.path("root/staging")).expect("staging").count(), 0);
}

#[test]
fn what_was_kept_and_is_wrong_is_fetched_again() {
    for size in [SIZE, 68 << 20] {
        let (world, blob, length) = world(&large(2, size));
        let (proxy, reference) = breaking(&world, &blob, |_| Fault::Pass);
        std::fs::create_dir_all(world.path("root/partial")).expect("partial");
        std::fs::write(partial(&world, &blob), vec![b'x'; 1 << 20]).expect("a partial blob");
        world.corten("root", &["pull", &reference]).ok();
        assert_eq!(proxy.gets(&blob), 2, "the rest, then the whole of {length} bytes");
        assert!(!partial(&world, &blob).exists());
        if size > SIZE {
            assert!(proxy.bytes(&blob) >= length);
        }
    }
}

#[test]
fn two_pulls_fetch_a_layer_once() {
    let shared = large(3, SIZE);
    let (world, blob, size) = world(&shared);
    // The same layer on top of another one: another chain, the same blob.
    let mut other = shared;
    other.layers.insert(0, Tar::new().file("base", 0o644, b"base").finish());
    world.fill(&other, "t/app:w");
    let (proxy, reference) = breaking(&world, &blob, |_| Fault::Hold(1 << 20));
    let second = reference.replace(":v", ":w");
    let start = |reference: &str| {
        world.command("root", &["pull", reference]).stdout(Stdio::null()).spawn().expect("pull")
    };
    let mut children = vec![start(&reference)];
    proxy.await_hold();
    children.extend([start(&reference), start(&second)]);
    // They have come as far as they can: each knows its manifest, and the third waits on a terminal that tells.
    let mut terminal = OnTerminal::new(world.command("root", &["pull", &second]).env("TERM", "xterm"));
    terminal.until("waiting");
    proxy.open_gate();
    children.push(terminal.child);
    for child in &mut children {
        assert!(child.wait().expect("end").success());
    }
    assert_eq!((proxy.gets(&blob), proxy.bytes(&blob)), (1, size));
}

#[test]
fn a_pull_takes_over_from_one_that_is_killed() {
    let (world, blob, size) = world(&large(4, SIZE));
    let (proxy, reference) =
        breaking(&world, &blob, |nth| if nth == 0 { Fault::Hold(4 << 20) } else { Fault::Pass });
    let mut first = world.command("root", &["pull", &reference]).stderr(Stdio::null()).spawn().expect("pull");
    proxy.await_hold();
    let file = partial(&world, &blob);
    events::eventually("a megabyte is kept", || {
        file.metadata().is_ok_and(|meta| meta.len() > 1 << 20).then_some(())
    });
    let second = world.command("root", &["pull", "--quiet", &reference]).stdout(Stdio::null()).spawn();
    let mut second = second.expect("pull");
    events::eventually("the second knows the manifest", || (proxy.gets("/manifests/v") == 2).then_some(()));
    first.kill().expect("SIGKILL");
    first.wait().expect("end");
    assert!(second.wait().expect("end").success());
    assert_eq!(proxy.gets(&blob), 2);
    assert!(proxy.bytes(&blob) < 2 * size, "it went on where the first was");
}

#[test]
fn one_slot_for_all_pulls_is_enough() {
    let mut image = large(5, 1 << 20);
    image.layers.extend(large(6, 1 << 20).layers);
    image.layers.extend(large(7, 1 << 20).layers);
    let (world, ..) = world(&image);
    let reference = world.reference("t/app:v");
    let mut children: Vec<_> = (0..3)
        .map(|_| {
            let args = ["pull", "--machine-parallel", "1", &reference];
            world.command("root", &args).stdout(Stdio::null()).spawn().expect("pull")
        })
        .collect();
    for child in &mut children {
        assert!(child.wait().expect("end").success());
    }
    assert_eq!(unpacked(&world.path("root")).len(), 3);
}

#[test]
fn a_pull_survives_what_passes() {
    let (world, blob, size) = world(&large(8, SIZE));
    let busy = |status| Fault::Answer(Answer::status(status).header("Retry-After: 1"));
    for (name, faults) in [
        ("resets", vec![Fault::Reset(1_500_000), Fault::Reset(3_000_000)]),
        ("cuts", vec![Fault::Cut(1_500_000), Fault::Cut(0), Fault::Cut(100)]),
        ("500", vec![busy(500), busy(503)]),
        ("429", vec![busy(429)]),
        ("pieces", vec![Fault::Dribble(50_000)]),
        ("length", vec![Fault::Cut(3_000_000), Fault::OtherRange]),
        ("ranges", vec![Fault::Cut(3_000_000), Fault::Answer(Answer::status(416))]),
    ] {
        let (proxy, reference) =
            breaking(&world, &blob, move |nth| faults.get(nth).cloned().unwrap_or(Fault::Pass));
        let pulled = world.corten(name, &["pull", "--format", "json", &reference]).ok().json();
        assert_eq!(pulled["bytes"], json!(size), "{name}: {:?}", proxy.asked());
    }
}

#[test]
fn a_pull_does_not_survive_what_stays() {
    let (world, blob, size) = world(&large(9, 1 << 20));
    for (name, fault, text) in [
        ("cut", Fault::Cut(1000), "is truncated"),
        // It may take what came with it.
        ("reset", Fault::Reset(1000), "blob"),
        ("502", Fault::Answer(Answer::status(502)), "answers with status 502"),
        (
            "busy",
            Fault::Answer(Answer::status(429).header("Retry-After: 3600")),
            "asked again in 3600 seconds",
        ),
        ("longer", Fault::Length(size + 1), "has the wrong size"),
        ("shorter", Fault::Length(size - 1), "has the wrong size"),
    ] {
        let (_, reference) = breaking(&world, &blob, move |_| fault.clone());
        let error = world.corten(name, &["pull", &reference]).exits(125).stderr;
        assert!(
            error.contains(text) && error.contains(&blob) && error.contains(&reference),
            "{name}: {error}"
        );
        assert_eq!(std::fs::read_dir(world.path(&format!("{name}/layers"))).expect("layers").count(), 0);
    }
}
