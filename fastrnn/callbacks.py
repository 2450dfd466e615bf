"""What stops, watches, saves and steers training: the public place of `fastrnn.models.callbacks`."""

from __future__ import annotations

from .models.callbacks import *  # noqa: F403
from .models.callbacks import __all__ as __all__
