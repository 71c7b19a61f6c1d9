"""The demonstration: the main job on simulated particles, by command line and in a Scipion project, judged by the truth.

Run it with `make demo` or `python -m swiftres_plugin.demo`. It stands outside both wings: `main` calls the `swiftres`
commands as child processes and draws what they wrote; `scipion_project` is a child process of its own that sees the
Scipion wing only.
"""
