"""Become a user, and then a command.

    python -I as_user.py UID GID COMMAND [ARGUMENT...]
"""

import contextlib
import os
import pwd
import sys

uid, gid, *command = sys.argv[1:]
with contextlib.suppress(KeyError):  # an id without a name
    os.environ["HOME"] = pwd.getpwuid(int(uid)).pw_dir
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
os.execv(command[0], command)
