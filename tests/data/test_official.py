"""Official files over a real local server and from folders: digests checked, nothing half written, clear errors."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ropewalk.data.official import FILES, OfficialFile, blob_digest, choose, fetch, found_in, take
from ropewalk.errors import DataError, PrerequisiteError

CONTENT = b"a line\n" * 100_000
FILE = OfficialFile("folder/some file.jsonl.gz", blob_digest(CONTENT))


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under FILE's path, and what goes wrong with servers under other first folders."""

    def do_GET(self) -> None:
        kind, _, path = self.path.removeprefix("/").partition("/")
        if path != "folder/some%20file.jsonl.gz" or kind == "missing":
            return self.send_error(404)
        body = {"changed": CONTENT[:-1] + b"!", "cut": CONTENT[:-5]}.get(kind, CONTENT)
        self.send_response(200)
        if kind != "unannounced":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if kind == "silent":
            stopped.wait(5)
        else:
            self.wfile.write(body)
        return None

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


stopped = threading.Event()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        stopped.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize("kind", ["good", "unannounced"])
def test_a_file_is_fetched_once(server: str, tmp_path: Path, kind: str) -> None:
    heard: list[tuple[int, int | None]] = []
    out = tmp_path / "new" / "folder"
    assert fetch(FILE, out, f"{server}/{kind}", on_bytes=lambda done, total: heard.append((done, total))) == "fetched"
    assert (out / "some file.jsonl.gz").read_bytes() == CONTENT
    assert [path.name for path in out.iterdir()] == ["some file.jsonl.gz"]
    total = len(CONTENT) if kind == "good" else None
    assert heard[-1] == (len(CONTENT), total)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert len(heard) > 1
    assert fetch(FILE, out, "http://127.0.0.1:9") == "already there"


def test_a_file_of_other_content_is_replaced(server: str, tmp_path: Path) -> None:
    (tmp_path / FILE.name).write_bytes(b"half a file")
    assert fetch(FILE, tmp_path, f"{server}/good") == "fetched"
    assert (tmp_path / FILE.name).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("changed", "what came (700000 bytes, git digest "),
        ("cut", "what came (699995 bytes, git digest "),
        ("missing", "can't be fetched (Not Found)"),
        ("silent", "can't be fetched (timed out)"),
    ],
)
def test_what_is_not_the_official_file_gets_no_name(server: str, tmp_path: Path, kind: str, message: str) -> None:
    (tmp_path / FILE.name).write_bytes(b"before")
    with pytest.raises((DataError, PrerequisiteError)) as caught:
        fetch(FILE, tmp_path, f"{server}/{kind}", timeout=0.2)
    assert message in str(caught.value)
    assert f"{server}/{kind}/folder/some%20file.jsonl.gz" in str(caught.value)
    assert (tmp_path / FILE.name).read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_no_network_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"can't be fetched \(.*refused.*\).*get the repository.*--from FOLDER"):
        fetch(FILE, tmp_path, "http://127.0.0.1:9")


def test_the_digest_is_gits() -> None:
    assert blob_digest(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert blob_digest(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert blob_digest(CONTENT) == hashlib.sha1(b"blob 700000\0" + CONTENT).hexdigest()


def test_a_file_is_taken_from_anywhere_below_a_folder(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for place, content in (("a", b"another file of that name"), ("b/c", CONTENT)):
        (source / place).mkdir(parents=True)
        (source / place / FILE.name).write_bytes(content)
    assert take(FILE, out, source) == "copied"
    assert (out / FILE.name).read_bytes() == CONTENT
    assert take(FILE, out, source) == "already there"


def test_a_folder_without_the_file_or_with_another_one_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with pytest.raises(DataError, match="source: no such folder"):
        take(FILE, tmp_path, source)
    source.mkdir()
    with pytest.raises(DataError, match=r"source: no some file\.jsonl\.gz in it or below; the repository .* has it at"):
        take(FILE, tmp_path, source)
    (source / FILE.name).write_bytes(CONTENT[1:])
    with pytest.raises(DataError, match=rf"some file\.jsonl\.gz: not the official file, .* {FILE.digest}"):
        take(FILE, tmp_path, source)
    assert not (tmp_path / FILE.name).exists()


def test_what_a_folder_has_is_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no official file in it or below"):
        found_in(tmp_path)
    (tmp_path / "deep").mkdir()
    for name in ("nq-open-oracle.jsonl.gz", "deep/kv-retrieval-75_keys.jsonl.gz", "other.jsonl.gz"):
        (tmp_path / name).touch()
    assert [file.name for file in found_in(tmp_path)] == ["kv-retrieval-75_keys.jsonl.gz", "nq-open-oracle.jsonl.gz"]


def test_names_may_lack_their_ending_and_none_means_all() -> None:
    assert [file.path for file in choose(["nq-open-oracle", "kv-retrieval-300_keys.jsonl.gz"])] == [
        "qa_data/nq-open-oracle.jsonl.gz",
        "kv_retrieval_data/kv-retrieval-300_keys.jsonl.gz",
    ]
    assert choose([]) == list(FILES)
    with pytest.raises(DataError, match=r"'nq-oracle'; did you mean 'nq-open-oracle\.jsonl\.gz'\? .*--list"):
        choose(["nq-oracle"])


@pytest.mark.parametrize(
    ("check", "count"),
    [
        (lambda file: file.path.startswith("kv_retrieval_data/kv-retrieval-"), 3),
        (lambda file: "/10_total_documents/nq-open-10_total" in file.path, 3),
        (lambda file: "/20_total_documents/nq-open-20_total" in file.path, 5),
        (lambda file: "/30_total_documents/nq-open-30_total" in file.path, 7),
        (lambda file: len(file.digest) == 40 and not set(file.digest) - set("0123456789abcdef"), 19),
    ],
)
def test_the_list_is_complete(check: Callable[[OfficialFile], bool], count: int) -> None:
    assert sum(map(check, FILES)) == count
    assert len(FILES) == len({file.name for file in FILES}) == len({file.digest for file in FILES}) == 19
