#!/usr/bin/env python3
"""Prepares a started server for the benchmark: setup.py FOLDER BASE_PORT ORIGIN_URL signed|public.

Makes a bucket that pulls from the origin; for `signed` an authenticated one with a signing key. Prints the paths to ask
for as JSON: {"query": "?auth=...", "paths": {"1k": "/1k?auth=...", ...}}.
"""
import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

folder, port, origin, mode = sys.argv[1:5]
binary = os.environ.get("EDGEWEIR") or pathlib.Path(__file__).parent.parent / "target/release/edgeweir"
data_dir = f"{folder}/edgeweir-{port}"
api = f"http://127.0.0.1:{int(port) + 2}"


def call(method, path, body=None, token=None):
    request = urllib.request.Request(api + path, method=method, data=json.dumps(body).encode() if body else None)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def run(*args):
    return subprocess.run([binary, *args], check=True, capture_output=True, text=True).stdout.strip()


while not pathlib.Path(data_dir, "listen.json").exists():
    time.sleep(0.05)
project = json.loads(run("project", "create", "bench", "--json", "--data-dir", data_dir))
token = call("POST", f"/v1/access_token/{project['api_key']}")["access_token"]
bucket = "bench-" + mode
call("POST", "/v1/buckets", {"name": bucket, "origin": {"type": "http", "url": origin}}, token)
query = ""
if mode == "signed":
    call("PUT", f"/v1/buckets/{bucket}/policy/authenticated", None, token)
    key = call("POST", "/v1/signing-keys", {"bucket_name": bucket}, token)["signing_key"]
    pem = pathlib.Path(data_dir, "bench.pem")
    pem.write_text(key["private_key"])
    query = "?auth=" + run("sign", "--key-id", key["id"], "--key", str(pem), "--uri", "")
paths = {size: f"/{size}{query}" for size in ("1k", "10k", "1m")}
print(json.dumps({"query": query, "paths": paths}))
