"""Errors: where, what is wrong and what to do; misspelt names get the nearest one."""

from __future__ import annotations

import pickle

import pytest

from atypia import errors
from atypia.errors import AtypiaError, CohortError, InputError, SettingsError, unknown_name


def test_the_message_names_place_problem_and_remedy() -> None:
    error = InputError("scan.nii", "is damaged", "Copy it again")
    assert str(error) == "scan.nii: is damaged. Copy it again."
    assert (error.where, error.problem, error.remedy) == (
        "scan.nii",
        "is damaged",
        "Copy it again",
    )


@pytest.mark.parametrize("name", [n for n in vars(errors) if n.endswith("Error")])
def test_every_error_is_caught_as_one_and_crosses_processes(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, AtypiaError)
    again = pickle.loads(pickle.dumps(kind("a", "b", "c")))
    assert type(again) is kind
    assert str(again) == "a: b. c."


def test_the_tree_of_errors() -> None:
    assert issubclass(CohortError, InputError)
    assert issubclass(errors.LeakageError, InputError)
    assert issubclass(errors.NotFittedError, errors.ModelError)
    assert not issubclass(SettingsError, InputError)


def test_a_misspelt_name_gets_the_nearest_in_its_own_spelling() -> None:
    error = unknown_name("modality", "flare", ["T1w", "FLAIR"])
    assert isinstance(error, SettingsError)
    assert str(error) == "modality 'flare': unknown. Did you mean 'FLAIR'? Known: FLAIR, T1w."


def test_a_name_like_no_other_gets_no_guess() -> None:
    assert "Did you mean" not in str(unknown_name("modality", "xyz", ["T1w", "FLAIR"]))
