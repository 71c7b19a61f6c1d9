"""`python -m swiftres_plugin.engine COMMAND`: the `swiftres` command where its script is not on the path."""
import sys

from swiftres_plugin.engine.cli.main import main

sys.exit(main())
