"""`reorder bench policies`: how soon each policy finds an order that is known.

Exit codes: 0; 2 for whatever is found before anything was run; 1 for what failed later; 130 after Ctrl-C, with what
was finished.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reorder_core import UsageError


@click.group("bench")
def command() -> None:
    """Benches where the truth is known."""


@command.command("policies")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="[LABEL=]NAME[:KEY=VALUE,…]",
    help="A policy and its settings; may be repeated. `all`, the default: every installed one that needs no settings.",
)
@click.option("--problem", "problems", multiple=True, metavar="NAME", help="May be repeated; by default three.")
@click.option("--size", "sizes", multiple=True, type=click.IntRange(4, 65536), help="Patches; by default 16 and 64.")
@click.option(
    "--noise",
    "noises",
    multiple=True,
    type=click.FloatRange(0),
    help="Noise between images, in units of the reward's own spread over random orders; by default 0 and 1.",
)
@click.option(
    "--orders",
    multiple=True,
    type=click.IntRange(1),
    help="Orders a batch, for policies that have the setting; by default 8 and the batch (an order an image).",
)
@click.option(
    "--learning-rate",
    "rates",
    multiple=True,
    type=click.FloatRange(0, min_open=True),
    help="For policies that have the setting; may be repeated, to tune it.",
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each, seeds 0, 1, …")
@click.option("--steps", type=click.IntRange(1), help="Of a run; by default 400, 1,500 or 2,500 by the size.")
@click.option("--budget", type=click.IntRange(1), help="Samples of a run, in place of its steps.")
@click.option("--batch", type=click.IntRange(1, 8192), default=64, show_default=True, help="Images a step.")
@click.option(
    "--interaction",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="The share of the noise's variance that depends on the order too, not on the image alone.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="A folder for figures and a picture.")
@click.option("--json", "as_json", is_flag=True, help="The figures as JSON on stdout, in place of tables.")
def policies(
    policies: tuple[str, ...],
    problems: tuple[str, ...],
    sizes: tuple[int, ...],
    noises: tuple[float, ...],
    orders: tuple[int, ...],
    rates: tuple[float, ...],
    steps: int | None,
    budget: int | None,
    batch: int,
    out: Path | None,
    as_json: bool,
    **asked: Any,
) -> int:
    """How soon each installed policy finds an order that is known.

    Planted problems (footrule, salient_last, blob_last, adjacency) reward an order: 0 is the mean over random orders,
    1 the optimum. One sample is one evaluation of the reward: an order on an image. All policies get the same
    problems, the same first order and the same noise; each draws, observes and learns as in a run.
    """
    if steps is not None and budget is not None:
        raise UsageError("--steps and --budget both set the length of a run: give one of them")
    from reorder_policy_bench.problems import PROBLEMS, USUAL
    from reorder_policy_bench.study import run_study

    for name in problems:
        if name not in PROBLEMS:
            from reorder_core.errors import did_you_mean

            near = did_you_mean(name, [*PROBLEMS]) or f": there is {', '.join(PROBLEMS)}"
            raise UsageError(f"there is no planted problem called '{name}'{near}")
    return run_study(
        policies,
        tuple(dict.fromkeys(orders or (8, batch))),
        tuple(dict.fromkeys(rates)),
        out,
        as_json,
        problems=tuple(dict.fromkeys(problems or USUAL)),
        sizes=tuple(dict.fromkeys(sizes or (16, 64))),
        noises=tuple(dict.fromkeys(noises or (0.0, 1.0))),
        steps=steps,
        budget=budget,
        batch=batch,
        **asked,
    )
