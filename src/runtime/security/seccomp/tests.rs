use super::*;
use serde_json::json;

/// Runs a classic BPF program on a system call, as the kernel would (only what libseccomp emits).
fn run(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    for argument in arguments {
        data.extend(argument.to_ne_bytes());
    }
    let (mut pc, mut a) = (0_usize, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program[pc];
        pc += 1;
        let mut branch = |holds: bool| pc += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => a = u32::from_ne_bytes(data[k as usize..k as usize + 4].try_into().expect("in range")),
            0x54 => a &= k,
            0x05 => pc += k as usize,
            0x15 => branch(a == k),
            0x25 => branch(a > k),
            0x35 => branch(a >= k),
            0x45 => branch(a & k != 0),
            0x06 => return k,
            other => panic!("opcode {other:#x}"),
        }
    }
}

const X86_64: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

fn compile_json(json: &str) -> Result<Option<Program>, SecurityError> {
    compile(&serde_json::from_str(json).expect("test input"), None)
}

fn program(json: &str) -> Program {
    compile_json(json).expect("compiles").expect("does something")
}

/// Number of a call on x86-64, where these tests run.
fn nr(name: &str) -> u32 {
    ScmpSyscall::from_name(name).expect("known").as_raw_syscall().unsigned_abs()
}

#[test]
fn a_profile_that_allows_everything_needs_no_filter() {
    assert_eq!(compile_json(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).expect("compiles"), None);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn rules_and_their_arguments_decide() {
    let program = program(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_KILL_PROCESS",
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 268435456, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
    );
    let call = |name, first| run(&program.instructions, X86_64, nr(name), [first, 0, 0, 0, 0, 0]);
    assert_eq!(call("mkdir", 0), ERRNO | 13);
    assert_eq!(call("read", 0), ALLOW);
    assert_eq!(call("personality", 8), ERRNO | 1);
    assert_eq!(call("personality", 0), ALLOW);
    assert_eq!(call("clone", 0x1000_0000), 0x8000_0000);
    assert_eq!(call("clone", 0x2000_0000), ALLOW);
    assert_eq!(program.flags, Flags::SPEC_ALLOW, "runc's default without a list of flags");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn conditions_on_one_argument_are_alternatives() {
    let program = program(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "flags": [], "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}"#,
    );
    let call = |first| run(&program.instructions, X86_64, nr("personality"), [first, 0, 0, 0, 0, 0]);
    assert_eq!((call(0), call(8), call(9)), (ALLOW, ALLOW, ERRNO | 1));
    assert_eq!(program.flags, Flags::default());
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let json = r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["read", "write", "close_range"], "action": "SCMP_ACT_ALLOW"}]}"#;
    let instructions = program(json).instructions;
    let call = |arch, number| run(&instructions, arch, number, [0; 6]);
    let enosys = ERRNO | 38;
    let newest = nr("close_range");
    assert_eq!(call(X86_64, newest), ALLOW);
    assert_eq!(call(X86_64, newest + 1), enosys);
    assert_eq!(call(X86_64, nr("mkdir")), ERRNO | 1);
    assert_eq!(call(X86_64, 0x4000_0000), ALLOW, "read of x32");
    assert_eq!(call(X86_64, 0x4000_0000 | 900), enosys, "x32");
    assert_eq!(call(0x4000_0003, 3), ALLOW, "read of i386");
    assert_eq!(call(0x4000_0003, 9000), enosys, "i386");
    assert_eq!(call(0xc000_00b7, 9000), 0, "a foreign architecture is killed");

    let without = json.replace("\"SCMP_ACT_ERRNO\"", "\"SCMP_ACT_ERRNO\", \"defaultErrnoRet\": 38");
    assert_eq!(run(&program(&without).instructions, X86_64, newest + 1, [0; 6]), enosys);
    let x86_64_only = json.replace(", \"SCMP_ARCH_X86\", \"SCMP_ARCH_X32\"", "");
    let instructions = program(&x86_64_only).instructions;
    assert_eq!(run(&instructions, X86_64, 0x4000_0000, [0; 6]), 0, "x32 under a profile without it");
    assert_eq!(run(&instructions, X86_64, newest + 1, [0; 6]), enosys);
}

