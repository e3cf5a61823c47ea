"""Export to ONNX: standard operators of opset 18, Picard's iteration as a Loop that ends when every sample is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from idl_ref._version import __version__
from idl_ref.activations import LEAK
from idl_ref.export.plan import EVERY, ROUNDED, Plan
from idl_ref.files import replace_all

OPSET, IR_VERSION = 18, 8  # the versions of ONNX 1.13, released in 2022
NATIVE = {
    "identity": "Identity",
    "relu": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "elu": "Elu",
    "softsign": "Softsign",
}


class Graph:
    """The nodes of a graph in order, and its constants by name.

    A graph inside a Loop keeps no constants of its own: they are moved to the outermost graph.
    """

    def __init__(self, dtype: np.dtype, onnx: Any) -> None:
        self.dtype, self.onnx, self.kind = dtype, onnx, onnx.helper.np_dtype_to_tensor_dtype(dtype)
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def constant(self, name: str, value: Any, dtype: Any = None) -> str:
        """Define a constant, in the dtype of the model unless another is given; return its name."""
        self.constants[name] = np.array(value, dtype or self.dtype, order="C")
        return name

    def add(self, result: str, operator: str, *arguments: str, **attributes: Any) -> str:
        """Append a node that applies an operator to named arguments; return the name of its result."""
        self.nodes.append(self.onnx.helper.make_node(operator, arguments, [result], **attributes))
        return result

    def value(self, name: str, shape: list[Any], kind: int | None = None) -> Any:
        """The description of an input or output, in the dtype of the model unless another kind is given."""
        return self.onnx.helper.make_tensor_value_info(name, self.kind if kind is None else kind, shape)

    def norm(self, result: str, X: str) -> str:
        """The largest magnitude in each row.   (m, 1)"""
        return self.add(result, "ReduceMax", self.add(f"{result}_sizes", "Abs", X), "last_axis", keepdims=1)

    def finite(self, result: str, X: str) -> str:
        """Whether each row has neither NaN nor inf: only then does x − x sum to 0.   (m, 1)"""
        zeros = self.add(f"{result}_zeros", "Sub", X, X)
        return self.add(result, "Equal", self.add(f"{result}_sum", "ReduceSum", zeros, "last_axis", keepdims=1), "zero")

    def phi(self, result: str, P: str, activation: str) -> str:
        """φ(P)."""
        if activation == "leaky_relu":  # the operator LeakyRelu has a slope in float32
            return self.add(result, "Max", P, self.add(f"{result}_leak", "Mul", P, self.constant("leak", LEAK)))
        if activation == "hardtanh":
            return self.add(result, "Clip", P, self.constant("minus_one", -1), "one")
        if activation == "softplus":  # the operator Softplus of onnxruntime overflows in float64
            shrunk = self.add(f"{result}_negative", "Neg", self.add(f"{result}_size", "Abs", P))
            more = self.add(f"{result}_more", "Add", self.add(f"{result}_exp", "Exp", shrunk), "one")
            log, positive = self.add(f"{result}_log", "Log", more), self.add(f"{result}_relu", "Relu", P)
            return self.add(result, "Add", positive, log)
        return self.add(result, NATIVE[activation], P)


def model(plan: Plan) -> Any:
    """The onnx.ModelProto: U (m, p) -> Y (m, q), NaN in the rows of samples that did not converge."""
    try:
        import onnx
    except ImportError:
        raise ImportError('export to ONNX needs the package onnx: pip install "idl-ref[onnx]".') from None
    helper, (_, p, q) = onnx.helper, plan.sizes
    graph = Graph(plan.dtype, onnx)
    graph.constant("last_axis", [1], np.int64)
    for name, value in (("zero", 0), ("one", 1), ("not_a_number", np.nan)):
        graph.constant(name, value)
    _input(graph, plan)
    graph.add("X_before", "Sub", "Z", "Z")  # 0, or NaN in the rows of samples that are not finite
    graph.add("done_before", "Not", graph.finite("Z_finite", "Z"))
    graph.constant("iterations", plan.iterations, np.int64)
    graph.constant("true", True, np.bool_)
    body = _body(graph, plan)
    loop = ["iterations", "true", "X_before", "done_before"]
    graph.nodes.append(helper.make_node("Loop", loop, ["X", "done"], body=body))
    _output(graph, plan)
    inside = helper.make_graph(
        graph.nodes,
        "implicit_model",
        [graph.value("U", ["m", p])],
        [graph.value("Y", ["m", q])],
        [onnx.numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
        doc_string=f"{plan.equations('phi')}; samples are rows.",
    )
    made = helper.make_model(
        inside,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="idl_ref",
        producer_version=__version__,
    )
    if plan.classes is not None:
        helper.set_model_props(made, {"classes": json.dumps(plan.classes.tolist())})
    onnx.checker.check_model(made, full_check=True)
    return made


def _input(graph: Graph, plan: Plan) -> None:
    """u = (U − mean)/scale, in float64 before it is cast; Z = u Bᵀ + b; and the step at which an iteration may stop."""
    u, pre = "U", plan.preprocessing
    if pre is not None:
        wide = graph.add("U_float64", "Cast", u, to=graph.onnx.TensorProto.DOUBLE)
        centred = graph.add("centred", "Sub", wide, graph.constant("mean", pre.mean, np.float64))
        scaled = graph.add("standardised", "Div", centred, graph.constant("scale", pre.scale, np.float64))
        u = graph.add("u_cast", "Cast", scaled, to=graph.kind)
    graph.add("u", "Identity", u)
    product = graph.add("BU", "MatMul", "u", graph.constant("B_transposed", plan.B.T))
    if plan.b is None:
        graph.add("Z", "Identity", product)
    else:
        graph.add("Z", "Add", product, graph.constant("b", plan.b))
    zero = graph.constant("phi_of_0", plan.zero)
    at_least = graph.add("at_least_phi_of_0", "Max", graph.norm("Z_norm", "Z"), zero)
    scale = graph.add("scale_of_tol", "Min", at_least, "one")
    graph.add("asked", "Mul", scale, graph.constant("tol", plan.tol))


def _body(outer: Graph, plan: Plan) -> Any:
    """The body of the Loop, one iteration: (iteration, go on, X, done) -> (go on, φ(A X + Z), done).

    `done` says which samples have converged. Their states stay as they are, and the loop goes on until all have.
    """
    graph, helper = Graph(plan.dtype, outer.onnx), outer.onnx.helper
    product = "X_in"
    for i, F in reversed(list(enumerate(plan.factors))):  # samples are rows: x F₂ᵀ F₁ᵀ
        product = graph.add(f"product_{i}", "MatMul", product, outer.constant(f"F{i + 1}_transposed", F.T))
    _phi(graph, graph.add("P", "Add", product, "Z"), plan)
    graph.add("moved", "Abs", graph.add("change", "Sub", "X_new", "X_in"))
    eighth = graph.add("remainder", "Mod", "iteration", graph.constant("every", EVERY, np.int64))
    eighth = graph.add("eighth", "Equal", eighth, graph.constant("before_it", EVERY - 1, np.int64))
    rounding, asked = _rounding(graph, plan), Graph(plan.dtype, outer.onnx)
    asked.add("asked_limit", "Identity", "asked")
    branches = {
        name: helper.make_graph(branch.nodes, name, [], [branch.value(result, ["m", None])])
        for name, branch, result in (("then_branch", rounding, "rounding_limit"), ("else_branch", asked, "asked_limit"))
    }
    graph.add("usual_limit", "If", eighth, **branches)
    last = graph.add("last", "Equal", "iteration", graph.constant("last_iteration", plan.iterations - 1, np.int64))
    at_last = graph.add("at_last", "Max", "asked", graph.constant("LIMIT", plan.limit))
    limit = graph.add("limit", "Where", last, at_last, "usual_limit")
    inside = graph.add("inside", "Cast", graph.add("small", "LessOrEqual", "moved", limit), to=graph.kind)
    all_inside = graph.add("all_inside", "ReduceMin", inside, "last_axis", keepdims=1)
    graph.add("done_out", "Or", "done_in", graph.add("done_now", "Greater", all_inside, "zero"))
    graph.add("X_out", "Where", "done_in", "X_in", "X_new")
    moving = graph.add("moving", "Cast", graph.add("not_done", "Not", "done_out"), to=graph.kind)
    count = graph.add("count", "ReduceSum", moving, keepdims=0)
    graph.add("go_on_out", "Greater", count, "zero")
    outer.constants |= graph.constants | rounding.constants

    BOOL, INT64, X = outer.onnx.TensorProto.BOOL, outer.onnx.TensorProto.INT64, ["m", plan.sizes[0]]
    before = [graph.value("iteration", [], INT64), graph.value("go_on_in", [], BOOL)]
    before += [graph.value("X_in", X), graph.value("done_in", ["m", 1], BOOL)]
    after = [graph.value("go_on_out", [], BOOL), graph.value("X_out", X), graph.value("done_out", ["m", 1], BOOL)]
    return helper.make_graph(graph.nodes, "iteration", before, after)


def _phi(graph: Graph, P: str, plan: Plan) -> None:
    """X_new = φ(P), in each row the φ of its kind."""
    *others, (first, _) = plan.kinds[::-1]
    result = graph.phi("X_new" if not others else f"phi_{first}", P, first)
    for k, (name, rows) in enumerate(others[::-1], 1):
        here = np.zeros(plan.sizes[0], np.bool_)
        here[rows] = True
        value = graph.phi(f"phi_{name}", P, name)
        mask = graph.constant(f"rows_of_{name}", here, np.bool_)
        result = graph.add("X_new" if k == len(others) else f"phi_up_to_{name}", "Where", mask, value, result)


def _rounding(outer: Graph, plan: Plan) -> Graph:
    """The nodes of the limit where rounding explains a step: 4·eps times the terms that are added up in each row."""
    graph = Graph(plan.dtype, outer.onnx)
    product = graph.add("X_sizes", "Abs", "X_new")
    for i in reversed(range(len(plan.factors))):
        sizes = graph.add(f"F{i + 1}_sizes", "Abs", f"F{i + 1}_transposed")
        product = graph.add(f"sizes_{i}", "MatMul", product, sizes)
    terms = graph.add("terms_of_A", "Add", product, graph.add("Z_sizes_of_rows", "Abs", "Z"))
    if np.any(plan.lipschitz != 1):
        terms = graph.add("terms_of_phi", "Mul", terms, graph.constant("lipschitz", plan.lipschitz))
    zero = plan.formula.at_zero
    at_zero = graph.constant("phi_of_0_of_rows", zero) if isinstance(zero, np.ndarray) else "phi_of_0"
    terms = graph.add("terms", "Add", terms, at_zero)
    if plan.saturated is not None:
        terms = graph.add("capped_terms", "Min", terms, graph.constant("saturated", plan.saturated))
    four_eps = graph.constant("four_eps", ROUNDED * np.finfo(plan.dtype).eps)
    graph.add("rounding_limit", "Max", "asked", graph.add("rounding", "Mul", terms, four_eps))
    return graph


def _output(graph: Graph, plan: Plan) -> None:
    """Y = X Cᵀ + u Dᵀ + d, with NaN in the rows of samples that did not converge."""
    outputs = graph.add("CX", "MatMul", "X", graph.constant("C_transposed", plan.C.T))
    if plan.D is not None:
        DU = graph.add("DU", "MatMul", "u", graph.constant("D_transposed", plan.D.T))
        outputs = graph.add("CX_DU", "Add", outputs, DU)
    if plan.d is not None:
        outputs = graph.add("CX_DU_d", "Add", outputs, graph.constant("d", plan.d))
    finite = graph.finite("finite", outputs)
    good = graph.add("good", "And", "done", finite)
    graph.add("Y", "Where", good, outputs, "not_a_number")


def write(plan: Plan, directory: Path) -> list[Path]:
    """Write model.onnx to a folder and return its path."""
    path = directory / "model.onnx"
    replace_all({path: model(plan).SerializeToString()})
    return [path]
