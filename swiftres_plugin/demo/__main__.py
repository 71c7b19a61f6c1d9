"""`python -m swiftres_plugin.demo`."""
import sys

from swiftres_plugin.demo.main import main

if __name__ == "__main__":
    sys.exit(main())
