"""Checkpoints: whole or refused, whatever happens to the disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from torch import nn

from reorder_core import RunError, UsageError
from reorder_core.training import checkpoint
from reorder_core.training.checkpoint import Checkpoints, Shelf, Snapshot


def snapshot(number: int) -> Snapshot:
    return Snapshot({"a": torch.full((3,), float(number)), "n": torch.tensor(number)}, {"step": number})


@pytest.fixture
def saved(tmp_path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (10, 20, 30):
        checkpoints.save(step, snapshot(step))
    return checkpoints


def test_what_is_saved_comes_back_and_only_the_newest_stay(saved):
    assert saved.steps() == [20, 30]
    found, refused = saved.load_newest()
    assert found.state == {"step": 30}
    assert torch.equal(found.tensors["a"], torch.full((3,), 30.0))
    assert refused == []
    assert not [path for path in saved.folder.rglob("*") if "pickle" in path.suffix or path.suffix == ".pt"]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "altered", "gone"])
def test_a_harmed_checkpoint_is_refused_and_the_one_before_is_used(saved, name, harm):
    path: Path = saved.path(30) / name
    content = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "altered":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    found, refused = saved.load_newest()
    assert found.state == {"step": 20}
    assert len(refused) == 1
    assert "step-00000030 is refused" in refused[0]
    assert "\n" not in refused[0]


def test_nothing_whole_is_nothing(tmp_path):
    assert Checkpoints(tmp_path / "none").load_newest() == (None, [])


@pytest.mark.parametrize("file_number", [0, 1, 2])
def test_a_full_disk_keeps_the_previous_checkpoint(saved, monkeypatch, file_number):
    written, whole = [], checkpoint.write_through

    def fills_up(path, content):
        if len(written) == file_number:
            path.write_bytes(content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        whole(path, content)

    monkeypatch.setattr(checkpoint, "write_through", fills_up)
    with pytest.raises(RunError, match="the disk is full; the checkpoint of step 30 is kept: make room"):
        saved.save(40, snapshot(40))
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-00000020", "step-00000030"]
    assert saved.load_newest()[0].state == {"step": 30}


def test_what_a_killed_save_left_behind_is_cleared_by_the_next(saved):
    (saved.folder / "part-00000040").mkdir()
    saved.save(50, snapshot(50))
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-00000030", "step-00000050"]


class Counting(nn.Module):
    """Has tied weights, and state that is no tensor."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(2, 2)
        self.b = nn.Linear(2, 2)
        self.b.weight = self.a.weight
        self.counts = {"pulls": [1, 2]}

    def get_extra_state(self):
        return self.counts

    def set_extra_state(self, state):
        self.counts = state


def test_modules_and_optimisers_come_back(tmp_path):
    torch.manual_seed(0)
    module, other = Counting(), Counting()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    module.a(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    module.counts = {"pulls": [3]}
    shelf = Shelf()
    shelf.put_module("policy", module)
    shelf.put_optimizer("optimizer", optimizer)
    store = Checkpoints(tmp_path)
    store.save(1, Snapshot(shelf.tensors, {"extra": shelf.extra}))
    found, _ = store.load_newest()
    shelf = Shelf(dict(found.tensors), found.state["extra"])
    shelf.take_module("policy", other)
    again = torch.optim.AdamW(other.parameters(), lr=0.1)
    shelf.take_optimizer("optimizer", again)
    assert other.counts == {"pulls": [3]}
    assert torch.equal(other.a.weight, module.a.weight)
    kept, back = optimizer.state_dict()["state"], again.state_dict()["state"]
    assert {(i, key): value.tolist() for i, slots in kept.items() for key, value in slots.items()} == {
        (i, key): value.tolist() for i, slots in back.items() for key, value in slots.items()
    }
    with pytest.raises(UsageError, match="does not fit this policy"):
        shelf.take_module("policy", nn.Linear(2, 2))
