"""This module bounds what a model does when its inputs change a little, with all rounding included, and attacks it.

`sensitivity` and `interval` bound outputs and states, `margins` bounds the margins of a classifier, and `attack` looks
for inputs that break it. For every sample, lower bound ≤ least margin ≤ margin of the attack; `certified_accuracy`
counts both sides over a data set, and `plot_accuracy` draws them.
"""

from idl_ref.analysis.accuracy import RobustAccuracy, certified_accuracy, plot_accuracy
from idl_ref.analysis.attacks import Attack, attack
from idl_ref.analysis.intervals import Interval, interval, sensitivity
from idl_ref.analysis.margins import Margins, margins

__all__ = [
    "Attack",
    "Interval",
    "Margins",
    "RobustAccuracy",
    "attack",
    "certified_accuracy",
    "interval",
    "margins",
    "plot_accuracy",
    "sensitivity",
]
