"""Imported first by the process that workers are forked from: it has no log that its libraries could write to, one thread, and
no GPU.

A pool of threads would not survive the fork, and who computes in its child would wait for it forever. Nor would CUDA, which
libraries start when they look for a GPU as they are imported; to look for it by NVML does not start it.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
