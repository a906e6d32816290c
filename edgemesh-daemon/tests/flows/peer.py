"""gRPC without generated code: a server that says who it is, and a client that prints JSON.

    peer.py serve NAME ADDRESS...      until killed; prints `ready`
    peer.py call TARGET COUNT          COUNT unary calls on one channel, then the three streaming kinds
    peer.py once TARGET [METHOD]       one unary call; its code, message and trailing metadata
    peer.py late TARGET                one unary call with 5 s; how many of them the server was told
    peer.py ends TARGET [AUTHORITY]    a call, one that fails with a trailer, one that takes too long; JSON
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

NAME = b""


def unary(request, context):
    return NAME + b":" + request


def down(request, context):
    for number in range(int(request)):
        yield NAME + b":" + str(number).encode()


def up(requests, context):
    return NAME + b":" + b"+".join(requests)


def both(requests, context):
    for request in requests:
        yield NAME + b":" + request


def bad(request, context):
    context.set_trailing_metadata((("x-why", "on purpose"),))
    context.abort(grpc.StatusCode.UNAVAILABLE, "asked to fail")


def left(request, context):
    return str(context.time_remaining()).encode()


def slow(request, context):
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(10)
    return b""


def big(request, context):
    return b"x" * int(request)


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Bad": grpc.unary_unary_rpc_method_handler(bad),
    "Left": grpc.unary_unary_rpc_method_handler(left),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Big": grpc.unary_unary_rpc_method_handler(big),
}


def serve(name, addresses):
    global NAME
    NAME = name.encode()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", HANDLERS),))
    for address in addresses:
        assert server.add_insecure_port(address), address
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


def call(target, count):
    with grpc.insecure_channel(target) as channel:
        names = [channel.unary_unary("/t.T/Unary")(b"x", timeout=10).decode() for _ in range(count)]
        stream = [a.decode() for a in channel.unary_stream("/t.T/Down")(b"3", timeout=10)]
        joined = channel.stream_unary("/t.T/Up")(iter([b"a", b"b"]), timeout=10).decode()
        echoed = ping_pong(channel)
        size = len(channel.unary_unary("/t.T/Big")(b"2000000", timeout=10))
    print(json.dumps({"unary": names, "down": stream, "up": joined, "both": echoed, "big": size}))


def ping_pong(channel):
    """Each request leaves only after the answer to the one before: nothing may be held back."""
    answers = []

    def requests():
        for number in range(3):
            until = time.monotonic() + 10
            while len(answers) < number:
                assert time.monotonic() < until
                time.sleep(0.001)
            yield str(number).encode()

    for answer in channel.stream_stream("/t.T/Both")(requests(), timeout=20):
        answers.append(answer.decode())
    return answers


def once(target, method="Unary"):
    with grpc.insecure_channel(target) as channel:
        try:
            answer = channel.unary_unary("/t.T/" + method)(b"1", timeout=10).decode()
            said = {"code": "OK", "message": answer, "trailers": {}}
        except grpc.RpcError as error:
            trailers = {key: str(value) for key, value in error.trailing_metadata() or ()}
            trailers.update({key: str(value) for key, value in error.initial_metadata() or ()})
            said = {"code": error.code().name, "message": error.details(), "trailers": trailers}
    print(json.dumps(said))


def late(target):
    with grpc.insecure_channel(target) as channel:
        print(channel.unary_unary("/t.T/Left")(b"", timeout=5).decode())


def ends(target, authority=None):
    said = {}
    options = [("grpc.default_authority", authority)] if authority else []
    with grpc.insecure_channel(target, options=options) as channel:
        said["unary"] = channel.unary_unary("/t.T/Unary")(b"x", timeout=10).decode()
        said["left"] = float(channel.unary_unary("/t.T/Left")(b"", timeout=5).decode())
        for method, timeout in (("Bad", 10), ("Slow", 0.3)):
            try:
                channel.unary_unary("/t.T/" + method)(b"", timeout=timeout)
            except grpc.RpcError as error:
                trailers = dict(error.trailing_metadata() or ())
                said[method] = [error.code().name, error.details(), trailers.get("x-why")]
    print(json.dumps(said))


if __name__ == "__main__":
    verb, rest = sys.argv[1], sys.argv[2:]
    if verb == "serve":
        serve(rest[0], rest[1:])
    elif verb == "call":
        call(rest[0], int(rest[1]))
    elif verb in ("late", "ends"):
        {"late": late, "ends": ends}[verb](*rest)
    else:
        once(*rest)
