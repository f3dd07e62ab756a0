"""`reorder bench policies`: the planted problems are what they say, soft and hard agree, every policy gets its row."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from itertools import pairwise, permutations
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reorder_policy_bench import study
from reorder_policy_bench.admission import admitted
from reorder_policy_bench.contenders import Contender, installed, parse, swept, taking_part
from reorder_policy_bench.memory import peak_memory
from reorder_policy_bench.noise import Images
from reorder_policy_bench.problems import PROBLEMS, grid_of
from reorder_policy_bench.summary import end, reached
from reorder_policy_bench.trial import Conditions, Look, Trial, look_steps, planted, run_trial

from reorder_core import Component, Draw, Grid, PolicyStep, Settings, UsageError
from reorder_core.catalogue import Catalogue
from reorder_core.cli.main import main
from reorder_core.discovery import PluginRecord

each_problem = pytest.mark.parametrize("name", [*PROBLEMS])
QUICK = Conditions("footrule", 16, 1.0, steps=6)


def problem_of(name, N, seed=0):
    return PROBLEMS[name](grid_of(N), np.random.default_rng(seed))


def matrices(perm_GN):
    """The orders as matrices [G, N, N], row `slot` is one-hot at the patch."""
    return torch.nn.functional.one_hot(perm_GN, perm_GN.shape[1]).float()


@each_problem
@pytest.mark.parametrize("N", [4, 6])
def test_mean_spread_and_optimum_by_enumeration(name, N):
    made = problem_of(name, N)
    raw_G = made.raw(made.tokens_NF[torch.tensor([*permutations(range(N))])]).double()
    assert float(raw_G.mean()) == pytest.approx(made.mean, abs=1e-5)
    exact = name != "adjacency"  # its spread is drawn
    assert float(raw_G.std(correction=0)) == pytest.approx(made.spread, rel=1e-5 if exact else 0.05)
    assert float(raw_G.max()) == pytest.approx(made.top, abs=1e-5)


@each_problem
@pytest.mark.parametrize("N", [64, 196, 1024])
def test_mean_spread_and_optimum_at_the_sizes_of_the_bench(name, N):
    made = problem_of(name, N, seed=3)
    assert float(made.of_orders(torch.from_numpy(made.best_N)[None])[0]) == pytest.approx(1, abs=1e-5)
    rng, G = np.random.default_rng(0), 400
    perm_GN = torch.from_numpy(rng.permuted(np.tile(np.arange(N), (G, 1)), axis=1))
    reward_G = made.of_orders(perm_GN).double()
    assert abs(float(reward_G.mean())) < 5 * made.noise_unit / math.sqrt(G)
    assert float(reward_G.std()) == pytest.approx(made.noise_unit, rel=0.2)
    assert float(reward_G.max()) < 1


def test_adjacency_counts_touching_steps():
    made = PROBLEMS["adjacency"](Grid(2, 3), np.random.default_rng(0))
    assert made.raw(
        made.tokens_NF[torch.tensor([[0, 1, 2, 5, 4, 3], [0, 1, 2, 3, 4, 5], [0, 4, 2, 3, 1, 5]])]
    ).tolist() == [
        5,
        4,
        0,
    ]


@each_problem
@given(seed=st.integers(0, 1000))
@settings(max_examples=4, deadline=None)
def test_soft_orders_agree_with_hard_ones_and_have_the_gradient_of_finite_differences(name, seed):
    made = problem_of(name, 12, seed)
    generator = torch.Generator().manual_seed(seed)
    perm_GN = torch.stack([torch.randperm(12, generator=generator) for _ in range(3)])
    hard_G = made.of_orders(perm_GN)
    assert torch.allclose(made.reward(matrices(perm_GN) @ made.tokens_NF), hard_G, atol=1e-5)
    soft_GNN = torch.randn(3, 12, 12, generator=generator).double().softmax(-1).requires_grad_()
    tokens_NF = made.tokens_NF.double()
    assert torch.autograd.gradcheck(lambda soft: made.reward(soft @ tokens_NF), soft_GNN, eps=1e-6, atol=1e-4)


def test_a_blurred_order_gains_nothing_on_adjacency():
    made = problem_of("adjacency", 64)
    blurred_1NN = torch.full((1, 64, 64), 1 / 64)
    assert abs(float(made.reward(blurred_1NN @ made.tokens_NF)[0])) < 0.05


def test_grids_are_as_square_as_they_can_be():
    assert [str(grid_of(N)) for N in (4, 16, 12, 196, 1024, 13)] == ["2x2", "4x4", "3x4", "14x14", "32x32", "1x13"]


@pytest.mark.parametrize("interaction", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("noise", [0.0, 1.0, 3.0])
def test_noise_is_as_strong_as_asked_for(noise, interaction):
    conditions = Conditions("footrule", 16, noise, 10, batch=4096, interaction=interaction)
    made, _ = planted(conditions, 0)
    found = Images(conditions, made, 0, 8192, 4)
    of_batch = found.noise(found.next_batch())
    perm_BN = torch.stack([torch.randperm(16) for _ in range(4096)])
    one_B, two_B = of_batch.of_orders(perm_BN), of_batch.of_orders(perm_BN.flip(1))
    assert float(one_B.std()) == pytest.approx(noise * made.noise_unit, rel=0.05)
    assert torch.allclose(of_batch.of_sequence(matrices(perm_BN) @ of_batch.tokens_BNF), one_B, atol=1e-5)
    if noise:
        shared = float(torch.corrcoef(torch.stack([one_B, two_B]))[0, 1])
        assert shared == pytest.approx(1 - interaction, abs=0.07)


def test_every_image_comes_once_an_epoch_and_keeps_its_difficulty():
    conditions = Conditions("footrule", 16, 1.0, 10, batch=64)
    made, _ = planted(conditions, 0)
    found = Images(conditions, made, 0, 256, 4)
    batches = [found.next_batch() for _ in range(8)]
    assert (
        torch.cat(batches[:4]).sort().values.tolist() == [*range(256)] == torch.cat(batches[4:]).sort().values.tolist()
    )
    shift_B = found.noise(batches[0]).shift_B
    assert torch.equal(shift_B, found.noise(batches[0]).shift_B)
    assert found.embedded(64).shape == (64, 16, 4)


def test_looks_are_every_two_percent():
    assert [*look_steps(3)] == [0, 1, 2, 3]
    assert [*look_steps(1500)][:60] == [*range(60)]
    steps = [*look_steps(2500)]
    assert steps[-1] == 2500
    assert max(late - soon for soon, late in pairwise(steps)) <= 50
    assert len(steps) < 300


def trial(*rewards, seed=0, samples=64):
    return Trial(seed, 8, samples, tuple(Look(10 * k, k / 10, reward) for k, reward in enumerate(rewards)))


def test_a_level_is_reached_where_the_reward_stays_above_it():
    assert trial(0, 0.9, 0.7, 0.8, 0.9).reached(0.8).step == 30
    assert trial(0, 0.9, 0.7).reached(0.8) is None
    assert trial(0.9, 0.9).reached(0.8).step == 0


def test_a_median_over_seeds_and_what_is_not_reached():
    early, late, never = trial(0, 0.9, 0.9), trial(0, 0.5, 0.9), trial(0, 0.5, 0.5)
    found = reached([early, late, never], 0.8)
    assert (found.seeds, found.samples.value, found.samples.low, found.samples.high) == (2, 1280, 640, None)
    assert found.seconds.value == pytest.approx(0.2)
    assert reached([never, never, late], 0.8).samples.value is None
    assert reached([early], 0.8).samples.as_json() == {"value": 640, "low": 640, "high": 640}
    assert end([early, never]).value == pytest.approx(0.7)


def test_how_a_policy_is_written():
    catalogue = Catalogue.load()
    made = parse("mine=reinforce:orders=64, curves=[hilbert, {name: flip, of: spiral}],learning_rate=1e-2", catalogue)
    assert (made.label, made.name) == ("mine", "reinforce")
    assert made.settings == {
        "orders": 64,
        "curves": ["hilbert", {"name": "flip", "of": "spiral"}],
        "learning_rate": 1e-2,
    }
    assert parse("reinforce", catalogue).label == "reinforce"
    assert parse("reinforce:faithful=paper", catalogue).label == "reinforce:faithful=paper"


def test_sweeps_leave_alone_what_is_written_and_what_has_no_such_setting():
    catalogue = Catalogue.load()
    found = swept([parse("reinforce", catalogue)], catalogue, (8, 64), (0.1, 0.2))
    assert [(each.label, *each.swept.values()) for each in found] == [
        ("reinforce lr=0.1", 8, 0.1),
        ("reinforce lr=0.1", 64, 0.1),
        ("reinforce lr=0.2", 8, 0.2),
        ("reinforce lr=0.2", 64, 0.2),
    ]
    assert len(swept([parse("reinforce:orders=4", catalogue)], catalogue, (8, 64), ())) == 1
    assert [each.swept for each in swept([parse("uniform", catalogue)], catalogue, (8,), (0.1,))] == [{"orders": 8}]


def test_orders_that_a_policy_fixes_fall_away_and_a_budget_sets_the_steps():
    faithful = replace(parse("reinforce:faithful=paper,logits=patch", Catalogue.load()), swept={"orders": 8})
    found, _ = admitted(faithful, QUICK, None)
    assert found.swept == {}
    twice = Contender("twice", "reinforce", {"orders_per_image": 2})
    assert admitted(twice, QUICK, 64 * 2 * 5)[1].steps == 5
    with pytest.raises(UsageError, match="coefficients"):
        admitted(Contender("x", "reinforce", {"coefficients": 99}, {"orders": 8}), QUICK, None)
    with pytest.raises(UsageError, match="100 orders do not fit a batch of 64"):
        admitted(Contender("x", "reinforce", {"orders": 100}), QUICK, None)


@pytest.mark.parametrize("contender", installed(Catalogue.load())[0], ids=lambda contender: contender.label)
@pytest.mark.parametrize("problem", ["footrule", "adjacency"])
def test_every_installed_policy_runs_and_starts_from_the_same_order(contender, problem):
    conditions = replace(QUICK, problem=problem, interaction=0.5)
    made = run_trial(contender.ref, conditions, 1)
    assert [look.step for look in made.looks] == [0, 1, 2, 3, 4, 5, 6]
    other = run_trial(Contender("uniform", "uniform").ref, conditions, 1)
    assert made.looks[0].reward == other.looks[0].reward
    assert made.samples_a_step % 64 == 0
    again = run_trial(contender.ref, conditions, 1)
    assert [look.reward for look in again.looks] == [look.reward for look in made.looks]


def test_a_policy_learns_and_one_that_does_not_stays():
    conditions = Conditions("salient_last", 16, 0.0, 300)
    learned = run_trial(Contender("", "reinforce", {"logits": "patch", "learning_rate": 0.02}).ref, conditions, 0)
    assert learned.looks[-1].reward > 0.8 > learned.looks[0].reward
    still = run_trial(Contender("", "uniform").ref, replace(conditions, steps=20), 0)
    assert len({look.reward for look in still.looks}) == 1


def test_a_policy_s_own_prior_is_where_it_starts():
    conditions = replace(QUICK, problem="adjacency")
    assert run_trial(Contender("", "uniform", {"prior": "snake"}).ref, conditions, 0).looks[0].reward == 1


class Soft(torch.nn.Module):
    """One soft order for all images and nothing else: what moves it is the gradient through the tokens."""

    orders_per_image, learning_rate = 1, 0.1

    def __init__(self, settings, context):
        super().__init__()
        self.logits_NN = torch.nn.Parameter(5 * matrices(torch.from_numpy(context.prior_N)[None])[0])

    def temperature(self, clock):
        return 1.0

    def draw(self, batch, tokens_BND, temperature):
        def soft(tokens):
            return self.logits_NN.softmax(1) @ tokens

        return Draw(self.best()[None], torch.zeros(batch, dtype=torch.int64), soft=soft)

    def best(self, tokens_BND=None):
        from scipy.optimize import linear_sum_assignment

        _, perm_N = linear_sum_assignment(-self.logits_NN.detach().numpy())
        return torch.from_numpy(perm_N).long()

    def observe(self, draw, outcome):
        return PolicyStep()


class Fragile(Soft):
    """Breaks when it learns."""

    def observe(self, draw, outcome):
        raise ZeroDivisionError("by zero")


class Stopped(Soft):
    """Somebody presses Ctrl-C in the second seed; needs a setting, so that it comes only where it is asked for."""

    calls = 0

    def observe(self, draw, outcome):
        Stopped.calls += 1
        if Stopped.calls == 9:
            raise KeyboardInterrupt
        return PolicyStep()


class NeedySettings(Settings):
    """Nothing works without `size`."""

    size: int


@pytest.fixture
def guests(monkeypatch):
    """The catalogue with a stranger's policies besides what is installed: they are there by being offered."""
    module = ModuleType("guest_policies")
    for each in (Soft, Fragile, Stopped, NeedySettings):
        setattr(module, each.__name__, each)
    monkeypatch.setitem(sys.modules, "guest_policies", module)
    components = tuple(
        Component("policy", name, f"guest_policies:{target}", "a guest", own)
        for name, target, own in (
            ("soft", "Soft", None),
            ("fragile", "Fragile", None),
            ("stopped", "Stopped", "guest_policies:NeedySettings"),
            ("needy", "Soft", "guest_policies:NeedySettings"),
            ("missing", "Nowhere", None),
        )
    )
    core = next(record for record in Catalogue.load().plugins if record.name == "core")
    own = {field: getattr(core, field) for field in core.__dataclass_fields__}
    guest = PluginRecord(
        **{
            **own,
            "name": "guest",
            "distribution": "reorder-guest",
            "components": components,
            "kinds": (),
            "commands": (),
        }
    )
    broken = replace(
        guest,
        name="ill",
        state="broken",
        reason="it is ill",
        components=(components[0].__class__("policy", "ill", "a:b", "x"),),
    )
    catalogue = Catalogue([*Catalogue.load().plugins, guest, broken])
    monkeypatch.setattr(Catalogue, "load", staticmethod(lambda: catalogue))
    Stopped.calls = 0
    return catalogue


