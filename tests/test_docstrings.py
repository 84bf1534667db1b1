"""The examples in the docstrings of public methods run.

pytest collects those of functions and classes itself. It misses methods, since `set_public_module`
gives their class another module than theirs. An example may use the public names of its package.
"""

import doctest
import importlib
import inspect

import pytest
from public import public_names

PACKAGES = (
    *("schedule", "torch", "torch.drop_in", "diagnostics", "integrations", "finder"),
    *("forecasting", "experiments", "results", "report"),
)


def examples() -> list[doctest.DocTest]:
    finder, tests = doctest.DocTestFinder(exclude_empty=True), []
    for name in PACKAGES:
        package = importlib.import_module(f"ratecraft.{name}")
        names = {public: getattr(package, public) for public in public_names(package)}
        for public_name in public_names(package):
            public_class = getattr(package, public_name)
            if inspect.isclass(public_class):
                path = f"{package.__name__}.{public_name}"
                class_tests = finder.find(public_class, path, module=False, globs=names)
                tests += [test for test in class_tests if test.examples and test.name != path]
    return tests


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_examples_of_methods_run(example: doctest.DocTest) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example).failed == 0
