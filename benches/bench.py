"""The figures of speed and size, as a table. Run through scripts/bench.sh.

A time is that of a whole process, from before fork to after wait (never a wait with a timeout: that polls, and rounds
short times up). Compared commands take turns, in a new order each round, so that a change of the machine's speed and
the kernel's cleaning up meet all of them; a figure is a median.

bench.py [oci] [run] [pull] [monitor]: all of them without an argument.
"""
import json, os, random, re, shutil, signal, statistics, subprocess, sys, tempfile, time

CORTEN = os.environ["CORTEN"]
OUT = os.path.abspath("target/bench")
WORK = tempfile.mkdtemp(prefix="corten-bench", dir=OUT)
# podman takes no longer path than 50 characters for its run root.
SHORT = tempfile.mkdtemp(prefix="cb")
# Root without CAP_SYS_RESOURCE (CI sandboxes) cannot raise the limits that podman asks for by itself.
ULIMITS = "--ulimit nofile=1024:4096 --ulimit nproc=1000:1000".split()
rows, failed = [], False


def call(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if done.returncode:
        sys.exit(f"bench: exit {done.returncode}: {' '.join(command)}\n{done.stderr.decode()}")
    return done.stdout.decode().strip()


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
            seconds = timed([part.replace("%i", f"{os.getpid()}-{name}-{number}") for part in command])
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


def oci():
    bundle = f"{WORK}/bundle"
    os.makedirs(f"{bundle}/rootfs/bin")
    for name in ("proc", "dev", "sys"):
        os.mkdir(f"{bundle}/rootfs/{name}")
    shutil.copy("/bin/busybox", f"{bundle}/rootfs/bin/busybox")
    os.symlink("busybox", f"{bundle}/rootfs/bin/true")
    call(["runc", "spec", "--bundle", bundle])
    config = json.load(open(f"{bundle}/config.json"))
    config["process"].update(terminal=False, args=["true"])
    json.dump(config, open(f"{bundle}/config.json", "w"))
    link = f"{WORK}/corten-oci"
    os.symlink(CORTEN, link)
    # The records of all three on a tmpfs, as /run is one: what a disk's file system does with small files is not theirs.
    state = f"{WORK}/state"
    os.mkdir(state)
    call(["mount", "-t", "tmpfs", "bench", state])
    run = lambda program, name: [program, "--root", f"{state}/{name}", "run", "--bundle", bundle, "bench-%i"]
    result = medians(60, {
        "corten": run(link, "corten"),
        "floor": [f"{OUT}/floor", f"{bundle}/rootfs", "bench-%i"],
        "crun": run("crun", "crun"),
        "runc": run("runc", "runc"),
    })
    call(["umount", state])
    what = "`corten-oci run` of `true`"
    ratio(what, result["corten"], result["floor"], "floor program", 1.6)
    ratio(what, result["corten"], result["crun"], "crun", 0.6)
    rows.append(f"| {what} / runc | {result['corten'] / result['runc']:.2f} | {result['corten']:.2f} ms / {result['runc']:.2f} ms | | |")


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
    parts = {"oci": oci, "run": run, "pull": pull, "monitor": monitor}
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
