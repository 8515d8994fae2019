"""Images: pulled, loaded and removed, as a table of ratios. Run through scripts/bench-image.sh.

Each run has a freshly made, journaled ext4 on a loop device: what an old one was used for decides its speed. Compared
commands take turns, in a new order each round; a figure is a median. The limit is what a shell can do with the fastest
inflate: igzip into tar, two layers at a time, from blobs that are there, and then syncfs, as corten syncs.

image_bench.py [pull] [limit] [load] [memory] [missing] [snapshot] [rmi]: all of them without an argument.
"""
import glob, json, os, random, re, shutil, signal, statistics, subprocess, sys, tempfile, time

CORTEN = os.environ["CORTEN"]
OUT = os.path.abspath("target/bench-image")
WORK = tempfile.mkdtemp(prefix="w", dir=OUT)
ROUNDS = int(os.environ.get("ROUNDS", "3"))
rows, failed = [], False


def call(command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    if done.returncode:
        sys.exit(f"bench: exit {done.returncode}: {command}\n{done.stderr.decode()}")
    return done.stdout.decode().strip()


def timed(command, **more):
    """Seconds of the clock and of the processors."""
    before = os.times()
    begin = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)
    seconds = time.perf_counter() - begin
    after = os.times()
    if done.returncode:
        sys.exit(f"bench: exit {done.returncode}: {command}\n{done.stderr.decode()}")
    return seconds, (after.children_user + after.children_system) - (before.children_user + before.children_system)


def row(what, value, against, limit, show):
    global failed
    good = value <= limit
    failed |= not good
    rows.append(f"| {what} | {show(value)} | {against} | {show(limit)} | {'pass' if good else 'FAIL'} |")


def ratio(what, ours, theirs, name, limit, unit="s"):
    row(f"{what} / {name}", ours / theirs, f"{ours:.2f} {unit} / {theirs:.2f} {unit}", limit, lambda value: f"{value:.2f}")


