"""Ensembles against a literal formulation; what they refuse; their model folders; resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atypia.cohort import Cohort, Scan
from atypia.detectors import Detector, TrainingSet, load_detector, save_detector
from atypia.detectors import ensemble as module
from atypia.detectors.ensemble import Ensemble, _divided_by_person
from atypia.detectors.members import EnsembleSettings
from atypia.detectors.zscore import ZScore, ZScoreSettings
from atypia.errors import AtypiaError, LeakageError, ModelError, NotFittedError, SettingsError
from atypia.preprocessing import Prepared, prepare
from atypia.registry import detector_class
from atypia.scoring.ensemble import LEVELS
from tests.phantoms import phantom_cohort, phantom_scan

TRAIN, HEALTHY, OTHERS = range(6), range(50, 54), range(60, 64)


def unfitted(*members: str | dict[str, Any], **settings: Any) -> Ensemble:
    told = [{"method": m, "preset": "tiny"} if isinstance(m, str) else m for m in members]
    return Ensemble(EnsembleSettings.make({"members": told, **settings}, preset="tiny"))


def alone(method: str, **settings: Any) -> Detector:
    kind = detector_class(method)
    return kind(kind.settings_class.make(settings, preset="tiny")).fit(phantom_cohort(TRAIN))


@cache
def pair() -> dict[str, Detector]:
    return {"zscore": alone("zscore"), "coarse": alone("prior_residual")}


@cache
def composed() -> Ensemble:
    return Ensemble.of(pair(), phantom_cohort(HEALTHY))


def slow_quantiles(scores: np.ndarray) -> list[float]:
    """Interpolate linearly between the scores in their order."""
    ordered = [float(score) for score in np.sort(scores)]
    found = []
    for level in LEVELS:
        place = float(level) * (len(ordered) - 1)
        below = min(int(place), len(ordered) - 2)
        share = place - below
        found.append((1 - share) * ordered[below] + share * ordered[below + 1])
    return found


def slow_rank(score: float, quantiles: list[float]) -> float:
    """Rank one score among healthy ones."""
    if score <= quantiles[0]:
        return 0.0
    if score >= quantiles[-1]:
        return 1 + (score - quantiles[-1]) / (quantiles[-1] - quantiles[0])
    above = next(i for i, quantile in enumerate(quantiles) if quantile > score)
    low, high = quantiles[above - 1], quantiles[above]
    share = (score - low) / (high - low)
    return float(LEVELS[above - 1] + share * (LEVELS[above] - LEVELS[above - 1]))


WAYS: dict[str, Callable[[list[float]], float]] = {
    "mean": lambda ranks: sum(ranks) / len(ranks),
    "max": max,
    "geometric": lambda ranks: float(np.prod(ranks)) ** (1 / len(ranks)),
}


@pytest.mark.parametrize("how", WAYS)
def test_scores_are_combined_ranks_among_what_held_out_scans_score(how: str) -> None:
    ensemble = composed().but(how=how)
    plan = ensemble._fitted_plan()
    prepared = prepare(phantom_scan(70, lesion=True), plan)
    found = ensemble._score(prepared)
    healthy = [prepare(scan, plan) for scan in phantom_cohort(HEALTHY)]
    known = {
        name: slow_quantiles(
            np.concatenate([member._score(one).score[one.brain.data] for one in healthy])
        )
        for name, member in pair().items()
    }
    scores = {name: member._score(prepared).score for name, member in pair().items()}
    places = np.argwhere(prepared.brain.data)
    # Some by chance, and the most abnormal one, beyond all healthy ones.
    highest = np.unravel_index(
        np.where(prepared.brain.data, found.score, -1).argmax(), (26, 30, 24)
    )
    chosen = [tuple(p) for p in np.random.default_rng(0).permutation(places)[:5]] + [highest]
    for place in chosen:
        ranks = [slow_rank(float(scores[name][place]), known[name]) for name in known]
        assert found.score[place] == pytest.approx(WAYS[how](ranks), rel=1e-5, abs=1e-7)
    assert found.score[highest] > 1


def test_voting_counts_the_members_beyond_their_quantile() -> None:
    ensemble = composed().but(how="voting", rate=0.1)
    plan = ensemble._fitted_plan()
    healthy = [prepare(scan, plan) for scan in phantom_cohort(HEALTHY)]
    votes = np.array([ensemble._score(one).score[one.brain.data].mean() for one in healthy])
    assert votes.mean() == pytest.approx(0.1, abs=0.002)
    assert set(np.unique(ensemble._score(healthy[0]).score)) <= {0.0, 0.5, 1.0}


def test_the_restoration_is_the_first_members_that_gives_one() -> None:
    members = {"intensity": alone("intensity"), **pair()}
    ensemble = Ensemble.of(members, phantom_cohort(HEALTHY))
    scan = phantom_scan(70)
    shown, of_zscore = (
        ensemble.predict(scan).restoration,
        pair()["zscore"].predict(scan).restoration,
    )
    assert shown is not None
    assert of_zscore is not None
    np.testing.assert_array_equal(shown.data, of_zscore.data)


def test_members_never_see_who_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = [
        replace(scan, session=session, subject=f"{i // 2}")
        for i, scan in enumerate(phantom_cohort(range(8)))
        for session in [f"{i % 2}"]
    ]
    seen: list[Prepared] = []
    original = ZScore._fit
    monkeypatch.setattr(
        ZScore, "_fit", lambda self, given: (seen.extend(given.scans), original(self, given))[1]
    )
    learnt: list[Prepared] = []
    learn = Ensemble._learn_healthy
    monkeypatch.setattr(
        Ensemble,
        "_learn_healthy",
        lambda self, given, count: learn(self, [learnt.append(p) or p for p in given], count),
    )
    ensemble = unfitted(
        "zscore", {"method": "zscore", "name": "dark", "settings": {"sign": "dark"}}
    )
    ensemble.fit(Cohort(tuple(scans), "twice"))
    sums = [float(p.image.data.sum()) for p in (prepare(s, ensemble.plan) for s in scans)]

    def people(given: list[Prepared]) -> set[int]:
        return {sums.index(float(p.image.data.sum())) // 2 for p in given}

    # One of four people is held out, with all scans of theirs.
    assert people(seen).isdisjoint(people(learnt))
    assert people(seen) | people(learnt) == set(range(4))
    assert len(learnt) % 2 == 0
    assert len(seen) == 2 * (8 - len(learnt))


def test_a_fit_is_its_members_fits_on_the_scans_that_are_left() -> None:
    ensemble = unfitted("zscore", "prior_residual").fit(phantom_cohort(TRAIN))
    plan = ensemble._fitted_plan()
    prepared = [prepare(scan, plan) for scan in phantom_cohort(TRAIN)]
    who = [scan.person for scan in phantom_cohort(TRAIN)]
    learning, held_out = _divided_by_person(prepared, who, 0.2, 0)
    assert len(held_out) == 1
    member = ZScore(ZScoreSettings.tiny())
    member._fit(TrainingSet(learning, plan.grid))
    np.testing.assert_array_equal(ensemble.members_["zscore"].mean_, member.mean_)  # type: ignore[attr-defined]
    values = member._score(held_out[0]).score[held_out[0].brain.data].astype(np.float64)
    np.testing.assert_allclose(ensemble.healthy_[0], np.quantile(values, LEVELS), rtol=1e-12)


def test_of_many_healthy_scores_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 4000)
    drawn = Ensemble.of(pair(), phantom_cohort(HEALTHY))
    middle = LEVELS <= 0.95
    exact = composed().healthy_[:, middle]
    assert not np.array_equal(drawn.healthy_[:, middle], exact)
    # 4000 draws: shares are right within 4 standard errors.
    for row, of_all in zip(drawn.healthy_, composed().healthy_, strict=True):
        shares = np.interp(row[middle], of_all, LEVELS)
        assert np.abs(shares - LEVELS[middle]).max() < 4 * 0.5 / 4000**0.5


@pytest.mark.parametrize("way", ["fitted", "composed"])
def test_a_loaded_ensemble_scores_the_same_and_calibrates(way: str, tmp_path: Path) -> None:
    ensemble = composed()
    if way == "fitted":
        ensemble = unfitted("intensity", "patch_autoencoder").fit(phantom_cohort(TRAIN))
    save_detector(ensemble, tmp_path)
    loaded = load_detector(tmp_path)
    assert isinstance(loaded, Ensemble)
    assert loaded.digest() == ensemble.digest()
    scan = phantom_scan(71, lesion=True)
    here, there = ensemble.predict(scan), loaded.predict(scan)
    np.testing.assert_array_equal(here.score_map.data, there.score_map.data)
    assert here.scores == there.scores
    assert loaded.calibrate(phantom_cohort(OTHERS)).people == tuple(
        sorted(scan.person for scan in phantom_cohort(OTHERS))
    )
    save_detector(loaded, tmp_path)
    again = load_detector(tmp_path)
    assert again.calibration is not None
    assert again.trained_on == ensemble.trained_on
    mask = again.predict(scan).mask
    assert mask is not None
    assert mask.data.any()


def test_the_modality_reaches_members_that_ask_for_it(tmp_path: Path) -> None:
    def as_t1w(seeds: range) -> Cohort:
        scans = [replace(s, images={"T1w": s.images["T2w"]}) for s in phantom_cohort(seeds)]
        return Cohort(tuple(scans), "T1w")

    one = {"method": "intensity", "preset": "tiny"}
    members = (one, one | {"name": "dark", "settings": {"direction": "dark"}})
    ensemble = unfitted(*members).fit(as_t1w(TRAIN))
    np.testing.assert_array_equal(*ensemble.healthy_)
    save_detector(ensemble, tmp_path)
    scan = as_t1w(range(70, 71))[0]
    np.testing.assert_array_equal(
        load_detector(tmp_path).score_map(scan).data, ensemble.score_map(scan).data
    )


def test_people_of_members_and_scale_cannot_calibrate(tmp_path: Path) -> None:
    save_detector(composed(), tmp_path)
    told = (tmp_path / "detector.json").read_text(encoding="utf-8")
    for ensemble in (composed(), load_detector(tmp_path)):
        for seeds in (TRAIN, HEALTHY):
            with pytest.raises(LeakageError):
                ensemble.calibrate(phantom_cohort(seeds))
    # Results leave out trained_on["people"]; names must stand nowhere else.
    description = json.loads(told)
    people = description["trained_on"].pop("people")
    assert len(people) == 10
    assert not [person for person in people if person in json.dumps(description)]


def test_members_of_one_model_share_what_it_has_learnt(tmp_path: Path) -> None:
    first = pair()["zscore"]
    members = {"bright": first.but(sign="bright"), "dark": first.but(sign="dark")}
    ensemble = Ensemble.of(members, phantom_cohort(HEALTHY), how="max", median_size=1)
    assert members["bright"].calibration is None
    save_detector(ensemble, tmp_path)
    loaded = load_detector(tmp_path)
    assert loaded.settings.median_size == 1
    assert isinstance(loaded, Ensemble)
    assert loaded.settings.how == "max"
    scan = phantom_scan(72, lesion=True)
    np.testing.assert_array_equal(loaded.score_map(scan).data, ensemble.score_map(scan).data)


def test_members_are_called_as_one_likes(tmp_path: Path) -> None:
    # A name that goes on like the name of a network of the one before.
    names = ("MHD 0", "MHD 0.features_", "a/b %2E", "größer")
    told: list[Any] = [{"method": "padim", "name": names[0], "preset": "tiny"}]
    told += [{"method": "zscore", "name": name} for name in names[1:]]
    ensemble = unfitted(*told).fit(phantom_cohort(TRAIN), folder=tmp_path / "unfinished")
    assert tuple(ensemble.members_) == names
    save_detector(ensemble, tmp_path / "model")
    loaded = load_detector(tmp_path / "model")
    scan = phantom_scan(75)
    np.testing.assert_array_equal(loaded.score_map(scan).data, ensemble.score_map(scan).data)


def test_the_identity_tells_members_way_and_healthy_scans() -> None:
    def identity(members: dict[str, Detector], seeds: range = HEALTHY, how: str = "mean") -> str:
        return str(Ensemble.of(members, phantom_cohort(seeds), how=how).trained_on["identity"])

    other = {"zscore": pair()["zscore"].but(sign="dark"), "coarse": pair()["coarse"]}
    found = [
        identity(pair()),
        identity(pair(), OTHERS),
        identity(pair(), how="max"),
        identity(other),
    ]
    assert len(set(found)) == 4
    assert found[0] == composed().trained_on["identity"]
    assert found[0] == Ensemble.identity_of_members(pair(), phantom_cohort(HEALTHY))


def refused(members: dict[str, Detector], seeds: range = HEALTHY, **settings: Any) -> AtypiaError:
    with pytest.raises(AtypiaError) as stop:
        Ensemble.of(members, phantom_cohort(seeds), **settings)
    return stop.value


def test_what_cannot_be_composed_is_refused() -> None:
    zscore = pair()["zscore"]
    finer = alone("prior_residual", spacing_mm=8.0)
    told = str(refused({"zscore": zscore, "other": finer}))
    assert "other: prepares scans otherwise than zscore" in told
    assert "resample" in told
    found = refused({"zscore": zscore, "new": ZScore()})
    assert isinstance(found, NotFittedError)
    assert "is an ensemble" in str(refused({"zscore": zscore, "inner": composed()}))
    assert "Give two at least" in str(refused({"zscore": zscore}))
    assert "Give two at least" in str(refused({}))
    assert isinstance(refused(pair(), TRAIN), LeakageError)
    assert "training of zscore" in str(refused(pair(), TRAIN))
    assert "no scans" in str(refused(pair(), range(0)))
    assert "spacing_mm cannot be told" in str(refused(pair(), spacing_mm=6.0))
    assert "how" in str(refused(pair(), how="median"))
    with pytest.raises(AtypiaError, match="healthy scans"):
        Ensemble.of(pair(), phantom_cohort(range(80, 82), lesion=True))
    flair = zscore.but()
    flair.trained_on = flair.trained_on | {"modality": "FLAIR"}
    assert "was fitted on FLAIR, coarse on T2w" in str(
        refused({"coarse": pair()["coarse"], "zscore": flair})
    )


def test_settings_that_cannot_be_are_refused() -> None:
    for members, problem in (
        (("zscore",), "at least 2"),
        (("zscore", "z-score"), None),
        (("zscore", "zscore"), "twice"),
        (("zscore", "ensemble"), "another one"),
        (("zscore", "pdim"), "padim"),
        (("zscore", {"method": "padim", "settings": {"spacing_mm": 4}}), "Give these settings"),
    ):
        if problem is None:
            assert [m.name for m in unfitted(*members).settings.members] == ["zscore", "z-score"]
            continue
        with pytest.raises(SettingsError, match=problem):
            unfitted(*members)
    wrong = unfitted("zscore", {"method": "padim", "settings": {"colour": 1}})
    with pytest.raises(SettingsError, match="colour"):
        wrong.fit(phantom_cohort(TRAIN))
    with pytest.raises(SettingsError, match="learnt"):
        composed().but(members=())


def test_a_member_of_another_version_is_a_model_error(tmp_path: Path) -> None:
    save_detector(composed(), tmp_path)
    path = tmp_path / "detector.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    description["trained_on"]["members"]["zscore"]["settings"]["gone"] = 1
    path.write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(ModelError, match="does not fit this version"):
        load_detector(tmp_path)


def test_features_of_another_model_come_along(tmp_path: Path) -> None:
    donor = alone("padim", features="self_supervised")
    donor.trained_on["people"] += ["somebody"]
    save_detector(donor, tmp_path / "donor")
    borrowing = {"features": "detector", "weights": str(tmp_path / "donor")}
    member = {"method": "padim", "preset": "tiny", "settings": borrowing}
    ensemble = unfitted("zscore", member).fit(phantom_cohort(TRAIN))
    # Whoever the donor has learnt from, the ensemble has, too.
    assert ensemble.trained_on["people"] == sorted(donor.trained_on["people"])
    save_detector(ensemble, tmp_path / "ensemble")
    for path in (tmp_path / "donor").iterdir():
        path.unlink()
    scan = phantom_scan(73, lesion=True)
    np.testing.assert_array_equal(
        load_detector(tmp_path / "ensemble").score_map(scan).data, ensemble.score_map(scan).data
    )


def test_an_interrupted_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made() -> Ensemble:
        training = {"training": {"checkpoint_every": 2}}
        trained = {"method": "patch_autoencoder", "preset": "tiny", "settings": training}
        return unfitted("zscore", trained)

    cohort = phantom_cohort(TRAIN)
    whole = made().fit(cohort)

    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if task == "patch_autoencoder: train" and done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made().fit(cohort, folder=tmp_path, progress=interrupt)
    fits = []
    original = ZScore._fit
    monkeypatch.setattr(
        ZScore, "_fit", lambda self, given: (fits.append(1), original(self, given))[1]
    )
    steps: list[int] = []
    resumed = made().fit(
        cohort,
        folder=tmp_path,
        progress=lambda task, done, total, note="": (
            steps.append(done) if task == "patch_autoencoder: train" else None
        ),
    )
    assert not fits, "the finished member is taken as it is"
    assert min(steps) > 1, "the other goes on from its checkpoint"
    assert resumed.trained_on == whole.trained_on
    scan: Scan = phantom_scan(74, lesion=True)
    np.testing.assert_array_equal(resumed.score_map(scan).data, whole.score_map(scan).data)


@pytest.mark.parametrize(("people", "visits"), [(20, 1), (40, 3), (10, 10), (5, 20), (1, 3)])
def test_a_share_of_the_people_is_held_out_however_often_they_came(
    people: int, visits: int
) -> None:
    who = [f"p{i}" for i in range(people) for _ in range(visits)]
    scans: list[Any] = [(name, visit) for visit, name in enumerate(who)]
    learning, held_out = _divided_by_person(scans, who, 0.2, seed=0)
    sides = [{name for name, _ in part} for part in (learning, held_out)]
    if people == 1:
        assert learning == held_out == scans
    else:
        assert not sides[0] & sides[1]
        assert len(sides[1]) == round(0.2 * people)
        assert len(learning) + len(held_out) == len(scans)
