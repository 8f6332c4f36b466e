"""`python -m lowvram_core`."""

import sys

try:
    from .app.cli import main
except ImportError as error:
    sys.stderr.write(
        f"packages: the Python package {error.name!r} could not be imported ({error}); wanted what requirements.txt "
        "lists. Run: python -m pip install torch torchvision -r requirements.txt and then "
        "python -m pip install --no-deps hy3dgen==2.0.2\n"
    )
    raise SystemExit(2) from None

raise SystemExit(main())
