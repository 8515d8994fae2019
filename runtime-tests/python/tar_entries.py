"""Lists the entries of tar archives as Python's tarfile reads them.

    tar_entries.py < ARCHIVES

ARCHIVES is one archive after the other, each with its length before it (8 bytes, little-endian). For each a line of JSON
is written: a list of entries, or null where tarfile refuses the archive. Names are text with one character for each byte.
"""

import io
import json
import struct
import sys
import tarfile

KINDS = {
    tarfile.REGTYPE: "f", tarfile.AREGTYPE: "f", tarfile.CONTTYPE: "f", tarfile.LNKTYPE: "h", tarfile.SYMTYPE: "l",
    tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.DIRTYPE: "d", tarfile.FIFOTYPE: "p",
}


def raw(name):
    return name.encode("utf-8", "surrogateescape").decode("latin-1")


def entry(member):
    kind = KINDS.get(member.type, "?")
    return {
        "kind": kind,
        "path": raw(member.name).rstrip("/"),
        "target": raw(member.linkname) if kind in "hl" else "",
        "size": member.size if kind == "f" else 0,
        "mode": member.mode & 0o7777,
        "uid": member.uid,
        "gid": member.gid,
        "mtime": int(member.mtime // 1) if abs(member.mtime) < 2**53 else None,
        "device": [member.devmajor, member.devminor] if kind in "cb" else None,
    }


def entries(archive):
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            return [entry(member) for member in tar]
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError):
        return None


def main():
    source = sys.stdin.buffer
    while length := source.read(8):
        print(json.dumps(entries(source.read(struct.unpack("<Q", length)[0]))))


main()
