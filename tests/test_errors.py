"""Laws of the exception tree."""

import pickle

import pytest

from dynts_batch import errors
from dynts_batch.errors import ConfigError, DyntsError, InputError, choices_hint


def _tree(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


@pytest.mark.parametrize("kind", _tree(DyntsError))
def test_every_exception_survives_pickling(kind):
    error = pickle.loads(pickle.dumps(kind("policy.budget must be at least 1, got 0")))
    assert type(error) is kind
    assert str(error) == "policy.budget must be at least 1, got 0"


@pytest.mark.parametrize("kind", _tree(DyntsError))
def test_the_tree_in_the_docstring_names_every_exception(kind):
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("kind", [ConfigError, InputError])
def test_a_users_mistake_is_a_value_error(kind):
    assert issubclass(kind, ValueError)


def test_a_hint_names_the_nearest_choice_and_all_choices():
    assert choices_hint("windw", ["full", "window"]) == (
        "Did you mean window? Choices: full, window"
    )
    assert choices_hint("xyz", ["full", "window"]) == "Choices: full, window"
