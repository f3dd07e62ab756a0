"""`reorder prior`'s measure: known truths, the Poisson bootstrap, shards that add up, images that cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
from reorder_prior.candidates import (
    Candidate,
    chance_candidates,
    default_candidates,
    label_of,
    named_candidates,
    parse_one,
    parse_orderings,
)
from reorder_prior.columns import columns_of, intensities
from reorder_prior.images import chosen_numbers, to_fit
from reorder_prior.measure import Measure, Share, run_measure
from reorder_prior.ranking import Finding, rank
from reorder_prior.report import beside_chance
from reorder_prior.shards import WHOLE, agree, every, fit_once, summed
from reorder_prior.tally import SUMS, Tally

from reorder_core import ComponentRef, Context, Grid, RunError, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import context as context_of
from reorder_core.pixels import Loaded

CODES = 64


class Levels:
    """A tokenizer of patches of one pixel: its value is its code."""

    codes, fitted = CODES, True

    def tokens(self, images_BCHW):
        return np.rint(images_BCHW.reshape(len(images_BCHW), -1) * (CODES - 1)).astype(np.int64)


class Coded:
    """Images of one channel whose pixels are given codes, [images, N]."""

    label = "codes"

    def __init__(self, codes_nN, grid):
        self.context = context_of(grid, patch=1)
        self.pixels = (codes_nN / (CODES - 1)).astype(np.float32).reshape(-1, 1, grid.rows, grid.columns)

    def __len__(self):
        return len(self.pixels)

    def load(self, numbers, mapping=map):
        return Loaded(self.pixels[list(numbers)], np.array(numbers))


def compressor(name="lzma"):
    return Catalogue.load().build(ComponentRef("compressor", name), context_of("4x4"))


def measure_of(grid, labels=None, **more):
    catalogue, context = Catalogue.load(), context_of(grid, patch=1)
    found, _ = default_candidates(catalogue, context)
    found = [each for each in found if labels is None or each.label in labels]
    return Measure(found, grid, 1, Levels(), compressor(), **more)


def measured(codes_nN, grid, labels=None, share=None, seed=0, **more):
    measure = measure_of(grid, labels, **more)
    images = Coded(codes_nN, grid)
    tally = run_measure(measure, images, range(len(images)), seed, 2, None, *([share] if share else []))
    return measure, tally


def ranking(codes_nN, grid, labels=None, **more):
    return rank(*measured(codes_nN, grid, labels, **more))


def spelled(order_N, images, rng, words=2, length=23):
    """Codes that spell, along one order, a random sequence of a few random words; a fresh vocabulary an image."""
    codes_nN = np.empty((images, len(order_N)), np.int64)
    for codes_N in codes_nN:
        vocabulary = rng.integers(0, CODES, size=(words, length))
        sequence = vocabulary[rng.integers(0, words, size=-(-len(order_N) // length))]
        codes_N[order_N] = sequence.ravel()[: len(order_N)]
    return codes_nN


GRID, WIDE = Grid(16, 16), Grid(32, 32)
CURVES_16 = {each.label: each.order_N for each in measure_of(GRID).candidates}
MIRRORED = ("reverse", "flip", "rotate")  # of a raster scan: they read the very same words, if backwards
CURVES = {each.label: each.order_N for each in measure_of(WIDE).candidates if each.label not in MIRRORED}


@pytest.mark.parametrize("label", CURVES)
def test_the_order_that_spells_words_wins_by_name_and_by_a_factor_of_two(label):
    rows = ranking(spelled(CURVES[label], 4, np.random.default_rng(0)), WIDE, CURVES)
    assert rows[0].ordering == label
    assert rows[1].size.bytes > 2 * rows[0].size.bytes
    assert rows[0].is_told_from_next
    assert rows[1].is_told_from_next


def test_constant_images_compress_equally_in_every_order():
    rows = ranking(np.repeat(np.arange(8)[:, None], 64, axis=1), Grid(8, 8))
    assert len({row.size.bytes for row in rows}) == 1
    assert all(row.behind_winner.mean == row.behind_winner.low == row.behind_winner.high == 0 for row in rows[1:])
    assert not any(row.is_told_from_next for row in rows[1:])


def test_shuffled_codes_destroy_every_difference():
    rng = np.random.default_rng(0)
    spelled_nN = spelled(np.arange(256), 100, rng, 3, 8)
    shuffled_nN = rng.permuted(spelled_nN, axis=1)
    few = ["row_major", "column_major", "hilbert", "spiral"]
    before, after = ranking(spelled_nN, GRID, few), ranking(shuffled_nN, GRID, few)
    assert before[-1].size.bytes > 2 * before[0].size.bytes
    assert after[-1].size.bytes < 1.01 * after[0].size.bytes
    assert not after[1].behind_winner.excludes_zero


def striped(images, rng, side=16):
    """Horizontal stripes: a row has one code."""
    return np.repeat(rng.integers(0, CODES, size=(images, side)), side, axis=1)


def test_stripes_lzma_likes_the_order_across_and_the_statistics_the_one_along():
    found = {
        row.ordering: row for row in ranking(striped(64, np.random.default_rng(0)), GRID, ["row_major", "column_major"])
    }
    along, across = found["row_major"], found["column_major"]
    assert across.size.bytes < 0.8 * along.size.bytes
    assert along.statistics["bigram_entropy"] < 0.5 * across.statistics["bigram_entropy"]
    assert along.statistics["total_variation"] < 0.5 * across.statistics["total_variation"]
    # 64 images in all: 2,692 bytes along and 1,981 across were reported of one such set
    assert 64 * along.size.bytes == pytest.approx(2692, rel=0.1)
    assert 64 * across.size.bytes == pytest.approx(1981, rel=0.1)


def test_a_stream_of_images_finds_what_they_share():
    """The same random picture a hundred times costs next to nothing as one stream, and all of it alone."""
    picture_N = np.random.default_rng(0).integers(0, CODES, 64)
    codes_nN = np.repeat(picture_N[None], 100, axis=0)
    (alone,) = ranking(codes_nN, Grid(8, 8), ["row_major"])
    (stream,) = ranking(codes_nN, Grid(8, 8), ["row_major"], together=100)
    assert stream.size.bytes < alone.size.bytes / 10
    assert stream.size.reduction.low == stream.size.reduction.high  # of one stream nothing is known about others
    (groups,) = ranking(codes_nN, Grid(8, 8), ["row_major"], together=30)  # 3 streams of 30 and one of 10
    assert alone.size.bytes > groups.size.bytes > stream.size.bytes


def added(measure, parts):
    """What the processes do between them, in one."""
    total = measure.empty(0)
    for part in parts:
        for name in SUMS:
            setattr(total, name, getattr(total, name) + getattr(part, name))
        for pairs_E, more_E in zip(total.pairs_OE, part.pairs_OE, strict=True):
            for pairs, more in zip(pairs_E, more_E, strict=True):
                pairs.merge(more)
    return total


def test_shards_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    codes_nN = rng.integers(0, 4, size=(200, 64))
    labels = ["row_major", "hilbert", "spiral"]
    for more in ({}, {"together": 7, "ngrams": (2, 1), "distances": (1, 3)}):
        measure, whole = measured(codes_nN, Grid(8, 8), labels, **more)
        parts = [measured(codes_nN, Grid(8, 8), labels, Share(process, 3), **more)[1] for process in range(3)]
        assert all(part.images for part in parts)
        total = added(measure, parts)
        assert (total.images, total.groups) == (whole.images, whole.groups)
        np.testing.assert_array_equal(total.bytes_ROA, whole.bytes_ROA)
        np.testing.assert_array_equal(total.weight_R, whole.weight_R)
        np.testing.assert_allclose(total.statistic_OS, whole.statistic_OS)
        for one, other in zip(rank(measure, total), rank(measure, whole), strict=True):
            assert one.statistics == pytest.approx(other.statistics)
            assert (one.ordering, one.sizes, one.behind_next) == (other.ordering, other.sizes, other.behind_next)


def test_one_process_asks_no_other():
    """Nothing of Accelerate's is set up here, so that a call would fail."""

    class Learns(Levels):
        fitted, learned = False, 0

        def fit(self):
            self.fitted, self.learned = True, self.learned + 1

    made = Learns()
    for _ in range(2):
        fit_once(WHOLE, made, made.fit)
    assert made.learned == 1
    agree(WHOLE, lambda: pytest.fail("nobody is there to agree with"), "")
    assert every(WHOLE, lambda: 3) == 3
    tally = Tally(1, 1, 1, 4)
    assert summed(WHOLE, lambda: tally) is tally


