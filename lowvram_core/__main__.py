"""`python -m lowvram_core`."""

from .cli import main

raise SystemExit(main())
