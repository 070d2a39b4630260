"""Buckets on this machine: the JSON API of Google Cloud Storage, as far as it is used.

The clients are the real ones (TensorStore, gcsfs, google-cloud-storage): all three take
another server's address from the environment. Objects live in memory.
https://cloud.google.com/storage/docs/json_api/v1
"""

import base64
import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

# Not by importing it: what it does is decided then, by the environment of `serve`.
needs_gcsfs = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is None,
    reason="gcsfs is in requirements-tpu.txt and requirements-test.txt",
)
TIME = "2026-01-01T00:00:00.000Z"


class Buckets:
    """All objects: {(bucket, name): (content, generation)}; `log` has the requests."""

    def __init__(self, *names: str):
        self.names = set(names)
        self.objects: dict[tuple[str, str], tuple[bytes, int]] = {}
        self.log: list[tuple[str, str]] = []
        self.sent = 0  # bytes of the last answer
        self.uploads: dict[str, tuple[str, str, bytearray]] = {}
        self.counter = itertools.count(1)
        self.refused: set[str] = set()  # buckets that may not be looked at
        self.quota: int | None = None  # uploads that are still taken
        self.lock = threading.RLock()

    def put(self, bucket: str, name: str, content: bytes) -> dict:
        with self.lock:
            self.objects[bucket, name] = (bytes(content), next(self.counter))
        return self.about(bucket, name)

    def folder(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """{rest of the name: content} of what is below a prefix."""
        prefix = prefix.rstrip("/") + "/"
        with self.lock:
            return {
                name.removeprefix(prefix): content
                for (b, name), (content, _) in sorted(self.objects.items())
                if b == bucket and name.startswith(prefix)
            }

    def upload(self, bucket: str, folder, prefix: str = "") -> None:
        """Copies a local folder into a bucket."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = path.relative_to(folder).as_posix()
            self.put(bucket, f"{prefix}/{name}".lstrip("/"), path.read_bytes())

    def about(self, bucket: str, name: str) -> dict:
        content, generation = self.objects[bucket, name]
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{generation}",
            "bucket": bucket,
            "name": name,
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(content)),
            "md5Hash": md5,
            "etag": str(generation),
            "contentType": "application/octet-stream",
            "storageClass": "STANDARD",
            "timeCreated": TIME,
            "updated": TIME,
        }


@contextlib.contextmanager
def served(*names: str):
    """As `serve`, with this process's clients turned to it, and away from it again."""
    from unittest import mock

    with serve(*names) as (buckets, environment):
        with mock.patch.dict(os.environ, environment):
            _forget()
            yield buckets
        _forget()


def _forget() -> None:
    """Clients keep the address that they were made with."""
    import gcsfs
    from etils.epath import backend
    from orbax.checkpoint._src.path import gcs_utils

    gcsfs.GCSFileSystem.clear_instance_cache()
    backend.fsspec_backend._get_filesystem.cache_clear()
    gcs_utils.get_bucket.cache_clear()


class _Server(ThreadingHTTPServer):
    """Silent about clients that hang up: what a command prints is what tests read."""

    def handle_error(self, request, client_address):
        pass


@contextlib.contextmanager
def serve(*names: str):
    """Buckets of these names, and the environment in which clients find them."""
    buckets = Buckets(*names)
    handler = type("Handler", (_Handler,), {"buckets": buckets})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        "GOOGLE_CLOUD_PROJECT": "project",
        "NO_GCE_CHECK": "true",
        # Else gcsfs asks Google, by gRPC, of what kind a bucket is.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    try:
        yield buckets, environment
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    buckets: Buckets

    def log_message(self, *_):
        """Nothing: the output is that of the tests."""

    def do_GET(self):
        self._handle("GET")

    def do_POST(self):
        self._handle("POST")

    def do_PUT(self):
        self._handle("PUT")

    def do_DELETE(self):
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        body = self._body()
        self.buckets.log.append((method, self.path))
        code, headers, content = self._answer(method, self.path, body)
        self.buckets.sent = len(content)
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked may be gone
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, method: str, path: str, body: bytes):
        """(status, headers, content) of a request."""
        parts = urlsplit(path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        place = parts.path
        if place.startswith("/batch/storage/v1"):
            return self._batch(body)
        found = re.fullmatch(
            r"(/upload|/download)?/storage/v1/b/([^/]+)(/o(?:/(.+))?)?", place
        )
        if not found:
            return _error(501, f"not known here: {method} {path}")
        kind, bucket, objects, name = found.groups()
        if bucket in self.buckets.refused:
            return _error(403, "storage.objects.list is not allowed")
        if bucket not in self.buckets.names:
            return _error(404, f"no bucket {bucket}")
        if objects is None:
            return _json({"kind": "storage#bucket", "id": bucket, "name": bucket})
        with self.buckets.lock:
            if kind == "/upload":
                return self._upload(method, bucket, query, body)
            if name is None:
                return _json(self._list(bucket, query))
            if "/rewriteTo/b/" in name:
                return self._copy(bucket, name)
            return self._object(method, bucket, unquote(name), query, kind)

    def _object(self, method: str, bucket: str, name: str, query: dict, kind):
        store = self.buckets
        if (bucket, name) not in store.objects:
            return _error(404, f"no object {name}")
        content, generation = store.objects[bucket, name]
        if method == "DELETE":
            del store.objects[bucket, name]
            return 204, {}, b""
        if query.get("alt") != "media" and kind != "/download":
            return _json(store.about(bucket, name))
        headers = {
            "x-goog-generation": str(generation),
            "x-goog-stored-content-length": str(len(content)),
            "ETag": f'"{generation}"',
            "Content-Type": "application/octet-stream",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return 200, headers, content
        start = int(wanted[1])
        end = min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if start >= len(content):
            return _error(416, "no such bytes")
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return 206, headers, content[start : end + 1]

    def _list(self, bucket: str, query: dict) -> dict:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, folders = [], {}
        for b, name in sorted(self.buckets.objects):
            if b != bucket or not name.startswith(prefix):
                continue
            if not query.get("startOffset", "") <= name:
                continue
            if "endOffset" in query and name >= query["endOffset"]:
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
            else:
                items.append(self.buckets.about(bucket, name))
        found = {"kind": "storage#objects"}
        found |= {"items": items} if items else {}
        return found | ({"prefixes": list(folders)} if folders else {})

    def _upload(self, method: str, bucket: str, query: dict, body: bytes):
        store, kind = self.buckets, query.get("uploadType")
        if method == "PUT" or "upload_id" in query:
            return self._chunk(query["upload_id"], body)
        if store.quota == 0:
            return _error(403, "no quota is left")
        store.quota = store.quota and store.quota - 1
        name = query.get("name")
        if kind == "multipart":
            about, body = _two_parts(self.headers["Content-Type"], body)
            name = name or about["name"]
        elif kind == "resumable":
            name = name or json.loads(body)["name"]
        held = store.objects.get((bucket, name), (b"", 0))[1]
        if int(query.get("ifGenerationMatch", held)) != held:
            return _error(412, "another generation")
        if kind != "resumable":
            return _json(store.put(bucket, name, body))
        number = str(next(store.counter))
        store.uploads[number] = (bucket, name, bytearray())
        host = self.headers["Host"]
        where = f"http://{host}/upload/storage/v1/b/{quote(bucket)}/o"
        location = f"{where}?uploadType=resumable&upload_id={number}"
        return 200, {"Location": location}, b""

    def _chunk(self, number: str, body: bytes):
        bucket, name, content = self.buckets.uploads[number]
        content += body
        total = self.headers.get("Content-Range", "bytes */0").rpartition("/")[2]
        if total == "*" or int(total) > len(content):
            received = {"Range": f"bytes=0-{len(content) - 1}"} if content else {}
            return 308, received, b""
        return _json(self.buckets.put(bucket, name, content))

    def _copy(self, bucket: str, name: str):
        source, _, target = name.partition("/rewriteTo/b/")
        other, _, copy = target.partition("/o/")
        if (bucket, unquote(source)) not in self.buckets.objects:
            return _error(404, f"no object {source}")
        content = self.buckets.objects[bucket, unquote(source)][0]
        about = self.buckets.put(other, unquote(copy), content)
        return _json(
            {"kind": "storage#rewriteResponse", "done": True, "resource": about}
        )

    def _batch(self, body: bytes):
        """Deletions, several in one request."""
        answers = []
        for line in re.findall(rb"^DELETE (\S+) HTTP", body, re.MULTILINE):
            code = self._answer("DELETE", urlsplit(line.decode()).path, b"")[0]
            reason = "No Content" if code == 204 else "Not Found"
            answers.append(
                "--batch\r\nContent-Type: application/http\r\n"
                f"Content-ID: <response-{len(answers) + 1}>\r\n\r\n"
                f"HTTP/1.1 {code} {reason}\r\nContent-Length: 0\r\n\r\n"
            )
        content = "".join([*answers, "--batch--\r\n"]).encode()
        return 200, {"Content-Type": "multipart/mixed; boundary=batch"}, content


def _two_parts(content_type: str, body: bytes) -> tuple[dict, bytes]:
    """(what is said of an object, its content) of a multipart upload."""
    mark = b"--" + content_type.partition("boundary=")[2].strip("\"'").encode()
    _, about, content, _ = (
        body.split(mark, 3) if body.count(mark) == 3 else _cut(body, mark)
    )
    skip = re.compile(rb"\r?\n\r?\n")
    about, content = (skip.split(part, maxsplit=1)[1] for part in (about, content))
    return json.loads(about), re.sub(rb"\r?\n\Z", b"", content)


def _cut(body: bytes, mark: bytes):
    """The same where the content has the mark in it: the last one ends it."""
    first, about, rest = body.split(mark, 2)
    content, _, end = rest.rpartition(mark)
    return first, about, content, end


def _json(value: dict):
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _error(code: int, message: str):
    content = json.dumps({"error": {"code": code, "message": message}}).encode()
    return code, {"Content-Type": "application/json"}, content
