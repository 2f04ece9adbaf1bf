"""What several tests ask of a model behind an engine."""

import asyncio
import os

PLAIN = {"filter_seen": True, "allow": None, "deny": None, "where": None, "boost": None, "diversity": 0.0}
PLAIN |= {"at": None, "explain": False, "on_unknown": "fallback"}


def gone(pid):
    return not os.path.exists(f"/proc/{pid}/fd/0")


async def batch(engine, calls):
    """What one batch of calls gives."""
    answered = asyncio.get_running_loop().create_future()
    engine.submit(calls, answered.set_result)
    return await answered