def test_mutual_information_has_a_column_for_each_distance():
    """Two rows of five codes that say the same."""
    codes_nN = np.tile(np.random.default_rng(0).integers(0, 8, size=(400, 5)), 2)
    (row,) = ranking(codes_nN, Grid(2, 5), ["row_major"], distances=(1, 2, 5))
    found = row.statistics
    assert found["mutual_information_5"] == pytest.approx(3, abs=0.05)
    assert max(found["mutual_information"], found["mutual_information_2"]) < 0.05
    assert [*found] == [column.name for column in columns_of((1, 2, 5))]


def test_random_orders_are_what_the_others_are_compared_with():
    context = context_of(GRID, patch=1)
    named, _ = default_candidates(Catalogue.load(), context)
    chance = chance_candidates(Catalogue.load(), context, named)
    assert [each.label for each in chance] == ["random", "random:seed=1", "random:seed=2"]
    assert "random" not in {each.label for each in named}
    assert len(chance_candidates(Catalogue.load(), context_of("1x1"))) == 1
    assert chance_candidates(Catalogue.load(), context_of("1x1"), [Candidate("row_major", np.zeros(1, np.int64))]) == []

    measure = Measure([*named, *chance], GRID, 1, Levels(), compressor())
    images = Coded(spelled(CURVES_16["hilbert"], 40, np.random.default_rng(0)), GRID)
    tally = run_measure(measure, images, range(len(images)), 0, 1)
    rows = rank(measure, tally)
    assert rows[0].ordering == "hilbert"
    assert rows[0].over_chance.low > 0.1
    best = next(row for row in rows if row.by_chance)
    for row in rows:
        assert row.by_chance == row.ordering.startswith("random")
        assert (row.over_chance is None) == row.by_chance
        if not row.by_chance:
            gained = row.size.reduction.mean - best.size.reduction.mean
            assert row.over_chance.mean == pytest.approx(gained)
    finding = Finding("x", measure, {"name": "levels"}, {"name": "lzma"}, rows, tally)
    assert {*finding.as_json()["chance"]} == {each.label for each in chance}
    said = beside_chance(finding)
    assert said.startswith("By chance: 3 random orders reduce by ")
    assert "surely ahead of the best of them: hilbert" in said
    assert beside_chance(Finding("x", measure, {}, {}, [row for row in rows if not row.by_chance], tally)) == ""


