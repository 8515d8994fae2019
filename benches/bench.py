"""The figures of speed and size, as a table. Run through scripts/bench.sh.

A time is that of a whole process, from before fork to after wait (never a wait with a timeout: that polls, and rounds
short times up). Compared commands take turns, in a new order each round, so that a change of the machine's speed and
the kernel's cleaning up meet all of them; a figure is a median.

bench.py [oci] [many] [run] [pull] [monitor]: all of them without an argument.
"""
import glob, json, os, random, re, shutil, signal, statistics, subprocess, sys, tempfile, time

CORTEN = os.environ["CORTEN"]
OUT = os.path.abspath("target/bench")
WORK = tempfile.mkdtemp(prefix="corten-bench", dir=OUT)
# podman takes no longer path than 50 characters for its run root.
SHORT = tempfile.mkdtemp(prefix="cb")
# Root without CAP_SYS_RESOURCE (CI sandboxes) cannot raise the limits that podman asks for by itself.
ULIMITS = "--ulimit nofile=1024:4096 --ulimit nproc=1000:1000".split()
# Of each command that is compared, and how many containers there are at once.
ROUNDS, MANY = 60, 1000
rows, failed = [], False


def call(command, quiet=False):
    """What a command prints; `quiet` for one that leaves a process behind, which would keep a pipe open."""
    to = subprocess.DEVNULL if quiet else subprocess.PIPE
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=to, stderr=to)
    if done.returncode:
        sys.exit(f"bench: exit {done.returncode}: {' '.join(command)}\n{(done.stderr or b'').decode()}")
    return (done.stdout or b"").decode().strip()


def timed(command):
    begin = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    if done.returncode:
        call(command)
        sys.exit(f"bench: exit {done.returncode} once: {' '.join(command)}")
    return seconds


def medians(rounds, commands):
    """Median milliseconds of each command; `%i` in an argument is a number that no other run has."""
    times = {name: [] for name in commands}
    for number in range(rounds + 2):
        # In a new order each time: the kernel still cleans up after a command when the next one runs.
        for name, command in random.sample(sorted(commands.items()), len(commands)):
            seconds = timed([part.replace("%i", f"{os.getpid()}-{name}-{number}".replace(" ", "-")) for part in command])
            # The first two rounds warm the caches.
            if number > 1:
                times[name].append(seconds * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def row(what, value, against, limit, show):
    global failed
    good = value <= limit
    failed |= not good
    rows.append(f"| {what} | {show(value)} | {against} | {show(limit)} | {'pass' if good else 'FAIL'} |")


def ratio(what, ours, theirs, name, limit, unit="ms"):
    row(f"{what} / {name}", ours / theirs, f"{ours:.2f} {unit} / {theirs:.2f} {unit}", limit, lambda value: f"{value:.2f}")


def oci_bundle(name, *args, seccomp=None):
    """runc's default spec, with another program to run."""
    bundle = f"{WORK}/{name}"
    os.makedirs(f"{bundle}/rootfs/bin")
    for directory in ("proc", "dev", "sys"):
        os.mkdir(f"{bundle}/rootfs/{directory}")
    shutil.copy("/bin/busybox", f"{bundle}/rootfs/bin/busybox")
    for applet in ("true", "sleep"):
        os.symlink("busybox", f"{bundle}/rootfs/bin/{applet}")
    call(["runc", "spec", "--bundle", bundle])
    config = json.load(open(f"{bundle}/config.json"))
    config["process"].update(terminal=False, args=list(args))
    if seccomp:
        config["linux"]["seccomp"] = seccomp
    json.dump(config, open(f"{bundle}/config.json", "w"))
    return bundle


class Runtimes:
    """Debian's runtimes and ours, each with its records on a tmpfs, as /run is one: what a disk's file system does with small
    files is not theirs."""

    def __enter__(self):
        self.state = tempfile.mkdtemp(prefix="state", dir=WORK)
        call(["mount", "-t", "tmpfs", "bench", self.state])
        link = f"{self.state}/corten-oci"
        os.symlink(CORTEN, link)
        self.programs = {"corten": link, "crun": "crun", "runc": "runc"}
        self.left = []
        return self

    def __exit__(self, *_):
        for name, container in self.left:
            subprocess.run(self.words(name, "delete", "--force", container), stderr=subprocess.DEVNULL)
        call(["umount", "--lazy", self.state])

    def words(self, name, *words):
        return [self.programs[name], "--root", f"{self.state}/{name}", *words]

    def init(self, name, container):
        """The number of a container's first process."""
        return json.loads(call(self.words(name, "state", container)))["pid"]

    def wait(self, pid):
        """Until a process that is no child of ours has ended, if only its parent does not know yet."""
        for _ in range(100_000):
            try:
                if open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] in "ZX":
                    return
            except (FileNotFoundError, ProcessLookupError):
                return
            time.sleep(0.0001)
        sys.exit(f"bench: process {pid} does not end")


