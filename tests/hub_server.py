"""A stand-in for the model hub: the routes that huggingface_hub calls for an upload, on the loopback interface.

It keeps what it is sent. What does not add up (digests, sizes, commits of objects that were not uploaded) is refused,
as the real one does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_tests"
LARGE = (".safetensors", ".png")  # what goes through LFS, as .gitattributes of a new repository says


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


class Hub(ThreadingHTTPServer):
    """repositories: by id. objects: LFS content by SHA-256. calls: method and path of each request.

    answers: status codes for the next requests whose path matches a pattern, in place of the usual answer.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.calls: list[str] = []
        self.answers: list[tuple[str, int]] = []
        self.entered = threading.Event()  # an upload has begun
        self.go_on = threading.Event()  # it may be answered
        self.go_on.set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        self.route("GET")

    def do_POST(self) -> None:
        self.route("POST")

    def do_PUT(self) -> None:
        self.route("PUT")

    def route(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.server.calls.append(f"{method} {path}")
        for entry in self.server.answers:
            if re.search(entry[0], path):
                self.server.answers.remove(entry)
                self.answer({"error": "as the test wants it"}, entry[1])
                return
        if not path.startswith("/objects/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid user token."}, 401)
            return
        for pattern, handle in ROUTES:
            found = re.fullmatch(pattern, f"{method} {path}")
            if found:
                handle(self, body, *found.groups())
                return
        self.answer({"error": f"no route {method} {path}"}, 404)

    def answer(self, document: Any, status: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status >= 400:
            self.send_header("X-Error-Message", document["error"])
        self.end_headers()
        self.wfile.write(content)

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != "me":
            self.answer({"error": f"You don't have the rights to create a model under {wanted['organization']}"}, 403)
            return
        place = {"url": f"{self.server.address}/{name}", "name": name, "id": "0"}
        if name in self.server.repositories:
            self.answer(place | {"error": "You already created this model repo"}, 409)
            return
        self.server.repositories[name] = Repository(
            wanted.get("visibility") == "private" or bool(wanted.get("private"))
        )
        self.answer(place)

    def info(self, _: bytes, name: str) -> None:
        repository = self.server.repositories.get(name)
        if repository is None:
            self.answer({"error": "Repository not found"}, 404)
            return
        sha = f"{len(repository.commits):040x}"
        facts = {"id": name, "modelId": name, "private": repository.private, "sha": sha}
        self.answer(facts | {"siblings": [], "tags": []})

    def preupload(self, body: bytes, name: str) -> None:
        old = self.server.repositories[name].files
        files = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            mode = "lfs" if path.endswith(LARGE) else "regular"
            known = old.get(path)
            digest = (lambda content: hashlib.sha256(content).hexdigest()) if mode == "lfs" else git_id
            oid = None if known is None else digest(known)
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer({"files": files})

    def batch(self, body: bytes, _: str) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            link = {"href": f"{self.server.address}/objects/{wanted['oid']}", "header": {}}
            actions = {} if wanted["oid"] in self.server.objects else {"actions": {"upload": link}}
            objects.append({"oid": wanted["oid"], "size": wanted["size"], **actions})
        self.answer({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, digest: str) -> None:
        self.server.entered.set()
        self.server.go_on.wait(60)
        if hashlib.sha256(body).hexdigest() != digest:
            self.answer({"error": "content of another digest"}, 400)
            return
        self.server.objects[digest] = body
        self.answer({})

    def commit(self, body: bytes, name: str) -> None:
        repository = self.server.repositories[name]
        changed: dict[str, bytes] = {}
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content = self.server.objects.get(value["oid"])
                if content is None or len(content) != value["size"]:
                    self.answer({"error": f"{value['path']}: its object was not uploaded"}, 400)
                    return
                changed[value["path"]] = content
            elif entry["key"] == "header":
                repository.commits.append(value["summary"])
        repository.files |= changed
        oid = f"{len(repository.commits):040x}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": f"{self.server.address}/{name}/commit/{oid}"})

    def metadata(self, _: bytes) -> None:
        self.answer({"warnings": [], "errors": []})


NAME = r"([\w-]+/[\w.-]+)"
ROUTES = (
    ("POST /api/repos/create", Handler.create),
    (f"GET /api/models/{NAME}(?:/revision/main)?", Handler.info),
    (f"POST /api/models/{NAME}/preupload/main", Handler.preupload),
    (f"POST /{NAME}\\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /objects/(\w+)", Handler.upload),
    (f"POST /api/models/{NAME}/commit/main", Handler.commit),
    ("POST /api/validate-yaml", Handler.metadata),
)


def git_id(content: bytes) -> str:
    """The id that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub that listens until the block ends."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()
