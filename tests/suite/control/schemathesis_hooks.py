"""What schemathesis must know of this API besides its OpenAPI document: how lines of JSON are sent."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    if isinstance(value, bytes):
        return value
    # The description knows of text only; a batch of which no line can be published is refused.
    if isinstance(value, str):
        value = {"broadcast": True, "payload": value}
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
