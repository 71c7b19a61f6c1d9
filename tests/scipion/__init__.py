"""Tests of the Scipion side; they install as `swiftres_plugin.tests`."""
