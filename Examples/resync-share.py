#!/usr/bin/python3
"""What clients keep of their speed while a resync runs, as ratios from one run.

Examples/resync-share.py [--server PATH] [--directory DIR] [--rounds N] [--seconds S] [--svg FILE]

Per workload and round fio measures the mirror undisturbed (both legs in sync) and while the whole of
leg 1 is copied anew (`leg refresh 1 --whole`), without an upper limit unless --maximum sets one; the
order alternates. The copy begins when the clients are at work, and its own rate is taken until they
are done: it must not be below its minimum. Exit status 1 if a median is below 70 %, or the minimum is
not kept. Needs fio. The plot is written with --svg.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

WORKLOADS = [
    ("4 KiB random read", "randread", "4k", 16),
    ("4 KiB random write", "randwrite", "4k", 16),
    ("4 KiB random 70/30", "randrw", "4k", 16),
    ("256 KiB write", "write", "256k", 4),
]
FLOOR = 0.7


class Mirror:
    def __init__(self, binary, folder, options):
        self.binary, self.folder, self.size = binary, folder, options.size
        self.minimum, self.maximum = options.minimum, options.maximum
        self.control = folder + "/ctl"
        self.uri = f"nbd+unix:///?socket={folder}/nbd"
        pvs = [folder + "/a.pv", folder + "/b.pv"]
        self.run([binary, "create", "share", *pvs, "--size", f"{self.size}M"])
        log = open(folder + "/log", "w")
        self.server = subprocess.Popen(
            [binary, "serve", *pvs, "--socket", folder + "/nbd", "--control", self.control],
            stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        while "ready" not in open(folder + "/log").read().split():
            if time.monotonic() > deadline or self.server.poll() is not None:
                sys.exit("the server did not start: " + open(folder + "/log").read())
            time.sleep(0.05)

    def run(self, command):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"{' '.join(command)}: {result.stdout}{result.stderr}")
        return result.stdout

    def admin(self, *words):
        return self.run([self.binary, *words, "--control", self.control])

    def resync(self):
        return json.loads(self.admin("resync", "status", "--json"))

    def fio_command(self, pattern, block, depth, seconds=None):
        command = ["fio", "--name=share", "--ioengine=nbd", f"--uri={self.uri}", f"--rw={pattern}",
                   f"--bs={block}", f"--iodepth={depth}", f"--size={self.size}m",
                   "--randrepeat=0", "--rwmixread=70", "--output-format=json"]
        if seconds:
            command += ["--time_based", f"--runtime={seconds}", "--ramp_time=1"]
        return command

    @staticmethod
    def iops(text):
        job = json.loads(text[text.index("{"):])["jobs"][0]
        return job["read"]["iops"] + job["write"]["iops"]

    def fill(self):
        self.run(self.fio_command("write", "256k", 8))

    def finish(self):
        self.admin("resync", "limit", "--min", f"{self.minimum}M", "--max", "0")
        self.admin("resync", "wait", "--timeout", "120")

    def undisturbed(self, workload, seconds):
        self.finish()
        return self.iops(self.run(self.fio_command(*workload[1:], seconds)))

    def disturbed(self, workload, seconds):
        """The clients' IOPS, the resync's bytes per second, whether it outlasted them."""
        self.finish()
        self.admin("resync", "pause")
        self.admin("leg", "refresh", "1", "--whole")
        self.admin("resync", "limit", "--max", f"{self.maximum}M")
        clients = subprocess.Popen(
            self.fio_command(*workload[1:], seconds), stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 20
        while "transmission" not in self.admin("connections"):
            if time.monotonic() > deadline or clients.poll() is not None:
                sys.exit("fio does not begin")
            time.sleep(0.02)
        self.admin("resync", "resume")
        begun, before = time.monotonic(), self.resync()["bytesDone"]
        text = clients.communicate()[0]
        after = self.resync()
        rate = (after["bytesDone"] - before) / (time.monotonic() - begun)
        if clients.returncode:
            sys.exit(f"fio: {text}")
        return self.iops(text), rate, after["running"]


def plot(rows):
    width, left, row = 760, 190, 56
    scale = (width - left - 120) / 1.2
    height = 70 + row * len(rows) + 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           'font-family="sans-serif" font-size="13">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           '<text x="16" y="26" font-size="15">Client requests per second during a resync, '
           'share of the undisturbed value</text>']
    for tick in (0, 25, 50, 70, 100):
        x = left + scale * tick / 100
        red = tick == 70
        out.append(f'<line x1="{x:.0f}" y1="44" x2="{x:.0f}" y2="{height - 34}" '
                   f'stroke="{"#c22" if red else "#ccc"}" stroke-dasharray="{"5 3" if red else "none"}"/>')
        out.append(f'<text x="{x:.0f}" y="{height - 16}" text-anchor="middle">{tick} %</text>')
    for index, (name, ratios, rate) in enumerate(rows):
        y = 54 + row * index
        median = statistics.median(ratios)
        out.append(f'<text x="{left - 10}" y="{y + 22}" text-anchor="end">{name}</text>')
        out.append(f'<rect x="{left}" y="{y}" width="{scale * median:.0f}" height="32" fill="#8ab"/>')
        for ratio in ratios:
            out.append(f'<circle cx="{left + scale * min(ratio, 1.2):.0f}" cy="{y + 16}" r="3" fill="#124"/>')
        out.append(f'<text x="{width - 12}" y="{y + 14}" text-anchor="end">{median * 100:.0f} %</text>')
        out.append(f'<text x="{width - 12}" y="{y + 30}" text-anchor="end" font-size="11">'
                   f'copy {rate / 1048576:.0f} MiB/s</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--server", default=shutil.which("nbdmirror") or ".build/release/nbdmirror")
    parser.add_argument("--directory", default="/dev/shm", help="where the PVs go")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--size", type=int, default=4096, help="MiB of the export")
    parser.add_argument("--minimum", type=int, default=16, help="of the resync, MiB/s")
    parser.add_argument("--maximum", type=int, default=0, help="of the resync, MiB/s; 0: unlimited")
    parser.add_argument("--svg", help="where the plot goes")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="resync-share-", dir=options.directory)
    mirror = None
    rows, kept = [], True
    try:
        mirror = Mirror(os.path.abspath(options.server), folder, options)
        mirror.fill()
        print("| workload | undisturbed, IOPS | during the resync | share | resync, MiB/s |")
        print("|---|---:|---:|---:|---:|")
        for workload in WORKLOADS:
            ratios, alone, beside, rates = [], [], [], []
            for turn in range(options.rounds):
                if turn % 2:
                    noisy = mirror.disturbed(workload, options.seconds)
                    quiet = mirror.undisturbed(workload, options.seconds)
                else:
                    quiet = mirror.undisturbed(workload, options.seconds)
                    noisy = mirror.disturbed(workload, options.seconds)
                if not noisy[2]:
                    sys.exit("the resync was done before fio: take a larger --size")
                alone.append(quiet)
                beside.append(noisy[0])
                ratios.append(noisy[0] / quiet)
                rates.append(noisy[1])
            rate = statistics.median(rates)
            share = statistics.median(ratios)
            kept = kept and share >= FLOOR and min(rates) >= options.minimum << 20
            rows.append((workload[0], ratios, rate))
            print(f"| {workload[0]}, depth {workload[3]} | {statistics.median(alone):,.0f} | "
                  f"{statistics.median(beside):,.0f} | {share * 100:.0f} % | {rate / 1048576:.1f} |",
                  flush=True)
        if options.svg:
            with open(options.svg, "w") as file:
                file.write(plot(rows))
    finally:
        if mirror:
            mirror.server.kill()
            mirror.server.wait()
        shutil.rmtree(folder)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
