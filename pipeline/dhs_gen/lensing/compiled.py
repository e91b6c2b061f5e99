"""How what runs for every ray is compiled."""

from __future__ import annotations

import numba

inner_kernel = numba.njit(cache=True, _nrt=False, error_model="numpy")
"""Compiles a function that other kernels call and that allocates nothing; one that does is refused. Division by zero
gives infinity, as in NumPy.

Numba counts the references of every view of an array, by two locked instructions each, for fear that the memory goes
away. In the loops over rays that took longer than the rays, and the arrays belong to the kernel that Python calls. That
one must count (``numba.njit``): called from Python, an inner kernel never gives its arguments back.
"""