#[test]
fn notification_needs_a_listener() {
    let text = |json| compile_json(json).expect_err("refused").to_string();
    assert!(text(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).starts_with("linux.seccomp.listenerPath"));
    for (json, announced) in [
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/a"}"#, true),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
                "syscalls": [{"names": ["write", "sendmsg"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            true,
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
                "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]}"#,
            false,
        ),
    ] {
        let program = program(json);
        assert!(program.flags.contains(Flags::NEW_LISTENER), "{json}");
        assert_eq!(program.notifies_of_sending, announced, "{json}");
    }
    assert!(
        text(r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#)
            .starts_with("linux.seccomp.listenerPath")
    );
    let good = program(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock", "listenerMetadata": "m",
            "flags": ["SECCOMP_FILTER_FLAG_TSYNC"], "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#,
    );
    assert_eq!(good.listener, Some(Listener { path: "/run/agent.sock".into(), metadata: Some("m".into()) }));
    assert!(good.flags.contains(Flags::NEW_LISTENER.with(Flags::TSYNC_ESRCH)));
}

#[test]
fn bad_values_name_their_field() {
    let text = |json| compile_json(json).expect_err("refused").to_string();
    assert_eq!(
        text(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#
        ),
        "linux.seccomp.syscalls[0].args[0].index: a system call has six arguments"
    );
    assert_eq!(
        text(r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536}"#),
        "linux.seccomp.defaultErrnoRet: is above 65535"
    );
}

/// A rule of a random profile: calls with neighbouring numbers, action, and a condition on the first argument.
fn any_rule() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
    use proptest::prelude::*;
    let actions =
        ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_NOTIFY", "SCMP_ACT_LOG"];
    let operators = ["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];
    let values = vec![0_u64, 8, 0xffff_ffff, 1 << 40];
    let condition = (prop::sample::select(operators.to_vec()), prop::sample::select(values));
    let action = prop::sample::select(actions.to_vec());
    (0..330_i32, 1..90_i32, action, prop::option::weighted(0.3, condition)).prop_map(
        |(first, count, action, condition)| {
            let names: Vec<String> = (first..first + count)
                .filter_map(|number| ScmpSyscall::from(number).get_name().ok())
                .collect();
            let args: Vec<_> = condition
                .map(|(op, value)| json!({"index": 0, "value": value, "valueTwo": 8, "op": op}))
                .into_iter()
                .collect();
            json!({"names": names, "action": action, "args": args})
        },
    )
}

/// Both programs on every call that is near a number of theirs, on architectures that the profile has and has not.
fn assert_same(long: &[Instruction], short: &[Instruction]) {
    let near = |k: u32| [k.wrapping_sub(1), k, k.wrapping_add(1)];
    let mut numbers: Vec<u32> = long.iter().flat_map(|one| near(one.k)).chain(0..1200).collect();
    numbers.extend((0..1200).map(|number| 0x4000_0000 + number));
    numbers.sort_unstable();
    numbers.dedup();
    for arch in [X86_64, 0x4000_0003, 0xc000_00b7, 0, u32::MAX] {
        for number in &numbers {
            for first in [0, 8, 9, 0xffff_ffff, 1 << 40, u64::MAX] {
                let call = [first, 0, 0, 0, 0, 0];
                let answers = (run(long, arch, *number, call), run(short, arch, *number, call));
                assert_eq!(answers.0, answers.1, "arch {arch:#x}, call {number:#x}, argument {first:#x}");
            }
        }
    }
}

#[test]
fn a_shorter_program_answers_as_the_long_one() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    let defaults = ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_NOTIFY"];
    let archs = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"];
    let profiles = (
        prop::sample::select(defaults.to_vec()),
        prop::sample::subsequence(archs.to_vec(), 0..=4),
        prop::collection::vec(any_rule(), 0..8),
    );
    let shortened = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let result = runner.run(&profiles, |(default, archs, rules)| {
        let json = json!({"defaultAction": default, "architectures": archs, "syscalls": rules});
        let profile: LinuxSeccomp = serde_json::from_value(json).expect("a profile");
        // libseccomp refuses two rules that contradict.
        let Ok(long) = long(&profile, profile.syscalls().as_deref().unwrap_or_default()) else {
            return Ok(());
        };
        assert_same(&long, &ranges::by_ranges(&long).expect("libseccomp's programs are understood"));
        shortened.set(shortened.get() + u32::from(ranges::shorten(&long).is_some()));
        Ok(())
    });
    result.expect("equal");
    assert!(shortened.get() > 20, "{} of 60 were shortened", shortened.get());
}

#[test]
fn what_is_not_understood_is_left_as_it_is() {
    let and = Instruction { code: 0x54, jt: 0, jf: 0, k: 3 };
    let load = Instruction { code: 0x20, jt: 0, jf: 0, k: 0 };
    let answer = Instruction { code: 0x06, jt: 0, jf: 0, k: ALLOW };
    assert_eq!(ranges::shorten(&[load, and, answer, answer, answer]), None, "arithmetic on the number");
    assert_eq!(ranges::shorten(&[load, answer]), None, "it is short");
    assert_eq!(ranges::shorten(&[load]), None, "it has no end");
    assert_eq!(ranges::shorten(&[]), None);
}
