#!/usr/bin/env python3
"""Black-box HTTP compatibility runner (Python 3.11, standard library only).

    run_compat.py CASES.json BASE_URL [--api-key K] [--only SERVICE ...]
                  [--enable TAG ...] [--var NAME=VALUE ...] [--repeat N] [-v]

CASES.json is a list of {"service", "name", "requires"?: [tag], "steps": [step]}.
A sequence stops at its first failing step and counts once (passed or failed).

Step fields
  method, path            request line (path is appended to BASE_URL)
  headers                 extra request headers
  json | body | body_b64  JSON value, text, or base64 bytes to send
  multipart               [{"name", "filename"?, "content_type"?, "text"|"b64"}]
  no_key                  true: do not add the API key to this one request
  retry_s                 keep repeating the request until "expect" holds, at most so many seconds
                          (used only where the contract allows background processing)
  capture                 {"var": "dotted.path"} from the JSON answer ("$" = the whole answer)
  expect                  see below
Expect fields (all that are present must hold)
  status                  number, or list of acceptable numbers
  json_equals             whole JSON answer; an EMPTY body counts as JSON null
  json_has / json_lacks   dotted paths that must / must not exist
  json_types              path -> string|number|integer|boolean|object|array|null ("a|b" = either)
  json_values             path -> exact value
  json_any / json_none    path of an array -> {some members}: some / no element has all of them;
                          a non-object stands for an element equal to it
  text                    exact body text;   text_contains: substring
  body_b64                exact body bytes
  headers                 response header -> substring (case-insensitive)
Dotted paths: list positions are numbers, "#" is the length, "$" or "" is the root.
Placeholders in every string: {{run}} (fresh per run), captured names, --var names
(defaults: admin_user=admin, admin_password=admin123). A string that is nothing but one
placeholder keeps the captured value's type; inside a path values are URL-quoted.
"requires" tags: "api_key" sequences run only with --api-key; any other tag needs --enable TAG.
Exit status 0 when nothing failed; the last line is "N passed, M failed".
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import re
import sys
import time
import urllib.parse
import uuid

MISSING = object()
PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


class Failure(Exception):
    pass


def subst(value, env, quote=False):
    if isinstance(value, str):
        whole = PLACEHOLDER.fullmatch(value)
        if whole and not quote:
            return lookup_var(whole.group(1), env)

        def one(match):
            text = lookup_var(match.group(1), env)
            text = text if isinstance(text, str) else json.dumps(text)
            return urllib.parse.quote(text, safe="") if quote else text

        return PLACEHOLDER.sub(one, value)
    if isinstance(value, list):
        return [subst(v, env) for v in value]
    if isinstance(value, dict):
        return {subst(k, env) if "{{" in k else k: subst(v, env) for k, v in value.items()}
    return value


def lookup_var(name, env):
    if name not in env:
        raise Failure(f"placeholder {{{{{name}}}}} has no value")
    return env[name]


def dig(doc, path):
    if path in ("", "$"):
        return doc
    cur = doc
    for part in path.split("."):
        if part == "#" and isinstance(cur, (list, dict, str)):
            cur = len(cur)
        elif isinstance(cur, dict) and part in cur:
            cur = cur[part]
        elif isinstance(cur, list) and re.fullmatch(r"-?\d+", part) and -len(cur) <= int(part) < len(cur):
            cur = cur[int(part)]
        else:
            return MISSING
    return cur


def same(a, b):
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool) and a == b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) <= 1e-9 * max(1.0, abs(a), abs(b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return type(a) is type(b) and a == b


def type_ok(value, wanted):
    checks = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "number": isinstance(value, (int, float)) and not isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "null": value is None,
    }
    for name in wanted.split("|"):
        if name not in checks:
            raise Failure(f"unknown type name {name!r} in the case")
        if checks[name]:
            return True
    return False


def element_has(element, wanted):
    if isinstance(wanted, dict):
        return isinstance(element, dict) and all(k in element and same(element[k], v) for k, v in wanted.items())
    return same(element, wanted)


def build_body(step, env, headers):
    if "multipart" in step:
        boundary = "compat" + uuid.uuid4().hex
        chunks = []
        for part in step["multipart"]:
            part = subst(part, env)
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{part["name"]}"'
            if "filename" in part:
                head += f'; filename="{part["filename"]}"\r\nContent-Type: {part.get("content_type", "application/octet-stream")}'
            data = base64.b64decode(part["b64"]) if "b64" in part else part.get("text", "").encode()
            chunks += [head.encode(), b"\r\n\r\n", data, b"\r\n"]
        chunks.append(f"--{boundary}--\r\n".encode())
        headers.setdefault("Content-Type", "multipart/form-data; boundary=" + boundary)
        return b"".join(chunks)
    if "json" in step:
        headers.setdefault("Content-Type", "application/json")
        return json.dumps(subst(step["json"], env), ensure_ascii=False).encode()
    if "body_b64" in step:
        return base64.b64decode(step["body_b64"])
    if "body" in step:
        return str(subst(step["body"], env)).encode()
    return None


def send(base, step, env, api_key, timeout):
    headers = {k: str(subst(v, env)) for k, v in step.get("headers", {}).items()}
    if api_key and not step.get("no_key"):
        headers.setdefault("x-api-key", api_key)
    body = build_body(step, env, headers)
    cls = http.client.HTTPSConnection if base.scheme == "https" else http.client.HTTPConnection
    conn = cls(base.hostname, base.port, timeout=timeout)
    try:
        conn.request(
            step["method"], base.path.rstrip("/") + subst(step["path"], env, quote=True), body=body, headers=headers
        )
        res = conn.getresponse()
        return res.status, {k.lower(): v for k, v in res.getheaders()}, res.read()
    except (OSError, http.client.HTTPException) as exc:
        raise Failure(f"request failed: {exc!r}") from None
    finally:
        conn.close()


def check(expect, status, headers, raw):
    def bad(message):
        raise Failure(f"{message}; got status {status}, body {raw[:300]!r}")

    want = expect.get("status")
    if want is not None and status not in (want if isinstance(want, list) else [want]):
        bad(f"status: wanted {want}")
    for name, piece in expect.get("headers", {}).items():
        if str(piece).lower() not in headers.get(name.lower(), "").lower():
            bad(f"header {name}: wanted {piece!r} in {headers.get(name.lower())!r}")
    if "text" in expect and raw.decode("utf-8", "replace") != expect["text"]:
        bad(f"text: wanted {expect['text']!r}")
    if "text_contains" in expect and expect["text_contains"] not in raw.decode("utf-8", "replace"):
        bad(f"text: wanted {expect['text_contains']!r} inside")
    if "body_b64" in expect and raw != base64.b64decode(expect["body_b64"]):
        bad("bytes differ")
    if not any(k.startswith("json_") for k in expect):
        return
    try:
        doc = json.loads(raw) if raw.strip() else None
    except ValueError:
        bad("answer is not JSON")
    if "json_equals" in expect and not same(doc, expect["json_equals"]):
        bad(f"json: wanted {json.dumps(expect['json_equals'])}")
    for path in expect.get("json_has", []):
        if dig(doc, path) is MISSING:
            bad(f"json path {path!r} is missing")
    for path in expect.get("json_lacks", []):
        if dig(doc, path) is not MISSING:
            bad(f"json path {path!r} must not exist")
    for path, wanted in expect.get("json_types", {}).items():
        value = dig(doc, path)
        if value is MISSING or not type_ok(value, wanted):
            bad(f"json path {path!r}: wanted type {wanted}")
    for path, wanted in expect.get("json_values", {}).items():
        value = dig(doc, path)
        if value is MISSING or not same(value, wanted):
            bad(
                f"json path {path!r}: wanted {json.dumps(wanted)}, found {'nothing' if value is MISSING else json.dumps(value)}"
            )
    for key, wanted_found in (("json_any", True), ("json_none", False)):
        for path, wanted in expect.get(key, {}).items():
            value = dig(doc, path)
            if not isinstance(value, list):
                bad(f"json path {path!r} is not an array")
            if any(element_has(e, wanted) for e in value) is not wanted_found:
                bad(f"{key} {path!r}: {json.dumps(wanted)}")


def run_step(base, step, env, api_key, timeout):
    expect = subst(step.get("expect", {}), env)
    deadline = time.monotonic() + float(step.get("retry_s", 0))
    while True:
        try:
            status, headers, raw = send(base, step, env, api_key, timeout)
            check(expect, status, headers, raw)
            break
        except Failure:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)
    if "capture" in step:
        try:
            doc = json.loads(raw)
        except ValueError:
            raise Failure(f"capture: answer is not JSON: {raw[:200]!r}") from None
        for name, path in step["capture"].items():
            value = dig(doc, path)
            if value is MISSING:
                raise Failure(f"capture: no {path!r} in {raw[:300]!r}")
            env[name] = value


def main():
    ap = argparse.ArgumentParser(description="replay HTTP compatibility sequences")
    ap.add_argument("cases")
    ap.add_argument("base_url")
    ap.add_argument("--api-key")
    ap.add_argument("--only", action="append", default=[], metavar="SERVICE")
    ap.add_argument("--enable", action="append", default=[], metavar="TAG")
    ap.add_argument("--var", action="append", default=[], metavar="NAME=VALUE")
    ap.add_argument("--repeat", type=int, default=1, help="replay everything N times (fresh names each time)")
    ap.add_argument("--timeout", type=float, default=30.0)
    ap.add_argument("-v", "--verbose", action="store_true")
    args = ap.parse_args()
    base = urllib.parse.urlsplit(args.base_url if "//" in args.base_url else "http://" + args.base_url)
    with open(args.cases, encoding="utf-8") as handle:
        cases = json.load(handle)
    tags = set(args.enable) | ({"api_key"} if args.api_key else set())
    variables = {"admin_user": "admin", "admin_password": "admin123", "api_key": args.api_key or ""}
    variables.update(item.split("=", 1) for item in args.var)
    totals: dict[str, list[int]] = {}
    failures = []
    for _ in range(args.repeat):
        run = uuid.uuid4().hex[:10]
        for case in cases:
            if args.only and case["service"] not in args.only:
                continue
            row = totals.setdefault(case["service"], [0, 0, 0])
            if not set(case.get("requires", [])) <= tags:
                row[2] += 1
                continue
            env = dict(variables, run=run)
            number, step = 0, {}
            try:
                for number, step in enumerate(case["steps"], 1):
                    run_step(base, step, env, args.api_key, args.timeout)
                row[0] += 1
                if args.verbose:
                    print(f"ok    {case['service']}: {case['name']}")
            except Failure as exc:
                row[1] += 1
                failures.append(
                    f"FAIL  {case['service']}: {case['name']} - step {number} {step.get('method')} {step.get('path')}: {exc}"
                )
                if args.verbose:
                    print(failures[-1])
    print(f"{'service':<14}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for service, (good, bad, skipped) in totals.items():
        print(f"{service:<14}{good:>8}{bad:>8}{skipped:>9}")
    if failures:
        print()
        print("\n".join(failures))
    good = sum(r[0] for r in totals.values())
    bad = sum(r[1] for r in totals.values())
    print(f"{good} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
