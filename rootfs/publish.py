#!/usr/bin/env python3
"""publish.py ADDRESS: makes the images of the node agent's tests from Debian's packages and pushes them to the
registry at ADDRESS (host:port, plain HTTP); prints the name of each.

Most of them stand in for the images that the suite of Kubernetes' cri-tools asks for: same names, tags, users and
behaviour, but Debian's busybox and nginx inside. What cannot be made again is an image by its digest.
"""
import gzip
import hashlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BUSYBOX = "/bin/busybox"
NGINX = "/usr/sbin/nginx"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

USERS = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUPS = """root:x:0:
daemon:x:1:
www-data:x:33:
nogroup:x:65534:
"""
# Without a terminal and in the foreground, so that the container lives as long as the master process.
SERVER = """daemon off;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 4096; }
http {
    access_log off;
    default_type text/html;
    server { listen %d; listen [::]:%d; root /usr/share/nginx/html; }
}
"""
# Two tools that the suite calls and Debian's busybox lacks.
PGREP = """#!/bin/sh
found=1
for process in /proc/[0-9]*; do
    read -r name 2>/dev/null < $process/comm && [ "$name" = "$1" ] && echo ${process#/proc/} && found=0
done
exit $found
"""
IPCS = """#!/bin/sh
[ "$1" = -m ] || exit 64
echo '------ Shared Memory Segments --------'
tail -n +2 /proc/sysvipc/shm
"""
# What the suite runs as uid 1000 to see whether a set-user-id program gains anything.
EFFECTIVE = '#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf("Effective uid: %d\\n", geteuid()); }\n'
# What holds the namespaces of a pod for runtimes that need a process for it.
PAUSE = '#include <unistd.h>\nint main(void) { for (;;) pause(); }\n'


