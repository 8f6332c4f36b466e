"""`python -m lowvram_core`."""

import sys

from .checks.packages import missing_package
from .errors import MissingDependency

_ALL = "To install everything that the command line needs: python -m pip install torch torchvision -r requirements.txt"

try:
    from .app.cli import main
except MissingDependency as error:
    sys.stderr.write(f"{error}\n")
    raise SystemExit(2) from None
except ImportError as error:
    sys.stderr.write(f"{missing_package('packages', error, otherwise=_ALL)}\n")
    raise SystemExit(2) from None

raise SystemExit(main())
