"""What `reorder new` writes: for each kind, a function from a name to the files of a distribution."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from reorder_core.distribution import distribution


@dataclass(frozen=True, slots=True)
class _Words:
    """How a kind is spoken of in the files around its component."""

    kind: str
    summary: str
    base: str  # what settings.py imports; the last is what the class derives from
    setting: str
    check: str
    use: str


def _distribution(words: _Words, name: str) -> dict[str, str]:
    """Of one of the core's own kinds; the texts stand in the folder of this module."""
    filled = {
        "$KIND": words.kind,
        "$SUMMARY": words.summary,
        "$IMPORTS": words.base,
        "$BASE": words.base.split(", ")[-1],
        "$CHECK": words.check,
        "$FIELD": words.setting,
        "$USE": words.use.replace("$NAME", name),
    }
    return distribution(words.kind, name, files(__name__), filled)


def ordering(name: str) -> dict[str, str]:
    """Every second patch first, then those between."""
    return _distribution(
        _Words(
            kind="ordering",
            summary="every `step`-th patch first, then those between",
            base="Settings",
            setting="    step: int = Field(default=2, ge=1)\n"
            '    """how far apart the patches are that follow each other"""',
            check="check_ordering",
            use="ordering: {name: $NAME, step: 2}",
        ),
        name,
    )


def backbone(name: str) -> dict[str, str]:
    """A gated recurrent network."""
    return _distribution(
        _Words(
            kind="backbone",
            summary="a gated recurrent network that reads the patches one after the other",
            base="Settings",
            setting='    width: int = Field(default=64, ge=1)\n    """D, the width of a token"""\n'
            '    depth: int = Field(default=2, ge=1)\n    """number of layers"""',
            check="check_backbone",
            use="backbone: {name: $NAME, width: 64, depth: 2}",
        ),
        name,
    )


def mixer(name: str) -> dict[str, str]:
    """A causal convolution."""
    return _distribution(
        _Words(
            kind="mixer",
            summary="a causal convolution of each channel along the sequence",
            base="Settings",
            setting='    taps: int = Field(default=4, ge=1)\n    """how many tokens are looked at"""',
            check="check_mixer",
            use="backbone: {name: hierarchical, mixer: {name: $NAME, taps: 4}}",
        ),
        name,
    )


def between(name: str) -> dict[str, str]:
    """The sequence turned round on the way."""
    return _distribution(
        _Words(
            kind="between",
            summary="turns the sequence round between two blocks of a backbone",
            base="Settings",
            setting='    after: int = Field(default=1, ge=1)\n    """how many blocks read the patches as they came"""',
            check="check_between",
            use="backbone: {name: mamba, between: {name: $NAME, after: 1}}",
        ),
        name,
    )


def policy(name: str) -> dict[str, str]:
    """Random search by exchanges."""
    return _distribution(
        _Words(
            kind="policy",
            summary="random search: exchanges patches, and keeps what lowers the loss",
            base="PolicySettings",
            setting="    exchanges: int = Field(default=2, ge=1)\n"
            '    """how many pairs of patches a proposal exchanges"""',
            check="check_policy",
            use="policy: {name: $NAME, exchanges: 2}",
        ),
        name,
    )


def task(name: str) -> dict[str, str]:
    """A linear classifier."""
    return _distribution(
        _Words(
            kind="task",
            summary="one class an image: a linear head and cross-entropy",
            base="Settings",
            setting='    dropout: float = Field(default=0.0, ge=0, lt=1)\n    """of the summary, before the head"""',
            check="check_task",
            use="task: {name: $NAME, dropout: 0.0}",
        ),
        name,
    )


def dataset(name: str) -> dict[str, str]:
    """Stripes, standing or lying."""
    return _distribution(
        _Words(
            kind="dataset",
            summary="stripes in noise, standing or lying",
            base="DataFacts, DatasetSettings",
            setting='    size: int = Field(default=16, ge=4)\n    """side of an image, in pixels"""\n'
            '    train: int = Field(default=512, ge=1)\n    """number of training images"""\n'
            '    validation: int = Field(default=128, ge=1)\n    """number of validation images"""\n'
            '    noise: float = Field(default=0.5, ge=0)\n    """standard deviation of the noise"""\n\n'
            "    def describe(self) -> DataFacts:\n"
            "        return DataFacts(\n"
            "            self.size, self.size, channels=1, classes=2, train=self.train, validation=self.validation\n"
            "        )",
            check="check_dataset",
            use="data: {name: $NAME, size: 16}",
        ),
        name,
    )
