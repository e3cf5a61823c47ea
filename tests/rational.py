"""Exact arithmetic for matrices of fractions: products, determinants, and whether a matrix is positive semidefinite."""

from fractions import Fraction


def matrix(A):
    """Return an array of floats as rows of fractions, which have the same values."""
    return [[Fraction(float(a)) for a in row] for row in A]


def identity(n, factor=1):
    return [[Fraction(factor) * (i == j) for j in range(n)] for i in range(n)]


def transpose(A):
    return [list(column) for column in zip(*A, strict=True)]


def product(A, B):
    return [[sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0)) for column in zip(*B, strict=True)]
            for row in A]  # fmt: skip


def combine(a, A, b, B):
    """Return a A + b B."""
    return [[a * x + b * y for x, y in zip(row, other, strict=True)] for row, other in zip(A, B, strict=True)]


def symmetric_part(A):
    return combine(Fraction(1, 2), A, Fraction(1, 2), transpose(A))


def determinant(A):
    """Return the determinant, by elimination with rows exchanged where a pivot is 0."""
    A, result = [list(row) for row in A], Fraction(1)
    for k in range(len(A)):
        pivot = next((i for i in range(k, len(A)) if A[i][k]), None)
        if pivot is None:
            return Fraction(0)
        if pivot != k:
            A[k], A[pivot], result = A[pivot], A[k], -result
        result *= A[k][k]
        for i in range(k + 1, len(A)):
            q = A[i][k] / A[k][k]
            A[i] = [a - q * b for a, b in zip(A[i], A[k], strict=True)]
    return result


def is_positive_semidefinite(H):
    """Tell whether a symmetric matrix is: no pivot is negative, and a pivot of 0 stands in a row of zeros."""
    H = [list(row) for row in H]
    while H:
        pivot, row = H[0][0], H[0][1:]
        if pivot < 0 or (pivot == 0 and any(row)):
            return False
        rest = [other[1:] for other in H[1:]]
        H = [[a - (x * y / pivot if pivot else 0) for a, y in zip(other, row, strict=True)]
             for x, other in zip(row, rest, strict=True)]  # fmt: skip
    return True
