"""Speaks to a hub with the Python package `aiohttp`. The argument: the server's address, as 127.0.0.1:8080."""

import asyncio
import json
import sys

import aiohttp


async def websocket(session, address):
    async with session.ws_connect(f"ws://{address}/ws", protocols=["corecast.v1.json"], autoping=False) as socket:
        assert socket.protocol == "corecast.v1.json"
        assert not socket.compress
        await compressed(session, address)
        await socket.send_json({"type": "ping", "text": "hello"})
        assert await socket.receive_json() == {"type": "pong", "text": "hello"}
        await socket.ping(b"payload")
        pong = await socket.receive()
        assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"payload"), pong
        await socket.close(code=4000, message=b"done")
        assert socket.close_code == 4000, socket.close_code


async def compressed(session, address):
    """Messages that are compressed both ways, in windows of several sizes."""
    long = json.dumps([{"symbol": f"S{number % 7}", "price": number * 1.5, "side": "buy"} for number in range(500)])
    for window_bits in [9, 12, 15]:
        async with session.ws_connect(f"ws://{address}/ws", compress=window_bits) as socket:
            assert socket.compress, "it is offered"
            for message in ["a", long, "b" * 5000]:
                await socket.send_str(f"PING {message}")
                assert await socket.receive_str() == f"PONG {message}"


async def events(session, address):
    async with session.get(f"http://{address}/sse", params=[("topic", "é"), ("topic", "b c".replace(" ", "/"))]) as stream:
        assert stream.status == 200
        assert stream.headers["Content-Type"] == "text/event-stream"
        async with session.ws_connect(f"ws://{address}/ws") as publisher:
            await publisher.send_str("PUB é one")
            await publisher.send_str("PUB b/c two")
            published = [(await publisher.receive_str()).split()[2] for _ in range(2)]
        got = []
        event = {}
        while len(got) < 2:
            line = (await stream.content.readline()).decode()
            assert line, "the stream ended"
            field, _, value = line.rstrip("\n").partition(": ")
            if field:
                event[field] = value
            elif "data" in event:
                got.append((event["id"], json.loads(event["data"])))
                event = {}
        expected = [{"type": "msg", "topic": "é", "payload": "one"}, {"type": "msg", "topic": "b/c", "payload": "two"}]
        assert got == list(zip(published, expected)), (got, published)


async def answers(session, address):
    for method, path, status in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/ws", 426),
        ("GET", "/nothing", 404),
        ("DELETE", "/sse", 405),
        ("GET", "/sse?topic=", 400),
        ("GET", "/sse", 400),
        ("GET", "/demo", 404),
    ]:
        async with session.request(method, f"http://{address}{path}") as answer:
            assert answer.status == status, (method, path, answer.status)
            assert method == "HEAD" or len(await answer.text()) > 10
    async with session.get(f"http://{address}/sse?all", headers={"Origin": "http://evil.example"}) as answer:
        assert answer.status == 403, answer.status


async def main(address):
    async with aiohttp.ClientSession() as session:
        await websocket(session, address)
        await events(session, address)
        await answers(session, address)


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
print("all is well")
