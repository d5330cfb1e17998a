"""Which pictures are trained on, and which are validated on."""

import pytest

from unet_core.data.split import Split
from unet_core.data.splitting import split
from unet_core.data.synthetic import Synthetic
from unet_core.errors import ConfigError, DataError

TEN = Synthetic(count=10)


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_every_picture_is_validated_on_in_one_fold(folds):
    validated = []
    for fold in range(1, folds + 1):
        training, validation = split(TEN, 0.2, Split(folds=folds, fold=fold))
        assert sorted((*training.names, *validation.names)) == sorted(TEN.names)
        assert len(validation) in (10 // folds, -(-10 // folds))
        validated += validation.names
    assert tuple(validated) == TEN.names


def test_the_last_fold_is_the_usual_last_part():
    folded, usual = split(TEN, 0.2, Split(folds=5, fold=5)), split(TEN, 0.2)
    assert [side.names for side in folded] == [side.names for side in usual]
    other = split(TEN, 0.2, Split(folds=5, fold=4))
    assert [side.names for side in other] != [side.names for side in usual], "the control"


def test_nothing_may_be_validated_on():
    training, validation = split(TEN, 0)
    assert (training.names, validation.names) == (TEN.names, ())
    assert [len(side) for side in split(Synthetic(count=1), 0)] == [1, 0]
    with pytest.raises(DataError, match=r"--validation 0\.2: of 1 picture .* or --validation 0 to train on all"):
        split(Synthetic(count=1), 0.2)


@pytest.fixture
def groups(tmp_path):
    """Patients a to d with 1, 4, 2 and 3 pictures, which are not in a row."""
    path = tmp_path / "groups.csv"
    path.write_text("name,group\n" + "".join(f"{n:03d}.png,{group}\n" for n, group in enumerate("abbcbdbcdd")))
    return str(path)


@pytest.mark.parametrize(
    ("validation", "how", "validated"),
    [
        (0.2, {}, "dd d"),
        (3, {}, "dd d"),
        (4, {}, "dccdd"),
        (0.2, {"folds": 2, "fold": 1}, "abbbb"),
        (0.2, {"folds": 2, "fold": 2}, "ccddd"),
    ],
)
def test_a_group_stays_together(groups, validation, how, validated):
    training, validating = split(TEN, validation, Split(groups=groups, **how))
    of = dict(zip(TEN.names, "abbcbdbcdd", strict=True))
    assert sorted(of[name] for name in validating.names) == sorted(validated.replace(" ", ""))
    assert not {of[name] for name in training.names} & {of[name] for name in validating.names}
    if validation == 0.2:
        alone = split(TEN, validation, Split(**how))
        apart = [{of[name] for name in side.names} for side in alone]
        assert apart[0] & apart[1], "the control: without the table a group is on both sides"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            {"folds": 9, "fold": 3},
            "--folds 9 --fold 3: of 10 pictures in 4 groups this leaves none .* give fewer folds",
        ),
        ({}, "--validation 10: of 10 pictures in 4 groups this leaves none .* smaller number"),
    ],
)
def test_groups_that_leave_nothing_are_refused(groups, how, words):
    with pytest.raises(DataError, match=words):
        split(TEN, 10, Split(groups=groups, **how))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("000,a\n001,b\n", r"has no group for 002, 003"),
        ("000,a\n000.png,b\n", r"000\.png,b: is in another group already"),
        ("000\n", "000: give name,group"),
    ],
)
def test_groups_of_other_pictures_are_refused(tmp_path, text, words):
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(DataError, match=rf"groups\.csv: {words}"):
        split(TEN, 0.2, Split(groups=str(tmp_path / "groups.csv")))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"fold": 1}, "fold 1: give one from 1 up to --folds"),
        ({"folds": 5, "fold": 0}, "fold 0: give one from 1 up to --folds"),
        ({"folds": 5, "fold": 6}, "fold 6: give one"),
        ({"folds": 1, "fold": 1}, "folds 1: give 2 or more"),
        ({"folds": 2, "fold": 1, "validation_data": "x"}, "leave out --folds and --groups"),
    ],
)
def test_what_parts_nothing_is_refused(how, words):
    with pytest.raises(ConfigError, match=words):
        Split(**how)
