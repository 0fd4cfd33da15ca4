"""pretrain → record → unlearn → evaluate: the only package that knows of files, time and Hydra."""

import sys

from runner.shadowed import shadowed as _shadowed

if (_shadow := _shadowed()) is not None:  # before any import of a package that another may stand before
    sys.exit(f"error: {_shadow}")