class FileSystem:
    """A new journaled ext4 on a loop device."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="fs", dir=WORK)
        with open(f"{self.path}.ext4", "wb") as file:
            file.truncate(12 << 30)
        call(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", f"{self.path}.ext4"])
        call(["mount", "-o", "loop", f"{self.path}.ext4", self.path])
        call(["sync"])
        return self.path

    def __exit__(self, *_):
        subprocess.run(["umount", "--recursive", self.path], stderr=subprocess.DEVNULL)
        os.unlink(f"{self.path}.ext4")


def corten(root):
    return [CORTEN, "--root", f"{root}/corten", "--state", f"{root}/corten-run"]


def podman(root):
    return ["podman", "--root", f"{root}/podman", "--runroot", f"{SHORT}/p", "--tmpdir", f"{SHORT}/t",
            "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]


class Containerd:
    """Debian's containerd with its data on a file system under test."""

    def __init__(self, root):
        self.address = f"{SHORT}/c.sock"
        config = f"{root}/containerd.toml"
        with open(config, "w") as file:
            file.write(f'version = 2\nroot = "{root}/containerd"\nstate = "{SHORT}/cs"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
                       f'[grpc]\naddress = "{self.address}"\n')
        self.process = subprocess.Popen(["containerd", "--config", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while subprocess.run(["ctr", "--address", self.address, "version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            if time.monotonic() > deadline:
                sys.exit("bench: containerd does not start")
            time.sleep(0.05)

    def __enter__(self):
        return ["ctr", "--address", self.address]

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Registry:
    """A registry on loopback with image layouts in it."""

    def __init__(self, layouts):
        self.process = subprocess.Popen(["scripts/registry.sh", f"{WORK}/registry"], stdout=subprocess.PIPE)
        address = self.process.stdout.readline().decode().strip()
        self.references = {}
        for name, layout in layouts.items():
            self.references[name] = f"{address}/bench/{name}:latest"
            call(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{self.references[name]}"])

    def __enter__(self):
        return self.references

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def large():
    layout = f"{OUT}/layout"
    if not os.path.exists(f"{layout}/index.json"):
        shutil.rmtree(layout, ignore_errors=True)
        print("bench: making an image", file=sys.stderr)
        print("bench:", call([sys.executable, "benches/image.py", layout]), file=sys.stderr)
    return layout


def document(layout, digest):
    return json.load(open(f"{layout}/blobs/{digest.replace(':', '/')}"))


def manifest_of(layout):
    return document(layout, document_index(layout)["manifests"][0]["digest"])


def document_index(layout):
    return json.load(open(f"{layout}/index.json"))


def part(layout, name, chosen):
    """A layout with some layers of another one, which it shares by links."""
    target = f"{OUT}/{name}"
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(f"{target}/blobs/sha256")
    manifest = manifest_of(layout)
    config = document(layout, manifest["config"]["digest"])
    manifest["layers"] = [manifest["layers"][at] for at in chosen]
    config["rootfs"]["diff_ids"] = [config["rootfs"]["diff_ids"][at] for at in chosen]
    for one in manifest["layers"]:
        name = one["digest"].replace(":", "/")
        os.link(f"{layout}/blobs/{name}", f"{target}/blobs/{name}")

    def blob(value):
        import hashlib
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{target}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest["config"].update(blob(config))
    index = document_index(layout)
    index["manifests"][0].update(blob(manifest))
    shutil.copy(f"{layout}/oci-layout", target)
    with open(f"{target}/index.json", "w") as file:
        json.dump(index, file)
    return target


def limit_command(layout, target):
    blobs = " ".join(f"{layout}/blobs/{one['digest'].replace(':', '/')}" for one in manifest_of(layout)["layers"])
    unpack = 'mkdir "$0/${1##*/}" && igzip -dc "$1" | tar -xf - -C "$0/${1##*/}"'
    return ["bash", "-c", f"printf '%s\\n' {blobs} | xargs -P 2 -I BLOB bash -o pipefail -c '{unpack}' {target} BLOB && sync -f {target}"]


def turns(runs):
    """Medians of clock and processor seconds of each run, which gets a fresh file system."""
    results = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in random.sample(sorted(runs.items()), len(runs)):
            with FileSystem() as root:
                results[name].append(run(root))
            print(f"bench: {name}: {results[name][-1][0]:.2f} s, {results[name][-1][1]:.2f} s of processors", file=sys.stderr)
    return {name: [statistics.median(value) for value in zip(*values)] for name, values in results.items()}


def with_containerd(reference):
    def run(root):
        with Containerd(root) as ctr:
            return timed(ctr + ["images", "pull", "--plain-http", reference])
    return run


def with_podman(reference):
    def run(root):
        # Image copying keeps its big temporary files where TMPDIR says: on the same file system.
        return timed(podman(root) + ["pull", "--quiet", "--tls-verify=false", reference], env=os.environ | {"TMPDIR": root})
    return run


def with_corten(reference):
    return lambda root: timed(corten(root) + ["pull", "--quiet", reference])


def size(layout):
    return sum(one["size"] for one in manifest_of(layout)["layers"]) / 1e6


def pull(layout, references):
    result = turns({"corten": with_corten(references["large"]), "containerd": with_containerd(references["large"]), "podman": with_podman(references["large"])})
    what = f"pull of {size(layout):.0f} MB in 4 layers"
    ratio(what, result["corten"][0], result["containerd"][0], "`ctr images pull`", 0.33)
    ratio(what, result["corten"][0], result["podman"][0], "`podman pull`", 0.25)


def limit(layout, references):
    archive = f"{OUT}/layout.tar"
    call(["tar", "-cf", archive, "-C", layout, "oci-layout", "index.json", "blobs"])
    result = turns({
        "corten": with_corten(references["large"]),
        "load": lambda root: timed(corten(root) + ["load", "--input", archive]),
        "limit": lambda root: timed(limit_command(layout, root)),
    })
    os.unlink(archive)
    ratio("the same pull", result["corten"][0], result["limit"][0], "igzip and tar, two layers at a time, and sync", 1.25)
    ratio("`load` of the same image", result["load"][0], result["limit"][0], "the same", 1.2)
    rows.append(f"| processor seconds of pull, load, limit | | {result['corten'][1]:.1f}, {result['load'][1]:.1f}, {result['limit'][1]:.1f} | | |")


def resident(pid):
    """KiB of a process and its children."""
    total = 0
    try:
        total += int(re.search(r"VmRSS:\s*(\d+)", open(f"/proc/{pid}/status").read()).group(1))
        children = [child for task in os.listdir(f"/proc/{pid}/task") for child in open(f"/proc/{pid}/task/{task}/children").read().split()]
    except (FileNotFoundError, ProcessLookupError, AttributeError):
        return total
    return total + sum(resident(int(child)) for child in children)


def memory(layout, references):
    with FileSystem() as root:
        process = subprocess.Popen(corten(root) + ["pull", "--quiet", references["large"]], stdout=subprocess.DEVNULL)
        most = 0
        while process.poll() is None:
            most = max(most, resident(process.pid))
            time.sleep(0.01)
        assert process.returncode == 0
    row("peak memory while pulling, all processes", most / 1024, "", 64, lambda value: f"{value:.0f} MiB")


def missing(layout, references):
    def last(root):
        call(corten(root) + ["pull", "--quiet", references["base"]])
        return timed(corten(root) + ["pull", "--quiet", references["large"]])

    def alone(root):
        # Into another store, so that file system and memory have been used for the same as in the other case.
        call([CORTEN, "--root", f"{root}/other", "--state", f"{root}/other-run", "pull", "--quiet", references["base"]])
        return timed(corten(root) + ["pull", "--quiet", references["top"]])

    result = turns({"one of four missing": last, "that layer alone": alone})
    ours, theirs = result["one of four missing"][0], result["that layer alone"][0]
    row("pull of an image with one layer missing, over the pull of that layer alone", (ours - theirs) * 1e3, f"{ours:.2f} s - {theirs:.2f} s", 50, lambda value: f"{value:.0f} ms")


class Tracer:
    """The kernel's own tracing of system calls: a tracer that stops the process would be most of what is measured here."""

    def __enter__(self):
        self.mount = f"{WORK}/tracing"
        os.mkdir(self.mount)
        call(["mount", "-t", "tracefs", "bench", self.mount])
        self.dir = f"{self.mount}/instances/corten-bench-{os.getpid()}"
        os.mkdir(self.dir)
        self.write("trace_clock", "mono")
        self.write("options/event-fork", "1")
        self.write("events/raw_syscalls/enable", "1")
        return self

    def __exit__(self, *_):
        os.rmdir(self.dir)
        call(["umount", "--lazy", self.mount])

    def write(self, name, text):
        with open(f"{self.dir}/{name}", "w") as file:
            file.write(text)

    def calls(self, command):
        """Of the command and its children, in order: process, number, seconds at the begin and at the end."""
        self.write("trace", "")
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       preexec_fn=lambda: self.write("set_event_pid", str(os.getpid())))
        begun = {}
        for line in open(f"{self.dir}/trace"):
            found = re.search(r"-(\d+)\s+\[\d+\].*? (\d+\.\d+): sys_(enter|exit): NR (-?\d+)", line)
            if not found:
                continue
            pid, at, kind, number = found.group(1), float(found.group(2)), found.group(3), int(found.group(4))
            if kind == "enter":
                begun[pid] = at
            elif pid in begun:
                yield pid, number, begun.pop(pid), at


FSOPEN, FSMOUNT = 430, 432


def snapshot(layout, references):
    """From fsopen to the end of fsmount of the container's root, which is the first that `run` mounts."""
    took = []
    with FileSystem() as root, Tracer() as tracer:
        call(corten(root) + ["pull", "--quiet", references["large"]])
        # The image has no program, so the container ends there; its snapshot was made by then.
        command = corten(root) + ["run", "--rm", "--network", "none", references["large"], "/none"]
        trace = f"{root}/trace"
        subprocess.run(["strace", "-f", "-o", trace, "-e", "trace=fsopen"] + command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        first = next((line for line in open(trace) if "fsopen(" in line), "no fsopen")
        if 'fsopen("overlay"' not in first:
            sys.exit(f"bench: the first mount is no overlay: {first}")
        for _ in range(31):
            begin = end = None
            for pid, number, at, done in tracer.calls(command):
                if number == FSOPEN and begin is None:
                    begin, by = at, pid
                elif number == FSMOUNT and begin is not None and end is None and pid == by:
                    end = done
            if end is None:
                sys.exit("bench: no overlay was mounted by fsopen and fsmount")
            took.append((end - begin) * 1e3)
    row("a container's snapshot, made and mounted", statistics.median(took), "", 1, lambda value: f"{value:.2f} ms")


def rmi(layout, references):
    def removed(command):
        def run(root):
            call(corten(root) + ["pull", "--quiet", references["large"]])
            call(["sync"])
            return timed(command(root))
        return run

    result = turns({
        "corten rmi": removed(lambda root: corten(root) + ["rmi", references["large"]]),
        "rm -rf": removed(lambda root: ["rm", "-rf", f"{root}/corten/layers"]),
    })
    ratio("`rmi` of the image", result["corten rmi"][0], result["rm -rf"][0], "`rm -rf` of its tree", 0.7)


def main():
    parts = {"pull": pull, "limit": limit, "load": limit, "memory": memory, "missing": missing, "snapshot": snapshot, "rmi": rmi}
    chosen = dict.fromkeys(parts[name] for name in sys.argv[1:] or parts)
    layout = large()
    assert size(layout) >= 650, size(layout)
    layouts = {"large": layout, "base": part(layout, "base", [0, 1, 2]), "top": part(layout, "top", [3])}
    with Registry(layouts) as references:
        for one in chosen:
            one(layout, references)
    print("| what | figure | of | limit | |\n|---|---|---|---|---|")
    print("\n".join(rows))
    sys.exit(failed)


# podman and containerd take no long paths for their sockets.
SHORT = tempfile.mkdtemp(prefix="cb")
try:
    main()
finally:
    for mount in reversed([line.split()[1] for line in open("/proc/self/mounts") if WORK in line or SHORT in line]):
        subprocess.run(["umount", "--lazy", mount], stderr=subprocess.DEVNULL)
    for directory in (WORK, SHORT, f"{OUT}/base", f"{OUT}/top"):
        shutil.rmtree(directory, ignore_errors=True)
