"""Makes requests over HTTP/3 with aioquic, an implementation of QUIC that shares nothing with the server's.

Reads JSON from standard input: {"address": [host, port], "ca": path, "sni": name, "requests": [{"method", "authority",
"path", "headers": [[name, value]], "body": text or null, "chunks": count of equal parts that the body is sent in}]}.
Writes JSON: {"answers": [{"status", "headers", "body" (base64), "reset": code or null}], "closed": code or null,
"goaway": whether the server has said so}. The requests share a connection and are made at once, or one after another
where "in_turn" is true.
"""

import asyncio
import base64
import json
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamReset


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answers = {}
        self.waiting = {}
        self.closed = None
        # An answer to HEAD tells a length that it has not (RFC 9114, section 4.1.2), which aioquic takes for an error.
        self.heads = set()
        check = self.http._check_content_length
        self.http._check_content_length = lambda stream: stream.stream_id in self.heads or check(stream)

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.closed = event.error_code
            for stream in list(self.waiting):
                self.end(stream)
        if isinstance(event, StreamReset):
            self.answers[event.stream_id]["reset"] = event.error_code
            self.end(event.stream_id)
        if isinstance(event, StopSendingReceived):
            return
        for event in self.http.handle_event(event):
            if not isinstance(event, (HeadersReceived, DataReceived)):
                continue
            answer = self.answers[event.stream_id]
            if isinstance(event, DataReceived):
                answer["body"] += event.data
            else:
                for name, value in event.headers:
                    if name == b":status":
                        answer["status"] = int(value)
                    else:
                        answer["headers"].append([name.decode(), value.decode("latin-1")])
            if event.stream_ended:
                self.end(event.stream_id)

    def end(self, stream):
        waiting = self.waiting.pop(stream, None)
        if waiting and not waiting.done():
            waiting.set_result(None)

    async def send(self, request):
        stream = self._quic.get_next_available_stream_id()
        answer = {"status": 0, "headers": [], "body": b"", "reset": None}
        self.answers[stream] = answer
        self.waiting[stream] = asyncio.get_running_loop().create_future()
        waiting = self.waiting[stream]
        head = [
            (b":method", request.get("method", "GET").encode()),
            (b":scheme", b"https"),
            (b":authority", request["authority"].encode()),
            (b":path", request["path"].encode()),
        ]
        head += [(name.encode(), value.encode()) for name, value in request.get("headers", [])]
        body = request.get("body")
        if request.get("method") == "HEAD":
            self.heads.add(stream)
        self.http.send_headers(stream, head, end_stream=body is None)
        if body is not None:
            parts = request.get("chunks", 1)
            data = body.encode()
            size = max(1, -(-len(data) // parts))
            for at in range(0, len(data), size):
                self.http.send_data(stream, data[at : at + size], end_stream=False)
                self.transmit()
                await asyncio.sleep(0)
            self.http.send_data(stream, b"", end_stream=True)
        self.transmit()
        await asyncio.wait_for(waiting, 60)
        answer["body"] = base64.b64encode(answer["body"]).decode()
        return answer


async def main():
    job = json.load(sys.stdin)
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=job["sni"])
    configuration.verify_mode = ssl.CERT_REQUIRED
    configuration.load_verify_locations(job["ca"])
    host, port = job["address"]
    async with connect(host, port, configuration=configuration, create_protocol=Client) as client:
        if job.get("in_turn"):
            answers = [await client.send(request) for request in job["requests"]]
        else:
            answers = await asyncio.gather(*(client.send(request) for request in job["requests"]))
        closed = client.closed
    print(json.dumps({"answers": answers, "closed": closed}))


asyncio.run(main())
