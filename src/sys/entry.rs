//! The first instructions of the `corten` executable on x86-64: [`seal`](super::exe::seal) before libc starts.
//!
//! A runtime that enters a container starts itself twice, and most of a start is libc's: `cpuid` alone, which a
//! virtual machine traps, takes 0.2 ms. So the first of the two starts ends here, before libc's `_start`, with
//! the same system calls that `seal` makes. It is only quicker: `seal` still looks, and does what did not
//! succeed here.
//!
//! The descriptor of the mount stays open over the second start: [`let_go`](super::exe::let_go) closes it.
//!
//! Nothing of libc works yet (no thread-local storage, and memcpy is not resolved): the code below makes raw
//! system calls and reads bytes one by one.
use std::arch::{asm, naked_asm};
use std::mem::MaybeUninit;

/// The verbs that enter a container.
const ENTERING: [&[u8]; 3] = [b"create\0", b"run\0", b"exec\0"];
/// Enters one as a verb of the container tool, which makes it anew. That of the OCI runtime only speaks to the
/// process that waits in it, over a socket.
const START: &[u8] = b"start\0";
/// The end of the name under which the OCI runtime is called.
const OCI: &[u8] = b"-oci\0";

/// Entry point of the executable (`build.rs` tells the linker). The kernel leaves the argument count on top
/// of the stack, and all registers empty; libc's `_start` must find both so.
///
/// # Safety
/// Only the kernel may enter here.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn corten_start() -> ! {
    naked_asm!(
        "mov rbx, rsp",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {early}",
        "mov rsp, rbx",
        "xor ebx, ebx",
        "xor edx, edx",
        "xor ebp, ebp",
        "jmp _start",
        early = sym early,
    )
}

/// Starts the program again from a read-only mount of itself if a verb says that it will enter a container.
///
/// # Safety
/// `stack` is the initial stack of a process: the argument count, the arguments, NULL, the environment, NULL.
unsafe extern "C" fn early(stack: *const usize) {
    // SAFETY: the layout that the caller promises (System V ABI, "Process Initialization").
    let (count, args) = unsafe { (*stack, stack.add(1).cast::<*const u8>()) };
    // SAFETY: `count` arguments and a NULL precede the environment.
    let env = unsafe { args.add(count + 1) };
    // SAFETY: each argument is a C string.
    let is = |index: usize, word: &[u8]| index < count && unsafe { equal(*args.add(index), word) };
    // SAFETY: as above.
    let oci = is(1, &OCI[1..]) || count > 0 && unsafe { ends_in_oci(*args) };
    if (1..count).any(|index| ENTERING.iter().any(|verb| is(index, verb)) || !oci && is(index, START)) {
        seal(args, env);
    }
}

/// # Safety
/// `text` is a C string.
unsafe fn ends_in_oci(mut text: *const u8) -> bool {
    // SAFETY: a C string, whose end is looked for; each step is to a byte of it.
    unsafe {
        while text.read_volatile() != 0 {
            if equal(text, OCI) {
                return true;
            }
            text = text.add(1);
        }
    }
    false
}

/// # Safety
/// `text` is a C string; `wanted` ends with its only NUL.
unsafe fn equal(text: *const u8, wanted: &[u8]) -> bool {
    for (index, byte) in wanted.iter().enumerate() {
        // SAFETY: all bytes before this one were equal and none was NUL, so the string goes on here. Volatile,
        // so that the loop does not become a call of strcmp.
        if unsafe { text.add(index).read_volatile() } != *byte {
            return false;
        }
    }
    true
}

/// Returns only where something does not succeed, or need not be done.
fn seal(args: *const *const u8, env: *const *const u8) {
    let path = c"/proc/self/exe".as_ptr() as usize;
    let empty = c"".as_ptr() as usize;
    let at = (libc::AT_FDCWD as isize).cast_unsigned();
    let open_flags = (libc::O_PATH | libc::O_CLOEXEC).cast_unsigned() as usize;
    let exe = call(libc::SYS_openat, [at, path, open_flags, 0, 0]);
    if exe < 0 {
        return;
    }
    let exe = exe.cast_unsigned();
    let mut status = MaybeUninit::<libc::statfs64>::uninit();
    let known = call(libc::SYS_fstatfs, [exe, status.as_mut_ptr() as usize, 0, 0, 0]) == 0;
    // 1 is ST_RDONLY (statfs(2)), which C libraries give another type than the flags.
    // SAFETY: the kernel filled it, which it said with 0.
    let writable = known && unsafe { (*status.as_ptr()).f_flags } & 1 == 0;
    if writable {
        let flags = libc::OPEN_TREE_CLONE as usize | libc::AT_EMPTY_PATH.cast_unsigned() as usize;
        let tree = call(libc::SYS_open_tree, [exe, empty, flags, 0, 0]);
        if tree >= 0 {
            let tree = tree.cast_unsigned();
            let read_only = libc::mount_attr {
                attr_set: libc::MOUNT_ATTR_RDONLY,
                attr_clr: 0,
                propagation: 0,
                userns_fd: 0,
            };
            let empty_path = libc::AT_EMPTY_PATH.cast_unsigned() as usize;
            let attributes = &raw const read_only as usize;
            let size = size_of::<libc::mount_attr>();
            if call(libc::SYS_mount_setattr, [tree, empty, empty_path, attributes, size]) == 0 {
                call(libc::SYS_execveat, [tree, empty, args as usize, env as usize, empty_path]);
            }
            call(libc::SYS_close, [tree, 0, 0, 0, 0]);
        }
    }
    call(libc::SYS_close, [exe, 0, 0, 0, 0]);
}

/// A system call with up to five arguments; a negative result is an errno.
fn call(number: i64, arguments: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the callers above pass live descriptors, C strings, and structures of the right size; the
    // instruction clobbers rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}
