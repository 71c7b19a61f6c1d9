"""Room 5: the command line. One module for each command, with NAME, HELP, `add_arguments(parser)` and `run(args)`.

The modules import nothing heavy at their top, so that `swiftres --help` is instant; `run` imports what it needs.
"""
