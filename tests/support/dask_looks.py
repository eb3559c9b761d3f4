"""A program that looks at everything that a Dask cluster shows: pages, state, logs and profiles.

``python dask_looks.py SCHEDULER WORD`` prints the texts as JSON, by name. Before that it shows how to be found: it
plants the word in the key, the error, the log and an event of a task. The pages of diagrams fetch their content through
a websocket; here the same functions draw the same documents in the scheduler and its workers.
"""

import json
import logging
import sys
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

import distributed

LIMIT = 60.0
"""Seconds for an answer."""


async def of_scheduler(dask_scheduler: Any) -> dict[str, str]:
    """Return the documents of the scheduler's pages, by path."""
    from distributed.dashboard.scheduler import applications, template_variables

    return await drawn(applications, dask_scheduler, template_variables(dask_scheduler))


async def of_worker(dask_worker: Any) -> dict[str, str]:
    """Return the documents of a worker's pages, by path."""
    from distributed.dashboard.worker import applications, template_variables

    return await drawn(applications, dask_worker, template_variables)


async def drawn(applications: Any, server: Any, variables: Any) -> dict[str, str]:
    """Return the values of all models of the documents, after two updates."""
    import asyncio  # here, because the function is pickled
    import importlib
    import inspect

    pages = {}
    for path, draw in applications.items():
        document = importlib.import_module("bokeh.document").Document()
        draw(server, {"prefix": "/", **variables}, document)
        for _ in range(2):
            for callback in list(document.session_callbacks):
                found = callback.callback()
                if inspect.isawaitable(found):
                    await found
            await asyncio.sleep(0)  # the batch goes on meanwhile
        values = [model.properties_with_values(include_defaults=False) for model in document.models]
        pages[path] = json.dumps(values, default=lambda one: one.tolist() if hasattr(one, "tolist") else repr(one))
    return pages


def state(dask_scheduler: Any) -> dict[str, str]:
    """Return what the scheduler knows."""
    known = dask_scheduler
    return {
        "tasks": repr([[each.key, each.run_spec, each.annotations, each.exception] for each in known.tasks.values()]),
        "events": repr(known.get_events()),
        "transitions": repr(list(known.transition_log)),
        "log": repr(known.get_logs()),
        "rest": repr([known.identity(), list(known.computations), known.task_metadata, known.plugins]),
    }


def plant(word: str) -> None:
    """Be a task that shows a word where a task can, and is in the profile."""
    distributed.get_worker().log_event("planted", word)
    logging.getLogger("distributed.worker").warning(word)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    raise ValueError(word)


def fetched(url: str) -> str:
    """Return the text of a page, also of one that is not found."""
    try:
        with urllib.request.urlopen(url, timeout=LIMIT) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        return f"{error}: {error.read()!r}"


def look(client: Any, word: str) -> dict[str, str]:
    """Plant a word and return the texts."""
    client.get_task_stream()  # from now on the scheduler records it
    planted = client.submit(plant, word, key=f"{word}-key", pure=False)
    distributed.wait(planted, timeout=LIMIT)
    workers = client.scheduler_info(n_workers=-1)["workers"]
    keys = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
    looks = {
        **client.run_on_scheduler(state),
        "stream": repr(client.get_task_stream()),
        "story": repr(client.story(*keys)),
        "stacks": repr(client.call_stack(keys=keys)),
        "profile": repr([client.profile(), client.profile(scheduler=True), client.profile(server=True)]),
        "logs of workers": repr([client.get_worker_logs(), client.get_worker_logs(nanny=True)]),
    }
    documents = client.run_on_scheduler(of_scheduler)
    names = ("main/workers", "main/exceptions", "main/logs")
    of_workers = [f"{kind}/{quote(each, '')}" for kind in ("worker", "logs", "call-stacks") for each in workers]
    of_tasks = [f"{kind}/{quote(key, '')}" for kind in ("task", "call-stack") for key in keys]
    paths = [f"/info/{name}.html" for name in (*names, *of_workers, *of_tasks)]
    paths += ["/json/counts.json", "/json/identity.json", "/json/index.html", "/individual-plots.json"]
    paths += ["/metrics", "/health"]
    root = client.dashboard_link.removesuffix("/status")
    looks |= {f"page {path}": fetched(root + path) for path in (*documents, *paths)}
    looks |= {f"diagrams {path}": text for path, text in documents.items()}
    for address, worker in workers.items():
        root = f"http://127.0.0.1:{worker['services']['dashboard']}"
        documents = client.run(of_worker, workers=[address])[address]
        looks |= {f"page {address}{path}": fetched(root + path) for path in (*documents, "/metrics", "/health")}
        looks |= {f"diagrams {address}{path}": text for path, text in documents.items()}
    return looks


if __name__ == "__main__":
    with distributed.Client(sys.argv[1], timeout=LIMIT) as own:
        print("RESULT" + json.dumps(look(own, sys.argv[2])))
