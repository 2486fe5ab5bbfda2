"""Become a user, and then a command.

    python -I as_user.py UID GID COMMAND [ARGUMENT...]
"""

import os
import sys

uid, gid, *command = sys.argv[1:]
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
os.execv(command[0], command)
