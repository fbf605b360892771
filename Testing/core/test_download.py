"""Downloading weights from real servers on the loopback interface: good ones, broken ones, slow ones, none."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from mri_deep_tools import models
from mri_deep_tools._download import content_fault
from mri_deep_tools._registry import ModelFile, source_fault
from mri_deep_tools.errors import CancelledError, DownloadError, OutputError, RequestError
from mri_deep_tools.progress import Progress

DATA = np.random.default_rng(7).bytes(300_000)
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])
BLOCK = 20_000


@dataclass
class Route:
    """How the server answers for one path."""

    data: bytes = DATA
    ranges: bool = True
    status: int = 200  # another status is the whole answer, ``failures`` times
    failures: int = 1_000_000
    cut: int | None = None  # close the connection after so many bytes of a body, ``cuts`` times
    cuts: int = 1
    stall: int | None = None  # fall silent after so many bytes of a body, ``cuts`` times
    pause: float = 0.0  # seconds between blocks
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True
    shift: int = 0  # answer a range request with another range


class Site:
    """A web server with one route per path, which keeps a list of (path, Range header)."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.requests.append((self.path, self.headers.get("Range")))
                route = site.routes.get(self.path.split("/")[-1])
                if route is None:
                    self.send_error(404)
                elif route.status != 200 and route.failures > 0:
                    route.failures -= 1
                    self.send_response(route.status)
                    for name, value in route.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self.answer(route)

            def answer(self, route):
                wanted = self.headers.get("Range")
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and route.ranges else 0
                start = max(start - route.shift, 0)
                body = route.data[start:]
                self.send_response(206 if wanted and route.ranges else 200)
                if wanted and route.ranges:
                    last, total = len(route.data) - 1, len(route.data)
                    self.send_header("Content-Range", f"bytes {start}-{last}/{total}")
                if route.length:
                    self.send_header("Content-Length", str(len(body)))
                for name, value in route.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                stop = len(body)
                for limit in (route.cut, route.stall):
                    if limit is not None and route.cuts > 0:
                        stop = min(stop, limit)
                for begin in range(0, stop, BLOCK):
                    self.wfile.write(body[begin : min(begin + BLOCK, stop)])
                    time.sleep(route.pause)
                if stop < len(body):
                    route.cuts -= 1
                    if route.stall is not None:
                        self.wfile.flush()
                        site.released.wait(20)
                self.close_connection = True

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # a client that goes away is part of these tests
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.scheme = "http" if context is None else "https"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def url(self, name, host="127.0.0.1"):
        return f"{self.scheme}://{host}:{self.server.server_port}/files/{name}"

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Return a function that declares one model with these sources; cache and registry are the test's own."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MRI_DEEP_TOOLS_OFFLINE", "FREESURFER_HOME", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MRI_DEEP_TOOLS_REGISTRY", str(tmp_path / "registry.json"))

    def declare(*sources, data=DATA, **changes):
        file = {
            "name": "weights.h5",
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "sources": list(sources),
        } | changes
        entry = {
            "name": "test-net",
            "task": "segment",
            "description": "for tests",
            "licence": "CC0-1.0",
            "citation": ["none"],
            "input_needs": {"dims": 3},
            "files": [file],
        }
        (tmp_path / "registry.json").write_text(json.dumps({"format": 1, "models": [entry]}))
        return tmp_path / "cache" / "models" / "test-net" / "weights.h5"

    return declare


def part_of(target):
    return target.with_name("weights.h5.part")


def origin_of(target):
    return json.loads(target.with_name("weights.h5.record.json").read_text())["origin"]


