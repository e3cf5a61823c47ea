"""A function for AWS Lambda, or anything that calls handler(event, context): NumPy and an exported model, nothing else.

    idl-ref export model.npz --to numpy -o package      writes package/predict.py and package/weights.npz
    cp handler.py package
    pip install --target package --platform manylinux2014_x86_64 --only-binary :all: numpy
    cd package && zip -r ../function.zip .              handler: handler.handler

The body of a request is JSON, {"samples": [[…], …]}, one list of numbers per sample; so is the answer, {"outputs": …,
"labels": …}. What is wrong with a request is answered with status 400.
"""

import json

import numpy as np
from predict import predict  # loaded once, when the container starts

MOST = 1000  # samples in a request


def handler(event, context=None):
    """One request."""
    try:
        samples = json.loads(event["body"])["samples"]
        if not isinstance(samples, list) or len(samples) > MOST:
            raise ValueError(f"samples must be a list of at most {MOST}")
        outputs = predict(np.asarray(samples, dtype=float))
    except (KeyError, TypeError, ValueError, RuntimeError) as reason:
        return _answer(400, {"error": f"{type(reason).__name__}: {reason}"})
    return _answer(200, {"outputs": outputs.tolist(), "labels": outputs.argmax(axis=1).tolist()})


def _answer(status, body):
    return {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": json.dumps(body)}
