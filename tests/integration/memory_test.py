#!/usr/bin/env python3
"""Promise 1: no worker ever uses more than it offered; what can't fit is refused with numbers."""
import http.client
import json
import subprocess
import unittest

from cluster_test import ClusterTest
from renga_process import LIMIT_S, MAKE_MODEL

MIB = 1 << 20
# What a process needs besides its offer: code, gRPC, TLS, buffers of messages under way.
ALLOWANCE = 64 * MIB


class MemoryTest(ClusterTest):

    def test_1100_million_parameters_on_two_workers_of_500_mib(self):
        model = self.folder / "1.1b.gguf"
        subprocess.run([MAKE_MODEL, "--shape", "1.1b", "--type", "Q4_K", model], check=True,
                       timeout=LIMIT_S, stdout=subprocess.DEVNULL)
        up, join = self.up(model, "--wait-for", "2", "--context", "512")
        workers = [self.worker(join, name, "500MiB") for name in ("a", "b")]
        up.wait_for("ready")
        status, body = self.request("/v1/completions", {
            "prompt": [5] * 300, "max_tokens": 8, "temperature": 0, "ignore_eos": True})
        self.assertEqual(status, 200, body)
        for worker in workers:
            peak = worker.peak_resident_bytes()
            print(f"peak resident memory {peak / MIB:.1f} MiB of 500 MiB offered")
            self.assertLessEqual(peak, 500 * MIB + ALLOWANCE)
        for worker in workers:
            worker.stop()
        refused = self.renga("run", model, "hello", "--workers", 2, "--memory", "200MiB",
                             "--context", 512)
        self.assert_refused(refused, "200.0 MiB", "needs")
        print(refused.stderr.decode().strip())


if __name__ == "__main__":
    unittest.main(argv=["memory_test", "MemoryTest.test_1100_million_parameters_on_two_workers_of_500_mib"], verbosity=2)
