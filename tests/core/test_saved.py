"""Files that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reorder_core import write_json, written_aside


def test_a_file_appears_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": [1, 2]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, 2]}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_what_was_there_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"before")

    def fail_half_way() -> None:
        with written_aside(path) as aside:
            aside.write_bytes(b"half")
            assert aside.suffix == ".bin"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_json_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", object())
    assert not list(tmp_path.iterdir())
