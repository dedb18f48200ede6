"""Runs the jobs, prints a line for each, and fails if one does not keep what is promised.

    drive.py FOLDER [--all] [--calls N] [--rows REGEX] [--trace FOLDER] [--list]
    drive.py FOLDER --serve LIMITER [--limit N] [--window SECONDS] [--burst N] [--port N]

The folder has the packages, the servers and the programs `job` and `limiter`.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True

from limiters import Rate, named
from rows import rows
from servers import Failure, Server

# What the client promises for a bulk job.
MOST_REQUESTS, MOST_UNFAIR = 1.2, 3.0
# What no client can do if the limiter does what it says, but for clocks and rounding.
LEAST_TIME = 0.95
# How many jobs that are not idle run at once: as many as leave two cores time to spare.
BUSY = 6
# The same for jobs of several processes: on a machine that is busier than that, the process that is
# run first has its share before the others have begun.
FEW = 2

COLUMNS = (
    f"{'':<44}{'calls':>6}{'sent':>7}{'refused':>8}{'429':>5}{'unsent':>7}{'failed':>7}"
    f"{'sent/call':>10}{'time':>8}{'least':>8}{'ratio':>7}{'unfair':>7}{'gap':>7}"
)


class Result:
    """What the processes of a row have reported."""

    def __init__(self, row, reports):
        self.row = row

        def total(name):
            return sum(report[name] for report in reports)

        self.placed, self.sent = total("placed"), total("sent")
        self.handed_back, self.not_sent = total("refused"), total("not_sent")
        self.failed = total("failed")
        self.seconds = max(report["seconds"] for report in reports)
        self.gap = max(report["gap"] for report in reports)
        self.problem = next((it["problem"] for it in reports if it["problem"]), "")
        waits = [report["mean_wait"] for report in reports]
        self.unfair = max(waits) / max(min(waits), 1e-3) if len(waits) > 1 else 1.0
        self.per_call = self.sent / row.calls
        self.ratio = self.seconds / max(row.least(), 1e-3)

    def line(self):
        row = self.row
        return (
            f"{row.name:<44}{row.calls:>6}{self.sent:>7}{self.sent - self.placed:>8}"
            f"{self.handed_back:>5}{self.not_sent:>7}{self.failed:>7}{self.per_call:>10.2f}"
            f"{self.seconds:>8.1f}{row.least():>8.1f}{self.ratio:>7.2f}{self.unfair:>7.1f}"
            f"{self.gap:>7.1f}"
        )

    def lost(self):
        """The promises about each single call that are not kept."""
        lost = {"handed back": self.handed_back, "not sent": self.not_sent, "failed": self.failed}
        for what, count in lost.items():
            if count:
                yield f"{count} {what}" + (f" ({self.problem})" if self.problem else "")
        if self.placed == self.row.calls and self.ratio < LEAST_TIME:
            yield f"{self.ratio:.2f} of the least time: the limiter does not limit"


def beyond(results):
    """The bounds on a job as a whole that the median of these runs of one row breaks."""
    row = results[0].row
    if not row.bounded:
        return

    def typical(measure):
        return statistics.median(measure(result) for result in results)

    per_call, seconds = typical(lambda it: it.per_call), typical(lambda it: it.seconds)
    unfair = typical(lambda it: it.unfair)
    if row.processes == 1 and per_call > MOST_REQUESTS:
        yield f"{per_call:.2f} requests a call"
    if row.processes == 1 and seconds > row.most():
        yield f"{seconds / max(row.least(), 1e-3):.2f} of the least time"
    if unfair > MOST_UNFAIR:
        yield f"mean waits {unfair:.1f} apart"


class Run:
    """Runs rows, some of them at once."""

    def __init__(self, folder, trace):
        self.folder, self.trace = folder, trace
        self.stopped, self.processes = False, set()
        self.lock = threading.Lock()

    def run(self, row):
        server = Server(self.folder, row.name, row.rate)
        try:
            row.limiter.start(server)
            server.warm_up(row.limiter.options.get("METHOD", "POST"))
            return Result(row, self.jobs(row, server))
        finally:
            server.end()

    def jobs(self, row, server):
        # Longer than any client should need that is not stuck.
        total = int(row.least() * 2 + 60)
        environment = {
            **os.environ,
            **row.limiter.options,
            "ADDRESS": f"127.0.0.1:{server.port}",
            "CALLERS": str(row.callers),
            "RATE": str(row.policy.limit),
            "RATE_MS": str(int(row.policy.window * 1000)),
            "EVENLY": str(int(row.evenly)),
            "TOTAL_S": str(total),
            "START_MS": str(int(time.time() * 1000) + 2000),
        }
        each, more = divmod(row.calls, row.processes)
        calls = [each + (process < more) for process in range(row.processes)]
        jobs = [
            self.job(environment | {"CALLS": str(count)} | self.traced(f"{row.name} {process}"))
            for process, count in enumerate(calls)
        ]
        try:
            return [json.loads(job.communicate(timeout=total + 60)[0]) for job in jobs]
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{row.name}: the job hangs") from error
        except json.JSONDecodeError as error:
            raise Failure(f"{row.name}: the job failed\n{server.log()}") from error
        finally:
            for job in jobs:
                job.kill()
                job.wait()
                self.processes.discard(job)

    def traced(self, name):
        file = re.sub(r"\W+", "-", name)
        return {"TRACE": str(self.trace / file)} if self.trace else {}

    def job(self, environment):
        with self.lock:
            if self.stopped:
                raise Failure("stopped")
            job = subprocess.Popen(
                [self.folder / "job"], env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )  # fmt: skip
            self.processes.add(job)
            return job

    def stop(self):
        with self.lock:
            self.stopped = True
            # Those that end meanwhile leave the set.
            for job in list(self.processes):
                job.kill()


def serve(folder, options):
    """Runs one limiter until it is interrupted."""
    limiter = named(options.serve)
    rate = Rate(options.limit, options.window, options.burst or limiter.burst)
    server = Server(folder, limiter.name, rate, options.port)
    try:
        limiter.start(server)
        print(f"{limiter.name} on 127.0.0.1:{server.port}: {rate.limit} in {rate.window} s")
        sys.stdout.flush()
        server.process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.end()


def main():
    parser = argparse.ArgumentParser(
        prog="foreign-limiters", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--all", action="store_true", help="not only the short selection")
    parser.add_argument("--calls", type=int, default=1500, help="of a bulk job")
    parser.add_argument("--rows", default="", help="those that this expression finds")
    parser.add_argument("--trace", type=pathlib.Path, help="a folder for what each job has sent")
    parser.add_argument("--list", action="store_true", help="the names of the rows, and no more")
    parser.add_argument("--serve", metavar="LIMITER", help="only run this limiter")
    parser.add_argument("--limit", type=int, default=250, help="with --serve: the requests")
    parser.add_argument("--window", type=int, default=3, help="with --serve: in so many seconds")
    parser.add_argument("--burst", type=int, help="with --serve, where a limiter has a burst")
    parser.add_argument("--port", type=int, default=3000, help="with --serve")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    # So that the servers are ended when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it was ended, or took too long"))
    if options.serve:
        return serve(options.folder, options)
    chosen = [
        row
        for row in rows(options.calls)
        if (options.all or options.rows or row.short) and re.search(options.rows, row.name)
    ]
    if not chosen:
        sys.exit(f"there is no row with {options.rows!r} in its name")
    if options.list:
        print(*(row.name for row in chosen), sep="\n")
        return
    if options.trace:
        options.trace.mkdir(parents=True, exist_ok=True)
    run = Run(options.folder, options.trace)
    shutil.rmtree(run.folder / "running", ignore_errors=True)
    print(COLUMNS)
    broken, doubtful = [], []
    executor = concurrent.futures.ThreadPoolExecutor
    with executor(BUSY) as busy, executor(FEW) as few, executor(len(chosen)) as idle:
        futures = []
        for row in chosen:
            pool = few if row.processes > 1 else idle if row.idle else busy
            futures.append(pool.submit(run.run, row))
        try:
            for future in concurrent.futures.as_completed(futures):
                result = future.result()
                print(result.line(), flush=True)
                broken += ((result.row.name, promise) for promise in result.lost())
                if any(beyond([result])):
                    doubtful.append(result)
        except BaseException:
            run.stop()
            busy.shutdown(wait=False, cancel_futures=True)
            raise
    # What a server and a machine do varies from run to run, and a run may just exceed a bound.
    if doubtful:
        print("\nagain, since a bound was exceeded; the median of three runs counts:")
    for first in doubtful:
        runs = [first]
        for _ in range(2):
            runs.append(run.run(first.row))
            print(runs[-1].line(), flush=True)
            broken += ((first.row.name, promise) for promise in runs[-1].lost())
        broken += ((first.row.name, promise) for promise in beyond(runs))
    if broken:
        print("\nnot as promised:")
        for name, promise in broken:
            print(f"  {name}: {promise}")
        sys.stdout.flush()
        sys.exit(f"{len(broken)} promises are not kept")


if __name__ == "__main__":
    try:
        main()
    except (Failure, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
