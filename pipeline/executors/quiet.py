"""Imported first by the process that workers are forked from: it has no log that its libraries could write to, and one thread.

A pool of threads would not survive the fork, and who computes in its child would wait for it forever.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
