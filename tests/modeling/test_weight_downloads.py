"""Weights that are elsewhere: a server that has them, or has not, or breaks off; and nothing half is kept."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Thread

import pytest
import torch
from detectron2.utils.file_io import Detectron2Handler

from wpl_d2.modeling import weight_files
from wpl_d2.modeling.weight_files import DamagedFileError, read_weights
from wpl_d2.utils.errors import InputError


def content():
    file = BytesIO()
    torch.save({"a": torch.arange(4000.0)}, file)
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    asked = []

    def do_GET(self):
        self.asked.append(self.path)
        getattr(self, f"answer_{self.path.strip('/').partition('.')[0]}")()

    def send(self, body, *headers, status=200):
        self.send_response(status)
        for header in headers or [("Content-Length", len(body))]:
            self.send_header(*map(str, header))
        self.end_headers()
        self.wfile.write(body)

    def answer_whole(self):
        self.send(content())

    def answer_missing(self):
        self.send_error(404)

    answer_ = answer_missing

    def answer_broken(self):
        self.send_error(500)

    def answer_cut(self):
        self.send(content()[:5000], ("Content-Length", len(content())))

    def answer_chunks(self):
        self.protocol_version = "HTTP/1.1"
        self.send(b"1000\r\n" + content()[:100], ("Transfer-Encoding", "chunked"))

    def answer_dropped(self):
        self.close_connection = True

    def answer_empty(self):
        self.send(b"")

    def answer_page(self):
        self.send(b"<html>Sign in</html>")

    def answer_unsized(self):
        self.send(content()[:5000], ("Connection", "close"))

    def answer_silent(self):
        time.sleep(1)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    Handler.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def kept(tmp_path):
    """What is left of downloads, but for the empty files by which processes wait for each other."""
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_a_file_is_downloaded_once(server, tmp_path):
    for _ in range(2):
        assert len(read_weights(f"{server}/whole.pth")["a"]) == 4000
    assert Handler.asked == ["/whole.pth"]
    assert kept(tmp_path) == ["whole.pth"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.pth", "404"),
        ("broken.pth", "500"),
        ("cut.pth", "got only"),
        ("chunks.pth", "IncompleteRead"),
        ("dropped.pth", "closed connection"),
        ("empty.pth", "empty file"),
        ("silent.pth", "timed out"),
        ("", "404"),
    ],
)
def test_a_download_that_fails_is_said_in_words(server, tmp_path, monkeypatch, capfd, name, reason):
    monkeypatch.setattr(weight_files, "_PATIENCE", 0.3)
    with pytest.raises(InputError, match=rf"^{server}/{name}: cannot be downloaded \(.*({reason}).*MODEL.WEIGHTS"):
        read_weights(f"{server}/{name}")
    assert kept(tmp_path) == []
    assert "Failed to download" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["page.pth", "unsized.pth", "page.pkl", "page.safetensors"])
def test_what_is_downloaded_and_is_no_weights_is_not_kept(server, tmp_path, name):
    for _ in range(2):
        with pytest.raises(DamagedFileError, match=rf"^{server}/{name}: what was downloaded cannot be read"):
            read_weights(f"{server}/{name}")
        assert kept(tmp_path) == []
    assert len(Handler.asked) == 2


def test_a_server_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/whole.pth"
    with pytest.raises(InputError, match=rf"^{address}: cannot be downloaded \(.*refused"):
        read_weights(address)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("prefix", ["detectron2://", "torchvision://"])
def test_a_short_name_is_said_with_the_address_behind_it(server, monkeypatch, prefix):
    monkeypatch.setattr(Detectron2Handler, "S3_DETECTRON2_PREFIX", f"{server}/")
    monkeypatch.setattr(weight_files, "_torchvision_url", lambda name: f"{server}/missing.pth")
    told = rf"^{prefix}missing.pth: cannot be downloaded from {server}/missing.pth \(.*404"
    with pytest.raises(InputError, match=told):
        read_weights(f"{prefix}missing.pth")


def test_files_by_address(tmp_path):
    file = tmp_path / "with space.pth"
    file.write_bytes(content())
    for name in (f"file://{file}", file.as_uri(), f"file://localhost{file}"):
        assert len(read_weights(name)["a"]) == 4000
    for name in (f"file://{tmp_path}/missing.pth", f"file://{tmp_path}", "file://missing.pth", "file://"):
        with pytest.raises(InputError, match=rf"^{name}: no such file; correct its path in MODEL.WEIGHTS"):
            read_weights(name)


@pytest.mark.parametrize("name", ["htps://host/a.pth", "s3://bucket/a.pth", "://", "https:/host/a.pth"])
def test_no_address_and_no_file(name):
    with pytest.raises(InputError, match=rf"^{name}: (is not an address|no such file)"):
        read_weights(name)
