"""`python -m ipybox`: the program itself, with the same arguments."""

import os
import sys

from ipybox.program import SandboxError, find

try:
    program = find()
    os.execv(program, ["ipybox", *sys.argv[1:]])
except (SandboxError, OSError) as error:
    sys.exit(f"ipybox: {error}")