def test_a_file_arrives_whole_with_progress(world, site):
    site.routes["a"] = Route()
    target = world(site.url("a"))
    events = []
    assert models.download("test-net", Progress(events.append, [("download", 1)])) == [target]
    assert target.read_bytes() == DATA
    assert sorted(path.name for path in target.parent.iterdir()) == [
        ".weights.h5.lock",
        "weights.h5",
        "weights.h5.record.json",
    ]
    fractions = [event.fraction for event in events if event.event == "progress"]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    record = json.loads(target.with_name("weights.h5.record.json").read_text())
    assert record["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert record["checksum"] == "published" and record["origin"] == "download from 127.0.0.1"
    assert models.model_path("test-net") == target and models.model_status("test-net") == "installed"
    models.download("test-net")
    assert len(site.requests) == 1


def test_progress_follows_the_bytes(world, site):
    site.routes["a"] = Route(pause=0.03)
    world(site.url("a"))
    events = []
    models.download("test-net", Progress(events.append, [("download", 1)]))
    inner = [event.fraction for event in events if event.event == "progress" and 0 < event.fraction < 1]
    assert len(inner) >= 2 and all(0 < fraction < 1 for fraction in inner)


def test_second_mirror_after_404(world, site):
    site.routes["b"] = Route()
    target = world(site.url("a"), site.url("b", "localhost"))
    models.download("test-net")
    assert target.read_bytes() == DATA and origin_of(target) == "download from localhost"
    assert [path for path, _ in site.requests] == ["/files/a", "/files/b"]


def test_cut_connection_goes_on_where_it_stopped(world, site):
    site.routes["a"] = Route(cut=100_000, cuts=2)
    target = world(site.url("a"))
    models.download("test-net")
    assert target.read_bytes() == DATA
    assert [wanted for _, wanted in site.requests] == [None, "bytes=100000-", "bytes=200000-"]


def test_cut_connection_without_ranges_begins_anew(world, site):
    site.routes["a"] = Route(cut=100_000, ranges=False)
    target = world(site.url("a"))
    models.download("test-net")
    assert target.read_bytes() == DATA
    assert [wanted for _, wanted in site.requests] == [None, "bytes=100000-"]


def test_second_mirror_goes_on_where_the_first_stopped(world, site):
    site.routes |= {"a": Route(cut=100_000, cuts=99), "b": Route()}
    target = world(site.url("a"), site.url("b"))
    models.download("test-net")
    assert target.read_bytes() == DATA
    assert site.requests == [("/files/a", None), ("/files/b", "bytes=100000-")]


def test_server_that_always_cuts_is_given_up(world, site):
    site.routes["a"] = Route(cut=100_000, cuts=99, ranges=False)
    target = world(site.url("a"))
    with pytest.raises(
        DownloadError, match=r"from its source \(127\.0\.0\.1:\d+: connection cut after 100\.0 kB of 300\.0"
    ):
        models.download("test-net")
    assert not target.exists() and len(site.requests) == 4


def test_wrong_content_is_never_placed(world, site):
    site.routes |= {"a": Route(WRONG), "b": Route()}
    target = world(site.url("a"), site.url("b"))
    models.download("test-net")
    assert target.read_bytes() == DATA
    target.unlink()
    target = world(site.url("a"))
    with pytest.raises(DownloadError, match="gave other content than the published file") as caught:
        models.download("test-net")
    assert not target.exists() and not part_of(target).exists()
    assert "models import FOLDER" in caught.value.hint and caught.value.exit_status == 1


def test_wrong_bytes_of_one_source_do_not_spoil_another(world, site):
    site.routes |= {"a": Route(bytes(len(DATA)), cut=100_000, cuts=99), "b": Route()}
    target = world(site.url("a"), site.url("b"))
    models.download("test-net")
    assert target.read_bytes() == DATA


def test_wrong_size_is_refused_before_the_body(world, site):
    page = b"<html>moved</html>"
    site.routes |= {"a": Route(page, headers={"Content-Type": "text/html"}), "b": Route(DATA + b"x")}
    target = world(site.url("a"), site.url("b"))
    with pytest.raises(DownloadError) as caught:
        models.download("test-net")
    assert "has a web page of 18 bytes instead of 300,000" in caught.value.message
    assert "has a file of 300,001 bytes instead of 300,000" in caught.value.message
    assert "any of its 2 sources" in caught.value.message and not target.exists()


def test_body_of_unannounced_length(world, site):
    site.routes["a"] = Route(length=False)
    target = world(site.url("a"))
    models.download("test-net")
    assert target.read_bytes() == DATA
    target.unlink()
    site.routes["a"] = Route(DATA + b"more", length=False)
    with pytest.raises(DownloadError, match="sends more than the 300,000 bytes"):
        models.download("test-net")
    part_of(target).unlink()
    site.routes["a"] = Route(b"<html>", length=False, headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(DownloadError, match="gave a web page instead of the file"):
        models.download("test-net")


def test_stalled_server_times_out_and_the_next_goes_on(world, site):
    site.routes |= {"a": Route(stall=100_000, cuts=99), "b": Route()}
    target = world(site.url("a"), site.url("b"))
    begin = time.monotonic()
    models.download("test-net", timeout=0.4)
    assert 0.4 <= time.monotonic() - begin < 5
    assert target.read_bytes() == DATA and site.requests[1] == ("/files/b", "bytes=100000-")


def test_server_that_never_answers(world):
    with socket.socket() as silent:  # accepts connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        world(f"http://127.0.0.1:{silent.getsockname()[1]}/a")
        with pytest.raises(DownloadError, match=r"no answer within 0\.2 s"):
            models.download("test-net", timeout=0.2)


def test_no_server_at_all(world):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world(f"http://127.0.0.1:{port}/a")
    with pytest.raises(DownloadError, match="Connection refused") as caught:
        models.download("test-net")
    assert caught.value.hint.startswith("check the network")


def test_busy_server_is_asked_again(world, site):
    site.routes["a"] = Route(status=503, failures=2)
    target = world(site.url("a"))
    models.download("test-net")
    assert target.read_bytes() == DATA and len(site.requests) == 3


def test_forbidden_is_final(world, site):
    site.routes["a"] = Route(status=403)
    world(site.url("a"))
    with pytest.raises(DownloadError, match="403 Forbidden"):
        models.download("test-net")
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("left", "asked"),
    [
        (DATA[:123_456], ["bytes=123456-"]),
        (DATA, []),  # complete, but never put in its place
        (WRONG, [None]),
        (DATA + b"x", [None]),
        (bytes(50_000), ["bytes=50000-", None]),  # not the beginning of the file
    ],
    ids=["begun", "complete", "complete but wrong", "too long", "other content"],
)
def test_part_of_an_earlier_run(world, site, left, asked):
    site.routes["a"] = Route()
    target = world(site.url("a"))
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(left)
    models.download("test-net")
    assert target.read_bytes() == DATA and not part_of(target).exists()
    assert [wanted for _, wanted in site.requests] == asked


def test_range_that_does_not_fit(world, site):
    site.routes["a"] = Route(shift=10)
    target = world(site.url("a"))
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(DATA[:1000])
    models.download("test-net")
    assert target.read_bytes() == DATA
    site.routes["a"] = Route(status=416, failures=1)
    target.unlink()
    part_of(target).write_bytes(DATA[:1000])
    models.download("test-net")
    assert target.read_bytes() == DATA


def run_download(count=1):
    code = "from mri_deep_tools import models; models.download('test-net')"
    started = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(count)]
    return started if count > 1 else started[0]


