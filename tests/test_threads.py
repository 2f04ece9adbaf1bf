"""One recommender, many threads; one save, many kills."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from fastrec import load


def test_threads_get_what_one_thread_gets(rec):
    users = [f"u{u}" for u in range(60)]
    want = {u: rec.recommend(u, 8).items.tolist() for u in users}

    def ask(seed):
        for u in users[seed:] + users[:seed]:
            assert rec.recommend(u, 8, explain=seed % 2 == 0).items.tolist() == want[u]
            rec.similar_items(f"i{seed}", 3, by="content")
            rec.recommend_for_text("red apple", 3)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))


def test_a_forked_child_can_recommend(rec):
    want = rec.recommend([f"u{u}" for u in range(60)], 5).items.tolist()
    child = os.fork()
    if child == 0:
        try:
            same = rec.recommend([f"u{u}" for u in range(60)], 5).items.tolist() == want
            os._exit(0 if same else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


SAVER = """
import sys
from fastrec import load
rec = load(sys.argv[1])
print("ready", flush=True)
while True:
    rec.save(sys.argv[1])
"""


def test_kill_9_during_save_leaves_a_whole_model(rec, tmp_path):
    rec.save(tmp_path / "m")
    want = rec.recommend("u1", 5).items.tolist()
    for round_ in range(5):
        saver = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path / "m")], stdout=subprocess.PIPE)
        assert saver.stdout.readline() == b"ready\n"
        time.sleep(0.03 + 0.017 * round_)
        saver.send_signal(signal.SIGKILL)
        saver.communicate()
        assert load(tmp_path / "m").recommend("u1", 5).items.tolist() == want
