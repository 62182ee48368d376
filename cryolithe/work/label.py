"""What a file says of its making."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone

from cryolithe import __version__


def file_label(what: str) -> str:
    """The label of an MRC file: program, what made it, date (of SOURCE_DATE_EPOCH where that is set)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    stamp = int(epoch) if epoch.isdecimal() and len(epoch) < 12 else time.time()
    return f"CryoLithe {__version__} {what} {datetime.fromtimestamp(stamp, tz=timezone.utc).date().isoformat()}"
