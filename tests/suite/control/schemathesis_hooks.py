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


# A schema counts characters, and a topic is bounded in bytes.
TOPIC_BYTES_MAX = 255


def fits(parameters):
    values = parameters.values() if isinstance(parameters, dict) else []
    return all(len(str(value).encode("utf-8", "surrogatepass")) <= TOPIC_BYTES_MAX for value in values)


@schemathesis.hook
def filter_path_parameters(ctx, path_parameters):
    return fits(path_parameters)


@schemathesis.hook
def filter_query(ctx, query):
    return fits(query)
