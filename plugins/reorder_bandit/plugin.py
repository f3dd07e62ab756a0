"""What this room promises."""

from __future__ import annotations

from reorder_core import Component, hookimpl


def _policy(name: str, target: str, settings: str, summary: str, paper: str) -> Component:
    return Component(
        kind="policy",
        name=name,
        target=f"reorder_bandit.{target}",
        settings=f"reorder_bandit.settings:{settings}",
        summary=summary,
        paper=paper,
    )


@hookimpl
def components() -> tuple[Component, ...]:
    return (
        _policy(
            "curve_bandit",
            "curve_bandit:CurveBandit",
            "CurveBanditSettings",
            "finds the best of named curves and their mirror images (UCB, or a softmax bandit)",
            "Auer et al. 2002 (UCB1); Desautels et al. 2014 (batches); Sutton & Barto 2018, section 2.8 (softmax)",
        ),
        _policy(
            "random_search",
            "random_search:RandomSearch",
            "RandomSearchSettings",
            "draws orders by chance and keeps the best, once it is surely better",
            "Maron & Moore 1993, Hoeffding races",
        ),
        _policy(
            "evolution",
            "evolution:Evolution",
            "EvolutionSettings",
            "moves a logit for each patch by evolution strategies, from the ranks of its draws",
            "Salimans et al. 2017, arXiv 1703.03864; Wierstra et al. 2014, JMLR 15; Hansen 2016, arXiv 1604.00772",
        ),
    )