def test_two_processes_at_once_fetch_once(world, site):
    site.routes["a"] = Route(pause=0.1)  # 1.5 s in all, so that they meet
    target = world(site.url("a"))
    for process in run_download(2):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert target.read_bytes() == DATA and len(site.requests) == 1


def test_waiting_process_says_so(world, site):
    site.routes["a"] = Route(pause=0.15)
    world(site.url("a"))
    other = run_download()
    deadline = time.monotonic() + 30
    while not site.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    events = []
    models.download("test-net", Progress(events.append, [("download", 1)]))
    assert other.wait(timeout=30) == 0
    other.stderr.close()
    said = [event.message for event in events if event.event == "warning"]
    assert said == ["Another process is fetching weights.h5; waiting for it"]
    assert len(site.requests) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_killed_process_leaves_nothing_but_a_part(world, site):
    site.routes["a"] = Route(pause=0.1)
    target = world(site.url("a"))
    process = run_download()
    deadline = time.monotonic() + 30
    while not (part_of(target).exists() and part_of(target).stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    arrived = part_of(target).stat().st_size
    assert 0 < arrived < len(DATA) and not target.exists()
    models.download("test-net")
    assert target.read_bytes() == DATA and site.requests[-1] == ("/files/a", f"bytes={arrived}-")


def test_cancelled_by_the_callback(world, site):
    site.routes["a"] = Route(pause=0.03)
    target = world(site.url("a"))

    def callback(event):
        if event.event == "progress" and event.fraction > 0.2:
            raise CancelledError("stopped by the person")

    with pytest.raises(CancelledError):
        models.download("test-net", Progress(callback, [("download", 1)]))
    assert not target.exists() and 0 < part_of(target).stat().st_size < len(DATA)


def test_broken_pipe_of_the_caller_is_not_taken_for_the_network(world, site):
    site.routes["a"] = Route()
    world(site.url("a"))

    def callback(event):
        if event.event == "progress" and event.fraction > 0.01:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        models.download("test-net", Progress(callback, [("download", 1)]))
    assert len(site.requests) == 1


def test_offline(world, site, monkeypatch):
    site.routes["a"] = Route()
    target = world(site.url("a"))
    with pytest.raises(DownloadError, match=r"weights\.h5 is not on this machine and the network is switched off"):
        models.download("test-net", offline=True)
    monkeypatch.setenv("MRI_DEEP_TOOLS_OFFLINE", "1")
    with pytest.raises(DownloadError, match="unset MRI_DEEP_TOOLS_OFFLINE"):
        models.download("test-net")
    assert site.requests == []
    models.download("test-net", offline=False)
    assert models.download("test-net") == [target]  # it is here: nothing to fetch


def test_damaged_file_is_fetched_again(world, site):
    site.routes["a"] = Route()
    target = world(site.url("a"))
    models.download("test-net")
    target.write_bytes(WRONG)
    models.download("test-net")
    assert target.read_bytes() == DATA


def test_without_checksum_or_source_nothing_is_fetched(world, site):
    site.routes["a"] = Route()
    world(site.url("a"), sha256=None)
    with pytest.raises(DownloadError, match=r"weights\.h5 has no published checksum, so it is not downloaded"):
        models.download("test-net")
    world()
    with pytest.raises(DownloadError, match="has no known source"):
        models.download("test-net")
    assert site.requests == []


def test_git_blob_id_serves_as_checksum(world, site, tmp_path):
    file = tmp_path / "hello"
    file.write_bytes(b"hello\n")  # `git hash-object` prints this id for it
    assert content_fault(file, ModelFile("hello", 6, git_blob="ce013625030ba8dba906f756967f9e9ca394464a")) is None
    git_id = hashlib.sha1(b"blob 300000\0" + DATA).hexdigest()
    site.routes |= {"a": Route(WRONG), "b": Route()}
    target = world(site.url("a"), site.url("b"), sha256=None, git_blob=git_id)
    models.download("test-net")
    assert target.read_bytes() == DATA
    assert [check.against for check in models.verify("test-net")] == ["published git blob id"]


def test_full_disk_is_seen_beforehand(world, site):
    world(site.url("a"), size=10**17)
    with pytest.raises(OutputError, match=r"weights\.h5 needs 100\.0 PB in the model cache and the disk has .* left"):
        models.download("test-net")
    assert site.requests == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_that_fills_on_the_way(world, site):
    site.routes["a"] = Route()
    target = world(site.url("a"))
    target.parent.mkdir(parents=True)
    part_of(target).symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"weights\.h5 cannot be written into the model cache \(No space left"):
        models.download("test-net")
    assert not target.exists() and not os.path.lexists(part_of(target))


