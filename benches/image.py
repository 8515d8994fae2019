"""image.py DIR: an OCI image layout of 4 gzip layers, over 650 MB compressed, the same bytes on every machine.

Files and sizes are like those of a distribution with a language's libraries: 84,000 files in 8,400 directories,
log-normal sizes, content that gzip makes some 2.3 times smaller (words of a Zipf distribution, and noise).
"""
import hashlib, io, json, multiprocessing, os, random, sys, tarfile, zlib

LAYERS, FILES, MEAN = 4, 21_000, 21_000


def pool(rng):
    """16 MiB of blocks, one of 16 of noise, the others of words; gzip's window is far smaller, so slices do not repeat."""
    words = [rng.randbytes(rng.randint(2, 9)).hex()[: rng.randint(3, 12)] for _ in range(20_000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    blocks = []
    while len(blocks) < 256:
        if len(blocks) % 16 == 15:
            blocks.append(rng.randbytes(65_536))
        else:
            blocks.append(" ".join(rng.choices(words, weights, k=12_000)).encode()[:65_536].ljust(65_536, b"\n"))
    return b"".join(blocks)


class Hashing(io.RawIOBase):
    """Compresses what is written to it; knows the digests of both sides."""

    def __init__(self, path):
        self.file, self.raw, self.packed = open(path, "wb"), hashlib.sha256(), hashlib.sha256()
        self.deflate, self.size = zlib.compressobj(6, zlib.DEFLATED, 31), 0

    def writable(self):
        return True

    def write(self, data):
        self.raw.update(data)
        self._out(self.deflate.compress(data))
        return len(data)

    def _out(self, data):
        self.packed.update(data)
        self.size += len(data)
        self.file.write(data)

    def finish(self):
        self._out(self.deflate.flush())
        self.file.close()


def layer(job):
    directory, number = job
    rng = random.Random(number)
    source = pool(rng)
    path = f"{directory}/layer{number}"
    out = Hashing(path)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        def add(name, data=None):
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = 1_000_000_000, 0o755 if data is None else 0o644
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data) if data is not None else None)

        add(f"part{number}")
        for index in range(FILES):
            if index % 10 == 0:
                add(f"part{number}/dir{index // 10}")
            size = min(int(rng.lognormvariate(0, 1.5) * MEAN / 3.08), 8 << 20)
            start = rng.randrange(len(source))
            data = source[start : start + size]
            data += source[: size - len(data)]
            add(f"part{number}/dir{index // 10}/file{index}", data)
    out.finish()
    digest = "sha256:" + out.packed.hexdigest()
    os.rename(path, f"{directory}/blobs/{digest.replace(':', '/')}")
    return {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": out.size}, out.raw.hexdigest()


def main(directory):
    os.makedirs(f"{directory}/blobs/sha256")

    def blob(kind, value):
        data = json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{directory}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}+json", "digest": f"sha256:{digest}", "size": len(data)}

    with multiprocessing.Pool() as workers:
        layers = workers.map(layer, [(directory, number) for number in range(LAYERS)], chunksize=1)
    config = blob("config.v1", {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{raw}" for _, raw in layers]},
    })
    manifest = blob("manifest.v1", {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": [descriptor for descriptor, _ in layers],
    })
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}
    with open(f"{directory}/oci-layout", "w") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')
    # Last, so that a half-made layout has no index.
    with open(f"{directory}/index.json", "w") as file:
        json.dump(index, file)
    print(f"{sum(descriptor['size'] for descriptor, _ in layers) / 1e6:.0f} MB compressed")


main(sys.argv[1])
