"""The conformance kit checks any backend of implicit models, and names the bug behind wrong numbers.

The kit knows the exact answer of every case, and bounds the error that a correct backend may make:

from idl_ref.conformance import check_backend
report = check_backend(my_backend)
print(report)
"""

from idl_ref.conformance import adapters
from idl_ref.conformance.judge.report import Report, Result
from idl_ref.conformance.judge.runner import check_backend, parametrize
from idl_ref.conformance.truth.backend import Backend, BackendError, Capabilities
from idl_ref.conformance.truth.problem import Case, Problem
from idl_ref.conformance.truth.vectors import load as load_cases

__all__ = [
           "Backend",
           "BackendError",
           "Capabilities",
           "Case",
           "Problem",
           "Report",
           "Result",
           "adapters",
           "check_backend",
           "load_cases",
           "parametrize",
]  # fmt: skip
