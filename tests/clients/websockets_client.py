"""Speaks to a hub with the Python package `websockets`. The argument: the server's address, as 127.0.0.1:8080."""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory


async def text(url):
    async with connect(url + "?topic=text", subprotocols=["corecast.v1"]) as socket:
        assert socket.subprotocol == "corecast.v1"
        assert await socket.recv() == "OK SUB text"
        # In fragments, and as bytes.
        await socket.send(["PING ", "in ", "pieces"])
        assert await socket.recv() == "PONG in pieces"
        await socket.send(b"PUB text \xff\xfe")
        answers = [await socket.recv(), await socket.recv()]
        assert b"MSG text \xff\xfe" in answers, answers
        assert any(str(answer).startswith("OK PUB ") for answer in answers), answers
        # A message of the largest size that is allowed, and back.
        largest = "x" * (64 * 1024 - len("PING "))
        await socket.send("PING " + largest)
        assert await socket.recv() == "PONG " + largest
        # The library sends a ping and waits for its pong.
        await asyncio.wait_for(await socket.ping(b"are you there"), 10)
    # The library has waited for the answer to its close.
    assert (socket.close_code, socket.close_reason) == (1000, ""), socket.close_code


async def compressed(url):
    """Messages that are compressed both ways, in windows of several sizes."""
    long = json.dumps([{"symbol": f"S{number % 7}", "price": number * 1.5, "side": "buy"} for number in range(500)])
    # Each with a topic of its own: another shard may deliver a little later what was published to the one before.
    for number, parameters in enumerate([
        {},
        {"server_max_window_bits": 8, "client_max_window_bits": 9},
        {"server_max_window_bits": 12, "client_max_window_bits": 12, "server_no_context_takeover": True},
        {"client_max_window_bits": None},
    ]):
        topic = f"long{number}"
        extensions = [ClientPerMessageDeflateFactory(**parameters)]
        async with connect(f"{url}?topic={topic}", compression=None, extensions=extensions) as socket:
            assert [extension.name for extension in socket.protocol.extensions] == ["permessage-deflate"]
            assert await socket.recv() == f"OK SUB {topic}"
            await socket.send(["PING ", long[:1000], long[1000:]])
            assert await socket.recv() == f"PONG {long}"
            await socket.send(f"PUB {topic} {long}")
            answers = [await socket.recv(), await socket.recv()]
            assert f"MSG {topic} {long}" in answers, answers
    async with connect(url, compression=None) as socket:
        assert not socket.protocol.extensions
        await socket.send(f"PING {long}")
        assert await socket.recv() == f"PONG {long}"


async def objects(url):
    async with connect(url, subprotocols=["other", "corecast.v1.json"]) as socket:
        assert socket.subprotocol == "corecast.v1.json"
        await socket.send(json.dumps({"type": "sub", "topics": ["objects"]}))
        assert json.loads(await socket.recv()) == {"type": "ok", "verb": "SUB", "topics": ["objects"]}
        await socket.send(json.dumps({"type": "pub", "topic": "objects", "payload": "é\n\"quoted\""}))
        events = [json.loads(await socket.recv()) for _ in range(2)]
        assert {"type": "msg", "topic": "objects", "payload": "é\n\"quoted\""} in events, events


async def refusals(url):
    async with connect(url) as socket:
        await socket.send("PING " + "x" * (64 * 1024))
        try:
            while True:
                await socket.recv()
        except ConnectionClosedError as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (1009, "message-too-large"), closed
    for target, status in [("?topic=", 400), ("?topic=a%20b", 400)]:
        try:
            async with connect(url + target):
                raise AssertionError("it was let in")
        except InvalidStatus as refused:
            assert refused.response.status_code == status, refused
    try:
        async with connect(url, origin="http://evil.example"):
            raise AssertionError("it was let in")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403, refused


async def many(url):
    """A hundred clients, each of which gets each of twenty messages once and in order."""
    sockets = [await connect(url + "?topic=many", compression="deflate") for _ in range(100)]
    for socket in sockets:
        assert await socket.recv() == "OK SUB many"
    async with connect(url) as publisher:
        for number in range(20):
            await publisher.send(f"PUB many {number}")
            assert (await publisher.recv()).startswith("OK PUB ")
    for socket in sockets:
        assert [await socket.recv() for _ in range(20)] == [f"MSG many {number}" for number in range(20)]
        await socket.close()


async def main(address):
    url = f"ws://{address}/ws"
    await text(url)
    await objects(url)
    await compressed(url)
    await refusals(url)
    await many(url)


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
print("all is well")
