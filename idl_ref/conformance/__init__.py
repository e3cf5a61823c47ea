"""The conformance kit: exact answers, derived bounds, and a runner that names the bug of another backend.

from idl_ref.conformance import check_backend
report = check_backend(my_backend)
print(report)
"""

from idl_ref.conformance.problem import Backend, Case, Problem
from idl_ref.conformance.report import Report, Result
from idl_ref.conformance.runner import check_backend

__all__ = ["Backend", "Case", "Problem", "Report", "Result", "check_backend"]
