"""Where the stages of a plan are computed: side by side on this machine, or on a Ray cluster.

An executor only starts worker processes and tells how they ended. What they make, and how far they are, is in the store.
"""
