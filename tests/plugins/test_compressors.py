"""The room compressors: contracts, the same sizes for less work, what is damaged or missing, `reorder new`."""

from __future__ import annotations

import lzma
import platform
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_compressors import zstd
from reorder_compressors.conformance import check_compressor
from reorder_compressors.interface import Compressor
from reorder_compressors.lzma2 import DICTIONARY_OF_PRESET, LEAST_DICTIONARY, Lzma
from reorder_compressors.settings import LzmaSettings
from reorder_compressors.templates import compressor

from reorder_core import RunError, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.conformance import ContractBroken, context
from reorder_core.settings import ComponentRef

NAMES = ("lzma", "zlib", "bz2", "zstd")


def built(name: str, **chosen: object) -> Compressor:
    if name == "zstd":
        _needs_zstd()
    return Catalogue.load().build(ComponentRef("compressor", name, chosen), context())


def _needs_zstd() -> None:
    try:
        zstd.find_codec()
    except UsageError as error:
        pytest.skip(str(error))


def plain(payload: bytes, preset: int = 6) -> bytes:
    """LZMA2 with the dictionary of the preset: 8 MiB for 6."""
    return lzma.compress(payload, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": preset}])


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    assert isinstance(built(name), Compressor)
    check_compressor(name)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("lzma", {"preset": 0}),
        ("lzma", {"preset": 9, "extreme": True}),
        ("zlib", {"level": 1}),
        ("bz2", {"level": 1}),
        ("zstd", {"level": 1}),
        ("zstd", {"level": 22}),
    ],
)
def test_contract_at_the_ends_of_the_settings(name, chosen):
    if name == "zstd":
        _needs_zstd()
    check_compressor(name, chosen, examples=15)


@pytest.mark.parametrize(
    ("name", "weak", "strong"), [("lzma", "preset", 9), ("zlib", "level", 9), ("zstd", "level", 22)]
)
def test_a_level_is_used(name, weak, strong):
    draw = random.Random(0)
    words = [bytes(draw.choices(range(64), k=draw.randint(3, 9))) for _ in range(300)]
    payload = b"".join(draw.choices(words, k=3000))
    assert built(name, **{weak: strong}).size(payload) < built(name, **{weak: 1}).size(payload)


def test_the_level_of_bz2_is_the_size_of_its_block():
    payload = random.Random(0).randbytes(100_000) * 2
    assert built("bz2", level=9).size(payload) < built("bz2", level=1).size(payload)


token_strings = st.integers(1, 256).flatmap(
    lambda symbols: st.lists(st.integers(0, symbols - 1), max_size=600).map(bytes)
)