def test_the_interval_covers_as_often_as_it_says():
    """Against the law of sizes whose mean is known: 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        tally = Tally(2, 1, 1, 4, seed)
        sizes_OGA = rng.gamma(4.0, 5.0, size=(2, 80, 1)).round().astype(np.int64)
        for block, part in enumerate(np.split(sizes_OGA, 4, axis=1)):
            tally.add(block, np.ones(20, np.int64), np.full((20, 1), 100), part, np.zeros((2, 1)))
        found = tally.reduction_between(0, 1)
        assert found.mean == pytest.approx((sizes_OGA[0] - sizes_OGA[1]).mean() / 100)
        held += found.low <= 0 <= found.high
    assert 89 <= held <= 99


def test_the_paired_interval_is_narrower_than_the_sizes_themselves():
    """An image that is hard is hard in every order."""
    rng = np.random.default_rng(0)
    hard_G = rng.integers(20, 60, size=400)
    tally = Tally(2, 1, 1, 4)
    sizes_OGA = np.stack([hard_G, hard_G + rng.integers(0, 3, 400)])[:, :, None]
    tally.add(0, np.ones(400, np.int64), np.full((400, 1), 100), sizes_OGA, np.zeros((2, 1)))
    alone, paired = tally.reduction(0), tally.reduction_between(1, 0)
    assert paired.high - paired.low < (alone.high - alone.low) / 5
    assert paired.excludes_zero


def test_orderings_by_default_are_each_once_and_need_nothing():
    found, notes = default_candidates(Catalogue.load(), context_of("4x4"))
    labels = {each.label for each in found}
    assert {"row_major", "column_major", "hilbert", "spiral", "snake"} <= labels
    assert not {"file", "compressibility", "transpose"} & labels
    assert "transpose: left out, it reads a grid of 4x4 as column_major does" in notes
    assert len({each.order_N.tobytes() for each in found}) == len(found)


def test_named_orderings_may_have_settings():
    refs = parse_orderings("hilbert, {name: spiral, inward: false}, {name: reverse, of: hilbert}")
    found = named_candidates(refs, Catalogue.load(), context_of("4x4"), lambda: pytest.fail("nothing learns here"))
    assert [each.label for each in found] == ["hilbert", "spiral:inward=false", "reverse:of=hilbert"]
    assert parse_one("compressor", "{name: lzma, preset: 9}") == ComponentRef("compressor", "lzma", {"preset": 9})
    assert (
        label_of(ComponentRef("ordering", "reverse", {"of": ComponentRef("ordering", "snake")}))
        == "reverse:of={name: snake}"
    )
    with pytest.raises(UsageError, match="named twice"):
        named_candidates(parse_orderings("snake,snake"), Catalogue.load(), context_of("4x4"), list)
    with pytest.raises(UsageError, match="did you mean 'hilbert'"):
        named_candidates(parse_orderings("hilbrt"), Catalogue.load(), context_of("4x4"), list)
    for bad in ("", "{spiral: 1}", "[", "3"):
        with pytest.raises(UsageError, match="names no"):
            parse_orderings(bad)


def test_an_ordering_without_this_grid_is_an_error_when_it_was_asked_for(monkeypatch):
    from reorder_core import UnsupportedGrid

    def refuse(self, grid):
        raise UnsupportedGrid("only powers of two")

    monkeypatch.setattr("reorder_orderings.morton.Morton.permutation", refuse)
    _, notes = default_candidates(Catalogue.load(), context_of("4x4"))
    assert "morton: left out, only powers of two" in notes
    with pytest.raises(UsageError, match="'morton' has no order on a grid of 4x4: only powers of two"):
        named_candidates(parse_orderings("morton"), Catalogue.load(), context_of("4x4"), list)


def test_the_intensity_of_a_patch_is_its_mean():
    image = np.arange(2 * 4 * 6, dtype=np.float32).reshape(1, 2, 4, 6)
    found_BN = intensities(image, Grid(2, 3))
    assert found_BN.shape == (1, 6)
    assert found_BN[0, 4] == image[0, :, 2:4, 2:4].mean()


def test_a_sample_is_drawn_by_the_seed_and_ascends():
    one, same, other = (chosen_numbers(100, 10, seed) for seed in (0, 0, 1))
    assert one == same != other
    assert one == sorted({*one})
    assert chosen_numbers(5, 10, 0) == range(5)


def test_codes_that_do_not_fit_are_said():
    class Wrong(Levels):
        codes = 2

    images = Coded(np.full((2, 16), 5), Grid(4, 4))
    measure = Measure([Candidate("a", np.arange(16))], Grid(4, 4), 1, Wrong(), compressor())
    with pytest.raises(RunError, match="gives codes from 5 to 5, and says that it has 2"):
        run_measure(measure, images, range(2), 0, 1)
    measure = Measure([Candidate("a", np.arange(9))], Grid(3, 3), 1, Levels(), compressor())
    with pytest.raises(RunError, match=r"codes of shape \(2, 16\) where \(2, 9\)"):
        run_measure(measure, images, range(2), 0, 1)


def test_the_document_has_the_agreed_keys():
    measure, tally = measured(np.random.default_rng(0).integers(0, 3, (20, 16)), Grid(4, 4), ["snake", "row_major"])
    found = Finding("x", measure, {"name": "levels"}, {"name": "lzma"}, rank(measure, tally), tally).as_json(
        orders=True
    )
    assert {"data", "images", "grid", "patch", "tokenizer", "compressor", "ngram", "ranking"} <= {*found}
    assert [{*row} for row in found["ranking"]] == [{"ordering", "bytes", "reduction", "interval", "statistics"}] * 2
    assert [*found["ranking"][0]["statistics"]] == [column.name for column in columns_of((1,))]
    assert found["ranking"][0]["bytes"] <= found["ranking"][1]["bytes"]
    assert found["orders"]["snake"][4:8] == [7, 6, 5, 4]
    low, high = found["ranking"][0]["interval"]
    assert low <= found["ranking"][0]["reduction"] <= high


def test_memory_does_not_grow_with_the_images():
    """Only a few blocks are under way at a time, whatever the number of images."""
    read, done, ahead = [], [], []

    class Watched(Coded):
        def load(self, numbers, mapping=map):
            read.append(len(numbers))
            ahead.append(sum(read) - sum(done))
            return super().load(numbers)

    grid = Grid(4, 4)
    images = Watched(np.zeros((64 * 9 + 5, 16), np.int64), grid)
    run_measure(measure_of(grid, ["snake"]), images, range(len(images)), 0, 1, done.append)
    assert max(read) == 64
    assert max(ahead) <= 3 * 64
    assert sum(done) == len(images)
    assert to_fit(images, range(len(images))).shape[0] == len(images)
    assert isinstance(images.context, Context)
