"""This package has implicit models as estimators with scikit-learn's conventions: for classification and regression.

Where scikit-learn is installed, the estimators inherit from its base classes, and their inputs are checked by its
functions. Without it, they can be unpickled, can predict, and can be trained, with the checks of `idl_ref`.
"""

from idl_ref.estimators.classifier import ImplicitClassifier
from idl_ref.estimators.regressor import ImplicitRegressor

__all__ = ["ImplicitClassifier", "ImplicitRegressor"]
