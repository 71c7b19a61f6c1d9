"""`scipion tests` lists what this plugin has for it, and it passes."""
import subprocess
import sys

import pytest

pytest.importorskip("pwem", reason="Scipion (pyworkflow, pwem) is not installed")

NAME = "swiftres_plugin.tests.tests_of_scipion.TestSwiftresRefinement"


def scipion_tests(*arguments):
    """As the launcher does: what it prints."""
    done = subprocess.run([sys.executable, "-m", "pyworkflow.apps.pw_run_tests", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_plugin_is_listed_without_complaints():
    code, said = scipion_tests("--grep", "swiftres")
    assert code == 0 and NAME in said and "Error" not in said


@pytest.mark.slow
def test_what_is_listed_passes():
    code, said = scipion_tests(NAME)
    assert code == 0, said[-3000:]
