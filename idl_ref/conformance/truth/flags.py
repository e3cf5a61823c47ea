"""What bug a case hunts: the names in `Case.flags`, and what each stands for."""

PAPER = "https://arxiv.org/abs/1908.06315"
TORCHIDL = "https://pypi.org/project/torchidl/"
HIGHAM = "https://doi.org/10.1137/1.9780898718027"
IEEE = "https://doi.org/10.1109/IEEESTD.2019.8766229"


# The bug that a case hunts, its effect, a link.
FLAGS: dict[str, tuple[str, str, str]] = {
    "contraction": ("a wrong equation or adjoint", "answers are wrong at every κ", PAPER),
    "transpose": ("Aᵀ and A confused", "gradients are wrong, and right for symmetric A", PAPER),
    "slow": (
        "an iteration or an adjoint that is cut short",
        "wrong where A contracts slowly, as after training",
        PAPER,
    ),
    "activation": ("a wrong φ, or φ′ that does not belong to it", "training stalls for one activation", PAPER),
    "overflow": ("exp taken of a large number", "inf or NaN for inputs of some hundred", IEEE),
    "stopping": ("a stopping rule other than the declared one", "errors larger than tol promises", HIGHAM),
    "stale": (
        "the iterate before the last returned, or φ′ taken there",
        "errors 1/κ times larger than need be",
        TORCHIDL,
    ),
    "column": ("one tolerance or status for a whole batch", "an answer depends on the other samples", TORCHIDL),
    "small": ("an absolute tolerance", "small inputs and cotangents give zeros", TORCHIDL),
    "ball": ("well-posedness taken for ‖A‖∞ < 1 alone", "well-posed models are refused or distorted", PAPER),
    "perron": ("an ∞-norm where only the Perron root is below 1", "well-posed models are refused", PAPER),
    "reported": ("silent failure", "numbers that solve nothing are used", TORCHIDL),
    "cap": ("max_iter ignored, or its exhaustion not said", "unbounded time, or silent failure", TORCHIDL),
    "kink": ("an undeclared φ′ at a kink", "gradients differ between backends at exact zeros", PAPER),
    "ulp": ("a comparison that is off at a boundary", "the wrong side of a kink or of the ball is taken", IEEE),
    "shape": ("a size taken for granted", "crashes or wrong axes at sizes 0 and 1", PAPER),
    "bias": ("the constant row added twice, or without gradient", "biases are doubled or never learn", TORCHIDL),
    "no_D": ("D assumed", "a crash, or a term that is not there", TORCHIDL),
    "low_rank": ("L and R confused, or their order in the adjoint", "wrong wherever L ≠ R", PAPER),
    "scale": ("clipping, flushing to zero, absolute thresholds", "very large or small inputs are lost", IEEE),
    "subnormal": ("numbers below the smallest normal one set to zero", "the smallest inputs are lost", IEEE),
    "accumulation": ("sums in float32 in a float64 backend", "half of the digits are lost", HIGHAM),
    "memory": ("strides ignored, inputs written to", "wrong numbers for views, or a changed caller", HIGHAM),
    "confined": ("NaN swallowed or spread", "a bad sample goes unnoticed, or spoils its batch", IEEE),
    "f": ("a wrong map from raw to effective weights, or pullback", "training follows a wrong gradient", PAPER),
    "straight_through": ("torchidl's convention for a dense A", "gradients differ from torchidl's", TORCHIDL),
}
