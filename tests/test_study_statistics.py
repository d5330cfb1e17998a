"""The statistics of a study keep their level, power and coverage in simulations, and agree with scipy's own."""

import numpy as np
import pytest
from conftest import few

stats = pytest.importorskip("scipy.stats")

from unet_compare.study.statistics import (
    POWER,
    bootstrap,
    deciding_seeds,
    difference_p,
    equivalence_p,
    equivalence_power,
    holm,
    smallest_margin,
    t_interval,
    variance_parts,
)

MANY, LEVEL, MARGIN = 20_000, 0.05, 1.0


def pairs(count, shift, spread=1.0, kind="normal"):
    """Differences of many studies of `count` seeds."""
    rng = np.random.default_rng((count, int(100 * abs(shift)), len(kind)))
    draws = {
        "normal": lambda: rng.standard_normal((MANY, count)),
        "uniform": lambda: rng.uniform(-1, 1, (MANY, count)) * np.sqrt(3),
    }
    return shift + spread * draws[kind]()


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("count", [4, 8, 20])
@pytest.mark.parametrize("shift", [MARGIN, -MARGIN, 1.5 * MARGIN])
def test_arms_that_differ_are_not_called_equivalent(count, shift, kind):
    called = (equivalence_p(pairs(count, shift, 0.5, kind), MARGIN) < LEVEL).mean()
    assert called <= LEVEL + 0.012


@pytest.mark.parametrize("count", [8, 12, 20])
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_power_of_equivalence_is_what_is_said(count, shift):
    called = (equivalence_p(pairs(count, shift, 0.9), MARGIN) < LEVEL).mean()
    assert called == pytest.approx(equivalence_power(count, 0.9, MARGIN, LEVEL, shift), abs=0.015)


def test_a_test_that_ignores_the_number_of_seeds_is_found_out():
    """The negative control: a normal distribution in place of Student's is too bold with four seeds."""
    found = pairs(4, MARGIN, 0.5)
    z = (MARGIN - np.abs(found.mean(-1))) / (found.std(-1, ddof=1) / 2)
    assert (stats.norm.sf(z) < LEVEL).mean() > LEVEL + 0.04


@pytest.mark.parametrize("count", [4, 8])
def test_the_test_of_a_difference_keeps_its_level_and_finds_planted_ones(count):
    assert (difference_p(pairs(count, 0)) < LEVEL).mean() == pytest.approx(LEVEL, abs=0.006)
    assert (difference_p(pairs(count, 3)) < LEVEL).mean() > 0.95


def test_students_interval_covers():
    low, high = t_interval(pairs(8, 0.3), 0.9)
    assert ((low <= 0.3) & (high >= 0.3)).mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("seeds", "pictures", "of_seed", "of_picture"), few([(8, 16, 1, 1), (8, 12, 1, 0), (6, 30, 0.2, 1)], (8, 12, 1, 0))
)
def test_the_bootstrap_covers_seeds_and_pictures(seeds, pictures, of_seed, of_picture):
    rng = np.random.default_rng(seeds)
    inside, studies = 0, 200
    for number in range(studies):
        scores = (
            of_seed * rng.standard_normal((seeds, 1))
            + of_picture * rng.standard_normal((1, pictures))
            + 0.5 * rng.standard_normal((seeds, pictures))
        )
        found = bootstrap(scores, 0.9, number)
        inside += found.low <= 0 <= found.high
    assert inside / studies >= 0.86


def test_a_bootstrap_of_seeds_alone_does_not_cover_pictures():
    """The negative control of the one above."""
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((200, 1, 20)) + 0.1 * rng.standard_normal((200, 8, 20))
    low, high = t_interval(scores.mean(-1), 0.9)
    assert ((low <= 0) & (low.max() >= low) & (high >= 0)).mean() < 0.5


def test_the_tests_are_scipys():
    found = pairs(8, 0.2)[:50]
    assert difference_p(found) == pytest.approx(stats.ttest_1samp(found, 0, axis=-1).pvalue)
    sides = [
        stats.ttest_1samp(found, end, axis=-1, alternative=way).pvalue for end, way in ((-1, "greater"), (1, "less"))
    ]
    assert equivalence_p(found, 1) == pytest.approx(np.max(sides, axis=0))


def test_the_number_of_seeds_that_decide():
    count = deciding_seeds(1.0, 1.0, LEVEL)
    assert count is not None
    assert equivalence_power(count, 1.0, 1.0, LEVEL) >= POWER > equivalence_power(count - 1, 1.0, 1.0, LEVEL)
    assert deciding_seeds(1.0, 1e-3, LEVEL) is None
    assert deciding_seeds(1.0, 0.0, LEVEL) is None
    assert deciding_seeds(0.0, 1.0, LEVEL) == 2


def test_the_smallest_margin_is_where_equivalence_begins():
    found = pairs(8, 0.4)[0]
    least = smallest_margin(found, LEVEL)
    assert equivalence_p(found, least) == pytest.approx(LEVEL)
    assert equivalence_p(found, 0.9 * least) > LEVEL


def test_holm_corrects_and_keeps_the_order():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    rng = np.random.default_rng(1)
    several = rng.random((2000, 6))
    corrected = np.array([holm(row) for row in several])
    assert (corrected.min(1) < LEVEL).mean() <= LEVEL + 0.012
    assert (several.min(1) < LEVEL).mean() > 0.2  # uncorrected


def test_identical_runs_are_equivalent_and_not_different():
    same = np.zeros(8)
    assert equivalence_p(same, 0.1) == 0
    assert difference_p(same) == 1
    moved = np.full(8, 0.2)
    assert equivalence_p(moved, 0.1) == 1
    assert difference_p(moved) == 0


@pytest.mark.parametrize(
    "parts", [{"seed": 1.0}, {"fold": 1.0}, {"arm": 1.0}, {"rest": 1.0}, {"seed": 0.5, "fold": 0.5}]
)
def test_variance_is_split_into_what_it_is_of(parts):
    rng = np.random.default_rng(3)
    shapes = {"arm": (40, 1, 1), "seed": (1, 40, 1), "fold": (1, 1, 40), "rest": (40, 40, 40)}
    scores = sum(np.sqrt(part) * rng.standard_normal(shapes[name]) for name, part in parts.items()) + np.zeros(
        (40, 40, 40)
    )
    found = variance_parts(scores)
    for name in shapes:
        assert found[name] == pytest.approx(parts.get(name, 0), abs=0.2)


def test_a_factor_of_one_level_has_no_part():
    assert set(variance_parts(np.random.default_rng(0).standard_normal((2, 5, 1)))) == {"arm", "seed", "rest"}
