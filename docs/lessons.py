"""The order of the gallery, and how its figures look."""

from pathlib import Path

ORDER = (
    "cobweb",
    "residuals",
    "certificate",
    "certified_answers",
    "iterations_and_kappa",
    "spectrum",
    "hard_equilibrium",
    "ill_posed",
    "unique_states",
    "monotone_methods",
    "feedforward_as_triangular",
    "composition",
    "activation_per_row",
    "projection_or_rescaling",
    "perron_spirals",
    "rank_sweep",
    "verify_gradients",
    "v_curve",
    "unrolled_or_adjoint",
    "truncated_adjoint",
    "robustness",
    "compress",
    "decision_boundaries",
    "train_digits",
    "sweep",
    "predict_file",
    "lbfgs",
    "tabular_classifier",
    "regression",
    "state_driven",
    "throughput",
    "implicit_rnn",
)
LEFT_OUT = ("verify_torchidl",)  # this example draws nothing, and needs packages that a build of the site lacks


class Lesson:
    """The sort key of the gallery: examples stand in the order in which they build on each other, that of ORDER."""

    def __init__(self, source_directory):
        self.directory = source_directory

    def __call__(self, name):
        return ORDER.index(Path(name).stem)

    def __repr__(self):
        return "lessons.Lesson"


def style(gallery_conf, name):
    """Set the look of figures before each example, large enough for a phone and for the last row of a lecture room."""
    import matplotlib

    matplotlib.rcParams.update(
        {
            "figure.figsize": (7, 4.2),
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
        }
    )
