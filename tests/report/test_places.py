import pytest

from atypia.report.places import place_in_words


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((-26, -20, 28), "left, white matter"),
        ((26, -20, 28), "right, white matter"),
        ((-13, 10, 10), "left, gray matter"),  # caudate nucleus
        ((0, -22, 8), "middle, "),
        ((-7, 12, 14), "left, CSF"),  # lateral ventricle
        ((50, 80, 70), "right, outside the template's brain"),
        ((900, 0, 0), "right, outside the template's brain"),
        ((-900, 0, 0), "left, outside the template's brain"),
    ],
)
def test_known_places_have_their_names(place, words):
    assert place_in_words(place).startswith(words)
