"""Reads a server's counters by Prometheus' own parser. scripts/clients/run runs it."""

import json
import threading
import urllib.request

from calls import MODEL, SERVER, STORY, call, run
from prometheus_client.parser import text_string_to_metric_families


def families():
    with urllib.request.urlopen(SERVER + "/metrics", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(name, **labels):
    for family in families().values():
        for sample in family.samples:
            if sample.name == f"grok_wgpu_{name}" and sample.labels == labels:
                return sample.value
    return 0


def ask(**fields):
    body = {"model": MODEL, "messages": [{"role": "user", "content": STORY}], **fields}
    request = urllib.request.Request(
        SERVER + "/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


@call
def all_are_read():
    ask(max_tokens=3)
    got = families()
    assert len(got) >= 12
    for name, family in got.items():
        assert name.startswith("grok_wgpu_") and family.documentation and family.samples, name
        assert family.type in ("counter", "gauge", "histogram"), name


@call
def histograms_add_up():
    kinds = [family for family in families().values() if family.type == "histogram"]
    assert len(kinds) >= 4
    for family in kinds:
        series = {}
        for sample in family.samples:
            labels = {name: text for name, text in sample.labels.items() if name != "le"}
            series.setdefault(tuple(labels.items()), []).append(sample)
        for samples in series.values():
            buckets = [s for s in samples if s.name.endswith("_bucket")]
            counts, ends = [s.value for s in buckets], [float(s.labels["le"]) for s in buckets]
            total = [s.value for s in samples if s.name.endswith("_count")]
            assert counts == sorted(counts) and [counts[-1]] == total, family.name
            assert ends == sorted(set(ends)) and ends[-1] == float("inf"), family.name


@call
def counters_are_those_of_the_clients():
    asked = {"endpoint": "/v1/chat/completions", "code": "200"}
    before = value("requests_total", **asked), value("generated_tokens_total")
    prompts = value("prompt_tokens_total")
    answers = []
    threads = [
        threading.Thread(target=lambda i=i: answers.append(ask(max_tokens=4 + i))) for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    usages = [answer["usage"] for answer in answers]
    assert len(usages) == 6
    assert value("requests_total", **asked) - before[0] == 6
    made = sum(usage["completion_tokens"] for usage in usages)
    assert value("generated_tokens_total") - before[1] == made
    read = sum(usage["prompt_tokens"] for usage in usages)
    assert value("prompt_tokens_total") - prompts == read
    assert value("requests_running") == value("requests_waiting") == 0


run("prometheus-client")
