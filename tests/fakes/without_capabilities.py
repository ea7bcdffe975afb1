"""`python without_capabilities.py command ...`: runs a command without the capabilities that override permissions."""

from __future__ import annotations

import ctypes
import os
import sys

_PR_CAPBSET_DROP = 24  # PR_CAPBSET_DROP of prctl(2)
_PERMISSION_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH of capabilities(7)

if __name__ == "__main__":
    system = ctypes.CDLL(None)
    for capability in _PERMISSION_CAPABILITIES if os.geteuid() == 0 else ():
        if system.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            sys.exit(77)
    os.execvp(sys.argv[1], sys.argv[1:])
