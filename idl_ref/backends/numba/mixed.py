"""This module applies an activation per row, compiled for the Numba twin.

The code of a mix is MIXED, and the codes of its rows stand behind the panels of the first factor F1, as numbers of the
dtype. A kernel copies them to its memory M, and adds their place there to MIXED: what it calls takes that number for a
code, finds the codes of the rows by it, and needs no other argument. Models with one activation compare one number.
"""

from __future__ import annotations

import numpy as np

from idl_ref.activations import MIXED
from idl_ref.backends.numba.compiling import compiled, vec
from idl_ref.backends.numba.functions import phi, slope


@compiled
def room_of_codes(end, code):
    """The number of entries that the codes of a column of `end` rows take in the memory of a kernel."""
    return 2 * end if code == MIXED else end - end


@compiled
def located(F1, M, place, end, code):
    """Copy the codes of the rows from behind F1 to M[place], and return MIXED + place; return another code as it is."""
    vec.separate()
    if code != MIXED:
        return code
    for i in range(end):
        M[place + i] = F1[F1.size - end + i]
        M[place + end + i] = 0  # A single row is taken together with those behind it.
    return code + place


def by_rows(each):
    """Compile `each`, which is φ or φ′, for a vector of the rows i, i + 1, …: by the code of each row in a mix."""

    def of(M, p, i, code):
        vec.separate()
        if code < MIXED:
            return each(p, code)
        codes, zero, done, result = code - MIXED + i, vec.splat(p, 0.0), np.int64(0), p
        for lane in range(vec.lanes(p)):
            kind = np.int64(M[codes + lane])
            if (done >> kind) & 1 == 0:
                done |= np.int64(1) << kind
                off = vec.magnitude(vec.subtract(vec.load(M, codes), vec.splat(p, kind)))
                result = vec.select(vec.at_most(off, zero), each(p, kind), result)
        return result

    return compiled(of)


phi_of, slope_of = by_rows(phi), by_rows(slope)


@compiled
def phi_of_rows(M, g, end, code):
    """Replace the column that begins at g by φ of it, for a mix."""
    vec.separate()
    for i in range(0, end, vec.lanes(M)):
        vec.store(M, g + i, phi_of(M, vec.load(M, g + i), i, code))
