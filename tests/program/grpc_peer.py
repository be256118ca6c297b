"""A gRPC server and a client that tries it, without generated code: bytes in, bytes out.

    grpc_peer.py serve HOST:PORT           until its standard input ends
    grpc_peer.py ask HOST:PORT ROOT.pem    over TLS, as grpc.localhost
"""

import queue
import sys
import time
from concurrent import futures

import grpc


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.rsplit("/", 1)[-1]
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "Down": grpc.unary_stream_rpc_method_handler(down),
            "Up": grpc.stream_unary_rpc_method_handler(up),
            "Both": grpc.stream_stream_rpc_method_handler(both),
            "Missing": grpc.unary_unary_rpc_method_handler(missing),
            "Slow": grpc.unary_unary_rpc_method_handler(slow),
        }.get(name)


def unary(request, context):
    assert dict(context.invocation_metadata())["x-metadata"] == "yes"
    context.set_trailing_metadata((("x-trailer", "bye"),))
    return b"hello " + request if len(request) < 100 else request


def down(request, context):
    count = int(request)
    for n in range(count):
        yield str(n).encode()
    context.set_trailing_metadata((("x-count", str(count)),))


def up(requests, _context):
    return str(sum(int(one) for one in requests)).encode()


def both(requests, _context):
    for one in requests:
        yield str(int(one) ** 2).encode()


def missing(_request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


def slow(_request, context):
    while context.is_active():
        time.sleep(0.05)
    return b""


def serve(address):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(address)
    server.start()
    sys.stdin.read()


def ask(address, root):
    credentials = grpc.ssl_channel_credentials(open(root, "rb").read())
    options = (
        ("grpc.ssl_target_name_override", "grpc.localhost"),
        ("grpc.default_authority", "grpc.localhost"),
        ("grpc.enable_http_proxy", 0),
    )
    channel = grpc.secure_channel(address, credentials, options)
    grpc.channel_ready_future(channel).result(timeout=15)
    patience = {"timeout": 15, "metadata": (("x-metadata", "yes"),)}

    answer, call = channel.unary_unary("/test.Test/Unary").with_call(b"world", **patience)
    print(f"unary: {answer.decode()}, trailer {dict(call.trailing_metadata())['x-trailer']}")
    answer = channel.unary_unary("/test.Test/Unary")(b"x" * 2_000_000, **patience)
    print("large:", len(answer))

    stream = channel.unary_stream("/test.Test/Down")(b"10", **patience)
    said = " ".join(one.decode() for one in stream)
    print(f"server streaming: {said}, trailer {dict(stream.trailing_metadata())['x-count']}")

    numbers = (str(n).encode() for n in range(10))
    print("client streaming:", channel.stream_unary("/test.Test/Up")(numbers, **patience).decode())

    # The next question goes out only after the answer to the one before: nothing may wait for the end.
    questions = queue.Queue()
    answers = channel.stream_stream("/test.Test/Both")(iter(questions.get, None), **patience)
    said = []
    for n in range(5):
        questions.put(str(n).encode())
        said.append(next(answers).decode())
    questions.put(None)
    assert list(answers) == []
    print("bidirectional, one by one:", " ".join(said))

    for word, method, wait in (
        ("status", "Missing", 15),
        ("deadline", "Slow", 0.5),
        ("unknown method", "Nothing", 15),
    ):
        try:
            channel.unary_unary(f"/test.Test/{method}")(b"", timeout=wait)
        except grpc.RpcError as error:
            details = f" {error.details()}" if word == "status" else ""
            print(f"{word}: {error.code().name}{details}")


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1] == "serve" else ask(*sys.argv[2:])