def oci():
    true = oci_bundle("true", "true")
    sleep = oci_bundle("sleep", "sleep", "100000")
    with Runtimes() as runtimes:
        verbs(runtimes, true, sleep)
        whole_life(runtimes, true)
        filtered(runtimes, true)
        memory(runtimes, true)


def verbs(runtimes, true, sleep):
    """`run`, `exec` and `state`."""
    commands = {"floor run": [f"{OUT}/floor", f"{true}/rootfs", "bench-%i"]}
    for name in ("corten", "crun"):
        call(runtimes.words(name, "run", "--detach", "--bundle", sleep, f"bench-{os.getpid()}-{name}"), quiet=True)
        runtimes.left.append((name, f"bench-{os.getpid()}-{name}"))
        commands[f"{name} exec"] = runtimes.words(name, "exec", f"bench-{os.getpid()}-{name}", "true")
        commands[f"{name} state"] = runtimes.words(name, "state", f"bench-{os.getpid()}-{name}")
    for name in ("corten", "crun", "runc"):
        commands[f"{name} run"] = runtimes.words(name, "run", "--bundle", true, "bench-%i")
    result = medians(ROUNDS, commands)
    what = "`corten-oci run` of `true`"
    ratio(what, result["corten run"], result["floor run"], "floor program", 1.4)
    ratio(what, result["corten run"], result["crun run"], "crun", 0.5)
    rows.append(f"| {what} / runc | {result['corten run'] / result['runc run']:.2f} | {result['corten run']:.2f} ms / {result['runc run']:.2f} ms | | |")
    ratio("`corten-oci exec` of `true`", result["corten exec"], result["crun exec"], "crun", 0.5)
    ratio("`corten-oci state`", result["corten state"], result["crun state"], "crun", 0.4)


def whole_life(runtimes, bundle):
    """`create`, `start` and `delete`, and the program has ended before the last."""
    times = {"corten": [], "crun": []}
    for number in range(ROUNDS + 2):
        for name in random.sample(sorted(times), len(times)):
            container = f"bench-{os.getpid()}-life-{number}"
            seconds = timed(runtimes.words(name, "create", "--bundle", bundle, container))
            pid = runtimes.init(name, container)
            seconds += timed(runtimes.words(name, "start", container))
            runtimes.wait(pid)
            seconds += timed(runtimes.words(name, "delete", container))
            # The first two rounds warm the caches.
            if number > 1:
                times[name].append(seconds * 1e3)
    ratio("`corten-oci create`, `start` and `delete`", *(statistics.median(times[name]) for name in ("corten", "crun")), "crun", 0.45)


def filtered(runtimes, bundle):
    """`run` with the default seccomp profile; the first round compiles it, which `medians` leaves out."""
    with_profile = oci_bundle("seccomp", "true", seccomp=docker_profile())
    result = medians(ROUNDS, {
        "without": runtimes.words("corten", "run", "--bundle", bundle, "bench-%i"),
        "with": runtimes.words("corten", "run", "--bundle", with_profile, "bench-%i"),
    })
    ratio("`corten-oci run` with docker's seccomp profile, not the first time", result["with"], result["without"], "without", 1.1)


def docker_profile():
    """Docker's default seccomp profile, as the container tool writes it into a container's configuration."""
    name = f"bench-{os.getpid()}-profile"
    with small_image() as reference:
        call(corten(WORK) + ["pull", reference])
        call(corten(WORK) + ["run", "--detach", "--network", "none", "--name", name, reference, "sleep", "1000"], quiet=True)
        try:
            for path in glob.glob(f"{WORK}/corten*/**/config.json", recursive=True):
                profile = json.load(open(path)).get("linux", {}).get("seccomp")
                if profile:
                    return profile
            sys.exit("bench: no configuration with a seccomp profile")
        finally:
            call(corten(WORK) + ["delete", "--force", name], quiet=True)


