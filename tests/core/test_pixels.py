"""Images in [0, 1], of a folder or of a split."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from reorder_core import Batch, RunError, UsageError
from reorder_core.pixels import FolderImages, SplitImages, UnitRange


@pytest.fixture
def folder(tmp_path):
    """Sixty digits of 8x8 pixels in nested folders, and a file that is none."""
    root = tmp_path / "digits"
    bunch = load_digits()
    for number in range(60):
        place = root / "nested" / str(bunch.target[number])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((bunch.images[number] * 15).astype(np.uint8)).save(place / f"{number}.png")
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.png").write_bytes(b"not seen")
    return root


def test_pixels_come_back_to_the_unit_range():
    rng = np.random.default_rng(0)
    pixels = rng.random((8, 3, 4, 4), dtype=np.float32)
    pixels[0, :, 0, 0], pixels[1, :, 0, 0] = 0, 1
    mean_C, std_C = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    normalised = (pixels - mean_C[:, None, None]) / std_C[:, None, None]
    unit = UnitRange.of([normalised[:4], normalised[4:]])
    np.testing.assert_allclose(unit.apply(normalised), pixels, atol=1e-6)
    assert (UnitRange.of([np.full((1, 1, 2, 2), 3, np.float32)]).apply(np.full((1, 1, 2, 2), 3, np.float32)) == 0).all()


class TestFolder:
    def test_reads_sorted_paths_in_colour_or_grey(self, folder, tmp_path):
        found = FolderImages(folder)
        assert (len(found), found.size, found.channels) == (60, (8, 8), 1)
        assert found.paths == sorted(found.paths)
        images_BCHW = found.load([3, 0]).images_BCHW
        with Image.open(found.paths[3]) as picture:
            np.testing.assert_allclose(images_BCHW[0, 0], np.asarray(picture) / 255, atol=1e-6)
        colours = tmp_path / "colours"
        colours.mkdir()
        Image.new("RGB", (6, 4), (255, 0, 51)).save(colours / "a.png")
        Image.new("L", (6, 4), 255).save(colours / "b.PNG")
        Image.new("P", (6, 4)).save(colours / "c.gif")
        found = FolderImages(colours)
        assert (found.channels, found.size, len(found)) == (3, (4, 6), 3)
        np.testing.assert_allclose(found.load([0]).images_BCHW[0, :, 0, 0], [1, 0, 0.2], atol=1e-6)
        assert found.load([1, 2]).images_BCHW.shape == (2, 3, 4, 6)

    def test_one_grey_image_first_does_not_make_all_grey(self, tmp_path):
        Image.new("L", (4, 4)).save(tmp_path / "0.png")
        Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "1.png")
        assert FolderImages(tmp_path).channels == 3

    def test_sixteen_bits_and_a_resize(self, tmp_path):
        Image.fromarray(np.full((4, 8), 65535, np.uint16)).save(tmp_path / "a.png")
        found = FolderImages(tmp_path, resize=(6, 3))
        images_BCHW = found.load([0]).images_BCHW
        assert images_BCHW.shape == (1, 1, 6, 3)
        assert images_BCHW.min() == 1

    def test_a_link_that_leads_back_up_ends(self, folder):
        (folder / "nested" / "again").symlink_to(folder, target_is_directory=True)
        assert len(FolderImages(folder)) == 60

    def test_another_size_behind_those_that_were_looked_at(self, tmp_path, monkeypatch):
        monkeypatch.setattr("reorder_core.pixels._HEADERS", 2)
        for number in range(5):
            Image.new("L", (8, 8 + (number == 1))).save(tmp_path / f"{number}.png")
        found = FolderImages(tmp_path)
        with pytest.raises(RunError, match=r"1\.png has 9x8 pixels and others have 8x8"):
            found.load([1])

    def test_no_image_that_can_be_read(self, tmp_path):
        """Its header can, so that it is found out when it is read."""
        whole = tmp_path / "a.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16)).astype(np.uint8)).save(whole)
        whole.write_bytes(whole.read_bytes()[:100])
        found = FolderImages(tmp_path).load([0])
        assert len(found) == 0
        assert "cannot be read" in found.skipped[0]
        with pytest.raises(RunError, match="replace or remove it"):
            FolderImages(tmp_path, unreadable="stop").load([0])


class Normalised:
    """A split whose images go from -2 to 6 in one channel, and are constant in the other; some cannot be read."""

    def __init__(self, bad=()):
        self.bad = set(bad)

    def __len__(self):
        return 20

    def load(self, indices, epoch):
        import torch

        if self.bad & set(indices):
            raise RunError("an image cannot be read")
        number_B = torch.tensor(indices, dtype=torch.float32)
        ramp_B = -2 + 8 * number_B / 19
        images_BCHW = torch.stack([ramp_B, torch.full_like(ramp_B, 3.0)], dim=1)[:, :, None, None].expand(-1, -1, 2, 2)
        return Batch(images_BCHW, number_B, number_B)


class TestRecipeImages:
    def test_are_brought_to_the_range_of_their_channel(self):
        found = SplitImages(Normalised())
        images_BCHW = found.load([0, 19, 1]).images_BCHW
        np.testing.assert_allclose(images_BCHW[:, 0, 0, 0], [0, 1, 1 / 19], rtol=1e-5)
        assert (images_BCHW[:, 1] == 0).all()
        assert found.load([5]).images_BCHW.dtype == np.float32

    def test_are_skipped_or_stop(self):
        found = SplitImages(Normalised(bad=[3, 4]))
        loaded = found.load([2, 3, 4, 5])
        assert loaded.number_B.tolist() == [2, 5]
        assert len(loaded.skipped) == 2
        with pytest.raises(RunError):
            SplitImages(Normalised(bad=[3]), "stop")
        with pytest.raises(UsageError, match="none of 20 images can be read"):
            SplitImages(Normalised(bad=range(20)))
