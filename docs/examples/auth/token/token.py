"""Predict with a token: get one by password, then send it with each request."""

import json
import os
import ssl
import urllib.request

env = os.environ
tls = ssl.create_default_context(cafile=env.get("SLUICE_CA"))


def send(url, body, headers):
    return urllib.request.urlopen(urllib.request.Request(url, body, headers, method="POST"), context=tls)


def get_token():
    user = {"name": env["SLUICE_USER"], "password": env["SLUICE_PASSWORD"], "domain": {"name": env["SLUICE_DOMAIN"]}}
    auth = {
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": {"project": {"id": env["SLUICE_PROJECT"]}},
    }
    url = env["SLUICE_CONTROL"] + "/v3/auth/tokens"
    with send(url, json.dumps({"auth": auth}).encode(), {"Content-Type": "application/json"}) as answer:
        return answer.headers["X-Subject-Token"]


with open(env["SLUICE_INPUT"], "rb") as f:
    body = f.read()

url = env["SLUICE_EDGE"] + "/v1/infers/" + env["SLUICE_SERVICE"] + env.get("SLUICE_PATH", "")
headers = {"X-Auth-Token": get_token(), "Content-Type": env.get("SLUICE_CONTENT_TYPE", "application/json")}
with send(url, body, headers) as answer:
    print(answer.read().decode())
