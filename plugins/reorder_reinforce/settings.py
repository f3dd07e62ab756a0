"""Settings of the policy `reinforce`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from reorder_core import PolicySettings, Problem, Ref, RunFacts, order_problems
from reorder_core.schedule import ShapeName

if TYPE_CHECKING:
    from reorder_core import ComponentRef as OrderingRef
else:
    OrderingRef = Ref["ordering"]

#: What the paper's method fixes; `faithful` fills these in and refuses other values.
FAITHFUL: Mapping[str, Any] = {
    "curves": (),
    "orders": 1,
    "orders_per_image": 1,
    "antithetic": False,
    "baseline": "ema",
    "ema_decay": 0.99,
    "image_control": "none",
    "estimator": "score",
    "reuse": 1,
    "update": "adam",
    "average": None,
    "logits": "patch",
    "spread": 1.0,
    "schedule": "triangular",
}
#: What it uses where a recipe says nothing else (the paper varies them between models).
FAITHFUL_DEFAULTS: Mapping[str, Any] = {"temperature": 0.2, "learning_rate": 1e-5}


class ReinforceSettings(PolicySettings):
    """REINFORCE over a Plackett-Luce distribution of orders, or over a mixture of several."""

    orders: int = Field(default=8, ge=1)
    """K, how many orders one batch is read in: image i of the whole batch reads order i % K"""
    orders_per_image: int = Field(default=1, ge=1)
    """in how many of the K orders each image is read; all but the first cost one forward pass each"""
    temperature: float = Field(default=0.15, gt=0)
    """the highest temperature of the schedule, in units of the logits (whose spread starts at `spread`)"""
    schedule: ShapeName = "triangular"
    """how the temperature runs while the policy learns; triangular goes from 0 to the peak and back to 0"""
    spread: float = Field(default=1.0, gt=0)
    """the first logits run from 0 down to -spread along the prior; only temperature / spread matters at the start"""
    logits: Literal["dct", "patch"] = "dct"
    """what is learned: low-frequency 2-D cosine coefficients, or one logit for each patch"""
    coefficients: int = Field(default=8, ge=1)
    """how many cosine coefficients (lowest frequencies first, the constant left out); not read where logits: patch"""
    baseline: Literal["leave_one_out", "ema", "none"] = "leave_one_out"
    """what is subtracted from an order's reward: the mean of the other orders, a moving average, or nothing"""
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    """how much of the moving averages stays at each update (baseline: ema, and image_control: image_ema)"""
    image_control: Literal["none", "mode_loss", "image_ema"] = "none"
    """what is subtracted from each image's loss: its loss under the best order so far (one more forward pass), or a
    moving average of its own earlier losses (no more passes; needs a data set that knows its number of images)"""
    antithetic: bool = False
    """draw the orders in pairs of opposite noise; the leave-one-out baseline leaves the pair out"""
    estimator: Literal["score", "rank"] = "score"
    """what an order's advantage multiplies: `score`, the gradient of its log-probability (REINFORCE, unbiased), or
    `rank`, how early each patch stood: the covariance of slot and reward, less noisy, but not the gradient of the
    expected reward in the logits (README.md says what it ascends)"""
    reuse: int = Field(default=1, ge=1)
    """in how many updates each batch is used: the current one and reuse - 1 earlier ones, these weighted by how much
    more or less probable their orders have become since; that is biased by `clip`"""
    clip: float = Field(default=0.2, gt=0, lt=1)
    """with reuse: an order whose probability has moved by more than this share along its advantage is left out"""
    update: Literal["adam", "plain"] = "adam"
    """`adam`: the run's optimiser; `plain`: learning_rate times the gradient over the running size of the advantages
    (decay `ema_decay`), so that the logits are a sum of what was seen, and the rate does not depend on the losses'
    scale"""
    average: float | None = Field(default=None, ge=0)
    """the best order is read from an average of the learned logits over all steps, in which step t weighs t^average
    (3: mostly the last quarter); null: from the last logits. Orders are drawn from the last logits either way"""
    learning_rate: float | None = Field(default=3e-3, gt=0)
    """of the policy's own parameters; null takes the optimiser's (not with update: plain)"""
    curves: tuple[OrderingRef, ...] = ()
    """further orderings to start from: the policy is then a mixture of the prior and these, and learns their weights"""
    curve_learning_rate: float | None = Field(default=None, gt=0)
    """with curves: of the curves' weights, which can move fast where the orders themselves must not; left out:
    `learning_rate`"""
    curve_draws: Literal["sampled", "stratified"] = "sampled"
    """with curves: each order's curve is sampled by its weight, or every curve gets the same number of orders and the
    weights enter the gradient exactly"""
    faithful: Literal["paper", "released"] | None = None
    """`paper`: one order a batch, moving-average baseline, log-probability at temperature 1; `released`: the same with
    the released code's schedule (advanced once an epoch) and inverted first order. For comparisons only."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_faithful(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("faithful"):
            return {**FAITHFUL_DEFAULTS, **FAITHFUL, **given}
        return given

    def problems(self, facts: RunFacts) -> Iterable[Problem]:
        """Groups that do not fit the batch, coefficients that the grid does not have, settings that contradict."""
        yield from order_problems(self.orders, facts.batch_size)
        if self.image_control == "image_ema" and facts.data.train is None:
            yield Problem("image_control", "image_ema needs a data set that knows its number of training images")
        yield from self.contradictions(facts.grid.size)

    def contradictions(self, patches: int) -> Iterable[Problem]:
        """What is wrong for a grid of `patches` patches, whatever the batch (also checked when the policy is built)."""
        if self.logits == "dct" and self.coefficients > max(1, patches - 1):
            yield Problem(
                "coefficients",
                f"a grid of {patches} patches has {patches - 1} cosine coefficients without the constant, "
                f"not {self.coefficients}: lower coefficients, or learn logits: patch",
            )
        if self.orders_per_image > self.orders:
            yield Problem(
                "orders_per_image", f"an image cannot be read in {self.orders_per_image} of {self.orders} orders"
            )
        if self.baseline == "leave_one_out" and self.orders < 2:
            yield Problem("baseline", "leave_one_out needs at least 2 orders: raise orders, or use baseline: ema")
        yield from self._pair_problems()
        yield from self._curve_problems()
        yield from self._update_problems()
        for key, value in FAITHFUL.items() if self.faithful else ():
            if getattr(self, key) != value:
                yield Problem(key, f"faithful: {self.faithful} fixes {key} to {_yaml(value)}: leave it out")

    def _update_problems(self) -> Iterable[Problem]:
        if self.reuse == 1 and self.clip != type(self).model_fields["clip"].default:
            yield Problem("clip", "with reuse: 1 every batch is used once and nothing is clipped: leave it out")
        if self.estimator == "rank" and self.baseline != "leave_one_out":
            yield Problem("estimator", "rank is a covariance within the batch: it needs baseline: leave_one_out")
        if self.estimator == "rank" and self.reuse > 1:
            yield Problem("reuse", "earlier batches are weighted by their probabilities: that needs estimator: score")
        if self.reuse > 1 and self.curve_draws == "stratified":
            yield Problem("reuse", "earlier batches and stratified curves cannot be combined: choose reuse: 1")
        if self.update == "plain" and self.learning_rate is None:
            yield Problem("learning_rate", "update: plain makes its own steps: give learning_rate a number")

    def _pair_problems(self) -> Iterable[Problem]:
        if not self.antithetic:
            return
        if self.orders % 2:
            yield Problem("antithetic", f"pairs need an even number of orders, not {self.orders}")
        if self.baseline == "leave_one_out" and self.orders < 4:
            yield Problem("antithetic", "leave_one_out leaves out the pair, so it needs at least 4 orders")
        if self.orders_per_image > self.orders // 2:
            yield Problem("orders_per_image", "with antithetic pairs at most half of the orders can read one image")

    def _curve_problems(self) -> Iterable[Problem]:
        if self.curve_learning_rate is not None and not self.curves:
            yield Problem("curve_learning_rate", "there are no weights to learn: name some orderings in curves")
        if self.curve_draws != "stratified":
            return
        if not self.curves:
            yield Problem("curve_draws", "stratified shares the orders between curves: name some in curves")
        elif self.orders % (1 + len(self.curves)):
            yield Problem(
                "orders",
                f"{self.orders} orders cannot be shared equally by the prior and {len(self.curves)} curves: "
                f"use a multiple of {1 + len(self.curves)}",
            )
        if self.antithetic:
            yield Problem("antithetic", "pairs and stratified curves cannot be combined: choose curve_draws: sampled")


def _yaml(value: object) -> str:
    if value is None:
        return "null"
    return {(): "[]", False: "false"}.get(value, str(value)) if isinstance(value, (tuple, bool)) else str(value)