def test_strangers_take_part_by_being_installed(guests):
    taken, left = taking_part((), guests)
    assert {"soft", "fragile", "reinforce", "uniform"} <= {each.name for each in taken}
    said = {each.name: each.reason for each in left}
    assert said["needy"] == "it needs settings: --policy 'needy:size=…'"
    assert said["ill"] == "it is ill"


def test_a_soft_order_learns_from_the_gradient_of_the_tokens(guests):
    made = run_trial(Contender("", "soft").ref, Conditions("footrule", 16, 1.0, 200), 0)
    assert made.looks[-1].reward > 0.5 > made.looks[0].reward


FEW = ["bench", "policies", "--size", "16", "--noise", "0", "--seeds", "2", "--steps", "6", "--problem", "footrule"]


def test_one_that_breaks_is_a_row(guests, capsys, tmp_path):
    arguments = ["--policy", "all", "--policy", "reinforce:logits=patch", "--out", str(tmp_path), "--json"]
    assert main([*FEW, *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["label"]: row for row in found["rows"]}
    assert rows["fragile"]["reason"] == "ZeroDivisionError: by zero"
    assert "has no attribute 'Nowhere'" in rows["missing"]["reason"]
    assert rows["soft"]["state"] == "ok"
    assert rows["soft"]["samples"] == 64 * 6
    assert {each["name"] for each in found["left_out"]} >= {"needy", "ill"}
    reinforce = [row for row in found["rows"] if row["label"] == "reinforce:logits=patch"]
    assert [row["orders"] for row in reinforce] == [8, 64]
    assert "curves" not in reinforce[0]
    kept = json.loads((tmp_path / "policies.json").read_text())
    assert len(kept["rows"]) == len(found["rows"])
    curves = next(row["curves"] for row in kept["rows"] if row["label"] == "soft")
    assert [len(curve) for curve in curves] == [7, 7]
    assert curves[0][-1][0] == 384
    assert (tmp_path / "policies.png").read_bytes()[:4] == b"\x89PNG"


def test_ctrl_c_says_what_is_finished(guests, capsys):
    assert main([*FEW, "--policy", "soft", "--policy", "stopped:size=1", "--policy", "uniform"]) == study.STOPPED
    printed = capsys.readouterr().out
    assert "stopped after 1 of 2 seeds" in printed
    assert "soft" in printed
    assert "uniform" not in printed


def test_tables(capsys):
    assert main([*FEW, "--policy", "reinforce:faithful=paper", "--policy", "uniform", "--orders", "4"]) == 0
    printed = capsys.readouterr().out
    assert "footrule, 16 patches, noise 0" in printed
    assert "1 order\n" in printed or "1 order " in printed
    assert "4 orders" in printed
    assert "95 % bootstrap intervals" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "reinforc"], "did you mean 'reinforce'"),
        (["--policy", "reinforce:order=3"], "did you mean 'orders'"),
        (["--policy", "reinforce:orders"], "'orders' is no setting: write key=value"),
        (["--policy", "a=b=c:d=1"], "write NAME, NAME:key=value"),
        (["--policy", "reinforce:curves=[hilbert"], "this is not valid YAML"),
        (["--policy", "reinforce:coefficients=40"], "lower coefficients"),
        (["--policy", "a=uniform", "--policy", "a=reinforce"], "two policies are called 'a'"),
        (["--problem", "footrul"], "did you mean 'footrule'"),
        (["--budget", "100"], "--steps and --budget both"),
        (["--size", "3"], "Invalid value for '--size'"),
        (["--noise", "-1"], "Invalid value for '--noise'"),
        (["--learning-rate", "0"], "Invalid value for '--learning-rate'"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, capsys):
    assert main([*FEW, *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*FEW, "--policy", "uniform", "--out", str(tmp_path / "file" / "below")]) == 1
    assert "choose another --out" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the highest memory of a process")
def test_memory_is_measured():
    with peak_memory() as nothing:
        pass
    with peak_memory() as found:
        del_me = np.ones(100 * 2**20 // 8)
        del del_me
    if found.mebibytes is None:
        pytest.skip("this system does not let a process reset its high-water mark")
    assert 90 < found.mebibytes < 200
    assert nothing.mebibytes < 20
