"""Tests of the Scipion side; they install as `swiftres_plugin.tests`."""


def load_tests(loader, _tests, _pattern):
    """What unittest, and so `scipion tests`, finds here: the tests that need no pytest."""
    return loader.loadTestsFromName(f"{__name__}.tests_of_scipion")