def test_cache_that_cannot_be_written(world, site, tmp_path, monkeypatch):
    world(site.url("a"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="cannot be written into the model cache") as caught:
        models.download("test-net")
    assert "MRI_DEEP_TOOLS_CACHE" in caught.value.hint and str(tmp_path) not in str(caught.value)
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        (tmp_path / "shut").mkdir(mode=0o500)
        monkeypatch.setenv("MRI_DEEP_TOOLS_CACHE", str(tmp_path / "shut"))
        with pytest.raises(OutputError, match="Permission denied"):
            models.download("test-net")
    assert site.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a",
        "file:///etc/hostname",
        "ftp://example.org/a",
        "https:///a",
        "https://me:secret@example.org/a",
        "a.h5",
    ],
)
def test_addresses_that_are_no_sources(world, url):
    assert source_fault(url) is not None
    world(url)
    with pytest.raises(RequestError, match="cannot be used"):
        models.list_models()


@pytest.mark.parametrize(
    "url", ["https://example.org/a", "http://127.0.0.1:8/a", "http://localhost/a", "http://[::1]/a"]
)
def test_addresses_that_are_sources(url):
    assert source_fault(url) is None


@pytest.mark.parametrize("goal", ["file:///etc/hostname", "http://example.org/a", "ftp://127.0.0.1/a"])
def test_redirects_to_elsewhere_are_not_followed(world, site, goal):
    site.routes["a"] = Route(status=302, headers={"Location": goal})
    world(site.url("a"))
    with pytest.raises(DownloadError, match=r"sends on to an address that cannot be used|302"):
        models.download("test-net")


def test_redirect_is_followed(world, site):
    site.routes |= {"a": Route(status=302, headers={"Location": site.url("b")}), "b": Route(cut=1000)}
    target = world(site.url("a"))
    models.download("test-net")
    assert target.read_bytes() == DATA and site.requests[-1] == ("/files/b", "bytes=1000-")


def test_proxy_of_the_environment_is_used(world, site, monkeypatch):
    site.routes["a"] = Route()
    target = world("http://localhost:9/files/a")  # nobody listens there; the proxy answers in its place
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{site.server.server_port}")
    models.download("test-net")
    assert target.read_bytes() == DATA and site.requests == [("http://localhost:9/files/a", None)]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_certificates_are_verified(world, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    site = Site(context)
    try:
        site.routes |= {"a": Route(), "b": Route(status=302, headers={"Location": "http://127.0.0.1:9/files/a"})}
        target = world(site.url("a", "localhost"))
        with pytest.raises(DownloadError, match="its certificate could not be verified") as caught:
            models.download("test-net")
        assert "SSL_CERT_FILE" in caught.value.hint
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        models.download("test-net")
        assert target.read_bytes() == DATA
        target.unlink()
        world(site.url("b", "localhost"))
        with pytest.raises(DownloadError, match="only https addresses are allowed"):
            models.download("test-net")
    finally:
        site.close()
