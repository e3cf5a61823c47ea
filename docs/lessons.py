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
    "time_series",
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
            "figure.figsize": (5.6, 3.8),
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


def one_panel(block, block_vars, gallery_conf):
    """Save the figures of a block as usual, and the first panel of the first one alone, which is its thumbnail."""
    import matplotlib.pyplot as plt
    from sphinx_gallery.scrapers import matplotlib_scraper

    target = Path(block_vars["target_file"])
    panel = target.parent / "images" / "thumb" / f"panel_{target.stem}.png"
    if plt.get_fignums() and not len(block_vars["image_path_iterator"]):  # No figure of this lesson has been saved yet.
        figure = plt.figure(plt.get_fignums()[0])
        figure.canvas.draw()
        box = figure.axes[0].get_tightbbox().transformed(figure.dpi_scale_trans.inverted()).padded(0.08)
        panel.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(panel, bbox_inches=box, dpi=150)
    return matplotlib_scraper(block, block_vars, gallery_conf)


def show_panels(gallery, images, size):
    """Put the panels in the place of the thumbnails of whole figures, which are too small to read."""
    from sphinx_gallery.utils import scale_image

    for name in ORDER:
        panel = gallery / "images" / "thumb" / f"panel_{name}.png"
        if panel.exists():
            scale_image(panel, images / f"sphx_glr_{name}_thumb.png", *size)
