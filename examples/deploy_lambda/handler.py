"""This function answers requests in AWS Lambda, or in any service that calls handler(event, context).

It needs only NumPy and an exported model. These commands build the archive, whose handler is "handler.handler":

    idl-ref export model.npz --to numpy -o package      # writes package/predict.py and package/weights.npz
    cp handler.py package
    pip install --target package --platform manylinux2014_x86_64 --only-binary :all: numpy
    cd package && zip -r ../function.zip .

The body of a request is the JSON text {"samples": [[…], …]}, with one list of numbers per sample. The body of the
answer is {"outputs": …, "labels": …}, with null in both for a sample that failed, because it was not finite or far out
of the range that predict.py declares. A request that is not valid is answered with status 400 and {"error": …}.
"""

import json

import numpy as np
from predict import CLASSES, predict  # The import loads the weights once, when the container starts.

MOST = 1000  # The largest number of samples in a request.


def handler(event, context=None):
    """Answer one request."""
    try:
        samples = json.loads(event["body"])["samples"]
        if not isinstance(samples, list) or len(samples) > MOST:
            raise ValueError(f"samples must be a list of at most {MOST} samples")
        outputs = predict(np.asarray(samples, dtype=float))
    except (KeyError, TypeError, ValueError) as reason:
        return _answer(400, {"error": f"{type(reason).__name__}: {reason}"})
    rows = [None if np.isnan(row).any() else row for row in outputs]
    labels = [None if row is None else _label(int(row.argmax())) for row in rows]
    return _answer(200, {"outputs": [None if row is None else row.tolist() for row in rows], "labels": labels})


def _label(number):
    """Return the label of an output, which is its number in a model without classes."""
    return number if CLASSES is None else CLASSES[number].item()


def _answer(status, body):
    """Return an answer in the form that AWS Lambda expects."""
    return {"statusCode": status, "headers": {"Content-Type": "application/json"}, "body": json.dumps(body)}
