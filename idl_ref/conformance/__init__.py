"""The conformance kit: exact answers, derived bounds, and a runner that names the bug of another backend.

from idl_ref.conformance import check_backend
report = check_backend(my_backend)
print(report)
"""

from idl_ref.conformance import adapters
from idl_ref.conformance.problem import Backend, BackendError, Capabilities, Case, Problem
from idl_ref.conformance.report import Report, Result
from idl_ref.conformance.runner import check_backend, parametrize
from idl_ref.conformance.vectors import load as load_cases

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