@given(st.one_of(token_strings, st.binary(max_size=600)), st.integers(0, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_dictionary_of_the_payload_gives_the_same_bytes(payload, preset, extreme):
    """Presets above 6 take dictionaries of up to 64 MiB: the same bytes from 4 KiB."""
    made = Lzma(LzmaSettings(preset=preset, extreme=extreme), context())
    assert made.compress(payload) == plain(payload, preset | (lzma.PRESET_EXTREME if extreme else 0))


@pytest.mark.parametrize("symbols", [2, 16, 64, 256])
def test_a_dictionary_of_the_payload_gives_the_same_bytes_at_all_common_lengths(symbols):
    draw, made = random.Random(symbols), Lzma(LzmaSettings(), context())
    for length in (1, 16, 49, 64, 196, 256, 392, 576, 784, 1024, 2 * 1024, 4 * 1024, 4 * 1024 + 1, 16 * 1024):
        words = [bytes(draw.choices(range(symbols), k=draw.randint(1, 8))) for _ in range(8)]
        for payload in (
            bytes(draw.choices(range(symbols), k=length)),
            b"".join(draw.choices(words, k=length))[:length],
        ):
            assert made.compress(payload) == plain(payload), (symbols, length)


def test_the_dictionary_is_as_long_as_the_payload_within_that_of_the_preset():
    made = Lzma(LzmaSettings(preset=0), context())
    assert [made.dictionary(length) for length in (0, 196, 5000, 1 << 20)] == [LEAST_DICTIONARY] * 2 + [5000, 1 << 18]
    payload = random.Random(1).randbytes(150_000) * 2  # the repetition lies within 256 KiB, as for the plain preset
    assert made.compress(payload) == plain(payload, 0)
    assert made.decompress(made.compress(payload), len(payload)) == payload
    assert made.size(payload) < 160_000


def test_presets_have_the_dictionaries_that_the_library_gives_them():
    """A repetition farther back than the dictionary of preset 0 reaches costs as much as in plain liblzma."""
    block = random.Random(2).randbytes(DICTIONARY_OF_PRESET[0] + 20_000)
    assert Lzma(LzmaSettings(preset=0), context()).size(block * 2) == len(plain(block * 2, 0)) > 2 * len(block)


FAULTS = """
import resource
from reorder_compressors.lzma2 import Lzma
from reorder_compressors.settings import LzmaSettings
made = Lzma(LzmaSettings(), None)
made.size(b"first")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for k in range(100):
    made.size(bytes([k]) * 64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator has other habits")
def test_a_fresh_process_keeps_the_memory_of_its_encoders():
    """Without the block that is freed once, every string takes its 1.3 MiB anew: over a hundred page faults each."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100


def test_no_container_is_counted():
    payload = bytes(random.Random(3).choices(range(64), k=196))
    assert built("lzma").size(payload) < len(lzma.compress(payload)) - 40
    assert built("lzma").size(b"") == 1
    assert built("zlib").size(b"") == 2
    assert built("zstd").size(b"") == 5


@pytest.mark.parametrize("name", NAMES)
def test_damaged_strings_are_refused_with_a_sentence(name):
    made, payload = built(name), b"abcabcabc" * 20
    data = made.compress(payload)
    with pytest.raises(RunError, match="compress"):
        made.decompress(b"\xff" * 20, len(payload))
    with pytest.raises(RunError, match="compress"):
        made.decompress(data, len(payload) + 1)
    with pytest.raises(RunError, match="compress"):
        made.decompress(data, len(payload) - 1)
    with pytest.raises(RunError, match="compress"):
        made.decompress(data[: len(data) // 2], len(payload))


def test_zstd_is_the_same_by_every_package_that_is_there():
    found = []
    for module, codec in zstd.SOURCES:
        try:
            found.append(codec(module))
        except ImportError:
            continue
    if not found:
        pytest.skip("no package with zstd is installed")
    payloads = [random.Random(seed).randbytes(seed * 7) + b"abc" * seed for seed in range(40)]
    for codec in found:
        encode = codec.encoder(19)
        for payload in payloads:
            frame = encode(payload)
            assert frame.startswith(zstd.MAGIC)
            assert codec.decode(frame, len(payload)) == payload
            assert len(frame) == len(found[0].encoder(19)(payload)), codec.package


def test_zstd_without_a_package_says_what_to_install(monkeypatch):
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install 'backports\.zstd'"):
        Catalogue.load().build(ComponentRef("compressor", "zstd"), context())


def test_threads_get_what_one_gets_alone():
    made = built("lzma")
    payloads = [random.Random(seed).randbytes(196) for seed in range(50)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(made.size, payloads)) == [made.size(payload) for payload in payloads]


class Storing:
    """Keeps its contract but for what a test takes away."""

    releases_gil = True

    def __init__(self, settings: object, context: object) -> None:
        self.calls = 0

    def compress(self, payload: bytes) -> bytes:
        return lzma.compress(payload)

    def decompress(self, data: bytes, length: int) -> bytes:
        return lzma.decompress(data)

    def size(self, payload: bytes) -> int:
        return len(self.compress(payload))


class Stores(Storing):
    def compress(self, payload: bytes) -> bytes:
        return payload

    def decompress(self, data: bytes, length: int) -> bytes:
        return data


class LosesTheEnd(Storing):
    def compress(self, payload: bytes) -> bytes:
        return lzma.compress(payload[:100])


class Counts(Storing):
    def compress(self, payload: bytes) -> bytes:
        self.calls += 1
        return lzma.compress(payload, preset=self.calls % 3)


class WrongSize(Storing):
    def size(self, payload: bytes) -> int:
        return len(payload)


class Draws(Storing):
    def compress(self, payload: bytes) -> bytes:
        random.random()
        return lzma.compress(payload)


class Undecided(Storing):
    releases_gil = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Stores, "equal bytes"),
        (LosesTheEnd, "give back"),
        (Counts, "alike"),
        (WrongSize, "size must be"),
        (Draws, "random state of Python"),
        (Undecided, "releases_gil"),
    ],
)
def test_the_contract_catches(broken, said):
    with pytest.raises(ContractBroken, match=said):
        check_compressor(broken, None, examples=20)


def test_new_compressor_passes_its_tests(tmp_path, monkeypatch):
    """Here in this process; tests/guests/test_writing_a_plugin.py installs one as `reorder new` writes it."""
    for path, text in compressor("run_lengths").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        assert "$" not in text
    monkeypatch.syspath_prepend(tmp_path / "src")
    monkeypatch.syspath_prepend(tmp_path / "tests")
    written = import_module("test_run_lengths")
    written.test_contract()
    written.test_promise()
