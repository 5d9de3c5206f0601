"""The Celery application: one task scores one window.

Tasks keep nothing between windows, so any process of the pool takes any window: what is remembered of a stream lies in
Redis beside the window, and comes and goes with it in two round trips. (To score without it, a window would have to
bring seconds of what came before, and most of the work would be repeated.)
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import celery  # noqa: E402
import redis  # noqa: E402
from celery.signals import worker_process_init  # noqa: E402

SOCKET = os.environ["RIVAL_REDIS"]
RESULTS = "results"

app = celery.Celery("tasks", broker=f"redis+socket://{SOCKET}")
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


def connect():
    return redis.Redis(unix_socket_path=SOCKET)


def window_key(camera):
    return f"window:{camera}"


def state_key(camera):
    return f"state:{camera}"


@worker_process_init.connect
def load(**_):
    """In each process of the pool after the fork: a session of ONNX Runtime does not outlive one."""
    global model, store
    from common.model import Model

    model, store = Model(os.environ["RIVAL_MODEL"]), connect()


@app.task
def score(camera, number, first):
    import numpy as np

    pcm, state = store.mget(window_key(camera), state_key(camera))
    if pcm is None:
        return
    states = model.fresh(1)
    if state is not None and not first:
        states[0] = np.frombuffer(state, np.float32)
    probabilities = model.score(states, np.frombuffer(pcm, np.int16)[None])[0]
    result = np.array([camera, number], np.int64).tobytes() + probabilities.tobytes()
    with store.pipeline(transaction=False) as pipeline:
        pipeline.set(state_key(camera), states.tobytes()).rpush(RESULTS, result).execute()
