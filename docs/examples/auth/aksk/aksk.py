"""Predict with an access key, by the signer beside this folder."""

import os
import pathlib
import ssl
import sys
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from sluice_sign import sign

env = os.environ
tls = ssl.create_default_context(cafile=env.get("SLUICE_CA"))

with open(env["SLUICE_INPUT"], "rb") as f:
    body = f.read()

url = env["SLUICE_EDGE"] + "/v1/infers/" + env["SLUICE_SERVICE"] + env.get("SLUICE_PATH", "")
headers = {"Content-Type": env.get("SLUICE_CONTENT_TYPE", "application/json")}
headers = sign("POST", url, headers, body, env["SLUICE_ACCESS_KEY"], env["SLUICE_SECRET_KEY"])
with urllib.request.urlopen(urllib.request.Request(url, body, headers, method="POST"), context=tls) as answer:
    print(answer.read().decode())
