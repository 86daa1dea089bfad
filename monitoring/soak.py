#!/usr/bin/env python3
"""Tests the dashboard with a Prometheus that scrapes the sidecars of the soak (benches/wire/src/bin/soak), with a store.

    python3 monitoring/soak.py SECONDS

1. The soak passes.
2. At some moment of the run, every query of the dashboard returns a number.

The alert rules are not tested: the operator and the store fail so often that some alerts fire. It needs `prometheus` and
`redis-server`. Build the sidecar first: cargo build -p euid-sidecar. All ports are on 127.0.0.1.
"""

import subprocess
import sys
import time

from scrape import FOLDER, SIDECAR, TARGET, Prometheus, check_dashboard, processes

WIRE = ["--locked", "--manifest-path", FOLDER.parent / "benches/wire/Cargo.toml", "--target-dir", TARGET / "benches"]


def main(seconds):
    with processes() as (run, _, folder):
        command = ["cargo", "run", "--quiet", "--release", *WIRE, "--bin", "soak", "--", seconds, "--sidecar", SIDECAR]
        soak = run([*command, "--store"], stdout=subprocess.PIPE, text=True)
        admins = soak.stdout.readline().removeprefix("admin: ").split()
        prometheus = Prometheus(run, folder, [admin.rpartition(":")[2] for admin in admins])
        queries, empty = check_dashboard(prometheus)
        while empty and soak.poll() is None:
            time.sleep(1)
            queries, empty = check_dashboard(prometheus)
        print(soak.communicate()[0])
        assert soak.returncode == 0, "the soak failed"
        assert not empty, "queries without a number:\n" + "\n".join(empty)
        print(f"{queries} of {queries} queries of the dashboard return a number")


if __name__ == "__main__":
    main(sys.argv[1])