def memory(runtimes, bundle):
    """The most that `create` had resident, pages that it shares with all others included."""
    sizes = {"corten": [], "crun": []}
    for number in range(5):
        for name in sizes:
            container = f"bench-{os.getpid()}-peak-{number}"
            done = subprocess.run([f"{OUT}/peak"] + runtimes.words(name, "create", "--bundle", bundle, container),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(f"{WORK}/peak", "w"))
            text = open(f"{WORK}/peak").read()
            if done.returncode:
                sys.exit(f"bench: {name} create: {text}")
            sizes[name].append(int(text.split()[-1]))
            call(runtimes.words(name, "delete", "--force", container))
    ours, theirs = (statistics.median(sizes[name]) for name in ("corten", "crun"))
    ratio("peak memory of `corten-oci create`", ours, theirs, "crun", 1, "KiB")


def many():
    """1,000 containers of one bundle: what the last cost, against the first."""
    bundle = oci_bundle("many", "sleep", "100000")
    times = {"create": [], "start": [], "list": [], "delete": []}
    with Runtimes() as runtimes:
        names = [f"bench-{os.getpid()}-many-{number}" for number in range(MANY)]
        kernel = [timed_floor(bundle) for _ in range(MANY // 20)]
        for number, name in enumerate(names):
            runtimes.left.append(("corten", name))
            times["create"].append(timed(runtimes.words("corten", "create", "--bundle", bundle, name)))
            times["start"].append(timed(runtimes.words("corten", "start", name)))
            if (number + 1) % (MANY // 10) == 0:
                listed = statistics.median(timed(runtimes.words("corten", "list", "--format=json")) for _ in range(9))
                times["list"].append(listed / (number + 1))
        kernel += [timed_floor(bundle) for _ in range(MANY // 20)]
        for name in reversed(names):
            pid = runtimes.init("corten", name)
            os.kill(pid, signal.SIGKILL)
            runtimes.wait(pid)
            times["delete"].append(timed(runtimes.words("corten", "delete", name)))
        runtimes.left = []
    some = MANY // 20
    flat(f"create + start of {MANY} containers", [create + start for create, start in zip(times["create"], times["start"])], some, 1.2)
    flat("`create` among them", times["create"], some, 1.2)
    # What the kernel alone takes longer for: the same system calls, with and without the others there.
    first, last = statistics.median(kernel[:some]), statistics.median(kernel[some:])
    rows.append(f"| the floor program beside them / without them | {last / first:.2f} | {last * 1e3:.2f} ms / {first * 1e3:.2f} ms | | |")
    # The first of these deletes had all the others beside it.
    flat("`delete` among them", times["delete"][::-1], some, 1.2)
    flat("`list` of them, for each", times["list"], 1, 1.2)


def timed_floor(bundle):
    """Seconds of the floor program, whose work depends on nothing but the kernel."""
    name = f"bench-{os.getpid()}-{time.monotonic_ns()}"
    return timed([f"{OUT}/floor", f"{bundle}/rootfs", name])


def flat(what, seconds, some, limit):
    first, last = (statistics.median(part) * 1e3 for part in (seconds[:some], seconds[-some:]))
    ratio(f"{what}, last {some}" if some > 1 else f"{what}, all", last, first, f"first {some}" if some > 1 else "a tenth", limit)


def podman(root):
    return ["podman", "--root", f"{root}/graph", "--runroot", f"{SHORT}/run", "--tmpdir", f"{SHORT}/tmp",
            "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "/usr/bin/crun"]


def corten(root):
    return [CORTEN, "--root", f"{root}/corten", "--state", f"{root}/corten-run"]


class Registry:
    """A registry on loopback with an image layout in it."""

    def __init__(self, layout, name):
        self.process = subprocess.Popen(["scripts/registry.sh", f"{WORK}/registry-{name}"], stdout=subprocess.PIPE)
        address = self.process.stdout.readline().decode().strip()
        self.reference = f"{address}/bench/{name}:latest"
        call(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{self.reference}"])

    def __enter__(self):
        return self.reference

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def small_image():
    layout = f"{WORK}/busybox"
    if not os.path.exists(layout):
        call(["rootfs/busybox.sh", layout])
    return Registry(layout, "busybox")


def run():
    with small_image() as reference:
        call(corten(WORK) + ["pull", reference])
        call(podman(WORK) + ["pull", "--quiet", "--tls-verify=false", reference])
        result = medians(15, {
            "corten": corten(WORK) + ["run", "--rm", "--network", "none", reference, "true"],
            "podman": podman(WORK) + ["run", "--rm", "--network", "none"] + ULIMITS + [reference, "true"],
        })
    what = "`corten run --rm --network none` of `true`"
    ratio(what, result["corten"], result["podman"], "podman with crun", 0.12)
    row(what, result["corten"], "", 15, lambda value: f"{value:.1f} ms")


def fresh_file_system(name):
    """A new journaled ext4 on a loop device: an old one's speed depends on what was deleted from it."""
    image, mount = f"{WORK}/{name}.ext4", f"{WORK}/{name}"
    os.mkdir(mount)
    with open(image, "wb") as file:
        file.truncate(12 << 30)
    call(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image])
    call(["mount", "-o", "loop", image, mount])
    call(["sync"])
    return mount


def drop_file_system(mount):
    subprocess.run(["umount", "--recursive", mount], stderr=subprocess.DEVNULL)
    os.unlink(f"{mount}.ext4")


def pull():
    layout = f"{OUT}/image-2"
    if not os.path.exists(f"{layout}/index.json"):
        shutil.rmtree(layout, ignore_errors=True)
        print("bench: making an image", file=sys.stderr)
        print("bench:", call([sys.executable, "benches/image.py", layout]), file=sys.stderr)
    compressed = sum(entry.stat().st_size for entry in os.scandir(f"{layout}/blobs/sha256"))
    assert compressed >= 500e6, compressed
    times = {"corten": [], "podman": []}
    with Registry(layout, "large") as reference:
        for number in range(3):
            for name, command in (
                ("corten", lambda root: corten(root) + ["pull", "--quiet", reference]),
                ("podman", lambda root: podman(root) + ["pull", "--quiet", "--tls-verify=false", reference]),
            ):
                mount = fresh_file_system(f"{name}{number}")
                # Image copying keeps its big temporary files where TMPDIR says: on the same file system.
                os.environ["TMPDIR"] = mount
                times[name].append(timed(command(mount)))
                del os.environ["TMPDIR"]
                drop_file_system(mount)
    ours, theirs = (statistics.median(times[name]) for name in ("corten", "podman"))
    ratio(f"pull of {compressed / 1e6:.0f} MB in 4 layers", ours, theirs, "`podman pull`", 0.5, "s")


def private_memory(name):
    """KiB of a container's monitor that no other process shares, and how much of that is dirty."""
    inspected = call(corten(WORK) + ["inspect", name])
    pid = re.search(r'"pid":\s*([1-9][0-9]*)', inspected, re.IGNORECASE).group(1)
    monitor = re.search(r"^PPid:\s*([0-9]+)", open(f"/proc/{pid}/status").read(), re.MULTILINE).group(1)
    # It runs from a mount of the binary alone, so its executable has no name; its arguments have.
    words = open(f"/proc/{monitor}/cmdline").read()
    assert "corten" in words, f"the parent of {name} is {words}"
    rollup = open(f"/proc/{monitor}/smaps_rollup").read()
    clean, dirty = (int(re.search(rf"^Private_{kind}:\s*([0-9]+) kB", rollup, re.MULTILINE).group(1)) for kind in ("Clean", "Dirty"))
    return clean + dirty, dirty


def monitor():
    with small_image() as reference:
        call(corten(WORK) + ["pull", reference])
        names = [f"bench-{os.getpid()}-{number}" for number in range(3)]
        try:
            for name in names:
                call(corten(WORK) + ["run", "--detach", "--network", "none", "--name", name, reference, "sleep", "1000"])
            sizes = [private_memory(name) for name in names]
        finally:
            for name in names:
                subprocess.run(corten(WORK) + ["delete", "--force", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    private, dirty = (statistics.median(values) for values in zip(*sizes))
    row("private memory of an idle monitor", private, f"{dirty:.0f} KiB of it dirty", 500, lambda value: f"{value:.0f} KiB")


def main():
    parts = {"oci": oci, "many": many, "run": run, "pull": pull, "monitor": monitor}
    for name in sys.argv[1:] or parts:
        print(f"bench: {name}", file=sys.stderr)
        parts[name]()
    print("| what | figure | of | limit | |\n|---|---|---|---|---|")
    print("\n".join(rows))
    sys.exit(failed)


try:
    main()
finally:
    for mount in reversed([line.split()[1] for line in open("/proc/self/mounts") if WORK in line or SHORT in line]):
        subprocess.run(["umount", "--lazy", mount], stderr=subprocess.DEVNULL)
    for directory in (WORK, SHORT):
        shutil.rmtree(directory, ignore_errors=True)