class Layer:
    """A tar archive in the making; the same calls give the same bytes."""

    def __init__(self):
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w", format=tarfile.PAX_FORMAT)

    def entry(self, name, kind, mode, content=b"", target=""):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime, info.linkname, info.size = kind, mode, 1000000000, target, len(content)
        self.tar.addfile(info, io.BytesIO(content))
        return self

    def directory(self, name, mode=0o755):
        return self.entry(name, tarfile.DIRTYPE, mode)

    def file(self, name, content, mode=0o644):
        return self.entry(name, tarfile.REGTYPE, mode, content.encode() if isinstance(content, str) else content)

    def link(self, name, target):
        return self.entry(name, tarfile.SYMTYPE, 0o777, target=target)

    def finish(self):
        """The compressed layer and the digest of what is in it."""
        self.tar.close()
        content = self.bytes.getvalue()
        return gzip.compress(content, 6, mtime=0), digest(content)


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def busybox_layer():
    layer = Layer()
    for name in ["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "var", "www"]:
        layer.directory(name)
    layer.directory("tmp", 0o1777).link("var/run", "/run")
    layer.file("bin/busybox", read(BUSYBOX), 0o755)
    tools = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for tool in tools:
        # Hard links, so that a path that is masked is one tool and not all of them.
        if tool != "busybox":
            layer.entry("bin/" + tool, tarfile.LNKTYPE, 0o755, target="bin/busybox")
    layer.file("bin/pgrep", PGREP, 0o755).file("bin/ipcs", IPCS, 0o755)
    layer.file("etc/passwd", USERS).file("etc/group", GROUPS).file("www/index.html", "hello\n")
    return layer.finish()


def nginx_layer(port):
    """Debian's nginx with the libraries that it is linked with, serving one page."""
    layer = Layer()
    listed = subprocess.run(["ldd", NGINX], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", listed)
    directories = {os.path.dirname(path).lstrip("/") for path in libraries}
    for name in sorted({*(p for d in directories for p in parents(d)), "etc/nginx", "usr/sbin", "usr/share",
                        "usr/share/nginx", "usr/share/nginx/html", "var/lib", "var/lib/nginx", "var/log",
                        "var/log/nginx"}):
        layer.directory(name)
    for path in sorted(libraries):
        layer.file(path.lstrip("/"), read(path), 0o755)
    layer.file("usr/sbin/nginx", read(NGINX), 0o755)
    layer.file("etc/nginx/nginx.conf", SERVER % (port, port))
    layer.file("usr/share/nginx/html/index.html", "<h1>Welcome to nginx</h1>\n")
    return layer.finish()


def parents(path):
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def program_layer(name, source, mode):
    """A static program made from C."""
    with tempfile.TemporaryDirectory() as work:
        program = os.path.join(work, name)
        subprocess.run(["gcc", "-static", "-Os", "-s", "-x", "c", "-o", program, "-"], check=True,
                       input=source, text=True)
        return Layer().file(name, read(program), mode).finish()


def predefined_group_layer():
    passwd = USERS + "default-user:x:1000:1000::/home/default-user:/bin/sh\n"
    groups = GROUPS + "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
    return Layer().directory("etc").file("etc/passwd", passwd).file("etc/group", groups).finish()


def marked_layer(mark):
    """Makes an image another one."""
    return Layer().file(mark, mark + "\n").finish()


class Registry:
    """Pushes to a registry over one connection."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=60)

    def ask(self, method, url, body=None, headers=None, accept=(200,)):
        self.connection.request(method, url, body=body, headers=headers or {})
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status not in accept:
            sys.exit(f"publish: {method} {url}: {answer.status} {content.decode(errors='replace')}")
        return answer

    def blob(self, repository, content):
        name = digest(content)
        if self.ask("HEAD", f"/v2/{repository}/blobs/{name}", accept=(200, 404)).status == 200:
            return name
        begun = self.ask("POST", f"/v2/{repository}/blobs/uploads/", accept=(202,))
        place = re.sub(r"^https?://[^/]*", "", begun.headers["Location"])
        place += ("&" if "?" in place else "?") + "digest=" + name
        self.ask("PUT", place, content, {"Content-Type": "application/octet-stream"}, accept=(201,))
        return name

    def image(self, reference, layers, config):
        repository, tag = reference.rsplit(":", 1)
        document = {"created": "2001-09-09T01:46:40Z", "architecture": "amd64", "os": "linux",
                    "config": {"Env": [PATH], **config},
                    "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}}
        config = json.dumps(document).encode()
        manifest = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": self.blob(repository, config), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": self.blob(repository, content), "size": len(content)}
                       for content, _ in layers]}).encode()
        self.ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": MANIFEST}, accept=(201,))
        print(f"{repository}:{tag}")


def main(address):
    registry, base = Registry(address), busybox_layer()
    shell = {"Cmd": ["sh"]}
    server = {"Entrypoint": ["nginx"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}
    web = ["sh", "-c", "echo httpd serves /www; exec httpd -f -p 80 -h /www"]

    registry.image("e2e-test-images/busybox:1.29-2", [base], shell)
    nginx = [base, nginx_layer(80)]
    registry.image("e2e-test-images/nginx:1.14-2", nginx, server)
    registry.image("e2e-test-images/httpd:2.4.39-4", [base], {"Cmd": web})
    registry.image("e2e-test-images/nonewprivs:1.3", [base, program_layer("effective", EFFECTIVE, 0o4755)], {"Cmd": ["/effective"]})
    registry.image("pause:3.9", [program_layer("pause", PAUSE, 0o755)], {"Entrypoint": ["/pause"]})

    staging = "k8s-staging-cri-tools/"
    registry.image(staging + "hostnet-nginx-amd64:latest", [base, nginx_layer(12003)], server)
    for name in ["latest:latest", "tag:test", "tag:all", "1:latest", "2:latest", "3:latest"]:
        registry.image(f"{staging}test-image-{name}", [base, marked_layer(name.replace(":", "-"))], shell)
    for tag in ["1", "2", "3"]:
        registry.image(f"{staging}test-image-tags:{tag}", [base, marked_layer("tags")], shell)
    for name, user in [("uid", "1002"), ("username", "www-data"), ("uid-group", "1003:1004"),
                       ("username-group", "www-data:100")]:
        registry.image(f"{staging}test-image-user-{name}:latest", [base], {**shell, "User": user})
    registry.image(f"{staging}test-image-predefined-group:latest", [base, predefined_group_layer()],
                   {**shell, "User": "1000"})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
